"""How long do an upgrade from revision 0004 and the downgrade take with many metrics, and how long do others wait?

Meanwhile, without a pause, one client inserts single rows into the three tables, one queries them and their views, and
two update and delete metrics by random ids; an update moves the row to another month. Each wait belongs to the revision
in which most of it happened. To compare, CREATE TABLE AS of the metrics and the key of head on it are timed alone. Exit
code 0 if the bars hold and no client got an error.

    uv run python benchmarks/upgrade_with_rows.py
    uv run python benchmarks/upgrade_with_rows.py --rows 10000000 --programs /usr/lib/postgresql/15/bin
    uv run python benchmarks/upgrade_with_rows.py --legacy-timezone Europe/Berlin --environment production
"""

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import replace

from concurrent_clients import DECISIONS, FILL, MONTHS, READS, WRITES, Client, Step, alembic, steps
from mlops_db.migration.commands import upgrade
from mlops_db.project import BASELINE
from mlops_db.settings import Settings
from throwaway_server import connect, parser, print_bar, print_table, recreate_database, throwaway_server, version

READ_OR_INSERT_S = 0.5
UPDATE_OR_DELETE_S = 1.5
RATIO = 1.6
PLAIN_TABLE = "0015"
COPY = "CREATE TABLE copy AS SELECT *, 'default'::varchar(255) AS model_name FROM monitoring_metrics"
KEY = """
    CREATE UNIQUE INDEX once_more ON copy (model_name, metric_type, metric_name, timestamp, id) INCLUDE (metric_value)
"""
# A statement that was chosen before the swap, and runs after it, would read the whole table.
KIND = "(SELECT relkind FROM pg_class WHERE oid = to_regclass('public.monitoring_metrics'))"
RANDOM_ID = f"{KIND} = 'r' AND id = (SELECT 1 + floor(random() * {{rows}})::int)"
UPDATE = f"UPDATE monitoring_metrics SET timestamp = timestamp - interval '40 days' WHERE {RANDOM_ID}"
DELETE = f"DELETE FROM monitoring_metrics WHERE {RANDOM_ID}"
# The months have no index on the id alone.
ONE = f"""
    WITH one AS (SELECT model_name, metric_type, metric_name, timestamp, id FROM monitoring_metrics
                  WHERE {KIND} = 'p' AND model_name = 'default' AND metric_type = 'drift'
                    AND metric_name = (SELECT 'metric_' || floor(random() * 100))
                    AND timestamp >= (SELECT now() - random() * interval '{{months}} months')
                  ORDER BY timestamp LIMIT 1)
"""
IS_ONE = """
    m.model_name = one.model_name AND m.metric_type = one.metric_type AND m.metric_name = one.metric_name
    AND m.timestamp = one.timestamp AND m.id = one.id
"""
UPDATE_MONTH = (
    f"{ONE} UPDATE monitoring_metrics AS m SET timestamp = m.timestamp - interval '40 days' FROM one WHERE {IS_ONE}"
)
DELETE_MONTH = f"{ONE} DELETE FROM monitoring_metrics AS m USING one WHERE {IS_ONE}"


def main() -> int:
    """Measure and print; 0 if the bars hold."""
    options = _options()
    with throwaway_server(options.programs) as server:
        settings = replace(server, database="upgrade")
        recreate_database(settings)
        upgrade(settings, BASELINE)
        with connect(settings) as connection:
            connection.execute(FILL.format(rows=options.rows, months=MONTHS, decisions=DECISIONS))
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")
            started = time.perf_counter()
            connection.execute(COPY)
            copied = time.perf_counter() - started
            connection.execute(KEY)
            alone = time.perf_counter() - started
            connection.execute("DROP TABLE copy")
            connection.execute("CHECKPOINT")
        print(f"{version(server)}; {options.rows:,} metrics in {MONTHS} months, {options.environment}")
        print(f"to compare, without other clients: {COPY}: {copied:.2f} s; with the key: {alone:.2f} s")
        zone = [f"-xlegacy-timezone={options.legacy_timezone}"] if options.legacy_timezone else []
        held = [
            _run(settings, options, alone, *zone, "upgrade", "head"),
            # Production does not lose what revisions 0009 to 0015 have added.
            _run(
                settings,
                options,
                None,
                *zone,
                "downgrade",
                BASELINE if options.environment != "production" else PLAIN_TABLE,
            ),
        ]
    return 0 if all(held) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="how many metrics (default 1 million)")
    options.add_argument("--legacy-timezone", help="the zone for `-x legacy-timezone`; default: none, UTC")
    options.add_argument("--environment", default="development", help="MLOPS_ENV (default development)")
    return options.parse_args()


def _run(settings: Settings, options: argparse.Namespace, alone: float | None, *arguments: str) -> bool:
    """Run Alembic beside the clients and print what each revision took; whether the bars hold."""
    update, delete, update_month, delete_month = (
        (text.format(rows=options.rows, months=MONTHS),) for text in (UPDATE, DELETE, UPDATE_MONTH, DELETE_MONTH)
    )
    clients = {
        "insert": Client(WRITES),
        "read": Client(READS),
        "update": Client(update, update_month),
        "delete": Client(delete, delete_month),
    }
    with ExitStack() as stack:
        for client in clients.values():
            stack.enter_context(client.running(settings))
        done = alembic(settings, *arguments, MLOPS_ENV=options.environment)
    if done.returncode:
        sys.exit(f"alembic {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    direction = arguments[-2]
    found = [step for step in steps(settings, direction) if step.revision > BASELINE]
    longest = _print(direction, found, clients)
    total = (found[-1].finished - found[0].started).total_seconds()
    for name, client in clients.items():
        print(f"{name}: {len(client.waits):,} statements, {len(client.errors)} errors", *sorted(set(client.errors))[:3])
    print(f"tries without a lock: {sum('no lock' in line for line in done.stderr.splitlines())}")
    held = [
        print_bar("longest wait of reads and inserts, s", max(longest["read"], longest["insert"]), READ_OR_INSERT_S),
        print_bar(
            "longest wait of updates and deletes, s", max(longest["update"], longest["delete"]), UPDATE_OR_DELETE_S
        ),
        not any(client.errors for client in clients.values()),
    ]
    if alone is not None:
        held.append(print_bar("all revisions, ratio to CREATE TABLE AS with its key", total / alone, RATIO))
    return all(held)


def _print(direction: str, found: list[Step], clients: dict[str, Client]) -> dict[str, float]:
    longest = dict.fromkeys(clients, 0.0)
    table = []
    for step in found:
        waits = {name: client.longest(step.started, step.finished) for name, client in clients.items()}
        longest = {name: max(longest[name], wait) for name, wait in waits.items()}
        seconds = (step.finished - step.started).total_seconds()
        table.append([step.revision, *(f"{value:.2f}" for value in (seconds, *waits.values()))])
    total = (found[-1].finished - found[0].started).total_seconds()
    table.append(["all", *(f"{value:.2f}" for value in (total, *longest.values()))])
    print()
    print_table((direction, "s", *(f"longest {name} s" for name in clients)), table)
    return longest


if __name__ == "__main__":
    sys.exit(main())
