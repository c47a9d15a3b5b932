"""A disk that fills while monitoring_metrics is copied: who goes on, how the run resumes, how to give up."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from mlops_db.migration import commands
from support.cluster import chosen_programs, connect_superuser, settings_of, start, throwaway_cluster
from support.database import Database, revision_of
from support.metric_writers import Row, rows_of
from support.process import assert_run_failed
from support.sessions import another_session, wait_until
from support.small_disk import SmallDisk, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

MB = 1024**2
RESERVE = 64 * 8192  # of a run, for a table as small as this one
ROWS = 40_000
METRICS = f"""
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata)
SELECT timestamp '2026-05-31 00:00' - n * interval '1 minute', 'drift', 'n' || n % 20, n,
       CASE WHEN n % 10 = 0 THEN '{{"window": 1000}}'::jsonb END
  FROM generate_series(1, {ROWS}) AS n
"""
RESUME = "then run the same command: it resumes where it stopped."
GIVE_UP = "To give up: alembic downgrade 0015 drops the copy; going down, alembic upgrade 0019."
COPY = "mlops_internal.monitoring_metrics_copy"


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Path, SmallDisk]]:
    """A server, and a small disk with a tablespace; the database `filled` has rows at 0004."""
    with (
        small_disk(128 * MB) as disk,
        throwaway_cluster(chosen_programs(request.config), autovacuum="off") as folder,  # it would take space, too
    ):
        with connect_superuser(folder) as session:
            session.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
            session.execute("CREATE DATABASE filled TABLESPACE small")
        commands.upgrade(settings_of(folder, "filled"), "0004")
        with connect_superuser(folder, "filled") as session:
            session.execute(METRICS)
            session.execute("VACUUM ANALYZE monitoring_metrics")
        yield folder, disk


@pytest.fixture
def disk(server: tuple[Path, SmallDisk]) -> Iterator[SmallDisk]:
    yield server[1]
    server[1].make_room()


@pytest.fixture
def filled(server: tuple[Path, SmallDisk], disk: SmallDisk) -> Iterator[Database]:
    """A database on the small disk, at 0004, with rows."""
    folder, _ = server
    with connect_superuser(folder) as session:
        session.execute("CREATE DATABASE mlops TEMPLATE filled TABLESPACE small")
        with connect_superuser(folder, "mlops") as own:
            yield Database.of(own)
        disk.make_room()
        session.execute("DROP DATABASE mlops")


def run(database: Database, *arguments: str, **variables: str) -> str:
    """Run alembic to its end; returns what it said."""
    done = database.run("alembic", *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def fail(database: Database, *arguments: str, says: tuple[str, ...], **variables: str) -> None:
    """Run alembic, which finds no space."""
    assert_run_failed(database.run("alembic", *arguments, **variables), "the server's disk is full, ", *says, RESUME)


def go_on(database: Database) -> dict[int, Row]:
    """Read and write as jobs do; returns the rows."""
    with another_session(database, "jobs") as session:
        session.execute("""
            INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value)
            SELECT 'drift', 'new', n FROM generate_series(1, 200) AS n
        """)
        session.execute("UPDATE monitoring_metrics SET metric_value = -1 WHERE id BETWEEN 100 AND 200")
        session.execute("DELETE FROM monitoring_metrics WHERE id BETWEEN 150 AND 250 OR id BETWEEN 39900 AND 39950")
    rows = rows_of(database)
    assert len(rows) == ROWS + 200 - 101 - 51
    return rows


def objects(database: Database) -> str:
    return database.dump("--exclude-table=mlops_internal.batch_positions")


# (revision where the way begins, its command, how to give up, where it stops, the step that fails)
WAYS = {
    "up": ("0015", ("upgrade", "0019"), ("downgrade", "0015"), "0016", "0017 (upgrade)"),
    "down": ("0019", ("downgrade", "0015"), ("upgrade", "0019"), "0018", "0018 (downgrade)"),
}


def begin(database: Database, revision: str) -> str:
    """Go up to a revision; returns the objects of the database."""
    commands.upgrade(database.settings, revision)
    filled = objects(database)
    database.query("CHECKPOINT")  # which removes the files of tables that were dropped
    return filled


@pytest.fixture
def empty(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database whose rows autovacuum does not count meanwhile."""
    with (
        throwaway_cluster(chosen_programs(request.config), autovacuum="off") as folder,
        connect_superuser(folder) as session,
    ):
        yield Database.of(session)


@pytest.mark.parametrize("way", WAYS)
def test_the_plan_knows_what_the_copy_and_its_key_need(empty: Database, way: str) -> None:
    began_at, command, *_ = WAYS[way]
    commands.upgrade(empty.settings, "0004")
    empty.query(METRICS)
    commands.upgrade(empty.settings, began_at)
    live = "SELECT sum(n_live_tup) FROM pg_stat_user_tables WHERE relname LIKE 'monitoring_metrics%'"
    wait_until(lambda: empty.value(live) == ROWS, "the statistics")  # or they would come after VACUUM
    empty.query("VACUUM ANALYZE monitoring_metrics")
    size = "SELECT pg_database_size(current_database())"
    before = empty.value(size)

    planned = re.findall(r"disk: about (\d+) MB: ", empty.run("alembic", "-x", "plan=true", *command).stdout)
    run(empty, command[0], "0018" if way == "up" else "0016")

    assert len(planned) == 2, planned
    assert sum(map(int, planned)) * MB == pytest.approx(empty.value(size) - before, rel=0.3, abs=MB)


