"""`mlops-db roles`: who can do what."""

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER, WRITER
from support import roles
from support.database import Database
from support.process import assert_failed

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

PREFIX = "mlops test "


@pytest.fixture
def database(head: Database) -> Iterator[Database]:
    """A database at head with a role of each kind."""
    with ExitStack() as stack:
        for name, attributes in {
            "Writer": "NOLOGIN", "login": "LOGIN", "noinherit": "LOGIN NOINHERIT", "reader": "LOGIN",
            "änalyst": "LOGIN", "nobody": "LOGIN", "root": "SUPERUSER", "sudo": "LOGIN",
        }.items():  # fmt: skip
            stack.enter_context(roles.role(head, PREFIX + name, attributes))
        head.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # the default before PostgreSQL 15
        grant(head.settings, WRITER, f"{PREFIX}Writer")
        grant(head.settings, READER, f"{PREFIX}reader")
        head.query(f'GRANT "{PREFIX}Writer" TO "{PREFIX}login", "{PREFIX}noinherit"')
        head.query(f'GRANT "{PREFIX}root" TO "{PREFIX}sudo"')
        head.query(f'GRANT SELECT, DELETE ON model_versions TO "{PREFIX}änalyst"')
        head.query("GRANT SELECT ON retraining_decisions TO PUBLIC")
        head.query(f'GRANT REFERENCES ON v_model_timeline TO "{PREFIX}reader"')
        head.query(f'REVOKE SELECT ON reporting.metric_history FROM "{PREFIX}Writer"')
        yield head
        head.query(f'ALTER ROLE "{PREFIX}root" NOSUPERUSER')


