"""`-x backup=FOLDER`: what a downgrade loses is in a file first, whatever interferes."""

import datetime as dt
import json
import logging
import re
import shutil
import signal
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql as names
from psycopg2.extensions import get_wait_callback, set_wait_callback
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import MissingExtraError, RefusedError
from mlops_db.migration import commands
from mlops_db.migration.backup import Backup
from mlops_db.migration.options import Options
from mlops_db.migration.session import migration_connection
from mlops_db.server import client_programs
from mlops_db.server.client_programs import find_pg_dump
from support.cluster import embedded_programs, new_cluster, settings_of, start, stop
from support.database import SCRIPTS, Database, client, history_of, revision_of, run_command
from support.dump_programs import WAITS, DumpPrograms, dump_programs, rows_of
from support.process import SECRET, assert_failed, assert_run_failed, lives
from support.projects import Checkout, sql
from support.roles import owner, run_as
from support.sessions import another_session, wait_until
from support.stopped import contents

pytestmark = pytest.mark.full_postgresql

TWO_MODELS = "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run-1', '1'), ('run-2', '2')"
LOST_IN_A_FUNCTION = "DO $$ BEGIN EXECUTE 'DROP ' || 'TABLE kept'; END $$"
KEPT = "CREATE TABLE kept (id int PRIMARY KEY, note text)"
THREE = "INSERT INTO kept SELECT n, 'note ' || n FROM generate_series(1, 3) AS n"
NOTES = ["1\tnote 1", "2\tnote 2", "3\tnote 3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the backups go."""
    made = tmp_path / "backups"
    made.mkdir()
    return made


@pytest.fixture
def baseline(empty: Database) -> Database:
    commands.upgrade(empty.settings, "0004")
    empty.query(TWO_MODELS)
    return empty


def downgrade(database: Database, folder: Path, *arguments: str, to: str = "base", **variables: str) -> Any:
    return database.run("alembic", *arguments, "-x", f"backup={folder}", "downgrade", to, **variables)


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


class Project:
    """A database at a revision whose downgrade loses rows."""

    def __init__(self, database: Database, folder: Path, upgrade: str, downgrade: str, *rows: str) -> None:
        self.database = database
        self.checkout = Checkout(folder)
        self.revision = self.checkout.add(upgrade, downgrade)
        command.upgrade(self.checkout.config(database.settings), "head")
        for statement in rows:
            database.query(statement)

    def downgrade(self, folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return downgrade(self.database, folder, "-c", str(self.checkout.ini), *arguments, to="-1", **variables)


# In the default suite: one way through, and what is refused


def test_production_writes_what_goes_and_then_lets_it_go(baseline: Database, folder: Path) -> None:
    done = downgrade(baseline, folder, MLOPS_ENV="production")

    assert done.returncode == 0, done.stdout + done.stderr
    file = only_file(folder)
    assert re.fullmatch(rf"{baseline.settings.database}-0001-\d{{8}}T\d{{6}}Z\.dump", file.name)
    assert file.stat().st_mode & 0o777 == 0o600
    (table,) = rows_of(file).items()
    assert table[0] == "public.model_versions"
    assert [row.split("\t")[1] for row in table[1]] == ["run-1", "run-2"]
    assert baseline.value("SELECT to_regclass('model_versions')") is None
    assert f"backup of model_versions: {file}" in done.stderr

    entries = json.loads(baseline.run("mlops-db", "history", "--json").stdout)["entries"]
    assert {entry["revision"]: entry["backup"] for entry in entries if entry["direction"] == "downgrade"} == {
        "0004": None, "0003": None, "0002": None, "0001": str(file),
    }  # fmt: skip
    assert f"backup {file}" in baseline.run("mlops-db", "history").stdout


def test_the_refusal_offers_it(baseline: Database) -> None:
    done = baseline.run("alembic", "downgrade", "base", MLOPS_ENV="production")
    assert_failed(done, "2 rows of model_versions", "-x backup=FOLDER", "-x allow-data-loss=true")


def test_a_plan_names_the_tables_and_writes_nothing(baseline: Database, folder: Path) -> None:
    before = contents(baseline)
    done = downgrade(baseline, folder, "-x", "plan=true")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith("backup: ")] == ["backup: nothing"] * 3 + [
        "backup: model_versions"
    ]
    assert list(folder.iterdir()) == []
    assert contents(baseline) == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("upgrade", "head"), "-x backup is for downgrades"),
        (("stamp", "0003"), "-x backup is for downgrades"),
        (("stamp", "--purge", "0003"), "-x backup is for downgrades"),
        (("downgrade", "0004:0003", "--sql"), "--sql must not"),
        (("-x", "allow-data-loss=true", "downgrade", "base"), "lets it go"),
    ],
)
def test_it_is_refused_where_nothing_can_be_lost_or_saved(
    baseline: Database, folder: Path, arguments: tuple[str, ...], reason: str
) -> None:
    before = contents(baseline)
    done = baseline.run("mlops-db", "alembic", "-x", f"backup={folder}", *arguments)
    assert_failed(done, reason)
    assert done.returncode == 64
    assert contents(baseline) == before


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_changes(
    baseline: Database, tmp_path: Path
) -> None:
    before = contents(baseline)
    file = tmp_path / "file"
    file.touch()
    # A container may have a plain folder in the place of one of these.
    closed = [(folder, "") for folder in (Path("/proc"), Path("/sys")) if folder.is_mount()]
    for folder, reason in ((tmp_path / "none", "No such file"), (file, "Not a directory"), *closed):
        assert_failed(downgrade(baseline, folder), f"cannot write to {folder}: {reason}")
    assert contents(baseline) == before


