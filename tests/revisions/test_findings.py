"""Every rule that a revision holds rows to, broken: what it says, that nothing changes, and that mended rows go on."""

import re

import psycopg
import pytest

from mlops_db.errors import MlopsDbError
from mlops_db.migration import commands
from mlops_db.project import BASELINE_TABLES
from support.database import Database, history_of, revision_of
from support.rules import GOOD, RULES, Rule
from support.stopped import Stopped, contents, stopped
from support.table_rows import insert

pytestmark = pytest.mark.slow

BROKEN = 12
FIRST_TEN = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."


every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def before(revision: str) -> str:
    return f"{int(revision) - 1:04}"


def add_good(database: Database, table: str, count: int) -> None:
    """Rows that keep every rule, with the ids 1, 2, 3, ..."""
    for number in range(1, count + 1):
        name = {"mlflow_run_id": f"run-{number}"} if table == "model_versions" else {}
        insert(database, table, GOOD[table] | name | {"id": number})


def spoil(database: Database, rule: Rule, count: int) -> None:
    """Break the rule in the rows with the ids 1 to `count`, with each of the bad values in turn."""
    for number in range(1, count + 1):
        value = rule.bad[number % len(rule.bad)]
        database.query(f"UPDATE {rule.table} SET {rule.column} = {value} WHERE id = {number}")


def message(rule: Rule, rows: str) -> str:
    return f"rows of {rule.table} break rules of revision {rule.revision}: {rule.what} ({rows}); nothing was changed"


@every_rule
def test_rows_that_break_a_rule_stop_its_revision_until_they_are_corrected(empty: Database, rule: Rule) -> None:
    commands.upgrade(empty.settings, before(rule.revision))
    add_good(empty, rule.table, BROKEN + 1)
    spoil(empty, rule, BROKEN)

    finding = stopped(empty, at=before(rule.revision))

    assert finding.message == message(rule, f"{BROKEN} rows, id {FIRST_TEN}")
    assert finding.ids == list(range(1, BROKEN + 1))
    assert history_of(empty, rule.revision) == [(rule.revision, "failed")]

    empty.query(f"UPDATE {rule.table} SET {rule.column} = {rule.fix} WHERE id = ANY(%s)", [finding.ids])
    commands.upgrade(empty.settings)

    assert empty.value(f"SELECT count(*) FROM {rule.table}") == BROKEN + 1
    for value in rule.bad:
        with pytest.raises(rule.refused):
            empty.query(f"UPDATE {rule.table} SET {rule.column} = {value}")


@pytest.mark.parametrize(
    ("count", "output"),
    [(1, "1 row, id 1"), (10, "10 rows, id 1, 2, 3, 4, 5, 6, 7, 8, 9, 10"), (11, f"11 rows, id {FIRST_TEN}")],
)
def test_the_message_has_the_first_ten_ids_and_whether_there_are_more(empty: Database, count: int, output: str) -> None:
    rule = RULES["0013 metric_type is NULL"]
    commands.upgrade(empty.settings, "0012")
    add_good(empty, rule.table, 12)
    spoil(empty, rule, count)

    assert stopped(empty, at="0012").message == message(rule, output)


@pytest.mark.parametrize("table", BASELINE_TABLES)
def test_the_message_names_all_broken_rules_at_once(empty: Database, table: str) -> None:
    rules = [rule for rule in RULES.values() if rule.table == table]
    commands.upgrade(empty.settings, before(rules[0].revision))
    add_good(empty, table, len(rules) + 1)
    for number, rule in enumerate(rules, 1):
        empty.query(f"UPDATE {table} SET {rule.column} = {rule.bad[0]} WHERE id = {number}")

    finding = stopped(empty, at=before(rules[0].revision))

    for number, rule in enumerate(rules, 1):
        assert f"{rule.what} (1 row, id {number})" in finding.message
    assert finding.ids == list(range(1, len(rules) + 1))


