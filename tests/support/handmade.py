"""A database that schema.sql created before there were revisions: the specification's tables, odd rows, old views."""

import importlib.util
from dataclasses import dataclass

from mlops_db.project import BASELINE_TABLES, BASELINE_VIEWS
from support.database import ROOT, Database

# The statements of the specification, unchanged.
SPECIFICATION = """
CREATE TABLE model_versions (
    id SERIAL PRIMARY KEY,
    mlflow_run_id VARCHAR(255) UNIQUE NOT NULL,
    model_version VARCHAR(50) NOT NULL,
    status VARCHAR(50),  -- 'staging', 'production', 'archived'
    f1_score FLOAT,
    brier_score FLOAT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    promoted_at TIMESTAMP
);

CREATE TABLE monitoring_metrics (
    id SERIAL PRIMARY KEY,
    timestamp TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    metric_type VARCHAR(100),  -- 'drift', 'coverage', 'performance'
    metric_name VARCHAR(255),
    metric_value FLOAT,
    metadata JSONB,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE retraining_decisions (
    id SERIAL PRIMARY KEY,
    decision_timestamp TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    action VARCHAR(50),  -- 'promote', 'reject', 'pending'
    candidate_mlflow_run_id VARCHAR(255),
    gate_results JSONB,  -- All 6 gate results as JSON
    reasoning TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
"""

# All that the statements allow: NULL wherever possible, several versions in production, stages outside the list,
# metrics that occur twice, times that a clock change skipped (30 March, 02:30) or had twice (26 October, 02:30).
ODD_ROWS = """
INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, brier_score, created_at, promoted_at)
VALUES ('run-1', '1', 'production', 0.9, 0.1, '2025-01-01 10:00', '2025-01-02 10:00'),
       ('run-2', '2', 'production', 0.91, 0.09, '2025-01-01 10:00', '2025-01-02 10:00'),
       ('run-3', '10', 'Production ', 1.5, -1, '2025-03-30 02:30', '2025-03-30 01:59:59.999999'),
       ('run-4', '9', 'shadow', 'NaN', 'Infinity', '2025-10-26 02:30', '2025-10-26 02:30'),
       ('run-5', '9', '', '-Infinity', 0.1 + 0.2, 'infinity', '-infinity'),
       ('', '', NULL, NULL, NULL, NULL, NULL),
       ('ß ''so'' "und" %s :x \\', 'ä', 'staging', 0.5, 0.5, '0001-01-01 BC', '294276-12-31 23:59:59.999999');
INSERT INTO model_versions (id, mlflow_run_id, model_version) VALUES (-7, 'run-8', '8'), (2147483647, 'run-9', '9');
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata, created_at)
SELECT '2025-10-26 01:30'::timestamp + n % 3 * interval '30 min', 'drift', 'psi', 0.1, '{"window": 7}', '2025-10-26'
  FROM generate_series(1, 9) AS n;
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata, created_at)
VALUES (NULL, NULL, NULL, NULL, NULL, NULL), ('2025-03-30 02:30', 'bias', '', 'NaN', 'null', '2025-03-30 02:30'),
       ('2025-03-30 03:30', 'drift', 'psi', 'Infinity', '["a list", 1.10, {"k": "\\u00e4"}]', '1969-12-31 23:59:59');
INSERT INTO monitoring_metrics DEFAULT VALUES;
INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, gate_results, reasoning)
VALUES (NULL, NULL, NULL, NULL, NULL), ('2025-03-30 02:30', 'postpone', 'never registered', '"text"', ''),
       ('2025-10-26 02:30', 'promote', 'run-1', '{"minimum_coverage": {"passed": false}, "x": 1}', E'two\\nlines'),
       ('2025-10-26 02:30', 'promote', 'run-1', '{"minimum_coverage": {"passed": false}, "x": 1}', E'two\\nlines');
UPDATE retraining_decisions SET created_at = NULL WHERE action IS DISTINCT FROM 'promote';
"""


@dataclass(frozen=True)
class Finding:
    """A rule that stops the upgrade of the odd rows.

    Attributes:
        message: the message of the revision.
        ids: the ids of the rows that the statement in its hint finds.
        mend: a statement that corrects the rows.
    """

    message: str
    ids: list[int]
    fix: str


