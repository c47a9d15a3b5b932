"""`mlops-db distribute` and `undistribute` where Citus is not: most servers."""

import json

import pytest

from support.database import Database
from support.process import assert_failed

pytestmark = pytest.mark.plain_postgresql(reason="the database has Citus")


def test_it_is_said_in_two_lines_without_alarm(head: Database) -> None:
    done = head.run("mlops-db", "distribute")
    if head.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'"):
        assert_failed(done, "the database has no extension citus", "CREATE EXTENSION citus; REVOKE SELECT ON")
    else:
        assert_failed(done, "error: the server has no Citus; nothing was changed\n", "docs/scaling.md")
    assert "crashes" not in done.stderr
    planned = head.run("mlops-db", "distribute", "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["done"] is False


def test_there_is_nothing_to_bring_back(head: Database) -> None:
    done = head.run("mlops-db", "undistribute")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do, the tables are plain" in done.stdout
