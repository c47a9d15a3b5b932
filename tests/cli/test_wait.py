"""`mlops-db wait`: what start-up scripts get."""

import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql

from mlops_db.migration.commands import upgrade
from mlops_db.revisions.readiness import STAGES
from support import roles
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database, clean_environment, run_command
from support.handmade import make_by_hand
from support.process import SECRET, assert_failed
from support.terminal import on_a_terminal, without_colours

pytestmark = pytest.mark.full_postgresql

LATER = "mlops_test_later"
# An error that ends the command at once; otherwise the test would fail by its own limit.
PATIENT = ("mlops-db", "wait", "--timeout", "1h")


@contextmanager
def waiting(environment: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that waits; its first line on standard error has been read."""
    with subprocess.Popen(
        [SCRIPTS / "mlops-db", "wait", *arguments],
        env=dict(environment),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("stage", STAGES)
def test_at_head_all_is_there(head: Database, stage: str) -> None:
    done = head.run("mlops-db", "wait", "--for", stage)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("✅ ")
    assert done.stdout.endswith((" is ready\n", " is there\n", " answers\n"))


@pytest.mark.parametrize(
    ("stage", "missing", "empty_"), [("server", 0, 0), ("database", 1, 0), ("head", 1, 1)], ids=STAGES
)
def test_each_stage_asks_for_its_own(empty: Database, stage: str, missing: int, empty_: int) -> None:
    once = ("mlops-db", "wait", "--timeout", "0s", "--for", stage)
    assert empty.run(*once).returncode == empty_
    done = empty.run(*once, MLOPS_DB_NAME=LATER)
    assert done.returncode == missing
    if missing:
        assert_failed(done, f'database "{LATER}" does not exist')
    nobody = empty.run(*once, POSTGRES_HOST="/nonexistent")
    assert nobody.returncode == 2
    assert_failed(nobody, "no PostgreSQL answers")


@pytest.mark.parametrize("revision", ["0001", "0024"])
def test_behind_head_is_not_ready(empty: Database, revision: str) -> None:
    upgrade(empty.settings, revision)
    done = empty.run("mlops-db", "wait", "--timeout", "0s")
    assert done.returncode == 1
    assert_failed(done, f"is at revision {revision}, not at head", "alembic upgrade head")


def test_it_waits_for_the_server_then_the_database_then_the_migration(empty: Database) -> None:
    name = sql.Identifier(LATER)
    environment = empty.environment | {"MLOPS_DB_NAME": LATER}
    with waiting(environment, "--timeout", "2min") as process:
        assert f'database "{LATER}" does not exist' in first_line(process)
        empty.connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            assert "has no tables yet" in first_line(process)
            upgrade(replace(empty.settings, database=LATER))
            out, err = process.communicate(timeout=TIMEOUT_S)
        finally:
            empty.connection.execute(sql.SQL("DROP DATABASE {} (FORCE)").format(name))
    assert process.returncode == 0
    assert f"/{LATER} is ready after " in out
    assert err == ""  # a migration passes 25 revisions, and they are one line


def test_a_role_gets_its_grants_only_after_the_migration(head: Database) -> None:
    with roles.role(head, "mlops_test_late") as settings:
        late = replace(head, settings=settings)
        done = late.run("mlops-db", "wait", "--timeout", "0s")
        assert done.returncode == 1
        assert_failed(done, "permission denied for table alembic_version", "`mlops-db grant-writer mlops_test_late`")
        with waiting(late.environment, "--timeout", "2min") as process:
            assert "permission denied" in first_line(process)
            head.query("GRANT SELECT ON alembic_version TO mlops_test_late")
            process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
        # Jobs do not become the owner, so nor does what waits for them.
        assert late.run("mlops-db", "wait", MLOPS_OWNER_ROLE="mlops_test_nobody").returncode == 0


def test_a_reader_is_told_what_it_can_wait_for(head: Database) -> None:
    with roles.role(head, "mlops_test_reader") as settings:
        assert head.run("mlops-db", "grant-reader", "mlops_test_reader").returncode == 0
        reader = replace(head, settings=settings)
        done = reader.run("mlops-db", "wait", "--timeout", "0s")
        assert_failed(done, "permission denied for", "A reader does not need it: `mlops-db wait --for database`.")
        (command,) = re.findall("`(mlops-db wait .*?)`", done.stderr)
        assert reader.run(*command.split()).returncode == 0


def test_a_role_that_may_not_connect_yet_is_told_who_grants_it(head: Database) -> None:
    with roles.role(head, "mlops_test_late") as settings:
        head.query(f"REVOKE CONNECT ON DATABASE {head.settings.database} FROM PUBLIC")
        done = replace(head, settings=settings).run("mlops-db", "wait", "--timeout", "0s")
        assert done.returncode == 2
        assert_failed(done, "permission denied for database", "Let the database's owner run GRANT CONNECT ON DATABASE ")
        head.connection.execute(done.stderr.partition("owner run ")[2].encode())
        done = replace(head, settings=settings).run("mlops-db", "wait", "--for", "database", "--timeout", "0s")
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_newer_revisions_are_as_good_as_head_if_this_code_works_with_them(head: Database) -> None:
    head.query("UPDATE alembic_version SET version_num = '9999'")
    record = "UPDATE mlops_internal.running_code SET heads = '{9999}', revisions = revisions || '{9999}'"
    head.query(record)
    done = head.run(*PATIENT)
    assert (done.returncode, done.stdout.endswith(" is ready\n")) == (0, True)
    head.query("UPDATE mlops_internal.running_code SET works_from = '{9999}'")
    done = head.run(*PATIENT)
    assert done.returncode == 1
    assert_failed(done, "9999", "pdate")


def test_what_waiting_cannot_change_ends_it_at_once(empty: Database, tmp_path: Path) -> None:
    done = empty.run(*PATIENT, POSTGRES_USER="mlops_test_nobody", POSTGRES_PASSWORD=SECRET)
    assert done.returncode == 2
    assert_failed(done, "mlops_test_nobody")
    assert_failed(empty.run(*PATIENT, PGSSLMODE="perhaps"), "libpq cannot use a setting")
    assert_failed(empty.run(*PATIENT, PGOPTIONS="-c work_mem=much"), "does not accept this setting")

    (tmp_path / ".env").write_text("MLOPS_ENV production\n", encoding="utf-8")
    assert_failed(empty.run(*PATIENT, cwd=tmp_path), ".env")

    make_by_hand(empty)
    done = empty.run(*PATIENT)
    assert done.returncode == 1
    assert_failed(done, "mlops-db adopt")
    empty.query("CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('abc')")
    assert_failed(empty.run(*PATIENT), "'abc'")


def test_a_timeout_may_be_plain_seconds(empty: Database) -> None:
    nowhere = {"MLOPS_DB_NAME": "mlops_test_nowhere"}
    once = empty.run("mlops-db", "wait", "--timeout", "0", **nowhere)
    assert_failed(once, 'database "mlops_test_nowhere" does not exist')
    done = empty.run("mlops-db", "wait", "--timeout", "1", **nowhere)
    assert done.stderr.startswith("waiting (at most 1.0 s): "), done.stderr


@pytest.mark.parametrize("timeout", ["abc", "-1", "", "1.5", "5x", "1.5s", "-5s", "25d", "9999h"])
def test_a_timeout_that_is_none_is_refused(timeout: str) -> None:
    done = run_command("mlops-db", "wait", "--timeout", timeout, environment=clean_environment())
    assert done.returncode == 64
    assert_failed(done, "--timeout")


def test_in_json_it_is_one_object_and_the_progress_is_apart(empty: Database) -> None:
    done = empty.run("mlops-db", "wait", "--for", "database", "--json")
    answer = json.loads(done.stdout)
    assert answer.pop("waited_s") >= 0
    assert answer == {"target": empty.settings.target, "state": "ready", "waited_for": "database"}
    done = empty.run("mlops-db", "wait", "--timeout", "1ms", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"] == "error"


def test_a_terminal_sees_what_it_waits_for() -> None:
    nowhere = clean_environment(POSTGRES_HOST="/nonexistent")
    code, shown = on_a_terminal("wait", "--timeout", "500ms", environment=nowhere)
    assert code == 2
    kinds = [line.partition(":")[0] for line in without_colours(shown).splitlines()]
    assert kinds[0] == "waiting (at most 0.5 s)"
    assert {"error", "hint"} <= {*kinds[1:]}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_it_can_be_interrupted_between_two_attempts(number: signal.Signals, code: int) -> None:
    with waiting(clean_environment(POSTGRES_HOST="/nonexistent"), "--timeout", "1h") as process:
        first_line(process)
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (code, "", "")


def test_the_pauses_between_attempts_grow(empty: Database) -> None:
    attempts = 0
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            nonlocal attempts
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.close()
                attempts += 1

        thread = threading.Thread(target=hang_up)
        thread.start()
        host, port = server.getsockname()
        done = empty.run("mlops-db", "wait", "--timeout", "4s", POSTGRES_HOST=host, POSTGRES_PORT=str(port))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert done.returncode == 2
    # After 0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5 and 4 seconds; libpq may try a second time without encryption.
    assert 2 <= attempts <= 16