def of_tests(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"].removeprefix(PREFIX): row for row in rows if row["name"].startswith((PREFIX, "PUBLIC"))}


@pytest.mark.parametrize("user", ["", f"{PREFIX}nobody"])
def test_it_shows_every_kind_and_way_to_anybody(database: Database, user: str) -> None:
    variables = {"POSTGRES_USER": user, "POSTGRES_PASSWORD": roles.PASSWORD} if user else {}
    done = database.run("mlops-db", "roles", "--json", **variables)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    found = of_tests(answer["roles"])
    assert {name: row["kind"] for name, row in found.items()} == {
        "Writer": "writer",
        "login": "writer",
        "noinherit": "other",
        "reader": "reader",
        "änalyst": "other",
        "sudo": "other",
        "PUBLIC": "other",
    }
    assert {*answer["superusers"]} >= {f"{PREFIX}root", database.settings.user}
    by_everybody = {"privilege": "SELECT on retraining_decisions", "by": "PUBLIC"}
    assert found["Writer"]["lacks"] == found["login"]["lacks"] == ["SELECT on reporting.metric_history"]
    assert found["Writer"]["beyond"] == []
    assert found["login"]["member_of"] == found["noinherit"]["member_of"] == [f"{PREFIX}Writer"]
    assert (found["login"]["not_inherited"], found["login"]["after_set_role"]) == ([], None)
    assert (found["noinherit"]["not_inherited"], found["noinherit"]["after_set_role"]) == (
        [f"{PREFIX}Writer"],
        "writer",
    )
    assert found["noinherit"]["beyond"] == [by_everybody]
    assert found["reader"]["beyond"] == [{"privilege": "REFERENCES on v_model_timeline", "by": None}, by_everybody]
    assert [one["privilege"] for one in found["änalyst"]["beyond"]] == [
        "DELETE on model_versions",
        "SELECT on model_versions",
        "SELECT on retraining_decisions",
    ]
    assert found["sudo"]["beyond"][0] == {"privilege": "SUPERUSER", "by": f"{PREFIX}root"}
    assert [name for name, row in found.items() if row["everybody"]] == ["PUBLIC"]
    assert found["PUBLIC"]["beyond"] == [{"privilege": "SELECT on retraining_decisions", "by": None}]
    owners = [row["name"] for row in answer["roles"] if row["kind"] == "owner"]
    assert owners == [
        database.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
    ]


def test_in_a_pipe_it_is_plain_text(database: Database) -> None:
    done = database.run("mlops-db", "roles")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "role kind login notes"
    assert f"{PREFIX}Writer writer no lacks SELECT on reporting.metric_history" in lines
    assert (
        f"{PREFIX}reader reader yes has more: REFERENCES on v_model_timeline,"
        " SELECT on retraining_decisions (by PUBLIC)" in lines
    )
    assert (
        f"{PREFIX}noinherit other yes member of {PREFIX}Writer (not inherited); a writer only after SET ROLE;"
        " has SELECT on retraining_decisions (by PUBLIC)" in lines
    )
    assert f"{PREFIX}sudo other yes member of {PREFIX}root; has SUPERUSER (by {PREFIX}root, after SET ROLE)" in [
        line.replace(", SELECT on retraining_decisions (by PUBLIC)", "") for line in lines
    ]
    assert lines[-1].startswith("superusers can do everything: ")


@pytest.mark.parametrize("inherits", ["TRUE", "FALSE"])
def test_a_membership_says_itself_whether_it_is_inherited(database: Database, inherits: str) -> None:
    if database.connection.info.server_version < 160000:
        pytest.skip("before PostgreSQL 16 the member says it, not the membership")
    database.query(f'GRANT "{PREFIX}Writer" TO "{PREFIX}login", "{PREFIX}noinherit" WITH INHERIT {inherits}')
    found = of_tests(json.loads(database.run("mlops-db", "roles", "--json").stdout)["roles"])
    for name in ("login", "noinherit"):
        assert found[name]["kind"] == ("writer" if inherits == "TRUE" else "other")
        assert found[name]["after_set_role"] == (None if inherits == "TRUE" else "writer")


@pytest.mark.parametrize(
    ("group", "options", "becomes"),
    [
        ("Writer", "SET FALSE", None),
        ("Writer", "SET FALSE, ADMIN TRUE", "writer"),  # it can grant itself the rest
        ("login", "SET TRUE", "writer"),  # which inherits that, and cannot become it
        ("login", "SET FALSE, ADMIN TRUE", "writer"),
        ("login", "SET FALSE", None),
    ],
)
def test_a_member_that_may_not_set_role_cannot_become_the_role(
    database: Database, group: str, options: str, becomes: str | None
) -> None:
    if database.connection.info.server_version < 160000:
        pytest.skip("before PostgreSQL 16 every member can run SET ROLE")
    database.query(f'GRANT "{PREFIX}Writer" TO "{PREFIX}login" WITH INHERIT TRUE, SET FALSE')
    database.query(f'GRANT "{PREFIX}{group}" TO "{PREFIX}nobody" WITH INHERIT FALSE, {options}')
    found = of_tests(json.loads(database.run("mlops-db", "roles", "--json").stdout)["roles"])
    assert found.get("nobody", {}).get("after_set_role") == becomes


def test_a_reader_that_can_become_a_writer_is_a_reader(database: Database) -> None:
    database.query("REVOKE SELECT ON retraining_decisions FROM PUBLIC")
    grant(database.settings, READER, f"{PREFIX}nobody")
    database.query(f'ALTER ROLE "{PREFIX}nobody" NOINHERIT')
    database.query(f'GRANT "{PREFIX}Writer" TO "{PREFIX}nobody"')
    row = of_tests(json.loads(database.run("mlops-db", "roles", "--json").stdout)["roles"])["nobody"]
    assert (row["kind"], row["after_set_role"], row["lacks"]) == ("reader", "writer", [])


def test_what_a_role_inherits_counts_even_if_it_can_also_become_another_with_the_same(database: Database) -> None:
    with roles.role(database, f"{PREFIX}A", "NOLOGIN"):
        grant(database.settings, WRITER, f"{PREFIX}A")
        database.query(
            f'GRANT "{PREFIX}nobody" TO "{PREFIX}noinherit"; GRANT SELECT ON model_versions TO "{PREFIX}nobody"'
        )
        database.query(f'GRANT "{PREFIX}noinherit" TO "{PREFIX}login"; GRANT "{PREFIX}A" TO "{PREFIX}noinherit"')
        found = of_tests(json.loads(database.run("mlops-db", "roles", "--json").stdout)["roles"])
    assert (found["login"]["kind"], found["login"]["not_inherited"]) == ("writer", [f"{PREFIX}A", f"{PREFIX}nobody"])
    assert found["noinherit"]["kind"] == "other"


def test_a_role_named_like_everybody_is_told_apart(database: Database) -> None:
    with roles.role(database, "PUBLIC"):
        database.query(f'GRANT DELETE ON model_versions TO "PUBLIC"; GRANT "PUBLIC" TO "{PREFIX}nobody"')
        done = database.run("mlops-db", "roles")
        assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("PUBLIC", '"PUBLIC'))] == [
            ['"PUBLIC"', "other"],
            ["PUBLIC", "other"],
        ]
        database.query("REVOKE SELECT ON retraining_decisions FROM PUBLIC")
        refused = database.run("mlops-db", "grant-reader", f"{PREFIX}nobody")
        assert_failed(refused, "DELETE on model_versions (by PUBLIC)", f'REVOKE "PUBLIC" FROM "{PREFIX}nobody";')
        for kind, options in itertools.product(("writer", "reader"), ((), ("--create",), ("--revoke",))):
            variable = f"MLOPS_{kind.upper()}_PASSWORD"
            refused = database.run("mlops-db", f"grant-{kind}", "PUBLIC", *options, **{variable: "x"})
            assert_failed(refused, "PUBLIC is everybody; nothing was changed", "Name a role")


