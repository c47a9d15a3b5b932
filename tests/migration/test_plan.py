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
from support.table_rows import insert

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

HEAD = revisions()[-1].id

ROWS = 20_000
# It would count rows that a session counts, too, when that sends its statistics later.
NO_AUTOVACUUM = """
    DO $$ DECLARE name regclass; BEGIN
        FOR name IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relname ~ '^(model_versions|monitoring_metrics)'
        LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', name); END LOOP;
    END $$
"""
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
    empty.query(NO_AUTOVACUUM)
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


def test_the_plan_of_an_upgrade_says_what_it_does_to_running_code(head: Database) -> None:
    commands.downgrade(head.settings, "0021")
    lines = plan(head, "upgrade", "0023")
    assert [line for line in lines if line.startswith("running code: ")] == [
        "running code: breaks: clients that read the columns of a view by position.",
        "running code: unaffected.",
    ]
    assert not any(line.startswith("running code: ") for line in plan(head, "downgrade", "0020"))


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


# Disk

COPY = "a copy of {}, until revision 9999 drops the old table."
SIZE_MB = """
    SELECT sum(pg_total_relation_size(oid))::float / 1024 ^ 2 FROM pg_class
     WHERE oid = 'monitoring_metrics'::regclass
        OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'monitoring_metrics'::regclass)
"""


def add_copying(checkout: Checkout, table: str) -> str:
    """Add a revision that says in two lines of its docstring that it copies the table; returns its id."""
    added = checkout.add("pass", f"op.execute('LOCK TABLE public.{table}')")
    (file,) = checkout.ini.parent.glob(f"migrations/versions/{added}_*.py")
    declared = COPY.format(table).replace("until", "\n    until")
    text = file.read_text(encoding="utf-8").replace("Test: test.", f"Test: test.\n\nDisk: {declared}\n")
    file.write_text(text, encoding="utf-8")
    return added


def planned(database: Database, checkout: Checkout, what: str, *arguments: str) -> list[str]:
    """The lines about `what` of a plan in the project of the checkout."""
    done = checkout.alembic(database, "-x", "plan=true", *arguments)
    assert done.returncode == 0, done.stderr
    return [line.strip() for line in done.stdout.splitlines() if line.startswith(f"      {what}: ")]


def add_metrics(database: Database) -> None:
    live = """
        SELECT sum(n_live_tup)::int FROM pg_stat_user_tables
         WHERE schemaname = 'mlops_internal' AND relname LIKE 'monitoring_metrics%'
    """
    before = database.value(live) or 0
    database.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value)"
        " SELECT 'drift', 'psi', n FROM generate_series(1, %s) AS n",
        [ROWS],
    )
    wait_until(lambda: database.value(live) == before + ROWS, "the statistics")


def test_the_plan_says_how_much_disk_a_copy_needs_in_either_direction(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    added = add_copying(checkout, "monitoring_metrics")
    head.query(NO_AUTOVACUUM)
    add_metrics(head)
    head.query("VACUUM ANALYZE monitoring_metrics")
    add_metrics(head)  # which the pages of that VACUUM do not hold
    with head.connection.transaction():
        head.query("LOCK TABLE monitoring_metrics IN ACCESS EXCLUSIVE MODE")
        (up,) = planned(head, checkout, "disk", "upgrade", "head")
    command.upgrade(checkout.config(head.settings), "head")
    (down,) = planned(head, checkout, "disk", "downgrade", "-1")
    (tables,) = planned(head, checkout, "tables", "downgrade", "-1")

    needed = re.fullmatch(rf"disk: about (\d+) MB: {COPY.format('monitoring_metrics')}", up)
    assert needed is not None, up
    assert int(needed[1]) == pytest.approx(head.value(SIZE_MB), rel=0.1, abs=1)
    assert down == up
    (file,) = checkout.ini.parent.glob(f"migrations/versions/{added}_*.py")
    file.write_text(file.read_text(encoding="utf-8").replace("Disk: ", "Disk: 10 times "), encoding="utf-8")
    (ten,) = planned(head, checkout, "disk", "downgrade", "-1")
    assert int(re.findall(r"about (\d+) MB", ten)[0]) == pytest.approx(10 * int(needed[1]), rel=0.2, abs=10)
    assert tables.startswith(f"tables: monitoring_metrics (about {2 * ROWS:,} rows, ")


def test_the_disk_is_unknown_without_statistics(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    for table in ("model_versions", "retraining_decisions", "not_yet"):
        add_copying(checkout, table)
    head.query(NO_AUTOVACUUM)
    insert(head, "model_versions", {"mlflow_run_id": "a", "model_version": "1", "status": "staging"})
    live = "SELECT n_live_tup FROM pg_stat_user_tables WHERE relname = 'model_versions'"
    wait_until(lambda: head.value(live) == 1, "the statistics")

    assert planned(head, checkout, "disk", "upgrade", "head") == [
        f"disk: unknown before VACUUM or ANALYZE: {COPY.format('model_versions')}",
        f"disk: unknown before VACUUM or ANALYZE: {COPY.format('retraining_decisions')}",
        f"disk: unknown before the table exists: {COPY.format('not_yet')}",
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
