"""`--json` and `--dry-run`, which mean the same for every command."""

import json
import re
from typing import Any

import pytest
from psycopg import sql

from mlops_db.cli.main import commands, program_parser
from mlops_db.revisions.graph import revisions
from support.database import Database
from support.handmade import make_by_hand
from support.json_shapes import check
from support.process import SECRET

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HEAD = revisions()[-1].id
# They run another program, print a script, or write a page.
WITHOUT_JSON = {"alembic", "psql", "completion", "report"}
# They only read, or say in their help why a dry run is not needed: `docs --check` is one.
NO_DRY_RUN = {*WITHOUT_JSON, "check", "demo", "docs", "health", "history", "lint", "roles", "status", "wait"}
NOWHERE = "mlops_test_nowhere"


def options(command: str) -> set[str]:
    (subparsers,) = (action for action in program_parser(with_arguments=True)._actions if action.dest == "command")  # noqa: SLF001
    return {option for action in subparsers.choices[command]._actions for option in action.option_strings}  # type: ignore[index,call-overload]  # noqa: SLF001


def test_every_command_has_them_but_for_those_that_need_none() -> None:
    assert {command for command in commands() if "--json" not in options(command)} == WITHOUT_JSON
    missing = {command for command in commands() if "--dry-run" not in options(command)}
    assert missing == NO_DRY_RUN & {*commands()}


def report(database: Database, *arguments: str, code: int = 0, **variables: str) -> dict[str, Any]:
    done = database.run("mlops-db", *arguments, "--json", **variables)
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in answer)
    return answer


def test_check(head: Database) -> None:
    head.query("COMMENT ON VIEW v_model_timeline IS 'mine'")
    answer = report(head, "check", code=1)
    assert (answer["target"], answer["revision"], answer["head"]) == (head.settings.target, HEAD, HEAD)
    (difference,) = answer["differences"]
    assert (difference["name"], difference["property"]) == ("view public.v_model_timeline", "comment")
    assert difference["found"] == "mine"
    assert "repair" not in answer
    repair = report(head, "check", "--sql", code=1)["repair"]
    assert any(line.startswith("COMMENT ON VIEW public.v_model_timeline") for line in repair)


def test_create_and_init(empty: Database) -> None:
    try:
        target = empty.settings.target.replace(empty.settings.database, NOWHERE)
        answer = report(empty, "create", "--dry-run", MLOPS_DB_NAME=NOWHERE)
        assert answer == {"target": target, "done": False, "created": True}
        answer = report(empty, "init", "--dry-run", MLOPS_DB_NAME=NOWHERE)
        assert (answer["done"], answer["created"]) == (False, True)
        assert [revision["id"] for revision in answer["upgraded"]] == [revision.id for revision in revisions()]
        assert empty.value("SELECT count(*) FROM pg_database WHERE datname = %s", [NOWHERE]) == 0

        assert report(empty, "create", MLOPS_DB_NAME=NOWHERE) == {"target": target, "done": True, "created": True}
        assert report(empty, "create", MLOPS_DB_NAME=NOWHERE)["created"] is False
    finally:
        empty.connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(NOWHERE)))


def test_a_dry_run_of_init_lists_the_revisions_and_runs_none(empty: Database) -> None:
    done = empty.run("mlops-db", "init", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines, last = done.stdout.splitlines()
    assert first == f"Database '{empty.settings.database}' already exists"
    assert lines == [f"Revision {revision.id} {revision.title} would run" for revision in revisions()]
    assert last == "Nothing was changed (--dry-run)."
    assert empty.value("SELECT to_regclass('alembic_version')") is None


def test_a_dry_run_of_create_says_what_is_there(empty: Database) -> None:
    there = empty.run("mlops-db", "create", "--dry-run")
    missing = empty.run("mlops-db", "create", "--dry-run", MLOPS_DB_NAME=NOWHERE)
    assert there.stdout.splitlines()[0] == f"Database '{empty.settings.database}' already exists"
    assert missing.stdout.splitlines() == [f"Database '{NOWHERE}' would be created", "Nothing was changed (--dry-run)."]
    assert (missing.returncode, missing.stderr) == (0, "")


def test_grant_reader(head: Database) -> None:
    may_read = "SELECT has_table_privilege('mlops_test_reader', 'v_model_timeline', 'SELECT')"
    head.query("CREATE ROLE mlops_test_reader NOLOGIN")
    try:
        text = head.run("mlops-db", "grant-reader", "mlops_test_reader", "--dry-run")
        assert text.stdout.splitlines()[-1].startswith('Role "mlops_test_reader" could read v_decision_history')
        assert report(head, "grant-reader", "mlops_test_reader", "--dry-run")["granted"] is False
        assert head.value(may_read) is False
        answer = report(head, "grant-reader", "mlops_test_reader")
        assert (answer["granted"], answer["role"], len(answer["views"])) == (True, "mlops_test_reader", 6)
        assert head.value(may_read) is True
        head.query("GRANT SELECT ON model_versions TO mlops_test_reader")
        refused = report(head, "grant-reader", "mlops_test_reader", "--dry-run", code=1)
        assert "SELECT on model_versions" in refused["error"]
    finally:
        head.query("DROP OWNED BY mlops_test_reader")
        head.query("DROP ROLE mlops_test_reader")


def test_maintain(head: Database) -> None:
    head.query("SET session_replication_role = replica")
    head.query("INSERT INTO monitoring_metrics (id, metric_type, metric_name) VALUES (9, 'drift', 'a')")
    steps = [{"action": "register", "name": "metric_series", "rows": 1, "size": None}]
    steps.append({"action": "advance", "name": "monitoring_metrics_id_seq", "rows": None, "size": None})
    assert report(head, "maintain", "--dry-run") == {"target": head.settings.target, "done": False, "steps": steps}
    assert report(head, "maintain") == {"target": head.settings.target, "done": True, "steps": steps}


def test_adopt(empty: Database) -> None:
    make_by_hand(empty, "ALTER TABLE model_versions ADD COLUMN note text;")
    answer = report(empty, "adopt", code=1)
    assert answer["adopted"] is False
    assert [obstacle["name"] for obstacle in answer["obstacles"]] == ["column public.model_versions.note"]
    assert any("DROP COLUMN note" in statement for statement in answer["remedy"])
    empty.query("ALTER TABLE model_versions DROP COLUMN note")
    assert report(empty, "adopt", "--dry-run")["adopted"] is False
    assert report(empty, "adopt")["adopted"] is True


def test_demo(head: Database) -> None:
    answer = report(head, "demo", "--days", "90")
    assert (answer["target"], answer["days"], answer["models"]) == (head.settings.target, 90, 3)
    assert head.value("SELECT count(*) FROM model_versions") == answer["versions"]
    assert "is not empty" in report(head, "demo", code=1)["error"]


@pytest.mark.parametrize("command", ["check", "create", "history", "init", "maintain", "adopt"])
def test_a_failure_is_an_object_too(empty: Database, command: str) -> None:
    answer = report(empty, command, code=2, POSTGRES_HOST="/no/such/folder", POSTGRES_PASSWORD=SECRET)
    check(answer)
    assert answer["state"] == "unreachable"
    assert SECRET not in str(answer)