def test_an_upgrade_with_nothing_to_do_is_as_before(head: Database, folder: Path) -> None:
    assert head.run("alembic", "-x", f"backup={folder}", "upgrade", "head").returncode == 0


# The program


def test_the_first_program_that_is_not_older_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = dump_programs(tmp_path / "path", version="12.3")
    monkeypatch.setenv("PATH", str(older.folder))
    for version in ("9", "14", "16"):
        dump_programs(tmp_path / version, version=f"{version}.1 (Ubuntu {version}.1-1)")
        (tmp_path / "versions" / version).mkdir(parents=True)
        (tmp_path / version).rename(tmp_path / "versions" / version / "bin")
    monkeypatch.setattr(client_programs, "VERSIONS", tmp_path / "versions")

    assert find_pg_dump("12.8") == older.folder / "pg_dump"
    assert find_pg_dump("13.4") == tmp_path / "versions" / "16" / "bin" / "pg_dump"
    assert find_pg_dump("18.1 (Debian 18.1-1)") == client_programs.client_program("pg_dump")
    with pytest.raises(
        RefusedError, match=r"pg_dump is older than the server: .*/path/pg_dump is 12\.3, .*/16/bin"
    ) as old:
        find_pg_dump("98beta1")
    assert "the server is 98beta1; nothing was changed" in str(old.value)
    assert "Install the client programs of PostgreSQL 98" in old.value.hint


