"""A copy is what it was: `mlops-db check` after dump and restore, pg_upgrade and logical replication."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mlops_db.drift.catalogue import Catalogue, read_catalogue
from mlops_db.drift.compare import read_drift
from mlops_db.drift.owners import read_owners
from mlops_db.drift.repair import repair_statements
from mlops_db.migration.commands import upgrade
from mlops_db.revisions.graph import revisions
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support import roles
from support.cluster import embedded_programs, new_cluster, settings_of, start, stop, throwaway_cluster, upgrade_cluster
from support.database import LONG_TIMEOUT_S, Database, clean_environment, client, run_command
from support.handmade import SPECIFICATION
from support.sessions import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

DEBIAN = Path("/usr/lib/postgresql")  # 15/bin/postgres
OWNER = "mlops_test_owner"
# What only a later server knows, in a dump of pg_dump 17 and later.
NOT_FOR_OLDER = "SET transaction_timeout = 0;\n"
ROWS = """
INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('run', '1', 'production');
INSERT INTO retraining_decisions (action, candidate_mlflow_run_id) VALUES ('promote', 'run');
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
SELECT now() - n * interval '20 days', 'drift', 'psi', n FROM generate_series(0, 5) AS n;
"""
# What our revisions do not have, though PostgreSQL reads it back in another way once it was restored.
UNSTABLE = """
ALTER TABLE model_versions
    ADD CONSTRAINT stages CHECK (status IN ('staging', 'production', 'archived', 'it''s, "odd"')),
    ADD CONSTRAINT hours CHECK (extract(hour FROM created_at AT TIME ZONE 'UTC') < 24);
