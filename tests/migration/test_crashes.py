"""Runs that are ended at random moments: the database stands at a revision boundary, and the next run completes.

The moments are drawn from the time that a whole run takes, with fixed seeds. MLOPS_DB_SOAK_RUNS (default 100) is the
number of SIGKILLs under the mark `soak`; of the two other kinds there are a fifth of it.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

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
# What a run killed between CREATE INDEX CONCURRENTLY and the end of its revision leaves ahead of that revision: 0012,
# 0013, 0017, and one of the revisions below.
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
    (
        "CREATE UNIQUE INDEX monitoring_metrics_legacy_pkey ON mlops_internal.monitoring_metrics_legacy USING btree"
        ' (model_name, metric_type, metric_name, "timestamp", id) INCLUDE (metric_value);'
    ),
    "CREATE INDEX soak_n ON public.soak USING btree (public.soak_slow(n));",
)
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
    """What the database looks like at each revision, and how long it takes to get from one end to the other."""

    def __init__(self, checkout: Checkout, database: Database) -> None:
        self.checkout = checkout
        checkout.alembic(database, "current")  # the first one also starts the server that forks
        self.duration_s = {}
        for direction, target in (("upgrade", "head"), ("downgrade", "base")):
            begun = time.monotonic()
            done = checkout.alembic(database, direction, target)
            self.duration_s[target] = time.monotonic() - begun
            assert done.returncode == 0, done
        self._states = {None: self._state(database)}
        for revision in checkout.ids:
            command.upgrade(checkout.config(database.settings), revision)
            self._states[revision] = self._state(database)

    def holds(self, database: Database, *, ahead: bool) -> None:
        """The database is what its revision says, and the history says the same. `ahead`: but for such an index."""
        revision = revision_of(database)
        rows, dump = self._state(database)
        expected_rows, expected = self._states[revision]
        if ahead:
            for index in AHEAD:
                if index not in expected:
                    dump = dump.replace(index, "")
        assert (rows, dump.split()) == (expected_rows, expected.split()), f"this is not revision {revision}"
        done = [] if revision is None else self.checkout.ids[: self.checkout.ids.index(revision) + 1]
        applied = database.query("""
            SELECT revision FROM mlops_internal.migration_history WHERE outcome = 'applied'
             GROUP BY revision HAVING sum(CASE direction WHEN 'upgrade' THEN 1 ELSE -1 END) = 1 ORDER BY revision
        """)
        assert applied == [(revision,) for revision in done]
        if not ahead:
            assert database.query("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid") == []

    @staticmethod
    def _state(database: Database) -> tuple[object, str]:
        rows = None
        if database.value("SELECT to_regclass('soak')") is not None:
            rows = database.query("SELECT count(*), sum(n)::text FROM soak")
        # Tables that runs themselves write to are in one database and not in another, whatever the revision.
        return rows, database.dump(
            "--exclude-table=alembic_version",
            "--exclude-table=mlops_internal.migration_history*",
            "--exclude-table=mlops_internal.running_code",
        )


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
    for _ in range(rounds):
        target = "head" if revision_of(database()) is None else "base"
        run = checkout.start(database(), *to(target))
        time.sleep(chance.uniform(0, boundaries.duration_s[target]))
        end(run)
        done = run.ended()
        if done.returncode > 0:
            assert_run_failed(done)
        wait_until(lambda: not runs_on(database()), "the end of what it left running on the server")
        boundaries.holds(database(), ahead=True)
        ended_at.add(revision_of(database()))

        if chance.random() < 0.25:  # turn back
            target = "base" if target == "head" else "head"
        done = checkout.alembic(database(), *to(target))

        assert done.returncode == 0, done
        boundaries.holds(database(), ahead=False)
        assert revision_of(database()) == (checkout.head if target == "head" else None)
        if "nothing to do" not in done.stderr:
            assert "running" not in {outcome for _, outcome in history_of(database())}
    assert rounds < 20 or len(ended_at) > 4, f"always ended at {ended_at}: nothing was tested"


def to(target: str) -> tuple[str, str]:
    return ("downgrade" if target == "base" else "upgrade", target)


def runs_on(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'mlops-db %'"
    )


@pytest.mark.parametrize("rounds", soak(6, SOAK_RUNS))
def test_after_sigkill_the_database_is_at_a_revision_and_the_next_run_completes(
    empty: Database, checkout: Checkout, rounds: int
) -> None:
    crash(Boundaries(checkout, empty), lambda: empty, lambda run: run.process.kill(), rounds=rounds, seed=9)


@pytest.mark.parametrize("rounds", soak(3, SOAK_RUNS // 5))
def test_after_pg_terminate_backend_the_database_is_at_a_revision_and_the_next_run_completes(
    empty: Database, checkout: Checkout, rounds: int
) -> None:
    def terminate(_: Running) -> None:
        empty.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'mlops-db %'"
        )

    crash(Boundaries(checkout, empty), lambda: empty, terminate, rounds=rounds, seed=15)


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
