import json

import pytest

from support.database import Database

pytestmark = pytest.mark.full_postgresql


def test_it_prints_the_size(head: Database) -> None:
    done = head.run("mlops-db", "size")
    size = head.value("SELECT pg_size_pretty(pg_database_size(current_database()))")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{head.settings.target}: {size}\n", "")


def test_json_has_it_in_bytes(head: Database) -> None:
    done = head.run("mlops-db", "size", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["target"]) == (0, head.settings.target)
    assert answer["bytes"] == head.value("SELECT pg_database_size(current_database())")