CREATE VIEW chosen AS SELECT id FROM model_versions WHERE status IN ('staging', 'production');
CREATE INDEX odd ON model_versions (id) WHERE model_version IN ('1', '2');
"""


def run_client(
    program: str, settings: Settings, *options: str, stdin: str | None = None, folder: Path | None = None
) -> str:
    """Run a client program on a database to its end; it must not complain."""
    done = run_command(
        str(folder / program) if folder else client(program), *options,
        "-h", settings.host, "-p", str(settings.port), "-U", settings.user, "-d", settings.database,
        environment=clean_environment(PGPASSWORD=settings.password or ""), stdin=stdin,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def psql(settings: Settings, script: str) -> None:
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        version = int((cursor.fetchone() or ("",))[0])
    script = script if version >= 170000 else script.replace(NOT_FOR_OLDER, "")
    run_client("psql", settings, "-X", "-q", "-1", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", stdin=script)


@contextmanager
def another(database: Database, *, owner: str | None = None, name: str = "mlops_test_copy") -> Iterator[Settings]:
    """An empty database beside that one, for the time of the block."""
    database.query(f"CREATE DATABASE {name} TEMPLATE template0" + (f" OWNER {owner}" if owner else ""))
    try:
        yield replace(database.settings, database=name)
    finally:
        database.query(f"DROP DATABASE {name} WITH (FORCE)")


def of(settings: Settings) -> Database:
    return Database(psycopg.Connection.__new__(psycopg.Connection), settings)


def checked(settings: Settings) -> tuple[list[str], str]:
    """The differences that `mlops-db check` tells, and the statements that repair them."""
    done = of(settings).run("mlops-db", "check", "--sql")
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("theirs: ")]
    *differences, summary = [line for line in lines if not line.startswith("note: ")]
    assert f"/{settings.database} at revision " in summary, done.stderr
    assert done.returncode == (1 if differences else 0)
    return differences, done.stdout


def catalogue(settings: Settings) -> Catalogue:
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        return read_catalogue(cursor)


@pytest.fixture
def owned(empty: Database) -> Iterator[Database]:
    """A database with rows at head; its owner is no superuser."""
    with roles.owner(empty, OWNER) as database:
        upgrade(database.settings)
        run_client("psql", database.settings, "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=ROWS)
        yield database


def by_plain(source: Settings, target: Settings, _: Path) -> None:
    psql(target, run_client("pg_dump", source))


def by_custom(source: Settings, target: Settings, folder: Path) -> None:
    run_client("pg_dump", source, "-Fc", "-f", str(folder / "dump"))
    restore(target, folder / "dump", "-j2")


def by_directory(source: Settings, target: Settings, folder: Path) -> None:
    run_client("pg_dump", source, "-Fd", "-j2", "-f", str(folder / "dump"))
    restore(target, folder / "dump")


def by_sections(source: Settings, target: Settings, folder: Path) -> None:
    run_client("pg_dump", source, "-Fc", "-f", str(folder / "dump"))
    for section in ("pre-data", "data", "post-data"):
        restore(target, folder / "dump", f"--section={section}")


def by_clean(source: Settings, target: Settings, _: Path) -> None:
    """Onto a database that is there already. PostgreSQL refuses to drop the key of a single partition; psql goes on."""
    upgrade(target)
    of(target).psql(run_client("pg_dump", source, "--clean", "--if-exists"), stops=False)


def by_data_only(source: Settings, target: Settings, _: Path) -> None:
    upgrade(target)
    script = run_client(
        "pg_dump", source, "--data-only", "--load-via-partition-root",
        "--exclude-table=alembic_version", "--exclude-table=mlops_internal.migration_history",
        "--exclude-table=mlops_internal.running_code",
    )  # fmt: skip
    psql(target, script)


def by_schema_only(source: Settings, target: Settings, _: Path) -> None:
    psql(target, run_client("pg_dump", source, "--schema-only"))
    done = of(target).run("alembic", "stamp", "head")
    assert done.returncode == 0, done.stderr


def restore(target: Settings, dump: Path, *options: str) -> None:
    """As pg_restore does, with psql in between where the server is older than the programs."""
    with closing(connect(target)) as connection:
        newer = connection.server_version >= 170000
    if newer:
        run_client("pg_restore", target, "--exit-on-error", *options, str(dump))
    else:
        script = run_command(
            client("pg_restore"),
            "-f",
            "-",
            *(one for one in options if one != "-j2"),
            str(dump),
            environment=clean_environment(),
        )
        psql(target, script.stdout)


@pytest.mark.parametrize(
    "copy", [by_plain, by_custom, by_directory, by_sections, by_clean, by_data_only, by_schema_only],
    ids=lambda copy: copy.__name__,
)  # fmt: skip
def test_a_restored_database_is_clean_for_every_restoring_role(
    owned: Database, tmp_path: Path, copy: Callable[[Settings, Settings, Path], None]
) -> None:
    superuser = owned.connection.info.user
    for user in (OWNER, superuser):
        with another(owned, owner=OWNER) as target:
            where = tmp_path / user
            where.mkdir()
            made_by = owned.settings if user == OWNER else replace(owned.settings, user=user, password=None)
            made_in = target if user == OWNER else replace(target, user=user, password=None)
            if copy in (by_clean, by_data_only, by_schema_only):  # what Alembic makes belongs to whoever runs it
                made_in = target
            copy(made_by, made_in, where)
            assert checked(target) == ([], "")
            by_superuser = read_drift(replace(target, user=superuser, password=None))
            assert (by_superuser.differences, repair_statements(by_superuser)) == ([], [])


@pytest.mark.parametrize("lost", [("--no-owner",), ("--no-acl",), ("--no-owner", "--no-acl")], ids="".join)
def test_what_a_restored_database_lost_is_named_and_repaired(
    owned: Database, lost: tuple[str, ...], tmp_path: Path
) -> None:
    superuser = replace(owned.settings, user=owned.connection.info.user, password=None)
    run_client("pg_dump", owned.settings, "-Fc", "-f", str(tmp_path / "dump"))
    with closing(connect(owned.settings)) as connection, connection.cursor() as cursor:
        everything = read_catalogue(cursor)
        things = list(read_owners(cursor, None).found)
    functions = [name for name in everything if name.kind == "function"]
    assert functions
    assert [name for name in things if name.name.startswith("mlops_internal.monitoring_metrics_20")]
    with another(owned, owner=OWNER) as target:
        as_superuser = replace(superuser, database=target.database)
        restore(as_superuser, tmp_path / "dump", *lost)

        output, script = checked(as_superuser)

        expected = []
        if "--no-acl" in lost:
            expected += [f"{name}: grants: expected nothing, found EXECUTE TO PUBLIC" for name in functions]
        if "--no-owner" in lost:
            expected += [f"{name}: owner: expected {OWNER}, found {superuser.user}" for name in things]
        assert sorted(output) == sorted(expected)
        psql(as_superuser, script)
        assert read_drift(as_superuser).differences == []
        assert checked(target) == ([], "")
        # It can be worked with again, as the owner.
        for command in (["alembic", "downgrade", "-1"], ["alembic", "upgrade", "head"], ["mlops-db", "maintain"]):
            done = of(target).run(*command)
            assert done.returncode == 0, done.stderr


def test_each_revision_reads_back_the_same_once_it_was_restored(empty: Database) -> None:
    for revision in revisions():
        upgrade(empty.settings, revision.id)
        with another(empty) as target:
            psql(target, run_client("pg_dump", empty.settings, "--schema-only"))
            assert (revision.id, catalogue(target)) == (revision.id, catalogue(empty.settings))


def test_objects_of_a_colleague_s_revision_read_the_same_after_restore(head: Database) -> None:
    head.query(UNSTABLE)
    with another(head) as target:
        psql(target, run_client("pg_dump", head.settings, "--schema-only"))
        assert catalogue(target) == catalogue(head.settings)


def test_a_restored_database_that_was_made_by_hand_can_be_adopted(empty: Database) -> None:
    empty.query(SPECIFICATION)
    with another(empty) as target:
        psql(target, run_client("pg_dump", empty.settings))
        done = of(target).run("mlops-db", "adopt", "--dry-run")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the tables are the specification's" in done.stdout


@pytest.fixture
def older(request: pytest.FixtureRequest) -> Path:
    """The programs of a server that is older than the embedded one: those of the test server, or Debian's."""
    given = request.config.getoption("postgresql_exec")
    folders = [Path(given).parent] if given else sorted(DEBIAN.glob("*/bin"))
    for folder in folders:
        if major(folder) < major(embedded_programs()):
            return folder
    pytest.skip("no server here is older than the embedded one")


