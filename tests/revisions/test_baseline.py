from alembic import command

from mlops_db.migration import history
from mlops_db.migration.commands import alembic_config
from mlops_db.project import BASELINE_TABLES
from support.database import Database

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

ONLY_THE_TABLES = [f"--table=public.{table}" for table in BASELINE_TABLES]


def test_the_tables_at_0004_are_those_that_the_specification_s_statements_make(empty: Database) -> None:
    empty.psql(SPECIFICATION)
    by_hand = empty.dump(*ONLY_THE_TABLES)
    empty.psql(f"DROP TABLE {', '.join(BASELINE_TABLES)}")

    command.upgrade(alembic_config(empty.settings), "0004")

    assert empty.dump(*ONLY_THE_TABLES) == by_hand
    for name in ("model_versions_pkey", "model_versions_mlflow_run_id_key", "SEQUENCE public.model_versions_id_seq"):
        assert name in by_hand, "pg_dump was expected to show constraint and sequence names"


def test_a_database_at_0003_holds_the_three_tables_and_nothing_else(empty: Database) -> None:
    empty.psql(history.CREATE)
    empty.psql(SPECIFICATION)
    by_hand = empty.dump()
    empty.psql(f"DROP TABLE {', '.join(BASELINE_TABLES)}")

    command.upgrade(alembic_config(empty.settings), "0003")

    assert empty.dump("--exclude-table=alembic_version") == by_hand


def test_a_hand_made_database_stamped_0003_is_upgraded_to_the_same_schema_with_its_rows(
    empty: Database, head: Database
) -> None:
    empty.psql(SPECIFICATION)
    empty.query("INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('run-1', '1', 'staging')")
    config = alembic_config(empty.settings)

    command.stamp(config, "0003")
    command.upgrade(config, "head")

    assert empty.dump() == head.dump()
    assert empty.query("SELECT mlflow_run_id FROM v_model_timeline") == [("run-1",)]
