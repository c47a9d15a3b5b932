"""A newer database: what of older code goes on there, and what is refused, as the newer revisions declare it.

The code under test is the older one. The database also has revisions that a temporary project adds after its head.
"""

import json
import logging
import re
import subprocess
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from psycopg import sql as psycopg_sql

from mlops_db import DatabaseManager
from mlops_db.errors import (
    BehindHeadError,
    MlopsDbError,
    NotPermittedError,
    OutdatedCodeError,
    RefusedError,
    UnknownRevisionError,
)
from mlops_db.migration import commands
from mlops_db.migration.commands import run_command
from mlops_db.revisions import gate
from mlops_db.revisions.graph import package_graph, revisions
from mlops_db.server.connection import open_connection
from mlops_db.server.cursor import SafeCursor
from support import roles
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database
from support.process import assert_failed
from support.projects import Checkout, source, sql, versions
from support.sessions import another_session

pytestmark = pytest.mark.full_postgresql

HEAD = revisions()[-1].id
RECORD = "SELECT heads, revisions, works_from FROM mlops_internal.running_code"
COLUMN = sql("ALTER TABLE model_versions ADD COLUMN owner text"), sql("ALTER TABLE model_versions DROP COLUMN owner")
UNAFFECTED = "unaffected."
BREAKS = "breaks: readers of a column that is gone."


@pytest.fixture(autouse=True)
def _forget_what_was_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_logged", set())


@pytest.fixture
def newer(tmp_path: Path) -> Checkout:
    """A newer version of the project: one more revision, which leaves older code unaffected."""
    checkout = Checkout(tmp_path)
    checkout.add(*COLUMN, title="owner", running_code=UNAFFECTED)
    return checkout


def upgrade(checkout: Checkout, database: Database, revision: str = "head") -> None:
    run_command(command.upgrade, checkout.config(database.settings), revision)


def record(database: Database) -> tuple[list[str], list[str], list[str]]:
    ((heads, revisions, works_from),) = database.query(RECORD)
    return heads, revisions, works_from


def works(database: Database) -> None:
    with DatabaseManager(database.settings) as db:
        db.models.register(f"run-{database.value('SELECT count(*) FROM model_versions')}", "1")


# What goes on


