"""Revision 0024 takes no schema that somebody has, and its downgrade takes nothing of others with it."""

import pytest

from mlops_db.migration import commands
from mlops_db.revisions.graph import revisions
from support.database import Database, revision_of
from support.process import assert_failed

pytestmark = pytest.mark.slow


@pytest.fixture
def without(head: Database) -> Database:
    """A database at the revision before schema reporting."""
    commands.downgrade(head.settings, "0023")
    assert head.value("SELECT to_regnamespace('reporting')") is None
    return head


def test_a_schema_of_that_name_is_left_alone_until_it_has_another_one(without: Database) -> None:
    without.query("CREATE SCHEMA reporting; CREATE VIEW reporting.metric_history AS SELECT 1 AS theirs")
    owner = without.settings.user
    for command in (("mlops-db", "init"), ("alembic", "upgrade", "head")):
        assert_failed(
            without.run(*command),
            f"a schema reporting already, and it belongs to {owner}; nothing was changed",
            "ALTER SCHEMA reporting RENAME TO",
        )
    assert_failed(without.run("mlops-db", "adopt"), "under Alembic already")
    assert revision_of(without) == "0023"
    assert without.query("TABLE reporting.metric_history") == [(1,)]

    without.query("ALTER SCHEMA reporting RENAME TO theirs")
    assert without.run("mlops-db", "init").returncode == 0
    assert without.query("TABLE theirs.metric_history") == [(1,)]


def test_a_script_of_sql_stops_there_too(without: Database) -> None:
    script = without.run("alembic", "upgrade", "0023:head", "--sql").stdout
    without.query("CREATE SCHEMA reporting")
    assert "a schema reporting already" in without.psql(script, stops=False)
    assert revision_of(without) == "0023"


def test_a_downgrade_stops_at_what_others_have_there_and_names_it(head: Database) -> None:
    head.query("CREATE TABLE reporting.monitoring_targets (id integer); CREATE TYPE reporting.level AS ENUM ('a')")
    head.query("CREATE FUNCTION reporting.metric_daily(since date) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    named = [
        "schema reporting, which would go, has 3 objects of others:",
        "function reporting.metric_daily(pg_catalog.date)",
        "table reporting.monitoring_targets",
        "type reporting.level; nothing was changed",
        "SET SCHEMA",
    ]
    assert_failed(head.run("alembic", "downgrade", "0023"), *named)
    assert revision_of(head) == revisions()[-1].id
    assert head.value("SELECT count(*) FROM reporting.metric_history") == 0

    head.query("CREATE SCHEMA theirs; ALTER TABLE reporting.monitoring_targets SET SCHEMA theirs")
    head.query("ALTER TYPE reporting.level SET SCHEMA theirs; DROP FUNCTION reporting.metric_daily(date)")
    commands.downgrade(head.settings, "0023")


def test_a_downgrade_stops_at_a_view_of_others_that_reads_ours(head: Database) -> None:
    head.query("CREATE VIEW public.worst AS SELECT * FROM reporting.metric_history")
    assert_failed(head.run("alembic", "downgrade", "0023"), "public.worst", "reporting.metric_history")
    assert head.value("SELECT count(*) FROM public.worst") == 0
