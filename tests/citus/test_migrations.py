"""Revisions on a database whose tables are distributed over two workers, written as a user writes them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.citus import CitusCluster, kill, start_again
from support.cluster import connect_superuser
from support.database import Database, revision_of
from support.dump_programs import rows_of
from support.projects import Checkout, sql, versions
from support.sessions import wait_until

REFUSED_BELOW_MONTHS = (
    "FAILED: revision 0019 (downgrade) does not run while mlops_internal.metric_series and monitoring_metrics are "
    "distributed; nothing was changed\nHint: Run `mlops-db undistribute`, then the same command.\n"
)
BY_ID = 'op.create_index_concurrently("metrics_by_id", "monitoring_metrics", ["id"])'
# By name: what upgrade() and downgrade() run.
REVISIONS = {
    "not_valid": (
        sql("ALTER TABLE monitoring_metrics ADD CONSTRAINT small CHECK (metric_value < 1e9) NOT VALID"),
        'op.drop_constraint("small", "monitoring_metrics")',
    ),
    "validate": ('op.validate_constraint("small", "monitoring_metrics")', "pass"),
    "column": (
        'op.add_column("monitoring_metrics", sa.Column("region", sa.Text(), server_default="eu", nullable=False))',
        'op.drop_column("monitoring_metrics", "region")',
    ),
    "generated": (
        'op.add_column("monitoring_metrics", sa.Column("up", sa.Text(), sa.Computed("upper(metric_name)")))',
        'op.drop_column("monitoring_metrics", "up")',
    ),
    "index": (
        'op.create_index_concurrently("by_registration", "metric_series", ["registered_at"], schema="mlops_internal")',
        'op.drop_index("by_registration", schema="mlops_internal")',
    ),
    "index_of_months": (BY_ID, 'op.drop_index("metrics_by_id")'),
    "batches": (
        (
            'op.run_in_batches("UPDATE monitoring_metrics SET metric_value = metric_value + 1'
            ' WHERE id > :after AND id <= :upto", table="monitoring_metrics", key="id")'
        ),
        (
            'op.run_in_batches("UPDATE monitoring_metrics SET metric_value = metric_value - 1'
            ' WHERE id > :after AND id <= :upto", table="monitoring_metrics", key="id")'
        ),
    ),
    "several_at_once": (
        sql(
            "ALTER TABLE monitoring_metrics ADD COLUMN team text;"
            "COMMENT ON COLUMN monitoring_metrics.team IS 'a; b';"
            "ALTER TABLE mlops_internal.metric_series ADD CONSTRAINT named CHECK (model_name <> 'x');"
        ),
        sql(
            "ALTER TABLE mlops_internal.metric_series DROP CONSTRAINT named;"
            "ALTER TABLE monitoring_metrics DROP COLUMN team"
        ),
    ),
    "file": ('op.execute_file("test.sql")', 'op.drop_column("monitoring_metrics", "site")'),
    "view": (
        sql("CREATE VIEW values_by_model AS SELECT model_name, sum(metric_value) FROM monitoring_metrics GROUP BY 1"),
        sql("DROP VIEW values_by_model"),
    ),
    "table": (
        'op.create_table("notes", sa.Column("id", sa.BigInteger(), sa.Identity(), primary_key=True))',
        'op.drop_table("notes")',
    ),
    "renames": (
        'op.alter_column("monitoring_metrics", "region", new_column_name="area")',
        'op.alter_column("monitoring_metrics", "area", new_column_name="region")',
    ),
    "broken": ('op.stop_if_broken("monitoring_metrics", {"too big": "metric_value > 1e8"}, revision="x")', "pass"),
    "drop_column": (
        'op.drop_column("monitoring_metrics", "up")',
        'op.add_column("monitoring_metrics", sa.Column("up", sa.Text(), sa.Computed("upper(metric_name)")))',
    ),
}
FILE = """\
ALTER TABLE monitoring_metrics ADD COLUMN site text;
COMMENT ON COLUMN monitoring_metrics.site IS 'where';
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    (versions(made.ini) / "sql" / "test.sql").write_text(FILE, encoding="utf-8")
    return made


@pytest.fixture
def filled(over_two: Database) -> Database:
    """300 metrics of 30 models, over two workers."""
    over_two.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, model_name)"
        " SELECT 'drift', 'age', n, 'model ' || n % 30 FROM generate_series(1, 300) AS n"
    )
    return over_two