def test_jobs_of_older_code_go_on_and_one_line_says_so(
    head: Database, newer: Checkout, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade(newer, head)
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def job(number: int) -> None:
        try:
            with DatabaseManager(head.settings) as db:
                start.wait(TIMEOUT_S)
                db.models.register(f"run-{number}", "1")
        except BaseException as error:  # noqa: BLE001  (shown below)
            errors.append(error)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert head.value("SELECT count(*) FROM model_versions") == 8
    (line,) = [one for one in caplog.records if one.name == "mlops_db.revisions"]
    assert line.levelno == logging.WARNING
    assert line.message == (
        f"{head.settings.target} is at revision {newer.head}, newer than revision {HEAD} of this code, "
        "which still works with it"
    )


def test_what_only_uses_the_tables_goes_on(head: Database, newer: Checkout) -> None:
    upgrade(newer, head)
    head.query("CREATE ROLE running_reader")
    try:
        for name in ("status", "maintain", "grant-reader", "init"):
            done = head.run("mlops-db", name, *(["running_reader"] if name == "grant-reader" else []))
            assert done.returncode == 0, done.stderr
            assert newer.head in done.stdout + done.stderr, done
    finally:
        head.query("DROP OWNED BY running_reader; DROP ROLE running_reader")
    done = head.run("mlops-db", "status", "--json")
    status = json.loads(done.stdout)
    assert (status["state"], status["current"], status["head"]) == ("newer", newer.head, HEAD)
    assert head.run("mlops-db", "init", "--json").returncode == 0


def test_what_compares_or_changes_the_schema_is_refused_as_before(head: Database, newer: Checkout) -> None:
    upgrade(newer, head)
    before = head.dump()
    for arguments in (
        ("alembic", "upgrade", "head"),
        ("alembic", "downgrade", "-1"),
        ("alembic", "check"),
        ("mlops-db", "check"),
        ("mlops-db", "adopt"),
    ):
        assert_failed(head.run(*arguments), f"at revision '{newer.head}', which this checkout does not have")
    assert head.dump() == before


@pytest.mark.slow
def test_a_container_that_waited_for_a_newer_one_is_ready_too(head: Database, newer: Checkout) -> None:
    commands.downgrade(head.settings, "0022")  # 0023 needs the lock
    with another_session(head, "holder", "LOCK TABLE model_versions IN SHARE UPDATE EXCLUSIVE MODE"):
        run = newer.start(head, "upgrade", "head")  # retries, and holds the run lock meanwhile
        run.wait_for_output("next try")
        older = subprocess.Popen(
            [SCRIPTS / "mlops-db", "init"], env=head.environment, cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8"
        )
        assert older.stderr is not None
        assert "waiting for another run or command" in older.stderr.readline()
    assert run.ended().returncode == 0
    _, errors = older.communicate(timeout=TIMEOUT_S)
    assert older.returncode == 0, errors
    assert "still works with it" in errors


# What is refused


def test_below_a_revision_that_breaks_older_code_is_refused(head: Database, newer: Checkout) -> None:
    breaking = newer.add("pass", running_code=BREAKS)
    newest = newer.add("pass", running_code=UNAFFECTED)
    upgrade(newer, head)

    with pytest.raises(OutdatedCodeError) as refused:
        works(head)

    assert str(refused.value) == (
        f"{head.settings.target} is at revision {newest}, which works with code of revision {breaking} and later, and "
        f"this code is of revision {HEAD}; nothing was changed"
    )
    assert refused.value.hint == f"Update this code to a version that has revision {breaking}."
    assert not refused.value.retryable
    assert isinstance(refused.value, UnknownRevisionError)
    for name in ("status", "maintain", "init"):
        assert_failed(head.run("mlops-db", name), f"works with code of revision {breaking} and later")


def test_a_revision_that_declares_nothing_breaks_older_code(head: Database, newer: Checkout) -> None:
    silent = newer.add("pass")
    upgrade(newer, head)
    assert record(head)[2] == [silent]
    with pytest.raises(OutdatedCodeError):
        works(head)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM mlops_internal.running_code",
        "DROP TABLE mlops_internal.running_code",
        "UPDATE mlops_internal.running_code SET heads = '{0001}'",
        "UPDATE mlops_internal.running_code SET heads = heads || '{0001}'",
        "UPDATE mlops_internal.running_code SET revisions = '{0001}'",
        "UPDATE alembic_version SET version_num = 'abcdef123456'",
        "INSERT INTO alembic_version VALUES ('abcdef123456')",
    ],
)
def test_without_a_record_of_these_revisions_it_is_refused_as_before(
    head: Database, newer: Checkout, statement: str
) -> None:
    upgrade(newer, head)
    works(head)
    head.query(statement)
    with pytest.raises(UnknownRevisionError, match="which this checkout does not have") as refused:
        works(head)
    assert not isinstance(refused.value, OutdatedCodeError)


def test_a_database_that_is_behind_is_refused_as_before(head: Database) -> None:
    commands.downgrade(head.settings, revisions()[-2].id)
    with pytest.raises(BehindHeadError):
        works(head)


def test_a_database_on_another_branch_is_not_a_newer_one(head: Database, tmp_path: Path) -> None:
    """Its revision follows an earlier one of ours, and ours after that have not run."""
    commands.downgrade(head.settings, revisions()[-2].id)
    checkout = Checkout(tmp_path)
    checkout.ids = checkout.ids[:-1]
    branch = checkout.add("pass", running_code=UNAFFECTED)
    upgrade(checkout, head, branch)
    assert HEAD not in record(head)[1]
    with pytest.raises(UnknownRevisionError, match=branch):
        works(head)


# The record


