"""From head to the baseline and back with rows in every table: what comes back is equal, and what does not is shown."""

import pytest

from mlops_db.migration import commands
from mlops_db.project import BASELINE, BASELINE_TABLES
from support.database import Database
from support.handmade import FINDINGS
from support.stopped import stopped

ROWS = """
INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, brier_score, promoted_at, model_name)
SELECT 'run-' || n, n, (ARRAY['staging', 'archived'])[n % 2 + 1], n / 30.0, 1 - n / 30.0,
       now() - n * interval '1 day', 'model ' || n % 3
  FROM generate_series(1, 30) AS n;
INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, gate_results, model_name)
SELECT now() - n * interval '1 day', (ARRAY['promote', 'reject', 'pending'])[n % 3 + 1], 'run-' || n,
       CASE WHEN n % 4 > 0 THEN jsonb_build_object('minimum_coverage', n % 2 = 0) END, 'model ' || n % 3
  FROM generate_series(1, 30) AS n;
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata, model_name)
SELECT now() + (n - 400) * interval '1 day', 'drift', 'f' || n % 7, CASE WHEN n % 9 > 0 THEN n / 7.0 END,
       CASE WHEN n % 2 = 0 THEN jsonb_build_object('n', n) END, 'model ' || n % 3
  FROM generate_series(1, 600) AS n;
"""
OURS = ["model_name", "is_rollback", "decided_by"]  # the specification has no such columns
UTC_TIMES = {"decision_timestamp", "created_at", "promoted_at", "timestamp"}


@pytest.fixture
def filled(head: Database) -> Database:
    head.query(ROWS)
    return head


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """The specification's columns of every row; times in UTC."""
    database.query("SET timezone = 'UTC'")
    found = {}
    for table in BASELINE_TABLES:
        columns = database.query(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attname <> ALL (%s) ORDER BY attnum",
            [table, OURS],
        )
        listed = ", ".join(f"{name}::timestamp" if name in UTC_TIMES else name for (name,) in columns)
        found[table] = database.query(f"SELECT {listed} FROM {table} ORDER BY id")
    return found


def model_names(database: Database) -> set[str]:
    return {name for table in BASELINE_TABLES for (name,) in database.query(f"SELECT DISTINCT model_name FROM {table}")}


def test_the_specification_s_columns_come_back_from_head_and_ours_do_not(filled: Database) -> None:
    output = "SELECT DISTINCT is_rollback, decided_by FROM retraining_decisions"
    filled.query("UPDATE retraining_decisions SET is_rollback = true, decided_by = 'ada'")
    before, schema = contents(filled), filled.dump("--table=public.*")
    assert model_names(filled) == {"model 0", "model 1", "model 2"}
    assert filled.query(output) == [(True, "ada")]

    commands.downgrade(filled.settings, BASELINE)
    assert contents(filled) == before
    commands.upgrade(filled.settings)

    assert contents(filled) == before
    assert model_names(filled) == {"default"}
    assert filled.query(output) == [(False, None)]
    assert filled.dump("--table=public.*") == schema


def test_what_was_expected_of_the_series_is_lost_with_the_catalogue(filled: Database) -> None:
    filled.query("""
        UPDATE mlops_internal.metric_series SET expected_interval = '1 day', lower_threshold = 0, upper_threshold = 1
    """)
    catalogue = "SELECT model_name, metric_type, metric_name FROM mlops_internal.metric_series ORDER BY 1, 2, 3"
    before = filled.query(catalogue)
    assert len(before) == 21

    commands.downgrade(filled.settings, "0015")
    assert filled.query(catalogue) == before
    commands.downgrade(filled.settings, "0014")
    commands.upgrade(filled.settings)

    assert filled.query(catalogue) == before
    assert filled.query(
        "SELECT DISTINCT expected_interval, lower_threshold, upper_threshold FROM mlops_internal.metric_series"
    ) == [(None, None, None)]