def test_none_is_one_line_that_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pg_dump").write_text("#!/bin/false")  # it does not run
    (tmp_path / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(client_programs, "VERSIONS", tmp_path)
    monkeypatch.setattr(client_programs, "client_program", lambda name: tmp_path / "none" / name)
    with pytest.raises(MissingExtraError, match="no pg_dump on this machine") as none:
        find_pg_dump("15.4")
    assert "PostgreSQL 15 or later" in none.value.hint


# What is lost: as processes


slow = pytest.mark.slow


@slow
@pytest.mark.parametrize("environment", ["production", "development"])
def test_a_column_takes_its_whole_table_along(head: Database, tmp_path: Path, folder: Path, environment: str) -> None:
    project = Project(
        head, tmp_path / "project", sql(KEPT), sql("ALTER TABLE kept DROP COLUMN note"), THREE,
    )  # fmt: skip
    done = project.downgrade(folder, MLOPS_ENV=environment)

    assert done.returncode == 0, done.stdout + done.stderr
    assert rows_of(only_file(folder)) == {"public.kept": NOTES}
    assert head.query("TABLE kept") == [(1,), (2,), (3,)]


@slow
@pytest.mark.parametrize("environment", ["production", "development"])
def test_a_loss_that_the_sql_does_not_show_is_found_and_backed_up_at_the_second_try(
    head: Database, tmp_path: Path, folder: Path, environment: str
) -> None:
    project = Project(head, tmp_path / "project", sql(KEPT), sql(LOST_IN_A_FUNCTION), THREE)

    done = project.downgrade(folder, MLOPS_ENV=environment)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 rows of kept" in done.stderr
    assert rows_of(only_file(folder)) == {"public.kept": NOTES}
    assert head.value("SELECT to_regclass('kept')") is None
    assert history_of(head, project.revision)[1:] == [(project.revision, "failed"), (project.revision, "applied")]


@slow
def test_rows_that_a_later_statement_loses_are_saved_where_they_began(
    head: Database, tmp_path: Path, folder: Path
) -> None:
    moves = [
        "CREATE TABLE second AS TABLE kept", LOST_IN_A_FUNCTION,
        "CREATE TABLE third AS TABLE second", LOST_IN_A_FUNCTION.replace("kept", "second"),
        LOST_IN_A_FUNCTION.replace("kept", "third"),
    ]  # fmt: skip
    project = Project(head, tmp_path / "project", sql(KEPT), sql(*moves), THREE)

    done = project.downgrade(folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert rows_of(only_file(folder)) == {"public.kept": NOTES}


@slow
def test_a_partitioned_table_comes_with_all_partitions(head: Database, tmp_path: Path, folder: Path) -> None:
    make = [
        'CREATE SCHEMA "Other.one"',
        "CREATE TABLE parts (id int, part int) PARTITION BY LIST (part)",
        'CREATE TABLE "Other.one"."Part 1" PARTITION OF parts FOR VALUES IN (1)',
        "CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2) PARTITION BY RANGE (id)",
        "CREATE TABLE part_2_all PARTITION OF part_2 DEFAULT",
    ]
    lose = sql("DROP TABLE parts", 'DROP SCHEMA "Other.one"')
    rows = "INSERT INTO parts SELECT n, 1 + n % 2 FROM generate_series(1, 7) AS n"
    project = Project(head, tmp_path / "project", sql(*make), lose, rows)

    done = project.downgrade(folder)

    assert done.returncode == 0, done.stdout + done.stderr
    saved = rows_of(only_file(folder))
    assert sorted(saved["public.parts"]) == [f"{n}\t{1 + n % 2}" for n in range(1, 8)]  # through the parent


@slow
def test_one_partition_is_saved_without_the_others(head: Database, tmp_path: Path, folder: Path) -> None:
    make = [
        "CREATE TABLE parts (id int, part int) PARTITION BY LIST (part)",
        "CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1)",
        "CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2)",
    ]
    rows = "INSERT INTO parts SELECT n, 1 + n % 2 FROM generate_series(1, 7) AS n"
    lose = sql("ALTER TABLE parts DETACH PARTITION part_2", LOST_IN_A_FUNCTION.replace("kept", "part_2"))
    project = Project(head, tmp_path / "project", sql(*make), lose, rows)

    done = project.downgrade(folder)

    assert done.returncode == 0, done.stdout + done.stderr
    saved = rows_of(only_file(folder))
    assert [len(rows) for rows in saved.values()] == [4]
    assert head.value("SELECT count(*) FROM parts") == 3


@slow
def test_rows_that_move_into_a_table_of_the_backup_are_not_lost_with_it(
    head: Database, tmp_path: Path, folder: Path
) -> None:
    lose = [
        LOST_IN_A_FUNCTION.replace("'DROP ' || 'TABLE kept'", "'ALTER TABLE other DROP ' || 'COLUMN more'"),
        "INSERT INTO other SELECT * FROM kept",
        LOST_IN_A_FUNCTION,
        LOST_IN_A_FUNCTION.replace("kept", "other"),
    ]
    make = sql(KEPT, KEPT.replace("kept", "other"), "ALTER TABLE other ADD COLUMN more int")
    project = Project(head, tmp_path / "project", make, sql(*lose), THREE, "INSERT INTO other VALUES (9, 'own', 1)")

    done = project.downgrade(folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert rows_of(only_file(folder)) == {"public.kept": NOTES, "public.other": ["9\town\t1"]}


@slow
@pytest.mark.parametrize("statement", ["DELETE FROM kept", LOST_IN_A_FUNCTION], ids=["shown", "hidden"])
def test_what_no_lock_can_cover_is_refused_and_kept(
    head: Database, tmp_path: Path, folder: Path, statement: str
) -> None:
    lose = f"with op.get_context().autocommit_block():\n    op.execute({statement!r})"
    project = Project(head, tmp_path / "project", sql(KEPT), lose, THREE)

    done = project.downgrade(folder)

    assert_run_failed(done, "3 rows of kept", "-x backup cannot save these")
    assert head.value("SELECT count(*) FROM kept") == 3
    assert len(list(folder.iterdir())) == (1 if statement == "DELETE FROM kept" else 0)


@slow
def test_a_backup_stays_if_the_revision_has_committed_and_fails_later(
    head: Database, tmp_path: Path, folder: Path
) -> None:
    lose = sql("DROP TABLE kept") + '\nwith op.get_context().autocommit_block():\n    op.execute("SELECT 1 / 0")'
    project = Project(head, tmp_path / "project", sql(KEPT), lose, THREE)

    assert_run_failed(project.downgrade(folder), "division by zero")

    assert head.value("SELECT to_regclass('kept')") is None
    file = only_file(folder)
    assert rows_of(file) == {"public.kept": NOTES}
    assert head.query("SELECT outcome, backup FROM mlops_internal.migration_history ORDER BY id DESC LIMIT 1") == [
        ("failed", str(file))
    ]


@slow
def test_a_backup_of_a_step_that_was_rolled_back_goes(head: Database, tmp_path: Path, folder: Path) -> None:
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept", "SELECT 1 / 0"), THREE)
    before = contents(head)

    done = project.downgrade(folder)

    assert_run_failed(done, "division by zero")
    assert "backup of kept: " in done.stderr
    assert contents(head) == before
    assert list(folder.iterdir()) == []


@slow
def test_all_rows_of_head_are_saved_on_the_way_to_base(head: Database, folder: Path) -> None:
    assert head.run("mlops-db", "demo", "--days", "90").returncode == 0
    tables = ("model_versions", "retraining_decisions", "monitoring_metrics")
    rows = {f"public.{table}": head.value(f"SELECT count(*) FROM {table}") for table in tables}
    rows["mlops_internal.metric_series"] = head.value("SELECT count(*) FROM mlops_internal.metric_series")

    done = downgrade(head, folder, MLOPS_ENV="production")

    assert done.returncode == 0, done.stdout + done.stderr
    saved: dict[str, int] = {}
    for file in sorted(folder.iterdir()):
        for table, lines in rows_of(file).items():
            saved[table] = max(saved.get(table, 0), len(lines))
    assert saved == rows


def stored_names() -> st.SearchStrategy[str]:
    odd = [
        "a.b",
        "a*",
        "A",
        "a?",
        '"',
        'a"b',
        "$",
        "^a$",
        "(a|b)",
        "a b",
        " a",
        "\\",
        "é",
        "%s",
        "--x",
        "a\nb",
        "[a]",
        "!",
    ]
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)
    return st.sampled_from(odd) | text


@slow
@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=stored_names(), table=stored_names())
@example(schema="public", table="*")
@example(schema="public", table="b*")
@example(schema="*", table="?")
def test_every_name_is_dumped_and_no_other(empty: Database, folder: Path, schema: str, table: str) -> None:
    schema = "public" if schema.startswith("pg_") else schema
    bystander = "bystander" if table != "bystander" else "other"
    create = names.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(names.Identifier(schema))
    empty.connection.execute(create)
    for name, rows in ((table, 3), (bystander, 5), (f"{table}x", 7)):
        empty.connection.execute(
            names.SQL("CREATE TABLE {} AS SELECT generate_series(1, {}) AS a").format(
                names.Identifier(schema, name), rows
            )
        )
    try:
        oid = empty.value(
            "SELECT c.oid::bigint FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
            " WHERE nspname = %s AND relname = %s",
            [schema, table],
        )
        backup = Backup(folder, empty.settings, Options.defaults(empty.settings))
        backup.need("0001", {oid})
        with migration_connection(empty.settings) as connection:
            backup.prepare(connection)
            connection.rollback()
            file = backup.write(connection, "0001", backup.lock(connection, "0001"))  # it counts the rows
            connection.rollback()
        assert sum(map(len, rows_of(file).values())) == 3 or "\n" in schema + table
    finally:
        for file in folder.iterdir():
            file.unlink()
        for name in (table, bystander, f"{table}x"):
            empty.connection.execute(names.SQL("DROP TABLE {}").format(names.Identifier(schema, name)))


# Other sessions


@contextmanager
def waiting_run(
    project: Project, tmp_path: Path, folder: Path, *arguments: str
) -> Iterator[tuple[DumpPrograms, "Future[subprocess.CompletedProcess[str]]"]]:
    """A downgrade whose pg_dump waits."""
    programs = dump_programs(tmp_path / "bin", WAITS)
    with ThreadPoolExecutor(1) as run:
        done = run.submit(project.downgrade, folder, *arguments, PATH=programs.path)
        try:
            wait_until(lambda: programs.has_begun() or done.done(), "pg_dump to begin")
            assert programs.has_begun(), done.result()
            yield programs, done
        finally:
            programs.let_go()


@slow
def test_a_writer_waits_until_the_step_is_done_and_readers_do_not(head: Database, tmp_path: Path, folder: Path) -> None:
    project = Project(
        head, tmp_path / "project", sql(KEPT), sql("ALTER TABLE kept DROP COLUMN note"), THREE,
    )  # fmt: skip
    waits = "SELECT count(*) FROM pg_locks WHERE relation = 'kept'::regclass AND NOT granted"
    with (
        another_session(head, "writer") as writer,
        ThreadPoolExecutor(1) as other,
        waiting_run(project, tmp_path, folder) as (programs, done),
    ):
        assert head.value("SELECT count(*) FROM kept") == 3  # a reader
        written = other.submit(writer.execute, "INSERT INTO kept (id) VALUES (4)")
        wait_until(lambda: written.done() or head.value(waits), "the writer to wait")
        assert not written.done()
        programs.let_go()
        assert done.result().returncode == 0, done.result().stdout
        written.result()
        writer.commit()

    assert rows_of(only_file(folder)) == {"public.kept": NOTES}
    assert head.query("SELECT id FROM kept ORDER BY 1") == [(1,), (2,), (3,), (4,)]


@slow
def test_a_row_that_is_not_committed_yet_comes_into_the_backup(head: Database, tmp_path: Path, folder: Path) -> None:
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept"), THREE)
    with (
        another_session(head, "writer", "INSERT INTO kept VALUES (4, 'late')") as writer,
        ThreadPoolExecutor(1) as run,
    ):
        done = run.submit(project.downgrade, folder, MLOPS_LOCK_TIMEOUT="2s")
        failed = "SELECT count(*) FROM mlops_internal.migration_history WHERE outcome = 'failed'"
        wait_until(lambda: done.done() or head.value(failed), "the first try to fail")
        writer.commit()
        assert done.result().returncode == 0, done.result().stdout

    assert "no lock, blocked by pid" in done.result().stderr
    assert rows_of(only_file(folder)) == {"public.kept": [*NOTES, "4\tlate"]}


@slow
def test_a_session_that_waits_for_a_stronger_lock_makes_the_run_try_again(
    head: Database, tmp_path: Path, folder: Path
) -> None:
    """pg_dump would wait behind it, and it waits for the run: no server could see that circle."""
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept"), THREE)
    with (
        another_session(head, "alters") as session,
        ThreadPoolExecutor(1) as other,
        waiting_run(project, tmp_path, folder) as (programs, done),
    ):
        altered = other.submit(session.execute, "ALTER TABLE kept ADD COLUMN more int")
        waits = "SELECT count(*) FROM pg_locks WHERE relation = 'kept'::regclass AND NOT granted"
        wait_until(lambda: altered.done() or head.value(waits), "the other session to wait")
        programs.let_go()
        altered.result()
        session.commit()
        assert done.result().returncode == 0, done.result().stdout

    assert "no lock, blocked by" in done.result().stderr
    assert rows_of(only_file(folder)) == {"public.kept": [f"{note}\t\\N" for note in NOTES]}


# Roles and connections


@slow
def test_an_owner_who_is_no_superuser_needs_nothing_more(empty: Database, folder: Path) -> None:
    with owner(empty) as owned:
        commands.upgrade(owned.settings, "0004")
        run_as(owned.settings, TWO_MODELS)
        done = downgrade(owned, folder, MLOPS_ENV="production")
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(rows_of(only_file(folder))["public.model_versions"]) == 2


@slow
def test_rows_behind_forced_row_level_security_are_refused_with_the_remedy(empty: Database, folder: Path) -> None:
    with owner(empty) as owned:
        commands.upgrade(owned.settings, "0004")
        run_as(
            owned.settings, TWO_MODELS,
            "ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE POLICY none ON model_versions USING (false)",
        )  # fmt: skip
        done = downgrade(owned, folder, to="-4")
        assert_run_failed(done, "row-level security", "NO FORCE ROW LEVEL SECURITY")
        assert revision_of(empty) == "0001"
        assert list(folder.iterdir()) == []


@slow
def test_the_owner_role_dumps_and_no_argument_holds_the_password(tmp_path: Path, folder: Path) -> None:
    cluster = new_cluster(embedded_programs())
    (cluster / "data" / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
    start(embedded_programs(), cluster)
    try:
        superuser = settings_of(cluster)
        run_as(
            superuser,
            "CREATE ROLE mlops_owner NOLOGIN CREATEDB",
            f"CREATE ROLE airflow LOGIN NOINHERIT PASSWORD '{SECRET}'",
            "GRANT mlops_owner TO airflow",
        )
        programs = dump_programs(tmp_path / "bin", "env > $here/environment")
        where = replace(superuser, user="airflow", password=SECRET, database="mlops", owner_role="mlops_owner")
        database = Database(psycopg.Connection.__new__(psycopg.Connection), where)
        assert database.run("mlops-db", "create").returncode == 0
        commands.upgrade(where, "0004")
        run_as(replace(superuser, database="mlops"), TWO_MODELS)
        done = downgrade(database, folder, PATH=programs.path, MLOPS_ENV="production")
    finally:
        stop(embedded_programs(), cluster)
        shutil.rmtree(cluster)

    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rows_of(only_file(folder))["public.model_versions"]) == 2
    assert SECRET not in programs.arguments + done.stdout + done.stderr
    assert f"PGPASSWORD={SECRET}" in (programs.folder / "environment").read_text(encoding="utf-8")
    assert "--no-password" in programs.arguments


def test_a_connection_of_the_caller_is_refused(baseline: Database, folder: Path) -> None:
    config = commands.alembic_config(baseline.settings)
    where = baseline.settings
    engine = create_engine(
        f"postgresql+psycopg2://{where.user}@/{where.database}?host={where.host}&port={where.port}", poolclass=NullPool
    )
    wait_callback, handlers, level = get_wait_callback(), logging.root.handlers[:], logging.root.level
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            with pytest.raises(CommandError, match="-x backup needs a connection of the run's own"):
                command.downgrade(_with_x(config, f"backup={folder}"), "base")
    finally:  # a run of the command line sets these for its process
        set_wait_callback(wait_callback)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    assert revision_of(baseline) == "0004"


def _with_x(config: Any, *arguments: str) -> Any:
    config.cmd_opts = Namespace(x=list(arguments))
    return config


# Failures


@slow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("head -c 300 /dev/zero; kill -9 $$", "pg_dump failed: it was killed (SIGKILL)"),
        ("echo 'pg_dump: error: no luck: today' >&2; exit 1", "pg_dump failed: no luck: today"),
        ("exit 3", "pg_dump failed: it gives no reason"),
        ('{real} "$@" | head -c 1500; exit 0', "pg_restore failed: "),
        ('exec {real} --schema-only "$@"', "the backup has 0 rows, and the tables have 3"),
        ("rm -r $here/../backups", "cannot be written: No such file or directory"),
    ],
    ids=["killed", "error", "silent", "cut off", "rows missing", "folder gone"],
)
def test_a_dump_that_fails_changes_nothing_and_leaves_no_file(
    head: Database, tmp_path: Path, folder: Path, body: str, reason: str
) -> None:
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept"), THREE)
    before = contents(head)
    programs = dump_programs(tmp_path / "bin", body.replace("{real}", client("pg_dump")))

    done = project.downgrade(folder, PATH=programs.path)

    assert_run_failed(done, reason)
    assert contents(head) == before
    assert not folder.exists() or list(folder.iterdir()) == []
    assert history_of(head, project.revision)[-1] == (project.revision, "failed")