@pytest.mark.parametrize("way_out", ["resume", "give up"])
@pytest.mark.parametrize("way", WAYS)
def test_a_batch_finds_no_space(filled: Database, disk: SmallDisk, way: str, way_out: str) -> None:
    began_at, command, cancel, stopped_at, failed = WAYS[way]
    before = begin(filled, began_at)
    disk.fill(4 * MB)

    fail(filled, *command, says=(failed, "the batches that are done stay", GIVE_UP))

    assert revision_of(filled) == stopped_at
    position, last = filled.query("SELECT position, last FROM mlops_internal.batch_positions")[0]
    assert 0 < position < last
    assert RESERVE - 8192 <= disk.free < 2 * RESERVE
    expected = go_on(filled)
    if way_out == "resume":
        fail(filled, *command, says=(failed, "the batches that are done stay", GIVE_UP))
        assert filled.query("SELECT position FROM mlops_internal.batch_positions")[0][0] >= position
        disk.make_room()
        assert "goes on after id " in run(filled, *command)
        assert revision_of(filled) == command[1]
    else:
        run(filled, *cancel)
        assert revision_of(filled) == began_at
        assert objects(filled) == before
        assert disk.free > 2 * MB
    assert filled.value(f"SELECT to_regclass('{COPY}')") is None
    assert rows_of(filled) == expected


def test_jobs_fill_what_is_left(filled: Database, disk: SmallDisk) -> None:
    """Then only readers go on, until there is room for the way out: less than the reserve is enough."""
    before = begin(filled, "0015")
    disk.fill(4 * MB)
    fail(filled, "upgrade", "0019", says=("0017 (upgrade)",))
    expected = go_on(filled)
    disk.fill(0)

    with another_session(filled, "jobs") as session, pytest.raises(psycopg.errors.DiskFull):
        session.execute(METRICS)
    assert rows_of(filled) == expected
    disk.fill(RESERVE // 2)
    run(filled, "downgrade", "0015")

    assert objects(filled) == before
    assert rows_of(filled) == expected
    filled.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'after')")


@pytest.mark.parametrize(
    ("memory", "file", "way_out"), [("1MB", "/pgsql_tmp/", "give up"), ("64MB", "could not extend file", "resume")]
)
def test_the_key_finds_no_space(filled: Database, disk: SmallDisk, memory: str, file: str, way_out: str) -> None:
    """Where the key is sorted on disk, the temporary files of that come first."""
    before = begin(filled, "0015")
    begin(filled, "0017")
    disk.fill(MB)

    fail(
        filled, "upgrade", "head", PGOPTIONS=f"-c maintenance_work_mem={memory}",
        says=("0018 (upgrade)", file, "nothing of it was applied", GIVE_UP),
    )  # fmt: skip

    assert revision_of(filled) == "0017"
    assert disk.free > 0.8 * MB  # all files of the key are gone
    expected = go_on(filled)
    if way_out == "resume":
        disk.make_room()
        run(filled, "upgrade", "head")
    else:
        run(filled, "downgrade", "0015")
        assert objects(filled) == before
    assert rows_of(filled) == expected


def test_there_is_no_space_for_wal(request: pytest.FixtureRequest) -> None:
    """Then the server crashes. It runs again when there is room, and so does the command."""
    programs = chosen_programs(request.config)
    with (
        small_disk(64 * MB) as disk,
        throwaway_cluster(
            programs, f"--waldir={disk.folder / 'wal'}", "--wal-segsize=1", min_wal_size="2MB", wal_recycle="off"
        ) as folder,
    ):
        commands.upgrade(settings_of(folder), "0004")
        with connect_superuser(folder) as session:
            session.execute(METRICS)
        commands.upgrade(settings_of(folder), "0016")
        with connect_superuser(folder) as session:
            before = Database.of(session)
            expected = rows_of(before)
            disk.fill(0)
            failed = before.run("alembic", "upgrade", "head")
        disk.make_room()
        assert_run_failed(failed, " broke: could not write to file ", "No space left on device", "run the same command")

        # That it takes connections says little: it may not have noticed the crash yet.
        log, pid_file = folder / "log", folder / "data" / "postmaster.pid"
        wait_until(lambda: log.read_bytes().count(b"ready to accept") > 1 or not pid_file.exists(), "recovery")
        if not pid_file.exists():
            start(programs, folder)
        with connect_superuser(folder) as session:
            database = Database.of(session)
            assert revision_of(database) == "0016"
            run(database, "upgrade", "head")
            assert rows_of(database) == expected