def test_each_step_records_what_works_after_it(head: Database, newer: Checkout) -> None:
    first = record(head)
    assert first == ([HEAD], [one.id for one in revisions()], list(package_graph().works_from(HEAD)))
    unaffected = newer.head
    breaking = newer.add("pass", running_code=BREAKS)
    config = newer.config(head.settings)

    upgrade(newer, head, unaffected)
    assert record(head) == ([unaffected], [*first[1], unaffected], first[2])
    upgrade(newer, head)
    assert record(head) == ([breaking], [*first[1], unaffected, breaking], [breaking])
    run_command(command.downgrade, config, unaffected)
    assert record(head) == ([unaffected], [*first[1], unaffected], first[2])
    works(head)
    run_command(command.stamp, config, breaking)
    assert record(head)[2] == [breaking]
    run_command(command.stamp, config, unaffected, purge=True)
    assert record(head)[0] == [unaffected]
    works(head)
    run_command(command.downgrade, config, HEAD)
    assert record(head) == first


def test_the_record_is_committed_together_with_the_revision(head: Database, newer: Checkout) -> None:
    upgrade(newer, head)
    assert head.value("""
        SELECT record.xmin = version.xmin FROM mlops_internal.running_code AS record, alembic_version AS version
    """)
    newer.add(sql("SELECT 1/0"), running_code=BREAKS)
    before = record(head)
    with pytest.raises(MlopsDbError, match="division by zero"):
        upgrade(newer, head)
    assert record(head) == before
    works(head)


def test_a_record_of_nothing_stays_after_a_downgrade_to_base(empty: Database) -> None:
    commands.upgrade(empty.settings, "0001")
    commands.downgrade(empty.settings, "base")
    assert record(empty) == ([], [], [])
    commands.upgrade(empty.settings, "0002")
    assert record(empty) == (["0002"], ["0001", "0002"], ["0002"])


def test_a_script_records_the_same(head: Database, newer: Checkout) -> None:
    breaking = newer.add("pass", running_code=BREAKS)

    def script(*arguments: str) -> str:
        done = head.run("mlops-db", "alembic", "-c", str(newer.ini), *arguments, "--sql")
        assert done.returncode == 0, done.stderr
        return done.stdout

    unaffected = newer.ids[-2]
    recorded = []
    for steps in (f"{HEAD}:{breaking}", f"{breaking}:{unaffected}", f"{unaffected}:{HEAD}"):
        head.psql(script("upgrade" if steps.startswith(HEAD) else "downgrade", steps))
        recorded.append(record(head))

    upgrade(newer, head)
    assert record(head) == recorded[0]
    for expected in recorded[1:]:
        run_command(command.downgrade, newer.config(head.settings), "-1")
        assert record(head) == expected


@pytest.mark.parametrize(
    ("left", "right", "missing"),
    [
        (UNAFFECTED, UNAFFECTED, ()),
        (UNAFFECTED, BREAKS, ("9902",)),
        (BREAKS, UNAFFECTED, ("9901",)),
        (BREAKS, BREAKS, ("9901", "9902")),
    ],
)
def test_on_two_branches_code_must_know_what_breaks_in_either(
    head: Database, tmp_path: Path, left: str, right: str, missing: tuple[str, ...]
) -> None:
    checkout = Checkout(tmp_path)
    for revision, declared in (("9901", left), ("9902", right)):
        docstring = f"Branch.\n\nRunning code: {declared}\n"
        text = source(revision, HEAD, "pass", "pass", docstring=docstring)
        (versions(checkout.ini) / f"{revision}_branch.py").write_text(text, encoding="utf-8")
    upgrade(checkout, head, "heads")

    assert record(head)[0] == ["9901", "9902"]
    if missing:
        with pytest.raises(OutdatedCodeError, match=f"works with code of revision {' and '.join(missing)} and later"):
            works(head)
    else:
        works(head)
        assert "9901 and 9902" in head.run("mlops-db", "status").stdout
    run_command(command.downgrade, checkout.config(head.settings), "9902@-1")
    assert record(head)[0] == ["9901"]
    if "9901" not in missing:
        works(head)


# Roles