@slow
def test_a_file_that_is_there_is_not_overwritten(head: Database, tmp_path: Path, folder: Path) -> None:
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept"), THREE)
    now = dt.datetime.now(dt.timezone.utc)
    for second in range(120):
        time = f"{now + dt.timedelta(seconds=second):%Y%m%dT%H%M%SZ}"
        (folder / f"{head.settings.database}-{project.revision}-{time}.dump").write_text("other")

    done = project.downgrade(folder)

    assert_run_failed(done, "cannot be written: File exists")
    assert {file.read_text() for file in folder.iterdir()} == {"other"}
    assert head.value("SELECT count(*) FROM kept") == 3


@slow
def test_a_disk_that_is_full_changes_nothing(head: Database, tmp_path: Path, folder: Path) -> None:
    rows = "INSERT INTO kept SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n"
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept"), rows)
    before = contents(head)

    done = run_command(
        "/bin/bash", "-c", f'ulimit -f 64; exec {SCRIPTS}/alembic "$@"', "alembic", "-c", str(project.checkout.ini),
        "-x", f"backup={folder}", "downgrade", "-1",
        environment=head.environment | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip

    assert_run_failed(done, "cannot be written: File too large", "name another folder")
    assert contents(head) == before
    assert list(folder.iterdir()) == []


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_during_the_dump_changes_nothing(
    head: Database, tmp_path: Path, folder: Path, number: signal.Signals
) -> None:
    project = Project(head, tmp_path / "project", sql(KEPT), sql("DROP TABLE kept"), THREE)
    before = contents(head)
    programs = dump_programs(tmp_path / "bin", WAITS)
    with subprocess.Popen(
        [str(SCRIPTS / "mlops-db"), "alembic", "-c", str(project.checkout.ini), "-x", f"backup={folder}",
         "downgrade", "-1"],
        env=head.environment | {"PATH": programs.path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
    ) as run:  # fmt: skip
        wait_until(lambda: programs.has_begun() or run.poll() is not None, "pg_dump to begin")
        (child,) = psutil.Process(run.pid).children()
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
    programs.let_go()  # after SIGKILL it goes on, and finds nobody who reads
    wait_until(lambda: not lives(child), "pg_dump to end")

    assert run.returncode == (-number if number == signal.SIGKILL else 128 + number), output
    assert "Traceback" not in output
    assert contents(head) == before
    left = [file.suffix for file in folder.iterdir()]
    assert left == ([".partial"] if number == signal.SIGKILL else [])
    for file in folder.iterdir():
        file.unlink()  # the next one, within the same second, would have the same name
    done = project.downgrade(folder)
    assert done.returncode == 0, done.stdout
    assert len(list(folder.glob("*.dump"))) == 1
