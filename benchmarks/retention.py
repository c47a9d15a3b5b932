"""How long does it take to remove the oldest month of metrics, and how long do writers wait meanwhile?

mlops_internal.drop_partitions is compared with DELETE, on the same partitions and on one table with the same rows and
the same key. DELETE leaves dead rows, so VACUUM is timed, too. A bare DROP TABLE is the least time that PostgreSQL
needs to remove the files of a month. Meanwhile a client inserts single rows; the longest insert is printed. In the last
case another client reads the table in a transaction of five seconds. mlops_db.admin.retention then waits for the
reader, and the writer does not wait. Exit code 0 if the bars hold.

    uv run python benchmarks/retention.py
    uv run python benchmarks/retention.py --rows 1000000 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg

from metric_rows import fill, partitions
from mlops_db.admin.retention import maintain
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from throwaway_server import connect, parser, print_bar, print_table, recreate_database, throwaway_server, version

MONTHS = 24
BAR = 100
LONGEST_WAIT_S = 0.5
READ_FOR_S = 5.0
INSERT = (
    "INSERT INTO {} (model_name, metric_type, metric_name, metric_value) VALUES ('model_0', 'drift', 'metric_0', 1)"
)
MOVED = 100_000
# The month before the oldest one.
EARLY = """
INSERT INTO monitoring_metrics (timestamp, model_name, metric_type, metric_name, metric_value)
SELECT upper - i * interval '20 seconds', 'model_' || mod(i, 10), 'drift', 'metric_' || mod(i / 10, 30), 1
  FROM mlops_internal.metric_partitions(), generate_series(1, %s) AS i WHERE lower = '-infinity'
"""
# The table without partitions: with the rows in the order of time, and with the months mixed in its pages. They become
# mixed if rows come late, or fill the space of removed ones.
ONE_TABLE = """
CREATE TABLE {table} (LIKE monitoring_metrics INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
INSERT INTO {table} SELECT * FROM monitoring_metrics ORDER BY {order};
ALTER TABLE {table} ADD PRIMARY KEY (model_name, metric_type, metric_name, timestamp, id) INCLUDE (metric_value);
"""
TABLES = {"one_table": "timestamp", "mixed_table": "random()"}


@dataclass(frozen=True)
class Result:
    """The seconds of the removal, and those of the longest insert meanwhile."""

    seconds: float
    longest_insert: float
    inserts: int


class Writer:
    """A client that inserts single rows until it is stopped."""

    def __init__(self, settings: Settings, table: str) -> None:
        """Take the database and the table."""
        self.seconds: list[float] = []
        self._settings = settings
        self._insert = INSERT.format(table)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        with connect(self._settings) as connection:
            while not self._stopped.is_set():
                started = time.perf_counter()
                connection.execute(self._insert)
                self.seconds.append(time.perf_counter() - started)


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with throwaway_server(options.programs) as server:
        print(f"{version(server)}; {options.rows:,} rows, {MONTHS} months\n")
        settings = replace(server, database="retention")
        recreate_database(settings)
        upgrade(settings)
        with connect(settings) as connection:
            fill(connection, rows=options.rows, months=MONTHS)
            for table, order in TABLES.items():
                connection.execute(ONE_TABLE.format(table=table, order=order))
                connection.execute(f"VACUUM (ANALYZE) {table}")
            connection.execute("CHECKPOINT")
            results = _measure(settings, connection)
    dropped = results["drop_partitions"].seconds
    print_table(
        ("removal of the oldest month", "ms", "ratio", "longest insert ms", "inserts"),
        (
            [
                name,
                f"{1000 * result.seconds:,.0f}",
                f"{result.seconds / dropped:,.1f}",
                f"{1000 * result.longest_insert:,.0f}",
                f"{result.inserts:,}",
            ]
            for name, result in results.items()
        ),
    )
    print()
    waits = max(result.longest_insert for name, result in results.items() if "drop" in name or "maintain" in name)
    held = (
        *(
            print_bar(f"DELETE, {name}, against drop_partitions", _ratio(results, name), BAR, at_least=True)
            for name in ("one table", "one table, months mixed")
        ),
        print_bar("longest insert beside the drops, in seconds", waits, LONGEST_WAIT_S),
    )
    return 0 if all(held) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=10_000_000, help="how many metrics (default 10 million)")
    return options.parse_args()


def _ratio(results: dict[str, Result], where: str) -> float:
    return results[f"DELETE, {where}"].seconds / results["drop_partitions"].seconds


def _measure(settings: Settings, connection: psycopg.Connection[Any]) -> dict[str, Result]:
    """Remove the oldest month in several ways; 23 months and fewer are left."""

    def delete(table: str) -> None:
        connection.execute(f"DELETE FROM {table} WHERE timestamp < %s", [end])

    def vacuum(table: str) -> None:
        connection.execute(f"VACUUM {table}")

    def drop() -> None:
        (dropped,) = connection.execute("SELECT mlops_internal.drop_partitions(now() - %s)", [end]).fetchone() or ()
        assert len(dropped or ()) == 1, dropped

    def move() -> None:
        (moved,) = connection.execute("SELECT mlops_internal.move_earlier_month()").fetchone() or ()
        assert moved is not None

    def drop_behind_a_reader() -> None:
        with connect(settings) as other, other.transaction():
            other.execute("SELECT count(*) FROM monitoring_metrics WHERE timestamp > now()")
            run = threading.Thread(target=maintain, args=(settings,), kwargs={"keep": keep})
            run.start()
            time.sleep(READ_FOR_S)
        run.join()

    results = {}
    end = _end_of_oldest(connection)
    for table, name in (("one_table", "one table"), ("mixed_table", "one table, months mixed")):
        results[f"DELETE, {name}"] = _timed(settings, table, partial(delete, table))
        results[f"VACUUM, {name}"] = _timed(settings, table, partial(vacuum, table))
    partitioned = partial(_timed, settings, "monitoring_metrics")
    results["DELETE, the same partitions"] = partitioned(partial(delete, "monitoring_metrics"))
    connection.execute(f"DROP TABLE {partitions(connection)[1]}")
    end = _end_of_oldest(connection)
    results["drop_partitions"] = partitioned(drop)
    bare = f"DROP TABLE {partitions(connection)[1]}"
    results["a bare DROP TABLE"] = partitioned(lambda: connection.execute(bare))
    (keep,) = connection.execute("SELECT (now() - %s)::text", [_end_of_oldest(connection)]).fetchone() or ()
    results[f"maintain, beside a reader of {READ_FOR_S:.0f} s"] = partitioned(drop_behind_a_reader)
    connection.execute(EARLY, [MOVED])
    results[f"move_earlier_month, {MOVED:,} rows"] = partitioned(move)
    return results


def _end_of_oldest(connection: psycopg.Connection[Any]) -> Any:
    """The end of the oldest month."""
    rows = connection.execute("SELECT upper FROM mlops_internal.metric_partitions() LIMIT 2").fetchall()
    return rows[1][0]


def _timed(settings: Settings, table: str, remove: Callable[[], None]) -> Result:
    writer = Writer(settings, table)
    with writer.writing():
        time.sleep(1)
        started = time.perf_counter()
        remove()
        seconds = time.perf_counter() - started
        time.sleep(1)
    return Result(seconds, max(writer.seconds), len(writer.seconds))


if __name__ == "__main__":
    sys.exit(main())