@pytest.mark.parametrize("revision", ["0007", "0009", "0013"])
def test_values_at_the_edge_of_a_rule_pass(empty: Database, revision: str) -> None:
    commands.upgrade(empty.settings, before(revision))
    empty.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, brier_score, promoted_at)
        VALUES ('a', '1', 'staging', 0, 1, '0001-01-01 00:00+00'),
               ('b', '1', 'production', 1, '-0', '9999-12-31 23:59:59.999999+00'),
               ('c', '1', 'archived', NULL, NULL, NULL);
        INSERT INTO retraining_decisions (action, gate_results, decision_timestamp)
        VALUES ('promote', NULL, '0001-01-01 00:00+00'), ('reject', '{}', '9999-12-31 23:59:59.999999+00'),
               ('pending', '{"a": [null]}', now());
        INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, timestamp)
        VALUES ('', '', NULL, '0001-01-01 00:00+00'),
               ('a', 'b', 1.7976931348623157e308, '9999-12-31 23:59:59.999999+00'),
               ('a', 'b', 5e-324, now()), ('a', 'b', '-0', now())
    """)

    commands.upgrade(empty.settings)

    assert [empty.value(f"SELECT count(*) FROM {table}") for table in BASELINE_TABLES] == [3, 4, 3]


# Several versions in production


def several(database: Database, *models: tuple[str, int]) -> Stopped:
    """Put so many versions of each model into production, at 0010, and stop at 0011."""
    commands.upgrade(database.settings, "0010")
    for model, count in models:
        database.query(
            "INSERT INTO model_versions (mlflow_run_id, model_version, status, model_name)"
            " SELECT %(model)s || n, n, 'production', %(model)s FROM generate_series(1, %(count)s) AS n",
            {"model": model, "count": count},
        )
    return stopped(database, at="0010")


def test_several_production_versions_are_named_model_by_model_and_never_demoted(empty: Database) -> None:
    finding = several(empty, ("fraud", 2), ("churn", 12), ("fine", 1))

    assert finding.message == (
        "2 models have several production versions: churn (12 rows, id 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);"
        " fraud (2 rows, id 1, 2); nothing was changed"
    )
    assert set(finding.ids) >= set(range(1, 15))
    assert "UPDATE model_versions SET status = 'archived'" in finding.hint

    empty.query("UPDATE model_versions SET status = 'archived' WHERE id NOT IN (2, 14, 15)")
    commands.upgrade(empty.settings)

    assert empty.query("SELECT id FROM model_versions WHERE status = 'production' ORDER BY 1") == [(2,), (14,), (15,)]


def test_of_many_models_the_first_ten_are_named(empty: Database) -> None:
    finding = several(empty, *((f"model-{number:02}", 2) for number in range(12)))

    assert finding.message.startswith("12 models have several production versions: model-00 (2 rows, id 1, 2); ")
    assert "model-09 (2 rows, id 19, 20); nothing was changed" in finding.message
    assert len(finding.ids) == 24


def test_a_second_promotion_fails_until_the_first_one_is_archived(head: Database) -> None:
    promote = "INSERT INTO model_versions (mlflow_run_id, model_version, status, model_name) VALUES (%s, '1', %s, %s)"
    head.query(promote, ["a", "production", "default"])
    head.query(promote, ["b", "production", "fraud"])
    head.query(promote, ["c", "staging", "default"])
    to_production = "UPDATE model_versions SET status = 'production' WHERE mlflow_run_id = 'c'"

    with pytest.raises(psycopg.errors.UniqueViolation, match="model_versions_production_key"):
        head.query(to_production)

    head.query("UPDATE model_versions SET status = 'archived' WHERE mlflow_run_id = 'a'")
    head.query(to_production)
    assert head.query(
        "SELECT model_name, mlflow_run_id FROM model_versions WHERE status = 'production' ORDER BY 1"
    ) == [
        ("default", "c"),
        ("fraud", "b"),
    ]


# Rows that come in between


@pytest.mark.parametrize("revision", ["0008", "0010"])
def test_a_row_that_slipped_in_before_the_rule_stops_its_validation(empty: Database, revision: str) -> None:
    """The look for broken rows keeps nobody from writing; what counts is PostgreSQL's own look at all of them."""
    table, rule = {
        "0008": ("model_versions", "status_check"),
        "0010": ("retraining_decisions", "action_check"),
    }[revision]
    column = rule.removesuffix("_check")
    commands.upgrade(empty.settings, before(revision))
    add_good(empty, table, 1)
    definition = empty.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [f"{table}_{rule}"]
    )
    empty.query(f"ALTER TABLE {table} DROP CONSTRAINT {table}_{rule}")
    empty.query(f"UPDATE {table} SET {column} = 'slipped in'")
    empty.query(f"ALTER TABLE {table} ADD CONSTRAINT {table}_{rule} {definition}")
    untouched = contents(empty)

    with pytest.raises(MlopsDbError, match=f'"{table}_{rule}" .* is violated by some row'):
        commands.upgrade(empty.settings)

    assert revision_of(empty) == before(revision)
    assert contents(empty) == untouched

    empty.query(f"UPDATE {table} SET {column} = %s", [GOOD[table][column]])
    commands.upgrade(empty.settings)


@pytest.mark.parametrize(
    ("revision", "table"),
    [("0007", "model_versions"), ("0009", "retraining_decisions"), ("0013", "monitoring_metrics")],
)
def test_new_rows_are_held_to_the_rules_before_the_old_ones_are_verified(
    empty: Database, revision: str, table: str
) -> None:
    commands.upgrade(empty.settings, revision)
    add_good(empty, table, 1)
    for rule in RULES.values():
        for value in rule.bad if rule.table == table else ():
            with pytest.raises(psycopg.errors.CheckViolation):
                empty.query(f"UPDATE {table} SET {rule.column} = {value}")


@pytest.mark.parametrize("table", BASELINE_TABLES)
@pytest.mark.parametrize("type_", ["{}", "{}[]"])
def test_a_column_of_a_table_s_row_type_is_named_and_with_another_type_it_goes_on(
    empty: Database, table: str, type_: str
) -> None:
    commands.upgrade(empty.settings, "0004")
    empty.query(f"CREATE TABLE theirs (kept {type_.format(table)})")

    with pytest.raises(MlopsDbError, match=r"theirs\.kept") as refused:
        commands.upgrade(empty.settings)
    assert re.search("another type|ALTER TABLE public.theirs ALTER COLUMN kept TYPE", refused.value.hint)

    empty.query("ALTER TABLE theirs ALTER COLUMN kept TYPE text USING kept::text")
    commands.upgrade(empty.settings)
