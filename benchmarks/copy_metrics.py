"""What do the catalogue of series and the index cost a COPY of 100,000 metrics?

The schema at head is compared with the same schema with one change. Each is in its own database, with the same million
rows in 24 months; COPY loads into each in turn. The ratio is the median of the rounds' ratios. Exit code 0 if the bar
holds.

    uv run python benchmarks/copy_metrics.py
    uv run python benchmarks/copy_metrics.py --rounds 15 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import datetime as dt
import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any

import psycopg

from metric_rows import COPY, SERIES, copy_text, fill
from mlops_db.migration.commands import upgrade
from throwaway_server import (
    connect,
    parser,
    print_bar,
    print_table,
    recreate_database,
    spread,
    throwaway_server,
    version,
)

ROWS = 100_000
BAR = 1.25
HEAD = "head: one index, trigger for each statement"
WITHOUT_TRIGGER = "without the trigger"
DROP_TRIGGER = "DROP TRIGGER monitoring_metrics_register_series ON monitoring_metrics"
ROW_TRIGGER = f"""
{DROP_TRIGGER};
CREATE FUNCTION register_row() RETURNS trigger LANGUAGE plpgsql AS $function$
BEGIN
    IF NOT EXISTS (
        SELECT FROM mlops_internal.metric_series AS s
         WHERE s.model_name = new.model_name AND s.metric_type = new.metric_type AND s.metric_name = new.metric_name
    ) THEN
        PERFORM mlops_internal.register_series(new.model_name, new.metric_type, new.metric_name);
    END IF;
    RETURN NULL;
END
$function$;
CREATE TRIGGER register_row AFTER INSERT ON monitoring_metrics FOR EACH ROW EXECUTE FUNCTION register_row()
"""
# The statement of revision 0015. PL/pgSQL plans it once a session: for one row, if the first insert has one row.
CACHED_PLAN = """
CREATE OR REPLACE FUNCTION mlops_internal.register_new_series() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    PERFORM mlops_internal.register_series(model_name, metric_type, metric_name)
       FROM (
           SELECT DISTINCT n.model_name, n.metric_type, n.metric_name
             FROM new_rows AS n
            WHERE n.metric_type IS NOT NULL AND n.metric_name IS NOT NULL
              AND NOT EXISTS (
                  SELECT FROM mlops_internal.metric_series AS s
                   WHERE s.model_name = n.model_name
                     AND s.metric_type = n.metric_type AND s.metric_name = n.metric_name
              )
            ORDER BY 1, 2, 3
       ) AS new_series;
    RETURN NULL;
END
$function$
"""
DROP_KEY = "ALTER TABLE monitoring_metrics DROP CONSTRAINT monitoring_metrics_pkey"
TWO_INDEXES = f"""
{DROP_KEY};
ALTER TABLE monitoring_metrics ADD PRIMARY KEY (id, timestamp);
CREATE INDEX ON monitoring_metrics (model_name, metric_type, metric_name, timestamp DESC, id DESC)
"""
WITHOUT_VALUE = f"""
{DROP_KEY};
ALTER TABLE monitoring_metrics ADD PRIMARY KEY (model_name, metric_type, metric_name, timestamp, id)
"""
VARIANTS = {
    HEAD: "",
    WITHOUT_TRIGGER: DROP_TRIGGER,
    "trigger for each row": ROW_TRIGGER,
    "trigger with a cached plan": CACHED_PLAN,
    "key (id, timestamp) and an index by series": TWO_INDEXES,
    "key without the value": WITHOUT_VALUE,
    "no index": DROP_KEY,
}
INDEX_SIZE = """
SELECT sum(pg_indexes_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'monitoring_metrics'::regclass
"""
ONE = "INSERT INTO monitoring_metrics (model_name, metric_type, metric_name) VALUES ('model_0', 'drift', 'metric_0')"


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    with throwaway_server(options.programs) as server:
        print(f"{version(server)}; COPY of {ROWS:,} rows of {SERIES} series, {options.rounds} rounds in turn\n")
        template = replace(server, database="template")
        recreate_database(template)
        upgrade(template)
        with connect(template) as connection:
            fill(connection, rows=options.rows, months=24)
        connections = {}
        for number, (name, change) in enumerate(VARIANTS.items()):
            settings = replace(server, database=f"variant_{number}")
            recreate_database(settings, template=template.database)
            connections[name] = connect(settings)
            if change:
                connections[name].execute(change)
            connections[name].execute(ONE)
        index_bytes = {name: connection.execute(INDEX_SIZE).fetchone() for name, connection in connections.items()}
        times: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for turn in range(options.rounds + 1):
            text = copy_text(ROWS, start=dt.datetime.now(dt.timezone.utc))
            for name, connection in connections.items():
                seconds = _copy(connection, text)
                if turn:
                    times[name].append(seconds)
    ratios = {name: _ratio(times[name], times[WITHOUT_TRIGGER]) for name in VARIANTS}
    print_table(
        ("monitoring_metrics", "median ms", "min", "max", "ratio", "index bytes a row"),
        (
            [name, *spread(times[name]), f"{ratios[name]:.2f}", f"{(index_bytes[name] or [0])[0] / options.rows:.0f}"]
            for name in VARIANTS
        ),
    )
    print(f"ratio: against `{WITHOUT_TRIGGER}`\n")
    return 0 if print_bar("head against the same without the trigger", ratios[HEAD], BAR) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="how many are there before (default 1 million)")
    options.add_argument("--rounds", type=int, default=9, help="how often each COPY runs (default 9)")
    return options.parse_args()


def _copy(connection: psycopg.Connection[Any], text: bytes) -> float:
    connection.execute("CHECKPOINT")
    started = time.perf_counter()
    with connection.cursor().copy(COPY.format("monitoring_metrics")) as copy:
        copy.write(text)
    return time.perf_counter() - started


def _ratio(times: list[float], reference: list[float]) -> float:
    return median(seconds / other for seconds, other in zip(times, reference, strict=True))


if __name__ == "__main__":
    sys.exit(main())