def test_production_versions_of_two_models_are_several_of_one_once_the_names_are_lost(filled: Database) -> None:
    filled.query("UPDATE model_versions SET status = 'production' WHERE id IN (1, 2)")
    commands.downgrade(filled.settings, "0006")
    commands.upgrade(filled.settings, "0010")

    assert stopped(filled, at="0010").message == (
        "1 model has several production versions: default (2 rows, id 1, 2); nothing was changed"
    )


def test_comments_by_hand_are_lost_on_the_way_up_and_ours_on_the_way_down(empty: Database) -> None:
    comments = """
        SELECT obj_description('model_versions'::regclass), col_description('model_versions'::regclass, 1),
               obj_description('v_model_timeline'::regclass)
    """
    commands.upgrade(empty.settings, "0022")
    empty.query("COMMENT ON TABLE model_versions IS 'by hand'; COMMENT ON COLUMN model_versions.id IS 'by hand'")

    commands.upgrade(empty.settings, "0023")
    ((table, column, view),) = empty.query(comments)
    assert None not in (table, column, view)
    assert "by hand" not in (table, column)
    commands.downgrade(empty.settings, "0022")

    assert empty.query(comments) == [(None, None, None)]


def test_what_was_granted_on_reporting_is_lost_and_what_was_on_the_other_views_stays(filled: Database) -> None:
    filled.query("""
        GRANT SELECT ON ALL TABLES IN SCHEMA reporting TO PUBLIC; GRANT SELECT ON v_model_timeline TO PUBLIC;
        COMMENT ON VIEW v_model_timeline IS 'by hand'
    """)
    grants = """
        SELECT DISTINCT relnamespace::regnamespace::text, relname FROM pg_class, aclexplode(relacl)
         WHERE relkind = 'v' AND grantee = 0 AND relnamespace::regnamespace::text IN ('public', 'reporting')
    """
    comments = "SELECT obj_description('v_model_timeline'::regclass), col_description('v_model_timeline'::regclass, 10)"
    before, (by_hand, column) = contents(filled), filled.query(comments)[0]
    assert len(filled.query(grants)) == 4

    commands.downgrade(filled.settings, "0023")
    assert filled.value("SELECT to_regnamespace('reporting')") is None
    assert filled.query(grants) == [("public", "v_model_timeline")]
    assert filled.value("SELECT obj_description('v_model_timeline'::regclass)") == by_hand == "by hand"
    commands.upgrade(filled.settings)

    assert contents(filled) == before
    assert filled.query(grants) == [("public", "v_model_timeline")]
    assert filled.query(comments) == [(by_hand, column)]


def test_months_that_maintenance_made_go_and_their_rows_stay(filled: Database) -> None:
    """Revision 0020 takes the functions away; 0016 makes one table of all partitions again."""
    before = contents(filled)
    filled.query("CALL mlops_internal.maintain(NULL, 12)")
    months = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'monitoring_metrics'::regclass"
    made = filled.value(months)
    assert made > 20

    commands.downgrade(filled.settings, "0016")
    assert filled.value(months) == made
    assert contents(filled) == before
    commands.downgrade(filled.settings, "0015")

    assert filled.query("SELECT relname FROM pg_class WHERE relname ~ 'monitoring_metrics_(2|c|e|l)'") == []
    assert contents(filled) == before


@pytest.mark.parametrize("revision", sorted(FINDINGS))
def test_a_broken_rule_stops_no_downgrade(filled: Database, revision: str) -> None:
    """Rules are looked at on the way up; on the way down they go."""
    before = f"{int(revision) - 1:04}"
    commands.downgrade(filled.settings, before)
    filled.query(
        {
            "0007": "UPDATE model_versions SET status = 'shadow', f1_score = 'NaN', created_at = NULL",
            "0009": "UPDATE retraining_decisions SET action = NULL, gate_results = '[]'",
            "0011": "UPDATE model_versions SET status = 'production'",
            "0013": "UPDATE monitoring_metrics SET metric_type = NULL, timestamp = 'infinity', metric_value = 'NaN'",
        }[revision]
    )

    commands.downgrade(filled.settings, BASELINE)