def total(database: Database) -> tuple[int, float]:
    (found,) = database.query("SELECT count(*), sum(metric_value) FROM monitoring_metrics")
    return found


def test_later_revisions_go_up_and_down(filled: Database, checkout: Checkout) -> None:
    before, start = total(filled), checkout.head
    for name, (up, down) in REVISIONS.items():
        checkout.add(up, down, title=name)
    done = checkout.alembic(filled, "upgrade", "head")
    assert done.returncode == 0, done.stdout
    assert total(filled) == (300, before[1] + 300)
    assert filled.value("SELECT bool_and(indisvalid) FROM pg_index") is True
    assert {row[0] for row in filled.query("SELECT DISTINCT area || '-' || team IS NULL FROM monitoring_metrics")} == {
        True
    }
    done = checkout.alembic(filled, "downgrade", start)
    assert done.returncode == 0, done.stdout
    assert total(filled) == before
    done = filled.run("mlops-db", "check")
    assert (done.returncode, done.stdout) == (
        0,
        f"theirs: extension citus\n{filled.settings.target} at revision {start}: no difference\n",
    )


@pytest.mark.parametrize(
    ("down", "lost"),
    [
        (sql("DELETE FROM monitoring_metrics WHERE model_name = 'model 7'"), "10 rows of monitoring_metrics"),
        (sql("UPDATE monitoring_metrics SET metadata = NULL"), "300 rows of monitoring_metrics.metadata"),
        (sql("DO $$ BEGIN DELETE FROM monitoring_metrics WHERE id < 9; END $$"), "an unknown part of"),
        (sql("TRUNCATE mlops_internal.metric_series"), "30 rows of metric_series"),
        (
            ('op.run_in_batches("DELETE FROM monitoring_metrics WHERE id > :after AND id <= :upto",'
            ' table="monitoring_metrics", key="id")'),
            "300 rows of monitoring_metrics",
        ),
    ],
)  # fmt: skip
def test_a_downgrade_that_would_lose_rows_of_shards_is_stopped(
    filled: Database, checkout: Checkout, down: str, lost: str
) -> None:
    filled.query("UPDATE monitoring_metrics SET metadata = '{}'")
    before = total(filled)
    checkout.add(BY_ID, 'op.drop_index("metrics_by_id")')
    checkout.add("pass", f"op.execute('SELECT 1')\n{down}" if "run_in_batches" not in down else down)
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    done = checkout.alembic(_Production(filled), "downgrade", "-1")
    assert done.returncode != 0
    assert "would lose" in done.stdout
    assert lost.replace("metric_series", "") in done.stdout.replace("metric_series", "").replace("mlops_internal.", "")
    assert total(filled) == before
    assert revision_of(filled) == checkout.head


