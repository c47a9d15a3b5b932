"""The rows of a database that schema.sql made, carried from adoption to head: what stops them, and that all arrive."""

import pytest

from mlops_db.admin.adopt import adopt
from mlops_db.migration import commands
from mlops_db.project import BASELINE, BASELINE_TABLES, BASELINE_VIEWS
from support.database import Database, revision_of
from support.handmade import FINDINGS, ODD_ROWS, OLD_VIEWS, make_by_hand
from support.stopped import stopped

MENDED = {
    "model_versions": {
        -7: {"status": "archived"},
        1: {"status": "archived"},
        3: {"status": "archived", "f1_score": None, "brier_score": None},
        4: {"status": "archived", "f1_score": None, "brier_score": None},
        5: {"status": "archived", "f1_score": None, "created_at": "2025-01-01 00:00:00", "promoted_at": None},
        6: {"status": "archived", "created_at": "2025-01-01 00:00:00"},
        7: {"created_at": "2025-01-01 00:00:00", "promoted_at": None},
        2147483647: {"status": "archived"},
    },
    "monitoring_metrics": {
        11: {"metric_value": None},
        12: {"metric_value": None},
        13: {"metric_type": "unknown", "metric_name": "unknown"},
    },
    "retraining_decisions": {
        1: {"action": "pending", "decision_timestamp": "2025-01-01 00:00:00", "created_at": "2025-01-01 00:00:00"},
        2: {"action": "pending", "gate_results": None, "created_at": "2025-03-30 02:30:00"},
    },
}
UNMENDABLE = {"monitoring_metrics": {10}}  # a row of NULLs
Texts = dict[str, dict[int, dict[str, str | None]]]


def texts(database: Database) -> Texts:
    """Every row, by table and id, each of the specification's columns as text; times in UTC."""
    found: Texts = {}
    for table in BASELINE_TABLES:
        columns = database.query(
            "SELECT attname, atttypid = 'timestamptz'::regtype FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attname NOT IN ('model_name', 'is_rollback', 'decided_by')",
            [table],
        )
        names = [name for name, _ in columns]
        values = ", ".join(
            f"({name} AT TIME ZONE 'UTC')::text" if aware else f"{name}::text" for name, aware in columns
        )
        found[table] = {
            row[0]: dict(zip(names, row[1:], strict=True))
            for row in database.query(f"SELECT id, {values} FROM {table}")
        }
    return found


@pytest.mark.parametrize("views", ["", OLD_VIEWS], ids=["without views", "with old views"])
def test_every_row_that_can_be_corrected_arrives_at_head(empty: Database, views: str) -> None:
    make_by_hand(empty, "SET timezone = 'Europe/Berlin';", ODD_ROWS, views)
    empty.query(f"ALTER DATABASE {empty.settings.database} SET timezone = 'Europe/Berlin'")
    adopt(empty.settings, dry_run=False)
    assert revision_of(empty) == BASELINE
    expected = texts(empty)
    for table, changes in MENDED.items():
        for id_, change in changes.items():
            expected[table][id_] |= change
    for table, ids in UNMENDABLE.items():
        expected[table] = {id_: row for id_, row in expected[table].items() if id_ not in ids}

    for revision, expected_finding in FINDINGS.items():
        before = f"{int(revision) - 1:04}"
        commands.upgrade(empty.settings, before)
        finding = stopped(empty, at=before)
        assert (finding.message, sorted(finding.ids)) == (expected_finding.message, expected_finding.ids)
        empty.query(expected_finding.fix)
    commands.upgrade(empty.settings)

    assert texts(empty) == expected
    for table in BASELINE_TABLES:
        assert empty.query(f"SELECT DISTINCT model_name FROM {table}") == [("default",)]
    for view in BASELINE_VIEWS:
        assert empty.value(f"SELECT count(*) FROM {view}") > 0
    empty.query("SELECT setval('model_versions_id_seq', 100)")  # rows of the test hold ids that it has not given out
    empty.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('new', 'new')")
    empty.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'psi')")
    empty.query("INSERT INTO retraining_decisions (action) VALUES ('reject')")


def test_the_series_of_old_rows_are_known_at_head(empty: Database) -> None:
    make_by_hand(empty, ODD_ROWS)
    adopt(empty.settings, dry_run=False)
    commands.upgrade(empty.settings, "0006")
    for finding in FINDINGS.values():
        empty.query(finding.fix)
    commands.upgrade(empty.settings)

    assert empty.query("SELECT metric_type, metric_name, health FROM v_recent_monitoring") == [
        ("unknown", "unknown", "failed"),
        ("drift", "psi", "ok"),
        ("bias", "", "failed"),
    ]
