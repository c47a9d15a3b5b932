"""Runs that are ended at random moments: the database stands at a revision boundary, and the next run completes.

Some runs copy monitoring_metrics, up and down, while somebody writes to it: no row is lost, none is there twice.

The moments are drawn from the time that a whole run takes, with fixed seeds. MLOPS_DB_SOAK_RUNS (default 100) is the
number of SIGKILLs under the mark `soak`; of the two other kinds there are a fifth of it.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest
from alembic import command

from mlops_db.settings import Settings
from support.cluster import embedded_programs, new_cluster
from support.database import Database, history_of, revision_of
from support.process import assert_run_failed
from support.projects import Checkout, Running, sql
from support.sessions import CHECKS_ITS_CLIENT_SINCE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

SOAK_RUNS = int(os.environ.get("MLOPS_DB_SOAK_RUNS", "100"))
PAUSE = "SELECT pg_sleep(0.04)"
# What a run killed between CREATE INDEX CONCURRENTLY and the end of its revision leaves ahead of that revision: 0011,
# 0012, and one of the revisions below.
AHEAD = (
    (
        "CREATE UNIQUE INDEX model_versions_production_key ON public.model_versions USING btree (model_name)"
        " WHERE ((status)::text = 'production'::text);"
    ),
    (
        "CREATE INDEX retraining_decisions_decision_timestamp_id_idx ON public.retraining_decisions USING btree"
        " (decision_timestamp, id);"
    ),
    (
        "CREATE INDEX model_versions_model_name_promoted_at_idx ON public.model_versions USING btree"
        " (model_name, promoted_at);"
    ),
    (
        "CREATE INDEX retraining_decisions_model_name_decision_timestamp_id_idx ON public.retraining_decisions"
        " USING btree (model_name, decision_timestamp, id);"
    ),
    "CREATE INDEX soak_n ON public.soak USING btree (public.soak_slow(n));",
)
# The same of a downgrade of 0019: the index on ids, and on those of each month.
AHEAD_OF_COPY = re.compile(
    r"CREATE INDEX monitoring_metrics_\w*id_idx ON [^;]+;"
    r"|ALTER INDEX public\.monitoring_metrics_id_idx ATTACH PARTITION [^;]+;"
)
# Within these, the schema depends on the way: the table that is copied is the plain one, or the monthly one.
COPYING = ("0016", "0017", "0018")
BEFORE_COPY, AFTER_COPY = "0015", "0019"
METRICS = """
    INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, created_at, metadata)
    SELECT now() - n * interval '10 minutes', 'soak', 'series ' || n % 7, n, now(), jsonb_build_object('n', n)
      FROM generate_series(1, 20000) AS n;
    CREATE SCHEMA test;
    CREATE TABLE test.metrics AS TABLE monitoring_metrics;
    ALTER TABLE test.metrics ADD PRIMARY KEY (id);
"""
# Changes of one row, the same in both tables, so that test.metrics has what should be there.
INSERT_ONE = """
    WITH one AS (
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
        VALUES (now() - %(days)s * interval '1 day', 'soak', 'written', random()) RETURNING *
    )
    INSERT INTO test.metrics SELECT * FROM one
"""
UPDATE_ONE = """
    WITH one AS (
        UPDATE monitoring_metrics SET metric_name = 'changed', metric_value = random(),
               timestamp = now() - %(days)s * interval '1 day' WHERE id = %(id)s RETURNING *
    )
    UPDATE test.metrics AS m SET metric_name = one.metric_name, metric_value = one.metric_value,
           timestamp = one.timestamp FROM one WHERE m.id = one.id
"""
DELETE_ONE = """
    WITH one AS (DELETE FROM monitoring_metrics WHERE id = %(id)s RETURNING id)
    DELETE FROM test.metrics WHERE id IN (SELECT id FROM one)
"""
LOST_OR_TWICE = """
    SELECT (SELECT count(*) FROM (TABLE monitoring_metrics EXCEPT ALL TABLE test.metrics) AS more),
           (SELECT count(*) FROM (TABLE test.metrics EXCEPT ALL TABLE monitoring_metrics) AS less)
