"""`alembic -x plan=true`: what would run, without running or locking any of it."""

import re
from pathlib import Path

import pytest
from alembic import command

from mlops_db.migration import commands
from mlops_db.revisions.graph import revisions
from support.database import Database
from support.process import assert_failed
from support.projects import Checkout
from support.sessions import wait_until
from support.snapshot import everything

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

HEAD = revisions()[-1].id

ROWS = 20_000
UNITS = {"bytes": 1, "kB": 1024, "MB": 1024**2}
NEW = "locks: none that anybody waits for: the table, its sequence and its"


def plan(database: Database, *arguments: str, **variables: str) -> list[str]:
    done = database.run("alembic", "-x", "plan=true", *arguments, **variables)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return [line.strip() for line in done.stdout.splitlines()]


def size_in_bytes(line: str) -> int:
    found = re.search(r"model_versions \(about [\d,]+ rows, (\d+) (\w+)\)", line)
    assert found is not None, line
    return int(found[1]) * UNITS[found[2]]


@pytest.fixture
def with_rows(empty: Database) -> Database:
    """A database at 0004 with rows in one table."""
    commands.upgrade(empty.settings, "0004")
    empty.query(
        "INSERT INTO model_versions (mlflow_run_id, model_version)"
        " SELECT md5(n::text), n::text FROM generate_series(1, %s) AS n",
        [ROWS],
    )
    # A session sends its statistics up to a second late. Later than VACUUM's, they would count the rows twice.
    counted = "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'model_versions'"
    wait_until(lambda: empty.value(counted) == ROWS, "the statistics")
    empty.query("VACUUM ANALYZE model_versions, monitoring_metrics, retraining_decisions")
    return empty


def test_the_plan_of_an_upgrade_lists_each_step_and_changes_nothing(empty: Database) -> None:
    commands.upgrade(empty.settings, "0001")
    before = everything(empty)

    heading, *lines = plan(empty, "upgrade", "0004")

    assert heading == f"{empty.settings.target}: upgrade in 3 steps"
    titles, locks, tables = lines[0::3], lines[1::3], lines[2::3]
    assert titles == [
        "[1/3] 0002 monitoring_metrics: Create monitoring_metrics: what monitoring measured",
        "[2/3] 0003 retraining_decisions: Create retraining_decisions: why candidates were promoted or rejected",
        "[3/3] 0004 analytical_views: Create the three analytical views",
    ]
    assert locks[0].startswith(NEW)
    assert locks[1].startswith(NEW)
    assert locks[2].startswith("locks: ACCESS SHARE on the three tables")
    assert tables[:2] == ["tables: none that exist yet"] * 2
    assert tables[2].startswith("tables: model_versions (about 0 rows, ")
    assert everything(empty) == before


def test_the_plan_of_a_downgrade_lists_its_losses_even_if_the_run_would_refuse_it(with_rows: Database) -> None:
    before = everything(with_rows)

    heading, *lines = plan(with_rows, "downgrade", "base", MLOPS_ENV="production")

    assert heading == f"{with_rows.settings.target}: downgrade in 4 steps"
    titles, losses, tables = lines[0::4], lines[2::4], lines[3::4]
    assert [title.partition(":")[0] for title in titles] == [
        "[1/4] 0004 analytical_views",
        "[2/4] 0003 retraining_decisions",
        "[3/4] 0002 monitoring_metrics",
        "[4/4] 0001 model_versions",
    ]
    assert losses[0].startswith("loss: nothing, views hold no rows.")
    assert losses[3] == "loss: every row of model_versions."
    assert tables[2].startswith("tables: monitoring_metrics (about 0 rows, ")
    assert tables[3].startswith(f"tables: model_versions (about {ROWS:,} rows, ")
    size = with_rows.value("SELECT pg_total_relation_size('model_versions')")
    assert size_in_bytes(tables[3]) == pytest.approx(size, rel=0.1)
    assert everything(with_rows) == before


def test_it_waits_for_nobody_who_has_locked_the_tables(with_rows: Database) -> None:
    with with_rows.connection.transaction():
        with_rows.query(
            "LOCK TABLE model_versions, monitoring_metrics, retraining_decisions, mlops_internal.migration_history"
            " IN ACCESS EXCLUSIVE MODE"
        )
        lines = plan(with_rows, "downgrade", "base")

    assert lines[-1].startswith(f"tables: model_versions (about {ROWS:,} rows, ")


def test_an_empty_database_stays_empty(empty: Database) -> None:
    before = everything(empty)
    assert plan(empty, "upgrade", "head")[1].startswith("[1/")
    assert everything(empty) == before


def test_the_plan_says_that_nothing_is_to_do(head: Database) -> None:
    assert plan(head, "upgrade", "head") == [f"{head.settings.target}: nothing to do"]


def test_the_plan_names_what_a_revision_does_not_declare(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add("pass", "assert op.get_bind().execute(sa.text('SELECT 1')).scalar() == 1")
    command.upgrade(checkout.config(head.settings), "head")

    done = head.run("alembic", "-x", "plan=true", "downgrade", "-1", cwd=tmp_path)

    assert [line.strip() for line in done.stdout.splitlines()] == [
        f"{head.settings.target}: downgrade in 1 step",
        f"[1/1] {checkout.head} test: Test: test",
        "locks: not declared",
        "loss: not declared",
        "tables: not known before it runs",
    ]


def test_it_does_not_go_with_sql(head: Database) -> None:
    assert_failed(head.run("alembic", "-x", "plan=true", "upgrade", "head", "--sql"), "plan=true", "--sql", "Leave one")


def test_the_plan_of_a_stamp_shows_what_it_records(head: Database) -> None:
    before = everything(head)

    assert plan(head, "stamp", "0004") == [
        f"{head.settings.target}: stamp records 0004 in place of {HEAD}, and runs no revision"
    ]
    assert plan(head, "stamp", "--purge", "base") == [
        f"{head.settings.target}: stamp records base in place of {HEAD}, and runs no revision"
    ]
    assert everything(head) == before
