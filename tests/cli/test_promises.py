"""What the README says of exit codes, of the order of output and of `mlops-db alembic`, as processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from psycopg import sql

from mlops_db.server.guests import REVOKE_CREATE
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database, run_command
from support.process import SECRET, assert_failed, closed_pipe
from support.roles import may_create_in_public, role
from support.sessions import another_session, wait_until
from support.snapshot import everything

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (("status",), {}, 0),
        (("alembic", "current"), {}, 0),
        (("status",), {"MLOPS_DB_NAME": "mlops_test_nowhere"}, 1),
        (("alembic", "upgrade", "nope"), {}, 1),
        (("alembic", "current"), {"MLOPS_DB_NAME": "mlops_test_nowhere"}, 1),
        (("status",), {"POSTGRES_HOST": "/no/such/folder"}, 2),
        (("alembic", "current"), {"POSTGRES_HOST": "/no/such/folder"}, 2),
    ],
)
def test_the_exit_codes_are_the_readmes(
    head: Database, arguments: tuple[str, ...], variables: dict[str, str], code: int
) -> None:
    done = head.run("mlops-db", *arguments, **{"POSTGRES_PASSWORD": SECRET} | variables)
    assert done.returncode == code, done.stderr
    if code:
        assert_failed(done)
        assert done.stdout == ""


def test_in_a_pipe_lines_come_in_the_order_in_which_they_happened(empty: Database) -> None:
    name = "mlops_test_order"
    merged = ("bash", "-c", '"$0" init 2>&1 | cat', str(SCRIPTS / "mlops-db"))
    try:
        lines = empty.run(*merged, MLOPS_DB_NAME=name, PYTHONUNBUFFERED="").stdout.splitlines()
    finally:
        empty.connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    assert [line.split()[0] for line in lines[:2]] == ["Creating", "✅"]
    assert lines[2].startswith("[1/")
    assert lines[-7:][0].startswith("Created 6 tables")


@pytest.mark.parametrize("command", ["status", "init", "check", "grant-reader mlops_test_reader"])
def test_a_note_comes_after_what_it_is_about(head: Database, command: str) -> None:
    may_create_in_public(head)
    with role(head, "mlops_test_reader"):
        merged = ("bash", "-c", f'"$0" {command} 2>&1 | cat', str(SCRIPTS / "mlops-db"))
        done = head.run(*merged, PYTHONUNBUFFERED="")
    lines = done.stdout.splitlines()
    assert len(lines) > 1
    assert [line for line in lines if line.startswith("note: everybody may create")] == lines[-1:]


@pytest.mark.parametrize("command", ["alembic heads", "alembic current", "alembic --help"])
def test_without_a_reader_or_standard_output_alembic_is_content(head: Database, command: str) -> None:
    with closed_pipe() as output:
        done = subprocess.run(
            [SCRIPTS / "mlops-db", *command.split()],
            env=head.environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    closed = head.run("sh", "-c", f'"$0" {command} >&-', str(SCRIPTS / "mlops-db"))
    assert (closed.returncode, closed.stderr) == (0, "")


def test_a_reader_that_went_away_does_not_stop_the_work(empty: Database) -> None:
    with closed_pipe() as output:
        done = subprocess.run(
            [SCRIPTS / "mlops-db", "init"],
            env=empty.environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0
    assert empty.run("mlops-db", "status").returncode == 0


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    [
        "mlops-db status",
        "mlops-db status --json",
        "mlops-db --help",
        "mlops-db history",
        "mlops-db report --out -",
        "mlops-db alembic heads",
        "mlops-db alembic current",
        "mlops-db alembic -x plan=true upgrade head",
        "mlops-db alembic upgrade head --sql",
        "alembic current",
        "alembic history",
        "alembic upgrade head --sql",
    ],
)
def test_output_that_is_lost_fails_the_command(head: Database, command: str, unbuffered: str) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    done = head.run("sh", "-c", f'"$0"/{command} >{FULL}', str(SCRIPTS), PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    *progress, error, hint = done.stderr.splitlines()
    assert len(progress) == ("report" in command)
    assert error == "error: standard output cannot be written: No space left on device"
    assert hint.startswith("hint: Make room")
    silent = head.run("sh", "-c", f'"$0"/{command} >{FULL} 2>&1', str(SCRIPTS), PYTHONUNBUFFERED=unbuffered)
    assert (silent.returncode, silent.stdout, silent.stderr) == (1, "", "")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(("variables", "code"), [({}, 0), ({"MLOPS_DB_NAME": "mlops_test_nowhere"}, 1)])
def test_messages_that_are_lost_do_not_change_the_exit_code(
    head: Database, variables: dict[str, str], code: int
) -> None:
    done = head.run("sh", "-c", f'"$0" status 2>{FULL}', str(SCRIPTS / "mlops-db"), **variables)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_failure_whose_object_is_lost_keeps_its_exit_code(head: Database) -> None:
    done = head.run("sh", "-c", f'"$0" status --json >{FULL}', str(SCRIPTS / "mlops-db"), POSTGRES_HOST="/nonexistent")
    assert done.returncode == 2
    assert "standard output cannot be written" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (f"mlops-db init >{FULL}", 1),
        (f"mlops-db init >{FULL} 2>&1", 1),
        (f"mlops-db init 2>{FULL}", 0),
        (f"mlops-db alembic upgrade head >{FULL} 2>&1", 0),
        (f"alembic upgrade head >{FULL} 2>&1", 0),
        ("mlops-db init 2>&1 | true", 0),
        ("mlops-db alembic upgrade head 2>&1 | head -1", 0),
        ("alembic upgrade head 2>&1 | head -1", 0),
    ],
)
def test_a_run_whose_progress_is_lost_goes_on(empty: Database, command: str, code: int, unbuffered: str) -> None:
    done = empty.run("bash", "-o", "pipefail", "-c", f'"$0"/{command}', str(SCRIPTS), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert empty.run("mlops-db", "status").returncode == 0
    assert empty.value("SELECT count(*) FROM mlops_internal.migration_history WHERE outcome <> 'applied'") == 0


@pytest.mark.parametrize(
    "program",
    [
        "out = sys.stdout; main(['--version']); print('last', file=out)",
        "main(['--version']); sys.stdout = sys.__stdout__; print('last')",
        "main(['--version']); main(['--version']); print('last')",
        "out = sys.stdout; main(['--version']); gc.collect(); out.write('last')",
    ],
)
def test_a_program_that_calls_a_command_keeps_its_own_output(head: Database, program: str) -> None:
    program = f"import gc, sys; from mlops_db.cli.main import main; {program}"
    done = run_command(sys.executable, "-c", program, environment=head.environment | {"PYTHONUNBUFFERED": ""})
    assert (done.returncode, done.stderr) == (0, "")
    version, *_, last = done.stdout.splitlines()
    assert version.startswith("mlops-db 0")
    assert last == "last"


def test_a_program_that_calls_alembic_twice_has_both_outputs(head: Database) -> None:
    program = "from alembic.config import main; main(['current']); main(['heads'])"
    done = run_command(sys.executable, "-c", program, environment=head.environment | {"PYTHONUNBUFFERED": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("(head)") == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_cut_off_fails_the_command(head: Database, tmp_path: Path, unbuffered: str) -> None:
    program = """
        import resource, signal, sys
        from mlops_db.errors import exit_code_of
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
        sys.exit(exit_code_of(lambda: print(100_000 * "x", end="")))
    """
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(program), encoding="utf-8")
    done = head.run("sh", "-c", f'"$0" {file} >{tmp_path / "cut"}', sys.executable, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert "standard output cannot be written: File too large" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_alembic_can_be_interrupted(head: Database, number: signal.Signals, code: int) -> None:
    before = everything(head)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    with another_session(head, "a writer", "LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"):
        process = subprocess.Popen(
            [SCRIPTS / "mlops-db", "alembic", "downgrade", "-1"],
            env=head.environment | {"MLOPS_LOCK_TIMEOUT": "20s"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: head.value(waiting, [head.settings.database]) == 1, "the command to wait")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert everything(head) == before


def test_alembic_does_the_same_as_alembic(head: Database) -> None:
    for arguments in (["current"], ["history", "-r", "0020:"], ["-x", "plan=true", "downgrade", "base"], ["check"]):
        ours, theirs = head.run("mlops-db", "alembic", *arguments), head.run("alembic", *arguments)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    script = ("upgrade", "0001:0003", "--sql")
    dated = re.compile(r"\d{4}-\d\d-\d\d[ T][\d:.+]+|pid \d+")
    assert dated.sub("", head.run("mlops-db", "alembic", *script).stdout) == dated.sub(
        "", head.run("alembic", *script).stdout
    )


def test_a_traceback_is_shown_to_who_asks_for_it(head: Database) -> None:
    done = head.run("mlops-db", "alembic", "--raiseerr", "upgrade", "nope")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_hints_name_the_command_that_works_here(empty: Database, tmp_path: Path) -> None:
    assert "hint: Run `alembic upgrade head`." in empty.run("mlops-db", "maintain").stderr
    assert "hint: Run `mlops-db alembic upgrade head`." in empty.run("mlops-db", "maintain", cwd=tmp_path).stderr


def test_psql_is_given_the_database_and_no_password_on_its_command_line(head: Database) -> None:
    done = head.run("mlops-db", "psql", "-At", "-c", "SELECT current_database(), version_num FROM alembic_version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{head.settings.database}|")
    assert head.run("mlops-db", "psql", "-c", "SELECT 1/0").returncode == 1
    refused = head.run("mlops-db", "psql", "-c", "SELECT 1", POSTGRES_PASSWORD=SECRET, POSTGRES_HOST="/no/such/folder")
    assert refused.returncode == 2
    assert SECRET not in refused.stderr


def test_control_c_ends_psql_while_it_connects(head: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [SCRIPTS / "mlops-db", "psql"],
            env=head.environment | {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(silent.getsockname()[1])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        silent.settimeout(TIMEOUT_S)
        connection, _ = silent.accept()
        with connection:
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (130, "", "")
