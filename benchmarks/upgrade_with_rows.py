"""How long does the upgrade from revision 0004 take with many metrics, and how long do other clients wait meanwhile?

Meanwhile a writer inserts single rows into the three tables, and a reader queries them and their views. Each wait
belongs to the revision in which most of it happened. With --legacy-timezone the run has `-x legacy-timezone`, and
rewrites the table once more, in revision 0007. Exit code 0 if no client waited longer than a second for any revision
except those that rewrite.

    uv run python benchmarks/upgrade_with_rows.py
    uv run python benchmarks/upgrade_with_rows.py --rows 10000000 --programs /usr/lib/postgresql/15/bin
    uv run python benchmarks/upgrade_with_rows.py --legacy-timezone Europe/Berlin
"""

import argparse
import sys
import time
from dataclasses import replace

from concurrent_clients import DECISIONS, FILL, MONTHS, READS, WRITES, Client, Step, alembic, steps
from mlops_db.migration.commands import downgrade, upgrade
from mlops_db.project import BASELINE
from throwaway_server import connect, parser, print_table, recreate_database, throwaway_server, version

BAR_S = 1.0
FROM = BASELINE
BEFORE_REWRITE = "0015"
REWRITE = "0016"
KEY_OF_OLD_ROWS = "0017"
REWRITE_WITH_TIMEZONE = "0007"
COPY = "CREATE TABLE copy AS SELECT * FROM monitoring_metrics"
KEY = """
CREATE UNIQUE INDEX once_more ON mlops_internal.monitoring_metrics_legacy
    (model_name, metric_type, metric_name, timestamp, id) INCLUDE (metric_value)
"""


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    with throwaway_server(options.programs) as server:
        settings = replace(server, database="upgrade")
        recreate_database(settings)
        upgrade(settings, FROM)
        with connect(settings) as connection:
            connection.execute(FILL.format(rows=options.rows, months=MONTHS, decisions=DECISIONS))
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")
            started = time.perf_counter()
            connection.execute(COPY)
            copied = time.perf_counter() - started
            connection.execute("DROP TABLE copy")
            connection.execute("CHECKPOINT")
        arguments = [f"-xlegacy-timezone={options.legacy_timezone}"] if options.legacy_timezone else []
        writer, reader = Client(WRITES), Client(READS)
        with writer.running(settings), reader.running(settings):
            done = alembic(settings, *arguments, "upgrade", "head")
        if done.returncode:
            sys.exit(f"the upgrade failed:\n{done.stdout}{done.stderr}")
        upgrades = [step for step in steps(settings, "upgrade") if step.revision > FROM]
        with connect(settings) as connection:
            started = time.perf_counter()
            connection.execute(KEY)
            key = time.perf_counter() - started
            connection.execute("DROP INDEX mlops_internal.once_more")
        started = time.perf_counter()
        downgrade(settings, BEFORE_REWRITE)
        back = time.perf_counter() - started
        print(f"{version(server)}; {options.rows:,} metrics, {FROM} to head {' '.join(arguments)}")
    print(f"to compare: {COPY} at {FROM}, no other clients: {copied:.2f} s")
    print(f"to compare: the key of {KEY_OF_OLD_ROWS} alone, no other clients: {key:.2f} s")
    print(f"from head to {BEFORE_REWRITE} again, no other clients: {back:.2f} s\n")
    return _report(upgrades, writer, reader, options, done.stderr)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="how many metrics (default 1 million)")
    options.add_argument("--legacy-timezone", help="the zone for `-x legacy-timezone`; default: none, UTC")
    return options.parse_args()


def _report(upgrades: list[Step], writer: Client, reader: Client, options: argparse.Namespace, output: str) -> int:
    rewriting = {REWRITE, REWRITE_WITH_TIMEZONE} if options.legacy_timezone else {REWRITE}
    million = options.rows / 1_000_000
    table, above = [], []
    for step in upgrades:
        seconds = (step.finished - step.started).total_seconds()
        waits = [client.longest(step.started, step.finished) for client in (writer, reader)]
        per_million = max(waits) / million if step.revision in rewriting else None
        table.append(
            [
                step.revision,
                *(f"{value:.2f}" for value in (seconds, *waits)),
                f"{per_million:.2f}" if per_million else "",
            ]
        )
        if max(waits) > BAR_S and step.revision not in rewriting:
            above.append(step.revision)
    total = (upgrades[-1].finished - upgrades[0].started).total_seconds()
    longest = (max((end - begin).total_seconds() for begin, end in client.waits) for client in (writer, reader))
    table.append(["all", f"{total:.2f}", *(f"{value:.2f}" for value in longest), ""])
    print_table(("revision", "s", "longest write s", "longest read s", "s per million rows"), table)
    for client, name in ((writer, "writer"), (reader, "reader")):
        print(f"{name}: {len(client.waits):,} statements, {len(client.errors)} errors", *sorted(set(client.errors)))
    tries = sum("again" in line for line in output.splitlines())
    print(f"revisions tried once more, because they got no lock: {tries}")
    print(f"\nbar: no client waits longer than {BAR_S:g} s, except for {' and '.join(sorted(rewriting))}: ", end="")
    print(f"MISSED by {', '.join(above)}" if above else "holds")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
