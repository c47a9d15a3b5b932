"""A database as schema.sql made it, before there were revisions: the specification's tables, odd rows, old views."""

import importlib.util

from mlops_db.schema.objects import TABLES, VIEWS
from support.database import ROOT, Database

# The specification's statements, letter for letter.
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

# What the statements allow, whatever it may mean: NULL wherever they do, several versions in production, stages outside
# the list, metrics twice over, times that a clock change skipped (30 March, 02:30) or had twice (26 October, 02:30).
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

# Views as somebody may have written them, one of them on top of another.
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
    """Of each table: how many rows, a checksum of what they hold, where and since when, and the table's file."""
    return {
        table: database.query(f"""
            SELECT count(*), sum(hashtextextended(concat(t.ctid, t.xmin, t), 0)), pg_relation_filenode('{table}')
              FROM {table} AS t
        """)[0]
        for table in TABLES
    }


def state(database: Database) -> tuple[str, list[str]]:
    """The catalogue and all rows, as text: Python has no infinite timestamps."""
    tables = database.query("SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm') AND oid >= 16384")
    return database.dump(), [
        row for (table,) in tables for (row,) in database.query(f"SELECT t::text FROM {table} AS t")
    ]


def view_oids(database: Database) -> dict[str, int | None]:
    return {view: database.value("SELECT to_regclass(%s)::oid", [view]) for view in VIEWS}
