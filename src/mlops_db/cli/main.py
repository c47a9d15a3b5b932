"""The command line of `mlops-db`. Each command is imported when it runs, so that a small one stays quick."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from mlops_db import __version__
from mlops_db.cli.parser import Parser
from mlops_db.errors import UsageError, exit_code_of
from mlops_db.server.waiting import wait_interruptibly

EPILOG = """\
exit codes:
  0    done; for status: at head
  1    failed or refused, nothing half-done; for status: behind head, drifted, or no such database
  2    the server cannot be reached, or does not let this role in
  64   the command line is wrong
  130  interrupted by Control-C; 143 by SIGTERM

Revisions are Alembic's: mlops-db alembic upgrade head, mlops-db alembic history. In a checkout `alembic` does the same,
and exits with 255 when it fails.
Where to connect is in the environment, or in .env: see .env.example.
"""
MAX_DIGITS = 9
OTHER_PROGRAMS = ("alembic", "psql")  # read the rest of the command line themselves
EXIT_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mlops-db`; returns its exit code."""
    wait_interruptibly()
    # As process 1 of a container, a process without a handler does not get SIGTERM at all.
    signal.signal(signal.SIGTERM, _terminated)
    return exit_code_of(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def _run(given: Sequence[str]) -> int:
    arguments = [_text(argument) for argument in given]
    if arguments and arguments[0] in OTHER_PROGRAMS:
        hand_over: Callable[[Sequence[str]], int] = import_module(f"mlops_db.cli.{arguments[0]}").run
        return hand_over(arguments[1:])
    parser = _parser()
    if not arguments:
        parser.print_help()
        return 0
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = import_module(f"mlops_db.cli.{options.command.replace('-', '_')}").run
    return run(options)


def _text(argument: str) -> str:
    """The argument as text: what Python cannot decode in this locale it keeps as bytes."""
    if argument.isascii():
        return argument
    try:
        argument.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(argument).decode()
        except UnicodeError:
            raise UsageError(
                f"the argument {argument!a} is not UTF-8", hint="`mlops-db --help` lists what it takes."
            ) from None
    return argument


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="mlops-db",
        description="What Alembic has no word for, for the mlops metadata database.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"mlops-db {__version__}", help="print the version and exit"
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    commands.add_parser("create", help="create the database, unless it exists (the step before alembic upgrade head)")
    commands.add_parser("init", help="create the database and upgrade it to head; quick when nothing is left to do")
    status = commands.add_parser("status", help="show where it connects, the revision, and the six objects")
    status.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    check = commands.add_parser("check", help="compare the database, object by object, with what its revisions make")
    what = check.add_mutually_exclusive_group()
    what.add_argument("--revisions", action="store_true", help="the same as mlops-db lint")
    what.add_argument("--sql", action="store_true", help="print the statements that repair it; the rest to stderr")
    commands.add_parser("lint", help="check the revisions themselves, on scratch databases of the embedded server")
    adopt = commands.add_parser("adopt", help="take a database that was made by hand under Alembic, with its rows")
    adopt.add_argument("--dry-run", action="store_true", help="compare and report, change nothing")
    docs = commands.add_parser(
        "docs", help="write docs/schema.md and its diagram, and in a checkout docs/api.md and what check compares with"
    )
    docs.add_argument("--check", action="store_true", help="only tell whether they are stale: exit 1 if so")
    maintain = commands.add_parser("maintain", help="create, fill and drop the months of monitoring_metrics")
    maintain.add_argument(
        "--keep", metavar="TIME", help="drop the months older than that: 90d, 12w, 6mo, 2y (default: drop none)"
    )
    maintain.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    reader = commands.add_parser("grant-reader", help="let a role read the three views, and nothing else")
    reader.add_argument("role", help="an existing role, best one with NOLOGIN that others are members of")
    demo = commands.add_parser("demo", help="fill an empty database with a year that looks real, to have a look at")
    demo.add_argument("--days", type=_days, default=365, metavar="N", help="how many days, 90 to 730 (default: 365)")
    demo.add_argument("--seed", type=int, default=1, metavar="N", help="the same seed, the same numbers (default: 1)")
    history = commands.add_parser("history", help="show what migration runs did, newest first")
    history.add_argument("--limit", type=_positive, default=20, metavar="N", help="how many entries (default: 20)")
    history.add_argument("--json", action="store_true", help="print a JSON array, for machines")
    commands.add_parser("alembic", help="run Alembic on the revisions, such as mlops-db alembic upgrade head")
    commands.add_parser("psql", help="run psql on the database, with psql's own options")
    return parser


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _days(text: str) -> int:
    number = _whole(text)
    if not 90 <= number <= 730:  # noqa: PLR2004  (three months of story are the least, and two years are written in a minute)
        raise argparse.ArgumentTypeError(f"{text} is not a number from 90 to 730")
    return number


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