FINDINGS = {
    "0007": Finding(
        "rows of model_versions break rules of revision 0007: status is not staging, production or archived"
        " (6 rows, id -7, 3, 4, 5, 6, 2147483647); f1_score is not within 0 and 1 (3 rows, id 3, 4, 5);"
        " brier_score is not within 0 and 1 (2 rows, id 3, 4);"
        " created_at is NULL or not of the years 1 to 9999 (3 rows, id 5, 6, 7);"
        " promoted_at is not of the years 1 to 9999 (2 rows, id 5, 7); nothing was changed",
        [-7, 3, 4, 5, 6, 7, 2147483647],
        """
        UPDATE model_versions SET status = 'production' WHERE status = 'Production ';
        UPDATE model_versions SET status = 'archived' WHERE status IS NULL OR status IN ('shadow', '');
        UPDATE model_versions SET f1_score = NULL WHERE NOT f1_score BETWEEN 0 AND 1;
        UPDATE model_versions SET brier_score = NULL WHERE NOT brier_score BETWEEN 0 AND 1;
        UPDATE model_versions SET created_at = '2025-01-01 00:00+00' WHERE id IN (5, 6, 7);
        UPDATE model_versions SET promoted_at = NULL WHERE id IN (5, 7);
        """,
    ),
    "0009": Finding(
        "rows of retraining_decisions break rules of revision 0009: action is not promote, reject or pending"
        " (2 rows, id 1, 2); gate_results is not an object (1 row, id 2);"
        " decision_timestamp is NULL or not of the years 1 to 9999 (1 row, id 1);"
        " created_at is NULL or not of the years 1 to 9999 (2 rows, id 1, 2); nothing was changed",
        [1, 2],
        """
        UPDATE retraining_decisions SET action = 'pending' WHERE action = 'postpone' OR action IS NULL;
        UPDATE retraining_decisions SET gate_results = NULL WHERE jsonb_typeof(gate_results) <> 'object';
        UPDATE retraining_decisions SET decision_timestamp = '2025-01-01 00:00+00' WHERE decision_timestamp IS NULL;
        UPDATE retraining_decisions SET created_at = decision_timestamp WHERE created_at IS NULL;
        """,
    ),
    "0011": Finding(
        "1 model has several production versions: default (3 rows, id 1, 2, 3); nothing was changed",
        [1, 2, 3],
        "UPDATE model_versions SET status = 'archived' WHERE id IN (1, 3);",
    ),
    "0013": Finding(
        "rows of monitoring_metrics break rules of revision 0013: metric_type is NULL (2 rows, id 10, 13);"
        " metric_name is NULL (2 rows, id 10, 13); metric_value is NaN or infinite (2 rows, id 11, 12);"
        " timestamp is NULL or not of the years 1 to 9999 (1 row, id 10);"
        " created_at is NULL or not of the years 1 to 9999 (1 row, id 10); nothing was changed",
        [10, 11, 12, 13],
        """
        DELETE FROM monitoring_metrics WHERE timestamp IS NULL;
        UPDATE monitoring_metrics SET metric_type = 'unknown', metric_name = 'unknown' WHERE metric_type IS NULL;
        UPDATE monitoring_metrics SET metric_value = NULL WHERE metric_value IN ('NaN', 'Infinity', '-Infinity');
        """,
    ),
}

# Views as a user may have written them. One reads another one.
OLD_VIEWS = """
CREATE VIEW v_decision_history AS
    SELECT d.*, m.status FROM retraining_decisions d LEFT JOIN model_versions m
        ON m.mlflow_run_id = d.candidate_mlflow_run_id ORDER BY d.decision_timestamp DESC;
CREATE VIEW v_model_timeline AS SELECT * FROM model_versions ORDER BY created_at DESC;
CREATE VIEW v_recent_monitoring AS
    SELECT metric_type, max(timestamp) AS latest FROM monitoring_metrics GROUP BY metric_type;
"""


def make_by_hand(database: Database, *further: str) -> None:
    """Run the specification's statements, and `further` ones, with psql."""
    database.psql("\n".join([SPECIFICATION, *further]))


def views_of_the_baseline() -> str:
    """The statements of revision 0004."""
    file = ROOT / "migrations" / "versions" / "0004_analytical_views.py"
    spec = importlib.util.spec_from_file_location("analytical_views", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return f"{module.V_DECISION_HISTORY}; {module.V_MODEL_TIMELINE}; {module.V_RECENT_MONITORING};"


def rows(database: Database) -> dict[str, tuple[object, ...]]:
    """For each table: the number of rows, checksums of the values and of the rows' places, and the table's file."""
    return {
        table: database.query(f"""
            SELECT count(*), sum(hashtextextended(concat(t.ctid, t.xmin, t), 0)), pg_relation_filenode('{table}')
              FROM {table} AS t
        """)[0]
        for table in BASELINE_TABLES
    }


def state(database: Database) -> tuple[str, list[str]]:
    """The catalogue and all rows, as text: Python has no infinite timestamps."""
    tables = database.query("SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm') AND oid >= 16384")
    return database.dump(), [
        row for (table,) in tables for (row,) in database.query(f"SELECT t::text FROM {table} AS t")
    ]


def view_oids(database: Database) -> dict[str, int | None]:
    return {view: database.value("SELECT to_regclass(%s)::oid", [view]) for view in BASELINE_VIEWS}