"""
SLOW = """CREATE FUNCTION soak_slow(n bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
    IF n % 10000 = 2 THEN PERFORM pg_sleep(0.1); END IF;
    RETURN n;
END $$"""


def soak(normal: int, runs: int) -> list[object]:
    return [normal, pytest.param(runs, marks=pytest.mark.soak)]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """The project's revisions and some that take their time within and between their statements."""
    checkout = Checkout(tmp_path)
    checkout.add(
        sql(
            "CREATE TABLE soak (id int PRIMARY KEY, n int)",
            PAUSE,
            "INSERT INTO soak SELECT n, n FROM generate_series(1, 20000) AS n",
            SLOW,
        ),
        sql(PAUSE, "DROP TABLE soak", "DROP FUNCTION soak_slow", PAUSE),
    )
    checkout.add(
        sql(
            "ALTER TABLE soak ADD COLUMN note text DEFAULT 'none'",
            PAUSE,
            "UPDATE soak SET n = n + 1, note = 'changed'",
            "ALTER TABLE soak ALTER COLUMN n TYPE bigint",
        ),
        sql("ALTER TABLE soak ALTER COLUMN n TYPE int", PAUSE, "UPDATE soak SET n = n - 1")
        + "\nop.drop_column('soak', 'note')",
    )
    checkout.add(
        'op.create_index_concurrently("soak_n", "soak", [sa.text("soak_slow(n)")])',
        sql(PAUSE, "DROP INDEX soak_n", PAUSE),
    )
    checkout.add(
        sql("ALTER TABLE soak ADD CONSTRAINT positive CHECK (n > 0) NOT VALID", PAUSE)
        + "\nop.validate_constraint('positive', 'soak')",
        sql(PAUSE, "ALTER TABLE soak DROP CONSTRAINT positive"),
    )
    return checkout


class Boundaries:
    """What the database looks like at each revision, and how long it takes to get from one end to the other.

    Attributes:
        lower: the revision at one end; None for base.
        upper: the revision at the other end.
        duration_s: how long a run takes to one of them.
    """

    def __init__(self, checkout: Checkout, database: Database, lower: str | None = None) -> None:
        self.checkout = checkout
        self.lower, self.upper = lower, checkout.head if lower is None else AFTER_COPY
        checkout.alembic(database, "current")  # the first one also starts the server that forks
        self.duration_s = {}
        for target in (self.upper, self.lower):
            begun = time.monotonic()
            done = checkout.alembic(database, *self.to(target))
            self.duration_s[target] = time.monotonic() - begun
            assert done.returncode == 0, done
        self._states = {self._key(database): self._state(database)}
        config = checkout.config(database.settings)
        for revision in checkout.ids:
            if (lower or "") < revision <= self.upper:
                command.upgrade(config, revision)
                self._states[self._key(database)] = self._state(database)
        for revision in reversed(COPYING):
            command.downgrade(config, revision)
            self._states[self._key(database)] = self._state(database)
        command.downgrade(config, lower or "base")

    def to(self, target: str | None) -> tuple[str, str]:
        return ("upgrade" if target == self.upper else "downgrade", target or "base")

    def other(self, target: str | None) -> str | None:
        return self.lower if target == self.upper else self.upper

    def holds(self, database: Database, *, ahead: bool, ahead_of_copy: bool) -> None:
        """The database is what its revision says, and the history says the same. `ahead`: but for such an index."""
        revision = revision_of(database)
        rows, dump = self._state(database)
        expected_rows, expected = self._states[self._key(database)]
        if ahead:
            for index in AHEAD:
                if index not in expected:
                    dump = dump.replace(index, "")
        if ahead_of_copy and not AHEAD_OF_COPY.search(expected):
            dump = AHEAD_OF_COPY.sub("", dump)
        assert (rows, dump.split()) == (expected_rows, expected.split()), f"this is not revision {revision}"
        if database.value("SELECT to_regclass('test.metrics')") is not None:
            database.query("SET timezone = 'UTC'")
            assert database.query(LOST_OR_TWICE) == [(0, 0)], "rows that are there and should not be, and the reverse"
        done = [] if revision is None else self.checkout.ids[: self.checkout.ids.index(revision) + 1]
        applied = database.query("""
            SELECT revision FROM mlops_internal.migration_history WHERE outcome = 'applied'
             GROUP BY revision HAVING sum(CASE direction WHEN 'upgrade' THEN 1 ELSE -1 END) = 1 ORDER BY revision
        """)
        assert applied == [(revision,) for revision in done]
        if not ahead and not ahead_of_copy:
            assert database.query("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []

    @staticmethod
    def _key(database: Database) -> tuple[str | None, object]:
        """The revision, and within a copy what the table is that is copied."""
        revision = revision_of(database)
        return revision, revision in COPYING and database.value(
            "SELECT relkind FROM pg_class WHERE oid = 'monitoring_metrics'::regclass"
        )

    @staticmethod
    def _state(database: Database) -> tuple[object, str]:
        rows = None
        if database.value("SELECT to_regclass('soak')") is not None:
            rows = database.query("SELECT count(*), sum(n)::text FROM soak")
        # Tables that runs themselves write to are in one database and not in another, whatever the revision.
        return rows, database.dump(
            "--exclude-table=alembic_version", "--exclude-table=mlops_internal.migration_history*",
            "--exclude-table=mlops_internal.batch_positions", "--exclude-table=mlops_internal.running_code",
            "--exclude-schema=test",
        )  # fmt: skip


def crash(
    boundaries: Boundaries,
    database: Callable[[], Database],
    end: Callable[[Running], None],
    *,
    rounds: int,
    seed: int,
) -> None:
    """Start a run to the other end, `end` it at a random moment, look, and let a next run complete."""
    checkout, chance = boundaries.checkout, random.Random(seed)  # noqa: S311  (moments, not secrets)
    ended_at = set()
    stays = False
    for _ in range(rounds):
        target = boundaries.other(revision_of(database()))
        run = checkout.start(database(), *boundaries.to(target))
        time.sleep(chance.uniform(0, boundaries.duration_s[target]))
        end(run)
        done = run.ended()
        if done.returncode > 0:
            assert_run_failed(done)
        wait_until(lambda: not runs_on(database()), "the end of what it left running on the server")
        boundaries.holds(database(), ahead=True, ahead_of_copy=True)
        ended_at.add(revision_of(database()))

        if chance.random() < 0.25:  # turn back
            # Revision 0019 does not know of the index that its downgrade began with.
            stays = stays or revision_of(database()) == AFTER_COPY
            target = boundaries.other(target)
        stays = stays and target == boundaries.upper
        done = checkout.alembic(database(), *boundaries.to(target))

        assert done.returncode == 0, done
        boundaries.holds(database(), ahead=False, ahead_of_copy=stays)
        assert revision_of(database()) == target
        if "nothing to do" not in done.stderr:
            assert "running" not in {outcome for _, outcome in history_of(database())}
    assert rounds < 20 or len(ended_at) > 3, f"always ended at {ended_at}: nothing was tested"


@contextmanager
def writing(database: Database) -> Iterator[None]:
    """Change rows of monitoring_metrics and of test.metrics meanwhile, also the values that decide about the month.

    The oldest rows stay, so that the months do. If the server is killed, it goes on when that is back.
    """
    ended, errors = Event(), []

    def write() -> None:
        chance = random.Random(4)  # noqa: S311  (rows, not secrets)
        connection = psycopg.connect("", autocommit=True, **where)
        while not ended.wait(0.002):
            try:
                if connection.closed:
                    connection = psycopg.connect("", autocommit=True, **where)
                row = {"id": chance.randrange(1, 15000), "days": chance.randrange(100)}
                connection.execute(chance.choice((INSERT_ONE, UPDATE_ONE, DELETE_ONE)), row)
            except psycopg.Error as error:  # noqa: PERF203  (each statement has its own)
                if not connection.closed:
                    errors.append(error)
        connection.close()

    info = database.connection.info
    where = {
        "host": info.host, "port": info.port, "user": info.user, "password": info.password, "dbname": info.dbname,
        "options": "-c timezone=UTC",
    }  # fmt: skip
    thread = Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert errors == []


def runs_on(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'mlops-db %'"
    )


@pytest.mark.parametrize("rounds", soak(4, SOAK_RUNS))
def test_after_sigkill_the_database_is_at_a_revision_and_the_next_run_completes(
    empty: Database, checkout: Checkout, rounds: int
) -> None:
    crash(Boundaries(checkout, empty), lambda: empty, lambda run: run.process.kill(), rounds=rounds, seed=9)


@pytest.mark.parametrize("rounds", soak(2, SOAK_RUNS // 5))
def test_after_pg_terminate_backend_the_database_is_at_a_revision_and_the_next_run_completes(
    empty: Database, checkout: Checkout, rounds: int
) -> None:
    crash(Boundaries(checkout, empty), lambda: empty, lambda _: terminate(empty), rounds=rounds, seed=15)


def terminate(database: Database) -> None:
    database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'mlops-db %'"
    )


@pytest.mark.parametrize("rounds", soak(2, SOAK_RUNS))
def test_after_sigkill_a_table_that_is_copied_has_every_row_once(empty: Database, tmp_path: Path, rounds: int) -> None:
    boundaries = boundaries_of_copy(empty, tmp_path)
    with writing(empty):
        crash(boundaries, lambda: empty, lambda run: run.process.kill(), rounds=rounds, seed=3)


@pytest.mark.parametrize("rounds", soak(2, SOAK_RUNS // 5))
def test_after_pg_terminate_backend_a_table_that_is_copied_has_every_row_once(
    empty: Database, tmp_path: Path, rounds: int
) -> None:
    boundaries = boundaries_of_copy(empty, tmp_path)
    with writing(empty):
        crash(boundaries, lambda: empty, lambda _: terminate(empty), rounds=rounds, seed=5)


def boundaries_of_copy(database: Database, folder: Path) -> Boundaries:
    """The two ends of the copy of monitoring_metrics, with rows, which test.metrics has, too."""
    checkout = Checkout(folder)
    command.upgrade(checkout.config(database.settings), BEFORE_COPY)
    database.query("SET timezone = 'UTC'")
    database.query(METRICS)
    return Boundaries(checkout, database, BEFORE_COPY)


def test_a_run_right_after_sigkill_does_not_wait_for_the_statement_that_goes_on(
    empty: Database, checkout: Checkout
) -> None:
    if empty.connection.info.server_version < CHECKS_ITS_CLIENT_SINCE:
        pytest.skip("before PostgreSQL 14 the server does not look for its client during a statement")
    empty.query("CREATE SCHEMA test; CREATE TABLE test.first (id int); INSERT INTO test.first VALUES (1)")
    checkout.add(sql("SELECT pg_sleep(25) FROM test.first"))
    run = checkout.start(empty, "upgrade", "head")
    run.backend(empty, "SELECT pg_sleep(25)%")
    run.process.kill()
    empty.query("DELETE FROM test.first")  # so that the next run does not sleep

    done = checkout.alembic(empty, "-x", "lock-wait=15s", "upgrade", "head")

    assert done.returncode == 0, done
    assert history_of(empty, checkout.head) == [(checkout.head, "interrupted"), (checkout.head, "applied")]


class Server:
    """A server that is a child of this process, so that it can be killed and reaped."""

    def __init__(self) -> None:
        programs = embedded_programs()
        self._folder = new_cluster(programs)
        data = self._folder / "data"
        user = {"user": data.owner(), "group": data.group(), "extra_groups": ()} if os.geteuid() == 0 else {}
        self._command = partial(
            subprocess.Popen,
            [programs / "postgres", "-D", data, "-h", "", "-k", data],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        self._settings = Settings(host=str(data), user="postgres", password=None, database="postgres")
        self._start()

    def _start(self) -> None:
        self._process = self._command()
        wait_until(self._answers, "the server to start")

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            # Backends of the killed one still end, and the new one does not start beside them.
            self._process = self._command()
        try:
            connection = psycopg.connect(host=self._settings.host, user="postgres", dbname="postgres")
        except psycopg.OperationalError:
            time.sleep(0.05)
            return False
        self.database = Database.of(connection)
        return True

    def crash(self) -> None:
        self._process.kill()
        self._process.wait()
        self.database.connection.close()
        self._start()

    def stop(self) -> None:
        self.database.connection.close()
        self._process.send_signal(signal.SIGINT)  # fast shutdown
        self._process.wait()
        shutil.rmtree(self._folder)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.mark.parametrize("rounds", soak(2, SOAK_RUNS // 5))
def test_after_a_crash_of_the_server_the_database_is_at_a_revision_and_the_next_run_completes(
    server: Server, checkout: Checkout, rounds: int
) -> None:
    boundaries = Boundaries(checkout, server.database)
    crash(boundaries, lambda: server.database, lambda _: server.crash(), rounds=rounds, seed=19)


@pytest.mark.parametrize("rounds", soak(1, SOAK_RUNS // 5))
def test_after_a_crash_of_the_server_a_table_that_is_copied_has_every_row_once(
    server: Server, tmp_path: Path, rounds: int
) -> None:
    boundaries = boundaries_of_copy(server.database, tmp_path)
    with writing(server.database):
        crash(boundaries, lambda: server.database, lambda _: server.crash(), rounds=rounds, seed=7)