def test_a_role_that_reads_alembic_version_reads_the_record(head: Database, newer: Checkout) -> None:
    with roles.role(head, "jobs") as jobs:
        head.query("GRANT SELECT ON alembic_version, model_versions TO jobs")
        upgrade(newer, head)
        with DatabaseManager(jobs) as db:
            assert db.models.production() is None
        assert head.query("""
            SELECT privilege_type FROM information_schema.role_table_grants
             WHERE grantee = 'jobs' AND table_schema = 'mlops_internal'
        """) == [("SELECT",)]


def test_everybody_gets_no_grant(head: Database, newer: Checkout) -> None:
    head.query("GRANT SELECT ON alembic_version TO PUBLIC")
    upgrade(newer, head)
    assert head.value("SELECT relacl FROM pg_class WHERE relname = 'running_code'") is None


def test_a_role_that_may_not_read_the_record_is_told_the_command(head: Database, newer: Checkout) -> None:
    with roles.role(head, "jobs") as jobs:
        head.query("GRANT SELECT (version_num) ON alembic_version TO jobs; GRANT SELECT ON model_versions TO jobs")
        upgrade(newer, head)
        with DatabaseManager(jobs) as db:
            with pytest.raises(NotPermittedError, match="the role jobs may not read") as refused:
                db.models.production()
            (told,) = re.findall("`(.*?)`", refused.value.hint)
            done = head.run(*told.split())
            assert done.returncode == 0, done.stderr
            assert db.models.production() is None


def test_an_owner_that_is_no_superuser_records_and_shares_too(empty: Database, newer: Checkout) -> None:
    with roles.owner(empty) as owned, roles.role(empty, "jobs") as jobs:
        commands.upgrade(owned.settings)
        empty.query("GRANT SELECT ON alembic_version, model_versions TO jobs")
        upgrade(newer, owned)
        with DatabaseManager(jobs) as db:
            assert db.models.production() is None


@pytest.mark.parametrize(
    "fake",
    [
        "CREATE TABLE mlops_internal.running_code (heads text[], revisions text[], works_from text[])",
        "CREATE VIEW mlops_internal.running_code AS SELECT '{}'::text[] heads, '{}'::text[] revisions, NULL works_from",
    ],
)
def test_a_record_of_a_guest_is_not_read(head: Database, newer: Checkout, fake: str) -> None:
    upgrade(newer, head)
    with roles.role(head, "guest") as guest, roles.role(head, "jobs") as jobs:
        database = psycopg_sql.Identifier(head.settings.database).as_string()
        head.query("GRANT SELECT ON alembic_version, model_versions TO jobs; DROP TABLE mlops_internal.running_code")
        # For a role that may not migrate, the owner of alembic_version is enough to read that; not so the record.
        head.query(f"GRANT ALL ON SCHEMA mlops_internal TO guest; GRANT CREATE ON DATABASE {database} TO guest")
        roles.run_as(guest, fake, "GRANT SELECT ON mlops_internal.running_code TO PUBLIC")
        for settings in (head.settings, jobs):
            with (
                DatabaseManager(settings) as db,
                pytest.raises(RefusedError, match=r"running_code (belongs to|is a view)"),
            ):
                db.models.production()
        head.query("DROP OWNED BY guest")


def test_a_run_refuses_a_record_of_a_guest(head: Database, newer: Checkout) -> None:
    with roles.role(head, "guest") as guest:
        head.query("DROP TABLE mlops_internal.running_code; GRANT ALL ON SCHEMA mlops_internal TO guest")
        roles.run_as(guest, "CREATE TABLE mlops_internal.running_code (heads text[])")
        with pytest.raises(MlopsDbError, match=r"mlops_internal\.running_code of guest"):
            upgrade(newer, head)


# While runs go on


def test_a_run_between_the_two_questions_is_no_contradiction(head: Database, newer: Checkout) -> None:
    """The revision is read first, then the record; between them a run takes the revision back."""
    upgrade(newer, head)
    done = []

    class Slow(SafeCursor):
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
            if "works_from" in str(query):
                run_command(command.downgrade, newer.config(head.settings), HEAD)
                done.append(True)
            super().execute(query, vars)

    with closing(open_connection(head.settings)) as connection, connection.cursor(cursor_factory=Slow) as cursor:
        assert gate.find_position(cursor, "here") == gate.Position((HEAD,), ())
    assert done
