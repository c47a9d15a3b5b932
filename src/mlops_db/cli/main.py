"""The command line of `mlops-db`.

A command is a module of this folder: grant_reader.py is `mlops-db grant-reader`. Its docstring is the command's help.
It has `add_arguments(parser)` and `run(options)`, which returns the exit code. A module without `add_arguments` runs
another program, and `run` gets the arguments as they were typed. A module is imported when its command runs, so that
small commands stay quick.
"""

import argparse
import ast
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from mlops_db import __version__
from mlops_db.cli.output import print_json, print_line
from mlops_db.cli.parser import Parser
from mlops_db.errors import MlopsDbError, UsageError, exit_code_of

DESCRIPTION = "Set up, inspect and maintain the mlops database."
EPILOG = """\
exit codes:
  0    done; for status: at head
  1    failed or refused, nothing half-done; for status: behind head, drifted, or no such database; for health: a series
       is not ok
  2    the server cannot be reached, or does not let this role in
  64   the command line is wrong
  130  interrupted by Control-C; 143 by SIGTERM

Revisions are Alembic's: mlops-db alembic upgrade head, mlops-db alembic history. In a checkout `alembic` does the same,
and exits with 255 when it fails.

Environment variables, or .env, say where to connect. The README lists them.
"""
NOT_COMMANDS = {"__init__", "granting", "main", "output", "parser"}
EXIT_UNREACHABLE = 2
EXIT_TERMINATED = 128 + signal.SIGTERM


class _Warnings(logging.Handler):
    """Shows the warnings of the package's log to people.

    A run for people writes its warnings itself. Those in the log are of scratch databases, such as those of `lint`.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print it as a line."""
        if record.name != "mlops_db.migration":
            print_line(f"warning: {record.getMessage()}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mlops-db`; returns its exit code."""
    # Process 1 of a container does not get SIGTERM unless it has a handler.
    signal.signal(signal.SIGTERM, _terminate)
    return exit_code_of(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def commands() -> dict[str, Path]:
    """The file of each command, in the order of their names."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return {file.stem.replace("_", "-"): file for file in files if file.stem not in NOT_COMMANDS}


def program_parser(*, with_arguments: bool = False) -> Parser:
    """The parser of `mlops-db`, with the help of each command, and with their arguments if a caller needs them."""
    parser = Parser(prog="mlops-db", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument(
        "--version", action="version", version=f"mlops-db {__version__}", help="print the version and exit"
    )
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for command, file in commands().items():
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        subparser = subparsers.add_parser(command, description=text, help=text.partition("\n")[0].rstrip("."))
        if with_arguments:
            _add_arguments(_module(command), subparser)
    return parser


def _run(given: Sequence[str]) -> int:
    arguments = [_decode(argument) for argument in given]
    if arguments and arguments[0] in commands():
        return _run_command(arguments[0], arguments[1:])
    parser = program_parser()
    if not arguments:
        parser.print_help()
        return 0
    return _run_command(parser.parse_args(arguments).command, [])


def _run_command(command: str, arguments: Sequence[str]) -> int:
    from mlops_db.server.waiting import wait_interruptibly  # noqa: PLC0415  (the help does without psycopg2)

    wait_interruptibly()
    module = _module(command)
    parser = Parser(prog=f"mlops-db {command}", description=module.__doc__)
    if not _add_arguments(module, parser):
        return int(module.run(arguments))
    options = parser.parse_args(arguments)
    log, warnings = logging.getLogger("mlops_db"), _Warnings(logging.WARNING)
    log.addHandler(warnings)
    try:
        return int(module.run(options))
    except MlopsDbError as error:
        if not getattr(options, "json", False):
            raise
        state = "unreachable" if error.exit_code == EXIT_UNREACHABLE else "error"
        print_json({"schema": "error-1", "state": state, "error": str(error), "hint": error.hint})
        return error.exit_code
    finally:
        log.removeHandler(warnings)


def _module(command: str) -> ModuleType:
    return import_module(f"mlops_db.cli.{command.replace('-', '_')}")


def _add_arguments(module: ModuleType, parser: argparse.ArgumentParser) -> bool:
    """Add the command's arguments; False if it runs another program, which reads the command line itself."""
    if not hasattr(module, "add_arguments"):
        return False
    module.add_arguments(parser)
    return True


def _decode(argument: str) -> str:
    """The argument as text: in a locale without UTF-8, Python keeps other characters as bytes."""
    try:
        return os.fsencode(argument).decode() if _has_raw_bytes(argument) else argument
    except UnicodeError:
        raise UsageError(
            f"the argument {argument!a} is not UTF-8", hint="`mlops-db --help` lists what it takes."
        ) from None


def _has_raw_bytes(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


def _terminate(*_: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
