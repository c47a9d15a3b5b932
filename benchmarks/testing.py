"""What does a fresh database cost a test of a team?

A test gets a copy of a template at head. Creating it, a first query of the storage layer and dropping it are timed in
turn: by both strategies of CREATE DATABASE, and by the fixture, which chooses one. The alternative is a new database
that all revisions run on. Once the server is as the plugin starts it, without fsync and in memory if there is room, and
once it is on disk with PostgreSQL's default settings, as a container of CI has them. Exit code 0 if the bar holds.

    uv run python benchmarks/testing.py
    uv run python benchmarks/testing.py --rounds 51 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import MappingProxyType

from psycopg import sql

from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.testing.databases import STRATEGY_SINCE, Databases
from mlops_db.testing.throwaway_server import SETTINGS
from throwaway_server import connect, parser, print_bar, print_table, spread, version

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from support.cluster import embedded_programs, settings_of, throwaway_cluster

BAR_MS = 100
ANEW, FIXTURE = "upgrade head anew", "the fixture"
DEFAULTS = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "'1GB'"}


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    holds = True
    for what, settings in (("as the plugin starts it", SETTINGS), ("on disk, default settings", DEFAULTS)):
        fast = settings is SETTINGS
        with throwaway_cluster(options.programs or embedded_programs(), in_memory=fast, **settings) as folder:
            server = replace(settings_of(folder), parameters=MappingProxyType({"hostaddr": "", "options": ""}))
            times = _measure(server, options.rounds)
            print(f"{version(server)}, {what}; {options.rounds} rounds in turn\n")
        print_table(
            ("a fresh database", "median ms", "min", "max", "ratio"),
            (
                [case, *spread(seconds), f"{median(seconds) / median(times[FIXTURE]):.2f}"]
                for case, seconds in times.items()
            ),
        )
        print()
        if fast:
            holds = print_bar("milliseconds of the fixture", 1000 * median(times[FIXTURE]), BAR_MS)
            print()
    return 0 if holds else 1


def _measure(server: Settings, rounds: int) -> dict[str, list[float]]:
    databases = Databases(server)
    template = databases.make_template("head")
    databases.change_template(template, upgrade)
    with connect(server) as connection:
        strategies = ("wal_log", "file_copy") if connection.info.server_version >= STRATEGY_SINCE else ("",)
    cases: dict[str, Callable[[], None]] = {
        f"a copy, {strategy}" if strategy else "a copy": lambda strategy=strategy: _copy(server, template, strategy)
        for strategy in strategies
    }
    cases[FIXTURE] = lambda: _use_fixture(databases, template)
    times: dict[str, list[float]] = {case: [] for case in (*cases, ANEW)}
    for turn in range(rounds + 1):
        for case, function in cases.items():
            _time(function, times[case], counts=turn > 0)
        if turn <= rounds // 5:
            _time(lambda: _upgrade(server), times[ANEW], counts=turn > 0)
    databases.drop_templates()
    return times


def _time(function: Callable[[], None], into: list[float], *, counts: bool) -> None:
    started = time.perf_counter()
    function()
    if counts:
        into.append(time.perf_counter() - started)


def _copy(server: Settings, template: str, strategy: str) -> None:
    with _database(server, template, f"STRATEGY {strategy}" if strategy else "") as settings:
        _use(settings)


def _upgrade(server: Settings) -> None:
    with _database(server, "template0") as settings:
        upgrade(settings)
        _use(settings)


def _use_fixture(databases: Databases, template: str) -> None:
    with databases.copy(template) as settings:
        _use(settings)


def _use(settings: Settings) -> None:
    with DatabaseManager(settings) as db:
        db.models.list()


@contextmanager
def _database(server: Settings, template: str, strategy: str = "") -> Iterator[Settings]:
    name = sql.Identifier("fresh")
    with connect(server) as connection:
        connection.execute(
            sql.SQL(f"CREATE DATABASE {{}} TEMPLATE {{}} {strategy}").format(name, sql.Identifier(template))
        )
    yield replace(server, database="fresh")
    with connect(server) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=31, help="how often each one runs (default 31)")
    return options.parse_args()


if __name__ == "__main__":
    sys.exit(main())
