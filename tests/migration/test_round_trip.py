import pytest
from alembic import command
from alembic.util import CommandError

from mlops_db.migration import history
from mlops_db.migration.commands import alembic_config
from mlops_db.project import TABLES
from mlops_db.revisions.graph import revisions
from support.database import Database

# Revisions that leave the schema alone.
ONLY_ROWS = {"0016", "0021"}
# Revisions that a copy of monitoring_metrics takes after its first one: going down, it is another copy.
COPYING = {"0017", "0018"}

# --create shows the settings of the database itself too; alembic_version stays behind after the last downgrade.
WITHOUT_VERSION = ("--create", "--exclude-table=alembic_version")

ROWS = {
    "model_versions": """
        INSERT INTO model_versions
               (mlflow_run_id, model_version, status, f1_score, brier_score, created_at, promoted_at)
        VALUES ('run-1', '1', 'archived', 0.8, 0.2, '2026-01-01 08:00', '2026-01-02 08:00'),
               ('run-2', '2', 'production', 0.9, 0.1, '2026-02-01 08:00', '2026-02-02 08:00')
    """,
    "monitoring_metrics": """
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata)
        VALUES ('2026-01-01 08:00', 'drift', 'share', 0.5, '{"columns": ["a"]}'),
               ('2026-01-01 08:05', 'coverage', 'rate', 0.97, NULL)
    """,
    "retraining_decisions": """
        INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, gate_results, reasoning)
        VALUES ('2026-01-02 08:00', 'promote', 'run-1', '{"sufficient_samples": {"passed": true}}', 'first'),
               ('2026-01-03 08:00', 'reject', 'unregistered', '{"sufficient_samples": {"passed": false}}', 'few')
    """,
}


def fill(database: Database) -> None:
    """Put rows into every table that is there and has none."""
    for table, statement in ROWS.items():
        if database.value(f"SELECT to_regclass('{table}') IS NOT NULL") and not database.query(f"TABLE {table}"):
            database.query(statement)


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: database.query(f"SELECT * FROM {table} ORDER BY id")
        for table in TABLES
        if database.value(f"SELECT to_regclass('{table}') IS NOT NULL")
    }


def revision_of(database: Database) -> list[tuple[str]]:
    return database.query("SELECT version_num FROM alembic_version")


@pytest.mark.parametrize("position", range(len(revisions())), ids=[revision.id for revision in revisions()])
def test_a_revision_goes_up_and_down_and_up_with_rows_in_every_table(empty: Database, position: int) -> None:
    empty.psql(history.CREATE)
    config = alembic_config(empty.settings)
    revision = revisions()[position].id
    if position:
        command.upgrade(config, revisions()[position - 1].id)
    fill(empty)
    schema_before, rows_before = empty.dump(*WITHOUT_VERSION), contents(empty)

    command.upgrade(config, "+1")
    assert revision_of(empty) == [(revision,)]
    schema_after = empty.dump(*WITHOUT_VERSION)
    fill(empty)
    rows_after = contents(empty)
    command.downgrade(config, "-1")

    assert (schema_after == schema_before) is (revision in ONLY_ROWS)
    if revision not in COPYING:
        assert empty.dump(*WITHOUT_VERSION) == schema_before
    assert contents(empty) == (rows_after if revision in COPYING else rows_before)
    assert revision_of(empty) == ([(revisions()[position - 1].id,)] if position else [])

    command.upgrade(config, "+1")

    assert empty.dump(*WITHOUT_VERSION) == schema_after
    assert {table: rows for table, rows in contents(empty).items() if table in rows_before} == {
        table: rows for table, rows in rows_after.items() if table in rows_before
    }


def test_a_copy_of_metrics_goes_up_and_down_and_up_with_rows(empty: Database) -> None:
    empty.psql(history.CREATE)
    config = alembic_config(empty.settings)
    command.upgrade(config, "0014")
    fill(empty)
    schema_before, rows_before = empty.dump(*WITHOUT_VERSION), contents(empty)
    command.upgrade(config, "0018")
    schema_after, rows_after = empty.dump(*WITHOUT_VERSION), contents(empty)

    command.downgrade(config, "0014")
    assert (empty.dump(*WITHOUT_VERSION), contents(empty)) == (schema_before, rows_before)
    command.upgrade(config, "0018")
    assert (empty.dump(*WITHOUT_VERSION), contents(empty)) == (schema_after, rows_after)


def test_downgrade_to_base_leaves_the_database_as_created_but_for_an_empty_alembic_version(empty: Database) -> None:
    # The history of the runs is no revision's; it outlives all of them.
    empty.psql(history.CREATE)
    as_created = empty.dump("--create")
    config = alembic_config(empty.settings)
    command.upgrade(config, "head")
    fill(empty)

    command.downgrade(config, "base")

    assert empty.dump(*WITHOUT_VERSION) == as_created
    assert revision_of(empty) == []


def test_head_after_a_downgrade_to_base_is_the_head_of_a_fresh_database(head: Database) -> None:
    fresh = head.dump("--create")
    config = alembic_config(head.settings)

    command.downgrade(config, "base")
    command.upgrade(config, "head")

    assert head.dump("--create") == fresh
    assert revision_of(head) == [(revisions()[-1].id,)]


def test_a_view_that_others_built_on_ours_stops_the_downgrade_and_nothing_is_lost(empty: Database) -> None:
    config = alembic_config(empty.settings)
    command.upgrade(config, "0004")
    fill(empty)
    empty.query("CREATE VIEW of_others AS SELECT action FROM v_decision_history")
    schema, rows = empty.dump(), contents(empty)

    with pytest.raises(CommandError, match="v_decision_history"):
        command.downgrade(config, "base")

    assert revision_of(empty) == [("0004",)]
    assert (empty.dump(), contents(empty)) == (schema, rows)