class _Production(Database):
    """The same database, in production."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.connection, database.settings)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"MLOPS_ENV": "production"}


def test_a_downgrade_in_batches_that_keeps_its_rows_goes_through(filled: Database, checkout: Checkout) -> None:
    before = total(filled)
    checkout.add(BY_ID, 'op.drop_index("metrics_by_id")')
    checkout.add(
        "pass",
        'op.run_in_batches("UPDATE monitoring_metrics SET metric_value = metric_value + 1'
        ' WHERE id > :after AND id <= :upto", table="monitoring_metrics", key="id")',
    )
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    done = checkout.alembic(_Production(filled), "downgrade", "-1")
    assert done.returncode == 0, done.stdout
    assert total(filled) == (before[0], before[1] + 300)


@pytest.mark.parametrize(
    ("table", "rows", "lost"),
    [
        ("monitoring_metrics", "", None),
        ("mlops_internal.metric_series", "", None),
        ("monitoring_metrics", " LIMIT 299", "1 row of monitoring_metrics"),
    ],
)
def test_a_downgrade_may_move_rows_out_of_shards(
    filled: Database, checkout: Checkout, table: str, rows: str, lost: str | None
) -> None:
    moves = (
        f"CREATE TABLE moved AS SELECT * FROM {table} LIMIT 0",
        f"INSERT INTO moved SELECT * FROM {table}{rows}",
        f"DELETE FROM {table}",
    )
    checkout.add("pass", "\n".join(f'op.execute("{statement}")' for statement in moves))
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    before = filled.value(f"SELECT count(*) FROM {table}")
    done = checkout.alembic(_Production(filled), "downgrade", "-1")
    if lost is None:
        assert done.returncode == 0, done.stdout
        assert filled.value("SELECT count(*) FROM moved") == before
        assert filled.value(f"SELECT count(*) FROM {table}") == 0
    else:
        assert f"would lose {lost};" in done.stdout
        assert filled.value(f"SELECT count(*) FROM {table}") == before
        assert filled.value("SELECT to_regclass('moved')") is None


def test_a_downgrade_below_the_months_is_refused_before_its_first_step(filled: Database) -> None:
    done = filled.run("alembic", "downgrade", "base")
    assert done.returncode != 0
    assert done.stdout == REFUSED_BELOW_MONTHS
    head = revision_of(filled)
    plan = filled.run("alembic", "-x", "plan=true", "downgrade", "0015")
    assert "refused: not while mlops_internal.metric_series and monitoring_metrics are distributed" in plan.stdout
    script = filled.run("alembic", "downgrade", f"{head}:0018", "--sql").stdout
    assert "the script does not run while these tables are distributed" in script
    with pytest.raises(AssertionError, match=r"mlops_internal\.metric_series and public\.monitoring_metrics"):
        filled.psql(script)
    assert revision_of(filled) == head
    assert filled.run("alembic", "downgrade", "0019").returncode == 0
    assert filled.run("alembic", "upgrade", "head").returncode == 0


def test_later_revisions_run_as_a_script(filled: Database, checkout: Checkout) -> None:
    before, start = total(filled), checkout.head
    for name, (up, down) in REVISIONS.items():
        if name not in ("broken", "generated", "drop_column"):  # they need the rows, or the server's version
            checkout.add(up, down, title=name)
    filled.psql(checkout.alembic(filled, "upgrade", f"{start}:head", "--sql").stdout)
    assert total(filled) == (300, before[1] + 300)
    assert filled.value("SELECT bool_and(indisvalid) FROM pg_index") is True
    filled.psql(checkout.alembic(filled, "downgrade", f"head:{start}", "--sql").stdout)
    assert total(filled) == before
    assert filled.run("mlops-db", "check").returncode == 0


IMPATIENT = ("-x", "lock-timeout=200ms", "-x", "retry-for=1s")
WAITING = [
    ("column", "ACCESS SHARE", "step"), ("index_of_months", "ROW EXCLUSIVE", "step"),
    ("several_at_once", "ACCESS SHARE", "step"), ("batches", "SHARE", "batch"),
]  # fmt: skip


@pytest.fixture
def reader(filled: Database, two_workers: CitusCluster) -> Iterator[psycopg.Connection[Any]]:
    """A session on a worker that may lock a shard."""
    with closing(_on(two_workers.workers[0], filled, application_name="a reader")) as connection:
        yield connection


def _on(worker: Path, database: Database, **options: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(host=str(worker), user="postgres", dbname=database.settings.database, **options)
    connection.execute("SET citus.enable_manual_changes_to_shards = on")
    return connection


def shard_on(worker: Path, database: Database, table: str = "monitoring_metrics") -> str:
    shards = "SELECT max(shard_name) FROM citus_shards WHERE table_name = %s::regclass AND nodename = %s"
    return str(database.value(shards, [table, str(worker)]))


@pytest.mark.parametrize("waiting", WAITING)
def test_waits_on_a_worker_are_bounded(
    filled: Database, checkout: Checkout, two_workers: CitusCluster, reader: psycopg.Connection[Any],
    waiting: tuple[str, str, str],
) -> None:  # fmt: skip
    name, mode, unit = waiting
    checkout.add(*REVISIONS["index_of_months" if name == "batches" else "not_valid"])
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    worker, before, start = two_workers.workers[0], total(filled), checkout.head
    checkout.add(*REVISIONS[name])
    reader.execute(f"LOCK TABLE {shard_on(worker, filled)} IN {mode} MODE")
    done = checkout.alembic(filled, *IMPATIENT, "upgrade", "head")
    assert done.returncode != 0
    assert f", blocked by pid {reader.info.backend_pid} (a reader) on {worker}:5432; the {unit} was" in done.stdout
    script = checkout.alembic(filled, *IMPATIENT, "upgrade", f"{start}:head", "--sql").stdout
    with pytest.raises(AssertionError, match="due to lock timeout"):
        filled.psql(script)
    assert (revision_of(filled), total(filled)) == (start, before)
    reader.rollback()
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0


@pytest.mark.parametrize(
    "built",
    [("index", "mlops_internal.metric_series"), ("index_of_months", "mlops_internal.monitoring_metrics_earlier")],
)
def test_an_index_that_failed_on_one_worker_is_built_again(
    filled: Database, checkout: Checkout, two_workers: CitusCluster, reader: psycopg.Connection[Any],
    built: tuple[str, str],
) -> None:  # fmt: skip
    (name, table), start, worker = built, checkout.head, two_workers.workers[0]
    checkout.add(*REVISIONS[name])
    waiting = "application_name LIKE 'citus%%' AND query LIKE %s AND wait_event_type = 'Lock'"
    reader.execute(f"LOCK TABLE {shard_on(worker, filled, table)} IN ROW EXCLUSIVE MODE")
    running = checkout.start(filled, "upgrade", "head")
    with closing(connect_superuser(worker, filled.settings.database)) as server:
        for statement in ("CREATE%INDEX CONCURRENTLY%", "DROP INDEX CONCURRENTLY%"):  # and that of tidying up
            found = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {waiting}"
            wait_until(
                lambda: server.execute(found, [statement]).fetchall() or not running.process.is_alive(),  # noqa: B023
                f"{statement} on a worker",
            )
    assert running.ended().returncode != 0
    reader.rollback()
    assert filled.value("SELECT bool_and(indisvalid) FROM pg_index") is False
    done = checkout.alembic(filled, "upgrade", "head")
    assert done.returncode == 0, done.stdout
    assert filled.value("SELECT bool_and(indisvalid) FROM pg_index") is True
    assert checkout.alembic(filled, "downgrade", start).returncode == 0
    assert filled.run("mlops-db", "check").returncode == 0


def test_batches_resume_after_the_loss_of_a_worker(
    filled: Database, checkout: Checkout, two_workers: CitusCluster
) -> None:
    filled.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, model_name)"
        " SELECT 'drift', 'age', n, 'model ' || n % 30 FROM generate_series(1, 30000) AS n"
    )
    checkout.add(*REVISIONS["index_of_months"])
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    rows, before = total(filled)
    checkout.add(REVISIONS["batches"][0].replace('key="id"', 'key="id", target="20ms"'))
    running = checkout.start(filled, "upgrade", "head")
    positions = "SELECT coalesce(max(changed_rows), 0) FROM mlops_internal.batch_positions"
    there = "SELECT to_regclass('mlops_internal.batch_positions') IS NOT NULL"
    wait_until(lambda: filled.value(there) and filled.value(positions) > 0, "a batch")
    worker = two_workers.workers[0]
    kill(worker)
    try:
        done, again = running.ended(), checkout.alembic(filled, "upgrade", "head")
    finally:
        start_again(two_workers.programs, worker)
    for failed in (done, again):
        assert failed.returncode != 0
        assert failed.stdout.startswith(f"FAILED: worker {worker}:5432 of {filled.settings.target} was lost, or does")
        assert failed.stdout.endswith("Run the same command again when that worker is back.\n")
    with closing(connect_superuser(two_workers.coordinator, filled.settings.database)) as server:
        server.execute("SELECT recover_prepared_transactions()")  # else Citus does so within a minute
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    assert total(filled) == (rows, before + rows)


def test_a_transaction_without_a_session_on_a_worker_is_named(
    filled: Database, checkout: Checkout, two_workers: CitusCluster, reader: psycopg.Connection[Any]
) -> None:
    checkout.add(*REVISIONS["column"])
    worker = two_workers.workers[0]
    reader.execute(f"LOCK TABLE {shard_on(worker, filled)} IN ROW EXCLUSIVE MODE")
    reader.execute("PREPARE TRANSACTION 'left over'")
    try:
        done = checkout.alembic(filled, *IMPATIENT, "upgrade", "head")
    finally:
        reader.rollback()
        reader.autocommit = True
        reader.execute("ROLLBACK PREPARED 'left over'")
    assert f", blocked by a prepared transaction (see pg_prepared_xacts) on {worker}:5432; the step was" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["alembic", "upgrade", "head"], ["alembic", "current"], ["alembic", "check"],
        ["alembic", "stamp", "--purge", "head"],
        ["mlops-db", "status"], ["mlops-db", "maintain"], ["mlops-db", "health"], ["mlops-db", "check"],
        ["mlops-db", "adopt"], ["mlops-db", "history"], ["mlops-db", "create"],
    ],
)  # fmt: skip
def test_a_worker_says_that_it_is_one(two_workers: CitusCluster, worker: Database, command: list[str]) -> None:
    done = worker.run(*command)
    said = (done.stdout + done.stderr).splitlines()[:2]
    assert done.returncode != 0
    assert said[0].partition(": ")[2] == (
        f"{worker.settings.target} is a worker of a Citus cluster, and the tables are on its coordinator; "
        "nothing was changed"
    )
    assert said[1].endswith(f"Connect to the coordinator: POSTGRES_HOST={two_workers.coordinator} POSTGRES_PORT=5432.")
    assert worker.value("SELECT to_regclass('public.alembic_version')") is None


@pytest.fixture
def worker(over_two: Database, two_workers: CitusCluster) -> Iterator[Database]:
    """The same database on a worker."""
    settings = over_two.settings
    with closing(
        psycopg.connect(host=str(two_workers.workers[0]), user=settings.user, dbname=settings.database)
    ) as connection:
        yield Database.of(connection)


def test_undistributed_everything_is_as_on_plain_postgresql(undistributed: Database) -> None:
    head = revision_of(undistributed)
    for command in (["downgrade", "base"], ["upgrade", "head"], ["check"], ["current"], ["history"]):
        done = undistributed.run("alembic", *command)
        assert done.returncode == 0, done.stdout
    assert undistributed.run("alembic", "downgrade", "base").returncode == 0
    undistributed.psql(undistributed.run("alembic", "upgrade", "head", "--sql").stdout)
    assert revision_of(undistributed) == head
    done = undistributed.run("mlops-db", "check")
    assert (done.returncode, done.stdout) == (
        0,
        f"theirs: extension citus\n{undistributed.settings.target} at revision {head}: no difference\n",
    )


def test_a_backup_has_the_rows_of_shards(filled: Database, checkout: Checkout, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    checkout.add("pass", sql("DELETE FROM monitoring_metrics"))
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    done = checkout.alembic(_Production(filled), "-x", f"backup={folder}", "downgrade", "-1")
    assert done.returncode == 0, done.stdout
    (file,) = folder.iterdir()
    assert sum(len(rows) for rows in rows_of(file).values()) == 300
    assert total(filled)[0] == 0


def test_a_plan_says_that_rows_are_in_shards(filled: Database, checkout: Checkout) -> None:
    checkout.add(*REVISIONS["column"])
    planned = checkout.alembic(filled, "-x", "plan=true", "upgrade", "head").stdout
    assert "tables: monitoring_metrics (in shards, see `mlops-db status`)" in planned


def test_a_trigger_needs_the_setting_that_the_page_names(filled: Database, checkout: Checkout) -> None:
    trigger = (
        "CREATE FUNCTION mlops_internal.keeps() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp"
        " AS $$ BEGIN RETURN NEW; END $$; {}"
        "CREATE TRIGGER keeps BEFORE INSERT ON monitoring_metrics FOR EACH ROW EXECUTE FUNCTION mlops_internal.keeps()"
    )
    drop = sql("DROP TRIGGER keeps ON monitoring_metrics; DROP FUNCTION mlops_internal.keeps()")
    refused = checkout.add(sql(trigger.format("")), drop)
    done = checkout.alembic(filled, "upgrade", "head")
    assert done.returncode != 0
    assert "triggers are not supported on distributed tables" in done.stdout
    (versions(checkout.ini) / f"{refused}_test.py").unlink()
    checkout.ids.remove(refused)
    checkout.add(sql(trigger.format("SET LOCAL citus.enable_unsafe_triggers = on;")), drop)
    done = checkout.alembic(filled, "upgrade", "head")
    assert done.returncode == 0, done.stdout
    filled.query("INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'age', 1)")
    assert total(filled)[0] == 301


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER monitoring_metrics_register_series ON monitoring_metrics",
        "ALTER TABLE monitoring_metrics DISABLE TRIGGER monitoring_metrics_register_series",
        "ALTER TABLE monitoring_metrics ENABLE ALWAYS TRIGGER monitoring_metrics_register_series",
    ],
)
def test_what_repairs_a_trigger_runs_on_a_distributed_table(filled: Database, change: str) -> None:
    with filled.connection.transaction():
        filled.query("SET LOCAL citus.enable_unsafe_triggers = on")
        filled.query(change)
    done = filled.run("mlops-db", "check", "--sql")
    assert done.returncode == 1, done.stdout
    filled.psql(done.stdout)
    assert filled.run("mlops-db", "check").returncode == 0
    filled.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, model_name)"
        " VALUES ('drift', 'age', 1, 'new')"
    )
    assert filled.value("SELECT count(*) FROM mlops_internal.metric_series WHERE model_name = 'new'") == 1


def test_a_type_goes_after_its_column_with_the_setting_that_the_page_names(
    filled: Database, checkout: Checkout
) -> None:
    make = "CREATE DOMAIN public.score AS real; ALTER TABLE monitoring_metrics ADD COLUMN s public.score"
    drop = "ALTER TABLE monitoring_metrics DROP COLUMN s; DROP DOMAIN public.score"
    start, mode = checkout.head, "SET LOCAL citus.multi_shard_modify_mode = sequential; "
    added = checkout.add(sql(make), sql(drop))
    assert checkout.alembic(filled, "upgrade", "head").returncode == 0
    done = checkout.alembic(filled, "downgrade", "-1")
    assert done.returncode != 0
    assert 'Hint: Try re-running the transaction with "SET LOCAL citus.multi_shard_modify_mode' in done.stdout
    assert revision_of(filled) == added
    file = versions(checkout.ini) / f"{added}_test.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("ALTER TABLE monitoring_metrics DROP", f"{mode}ALTER TABLE monitoring_metrics DROP"))
    done = checkout.alembic(filled, "downgrade", "-1")
    assert done.returncode == 0, done.stdout
    assert revision_of(filled) == start


def test_shards_that_the_database_shows_are_no_difference(distributed: Database, one_node: CitusCluster) -> None:
    name = distributed.settings.database
    distributed.query(f"ALTER DATABASE {name} SET citus.override_table_visibility = off")
    distributed.query(f"ALTER DATABASE {name} SET citus.show_shards_for_app_name_prefixes = '*'")
    at = f"{distributed.settings.target} at revision {revision_of(distributed)}"
    clean = f"theirs: extension citus\n{at}: no difference\n"
    with closing(psycopg.connect(host=str(one_node.coordinator), user="postgres", dbname=name)) as seen:
        count = "SELECT count(*) FROM pg_class WHERE relname ~ '^monitoring_metrics_[0-9]{6}$'"
        assert seen.execute(count).fetchone() != (0,)  # otherwise this test would show nothing
    for command in ("check", "maintain", "undistribute", "distribute"):
        assert distributed.run("mlops-db", command).returncode == 0
        assert distributed.run("mlops-db", "check").stdout == clean
    assert distributed.run("alembic", "check").returncode == 0


def test_what_is_named_like_a_shard_is_none(filled: Database) -> None:
    """The trigger refuses it: it could otherwise write into the catalogue as its owner."""
    shard = filled.value("SELECT min(shardid) FROM pg_dist_shard WHERE logicalrelid = 'monitoring_metrics'::regclass")
    before = filled.value("SELECT count(*) FROM mlops_internal.metric_series")
    for name in (f"monitoring_metrics_{shard}", "monitoring_metrics_7"):
        filled.query(f"CREATE TABLE public.{name} (LIKE monitoring_metrics INCLUDING DEFAULTS)")
        filled.query(
            f"CREATE TRIGGER registers AFTER INSERT ON public.{name} REFERENCING NEW TABLE AS new_rows"
            " FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series()"
        )
        with pytest.raises(psycopg.Error, match=r"is not monitoring_metrics|does not exist"):
            filled.query(
                f"INSERT INTO public.{name} (id, metric_type, metric_name, metric_value, model_name)"
                " VALUES (1, 'drift', 'forged', 1, 'forged')"
            )
    assert filled.value("SELECT count(*) FROM mlops_internal.metric_series") == before