def test_what_lets_a_role_do_nothing_here_is_not_listed(database: Database) -> None:
    database.query("REVOKE SELECT ON retraining_decisions FROM PUBLIC")
    database.query(f'ALTER ROLE "{PREFIX}nobody" CREATEDB')
    assert f"{PREFIX}nobody" not in database.run("mlops-db", "roles").stdout
    database.query(f'ALTER ROLE "{PREFIX}nobody" CREATEROLE')
    assert "has CREATEROLE" in database.run("mlops-db", "roles").stdout


def test_what_it_gets_later_is_told(database: Database) -> None:
    database.query(f'ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "{PREFIX}nobody"')
    answer = json.loads(database.run("mlops-db", "roles", "--json").stdout)
    assert {"privilege": "SELECT on later tables", "by": None} in of_tests(answer["roles"])["nobody"]["beyond"]
    database.query("SET ROLE pg_monitor; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; RESET ROLE")
    assert "later tables (by PUBLIC)" not in database.run("mlops-db", "roles").stdout


def test_a_table_of_others_is_no_matter_of_ours(database: Database) -> None:
    database.query("CREATE TABLE theirs (id int)")
    database.query(f'GRANT ALL ON theirs TO "{PREFIX}nobody"')
    assert f"{PREFIX}nobody" not in database.run("mlops-db", "roles").stdout


def test_without_tables_there_is_nothing_to_show(empty: Database) -> None:
    assert_failed(empty.run("mlops-db", "roles"), "has no tables yet", "alembic upgrade head")


@pytest.mark.parametrize("theirs", ["dag", "model_versions"])  # MLflow's database has a model_versions
@pytest.mark.parametrize("words", [("roles",), ("grant-writer", "pg_monitor", "--revoke")])
def test_another_tools_database_is_refused(empty: Database, theirs: str, words: tuple[str, ...]) -> None:
    empty.query(f"CREATE TABLE {theirs} (name text); GRANT INSERT ON {theirs} TO pg_monitor")
    empty.query("CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('e3a1c2b4')")
    assert_failed(empty.run("mlops-db", *words), "is at revision 'e3a1c2b4'", "another tool (Airflow, MLflow) owns it")


def test_check_names_only_what_goes_beyond(database: Database) -> None:
    database.query("REVOKE SELECT ON retraining_decisions FROM PUBLIC")
    done = database.run("mlops-db", "check")
    theirs = sorted(line for line in done.stdout.splitlines() if line.startswith("theirs: "))
    assert theirs == [
        f'theirs: grants to "{PREFIX}reader" on view public.v_model_timeline',
        f'theirs: grants to "{PREFIX}änalyst" on table public.model_versions',
    ]
    assert done.returncode == 0
