"""The rows that revisions to come would refuse: `adopt` lists them all, so that one look and one upgrade are enough."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.admin.adopt import adopt
from mlops_db.admin.broken_rows import BrokenRule
from mlops_db.migration import commands
from mlops_db.project import BASELINE
from mlops_db.revisions.graph import revisions
from support.database import Database, revision_of
from support.handmade import make_by_hand
from support.projects import Checkout, installed
from support.rules import GOOD, RULES
from support.table_rows import insert

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HEAD = revisions()[-1].id
SEVERAL = "several versions of a model are in production"
BROKEN = st.lists(st.sampled_from(list(RULES)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(RULES[name].bad))), max_size=14)  # fmt: skip


def ids_found_by(database: Database, rule: BrokenRule) -> list[int]:
    """By the statement that is told, as whoever has a psql in another time zone sends it."""
    database.query("SET timezone = 'Europe/Berlin'")
    return [id_ for (id_,) in database.query(f"SELECT id FROM ({rule.select.rstrip(';')}) AS found")]


def add(database: Database, table: str, number: int, **values: object) -> None:
    name = {"mlflow_run_id": f"run-{number}"} if table == "model_versions" else {}
    insert(database, table, GOOD[table] | name | {"id": number} | values)


@given(broken=BROKEN, production=st.integers(0, 3))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_list_is_complete(empty: Database, broken: list[tuple[str, str]], production: int) -> None:
    """Once what it lists is mended, the upgrade passes in one go."""
    empty.query(
        "DROP SCHEMA IF EXISTS mlops_internal, reporting CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    )
    make_by_hand(empty)
    expected: dict[str, list[int]] = {}
    for number, (name, value) in enumerate(broken, 1):
        rule = RULES[name]
        add(empty, rule.table, number)
        empty.query(f"UPDATE {rule.table} SET {rule.column} = {value} WHERE id = {number}")
        expected.setdefault(name, []).append(number)
    for number in range(101, 101 + production):
        add(empty, "model_versions", number, status="production")
    if production > 1:
        expected[f"0011 {SEVERAL}"] = list(range(101, 101 + production))

    output = adopt(empty.settings, dry_run=True).broken

    assert {f"{rule.revision} {rule.what}": ids_found_by(empty, rule) for rule in output} == expected
    assert [(rule.count, len(rule.ids.removesuffix(", ...").split(", "))) for rule in output] == [
        (len(ids), min(len(ids), 10)) for ids in (expected[f"{rule.revision} {rule.what}"] for rule in output)
    ]
    assert adopt(empty.settings, dry_run=False).broken == output
    for rule in output:
        ids = ids_found_by(empty, rule)
        if rule.what == SEVERAL:
            empty.query("UPDATE model_versions SET status = 'archived' WHERE id = ANY(%s)", [ids[1:]])
        else:
            fix = RULES[f"{rule.revision} {rule.what}"]
            empty.query(f"UPDATE {fix.table} SET {fix.column} = {fix.fix} WHERE id = ANY(%s)", [ids])
    commands.upgrade(empty.settings)
    assert revision_of(empty) == HEAD


def test_every_rule_is_known_to_the_list(empty: Database) -> None:
    make_by_hand(empty)
    for number, rule in enumerate(RULES.values(), 1):
        add(empty, rule.table, number)
        empty.query(f"UPDATE {rule.table} SET {rule.column} = {rule.bad[0]} WHERE id = {number}")

    output = adopt(empty.settings, dry_run=True).broken

    assert [f"{rule.revision} {rule.what}" for rule in output] == list(RULES)
    assert list(map(str, output)) == [
        f"{rule.table}: {rule.what}: 1 row, id {number} (revision {rule.revision})"
        for number, rule in enumerate(RULES.values(), 1)
    ]


def test_of_many_rows_the_first_ten_are_reported(empty: Database) -> None:
    make_by_hand(empty, "INSERT INTO monitoring_metrics (metric_name) SELECT 'psi' FROM generate_series(1, 12);")

    (output,) = adopt(empty.settings, dry_run=True).broken

    assert str(output) == (
        "monitoring_metrics: metric_type is NULL: 12 rows, id 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ... (revision 0013)"
    )


def test_broken_rows_are_listed_beside_obstacles(empty: Database) -> None:
    make_by_hand(
        empty,
        "ALTER TABLE model_versions ADD note text; ALTER TABLE monitoring_metrics DROP metric_type;"
        "INSERT INTO model_versions (mlflow_run_id, model_version, f1_score) VALUES ('1', '1', 2);"
        "INSERT INTO monitoring_metrics DEFAULT VALUES;",
    )

    judgement = adopt(empty.settings, dry_run=False)

    assert judgement.obstacles
    output = {rule.what: rule.count for rule in judgement.broken}
    assert output == {
        "status is not staging, production or archived": 1,
        "f1_score is not within 0 and 1": 1,
        "metric_type is NULL": None,  # there is no such column yet
        "metric_name is NULL": 1,
    }
    done = empty.run("mlops-db", "adopt")
    assert "f1_score is not within 0 and 1: 1 row, id 1 (revision 0007)" in done.stdout
    assert "could not be checked" not in done.stdout


def test_a_rule_of_somebody_s_own_revision_is_reported_too(empty: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    new = checkout.add("pass")
    (file,) = checkout.ini.parent.glob(f"migrations/versions/{new}_*.py")
    with file.open("a", encoding="utf-8") as text:
        text.write(
            "TABLE = 'model_versions'\nBROKEN = {'too short': 'length(model_version) < 2', 'late': 'late > 1'}\n"
        )
    make_by_hand(
        empty, "INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('1', '1', 'staging');"
    )

    with installed(checkout):
        short, late = adopt(empty.settings, dry_run=False).broken

    assert str(short) == f"model_versions: too short: 1 row, id 1 (revision {new})"
    assert str(late) == 'model_versions: late: could not be checked (column "late" does not exist)'
    assert revision_of(empty) == BASELINE
