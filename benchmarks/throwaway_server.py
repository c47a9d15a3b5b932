"""Run a temporary PostgreSQL server for a benchmark, in a temporary folder and on a Unix socket.

It has PostgreSQL's default settings, with fsync, but more memory, and more WAL so that no checkpoint happens while
something is timed.
"""

import argparse
import signal
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from psycopg import sql

from mlops_db.settings import Settings

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.cluster import embedded_programs, settings_of, throwaway_cluster

CONFIGURATION = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "'1GB'",
    "max_wal_size": "'16GB'",
    "checkpoint_timeout": "'1h'",
}


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser with the option that all benchmarks have: the PostgreSQL to use."""
    made = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    made.add_argument(
        "--programs",
        type=Path,
        help="the programs of a PostgreSQL, such as /usr/lib/postgresql/15/bin; default: the embedded one",
    )
    return made


@contextmanager
def throwaway_server(programs: Path | None) -> Iterator[Settings]:
    """Start a server and stop it at the end, also at SIGTERM; yield the settings of its database `postgres`."""
    signal.signal(signal.SIGTERM, _end)
    with throwaway_cluster(programs or embedded_programs(), in_memory=False, **CONFIGURATION) as folder:
        yield settings_of(folder)


def connect(settings: Settings) -> psycopg.Connection[Any]:
    """Connect with autocommit, and without prepared statements: each statement is planned again."""
    return psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        dbname=settings.database,
        autocommit=True,
        prepare_threshold=None,
    )


def recreate_database(settings: Settings, *, template: str = "template1") -> None:
    """Create the settings' database, empty or as a copy. It replaces a database of that name."""
    name = sql.Identifier(settings.database)
    with connect(_maintenance(settings)) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template)))


def version(settings: Settings) -> str:
    """The version of the server, to print above a table."""
    with connect(_maintenance(settings)) as connection:
        number = connection.info.server_version
    return f"PostgreSQL {number // 10000}.{number % 10000}"


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table: the first column aligned left, the numbers right."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])], *rows):
        first, *others = row
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print(f"| {' | '.join(cells)} |")


def print_bar(what: str, ratio: float, bar: float, *, at_least: bool = False) -> bool:
    """Print whether a bar holds, and return it."""
    holds = ratio >= bar if at_least else ratio <= bar
    print(f"bar: {what}: {'at least' if at_least else 'at most'} {bar:g}, is {ratio:.2f}: {_word(holds=holds)}")
    return holds


def spread(seconds: Sequence[float]) -> list[str]:
    """Median, minimum and maximum in milliseconds, for a table."""
    return [f"{1000 * value:,.1f}" for value in (statistics.median(seconds), min(seconds), max(seconds))]


def _word(*, holds: bool) -> str:
    return "holds" if holds else "MISSED"


def _maintenance(settings: Settings) -> Settings:
    return Settings(host=settings.host, port=settings.port, user=settings.user, password=None, database="postgres")


def _end(*_: object) -> NoReturn:
    sys.exit("terminated")