def major(programs: Path) -> int:
    output = subprocess.run(
        [programs / "postgres", "--version"], capture_output=True, encoding="utf-8", check=True
    ).stdout
    return int(output.split()[2].partition(".")[0])


def forget_column_versions(settings: Settings) -> None:
    """Remove the options that 15.20 sets on each column, because no server of another version accepts them."""
    run_client(
        "psql", settings, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", "SET allow_system_table_mods = on",
        "-c", "UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) AS o"
              " WHERE o NOT LIKE 'pg_attver=%'), '{}') WHERE attoptions::text LIKE '%pg_attver=%'",
    )  # fmt: skip


def test_a_dump_of_an_older_server_is_clean_on_a_newer_one(older: Path) -> None:
    with throwaway_cluster(older) as old, throwaway_cluster(embedded_programs()) as new:
        for database, prepare in (("mlops", upgrade), ("mlops_4", lambda settings: upgrade(settings, "0004"))):
            source, target = settings_of(old, database), settings_of(new, database)
            for settings in (source, target):
                run_client("psql", replace(settings, database="postgres"), "-q", "-c", f"CREATE DATABASE {database}")
            prepare(source)
            forget_column_versions(source)
            psql(target, run_client("pg_dump", source))
            assert checked(target) == ([], "")


def test_a_server_that_was_upgraded_is_clean(older: Path) -> None:
    if missing := [name for name in ("pg_controldata", "pg_resetwal", "pg_ctl") if not (older / name).exists()]:
        pytest.skip(f"pg_upgrade needs {', '.join(missing)} of the older server")
    programs = embedded_programs()
    if not (programs / "pg_upgrade").exists():
        pytest.skip("the embedded server has no pg_upgrade")
    folders = [new_cluster(older)]
    try:
        start(older, folders[0])
        for database, revision in (("mlops", "head"), ("mlops_4", "0004")):
            run_client("psql", settings_of(folders[0]), "-q", "-c", f"CREATE DATABASE {database}")
            upgrade(settings_of(folders[0], database), revision)
            forget_column_versions(settings_of(folders[0], database))
        run_client("psql", settings_of(folders[0], "mlops"), "-X", "-q", stdin=ROWS)
        stop(older, folders[0], "fast")
        folders.append(upgrade_cluster(older, programs, folders[0]))
        start(programs, folders[1])
        try:
            for database in ("mlops", "mlops_4"):
                assert checked(settings_of(folders[1], database)) == ([], "")
        finally:
            stop(programs, folders[1])
    finally:
        for folder in folders:
            shutil.rmtree(folder)


@pytest.mark.parametrize("via_root", [True, False])
def test_a_subscriber_of_the_tables_is_clean(older: Path, *, via_root: bool) -> None:
    with throwaway_cluster(older, wal_level="logical") as there, throwaway_cluster(embedded_programs()) as here:
        publisher, subscriber = settings_of(there, "mlops"), settings_of(here, "mlops")
        for settings in (publisher, subscriber):
            run_client("psql", replace(settings, database="postgres"), "-q", "-c", "CREATE DATABASE mlops")
            upgrade(settings)
        run_client("psql", publisher, "-X", "-q", "-v", "ON_ERROR_STOP=1", stdin=ROWS)
        with roles.session(publisher) as writing, roles.session(subscriber) as reading:
            writing.execute(
                "CREATE PUBLICATION tables FOR TABLE model_versions, retraining_decisions, monitoring_metrics"
                f" WITH (publish_via_partition_root = {via_root})"
            )
            reading.execute(
                f"CREATE SUBSCRIPTION tables CONNECTION 'host={there} user=postgres dbname=mlops' PUBLICATION tables"
            )
            try:
                ask = "SELECT id, metric_value FROM monitoring_metrics ORDER BY id"

                def same() -> bool:
                    return reading.execute(ask).fetchall() == writing.execute(ask).fetchall()

                wait_until(same, "the rows of all tables to arrive", LONG_TIMEOUT_S)
                writing.execute("UPDATE monitoring_metrics SET metric_value = 9 WHERE metric_value = 1")
                writing.execute("DELETE FROM monitoring_metrics WHERE metric_value = 2")
                writing.execute("UPDATE model_versions SET status = 'archived'")
                wait_until(same, "the changes to arrive")
                changed = "SELECT status FROM model_versions"
                wait_until(lambda: reading.execute(changed).fetchall() == [("archived",)], "the version to arrive")

                assert checked(publisher) == ([], "")
                assert checked(subscriber) == ([], "")
                # Before it takes over: docs/operating.md.
                assert reading.execute("SELECT is_called FROM model_versions_id_seq").fetchall() == [(False,)]
            finally:
                reading.execute("DROP SUBSCRIPTION tables")
