"""Fill monitoring_metrics at head for the benchmarks: quickly, and with the same result as monitoring has.

The rows are in the order of time, one series after the other, from the first of a month until now. Each month is loaded
before its index is created and it is attached, so that ten million rows take a minute or two.
"""

import datetime as dt
from typing import Any

import psycopg
from psycopg import sql

SERIES = 300
MICROSECOND = dt.timedelta(microseconds=1)
# 10 models, 3 types, 10 names.
COLUMNS = """
    (ARRAY['coverage', 'drift', 'performance'])[1 + mod(i / 10, 3)] AS metric_type,
    'metric_' || mod(i / 30, 10) AS metric_name,
    sin(i) AS metric_value,
    '{"window": "1d", "samples": 1000}'::jsonb AS metadata
"""
MODEL = "'model_' || mod(i, 10) AS model_name"


def fill(
    connection: psycopg.Connection[Any],
    *,
    rows: int,
    months: int,
    series: int = SERIES,
    columns: str = f"{MODEL}, {COLUMNS}",
) -> None:
    """Replace the partitions: that many months up to this one, three more, and the two open-ended ones.

    Args:
        connection: with autocommit, to a database at head.
        rows: how many metrics.
        months: how many months they cover.
        series: how many series they have; the first rows are one of each.
        columns: SQL of the columns model_name, metric_type, metric_name, metric_value and metadata of row `i` at
            `moment`.
    """
    _drop_partitions(connection)
    now = dt.datetime.now(dt.timezone.utc)
    this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = _months_later(this_month, 1 - months)
    step = (now - start) // rows
    _add_partition(connection, "earlier", "MINVALUE", start)
    for number in range(months):
        month = _months_later(start, number)
        end = _months_later(month, 1)
        first, after_last = -((start - month) // step), min(-((start - end) // step), rows)
        moments = (
            f"generate_series({first}, {after_last - 1}) AS i CROSS JOIN LATERAL"
            f" (SELECT '{start}'::timestamptz + i * interval '{step // MICROSECOND} microseconds' AS moment) AS at"
        )
        _load_partition(connection, month, end, moments, columns)
    for number in range(1, 4):
        month = _months_later(this_month, number)
        _add_partition(connection, f"{month:%Y_%m}", month, _months_later(month, 1))
    _add_partition(connection, "later", _months_later(this_month, 4), "MAXVALUE")
    connection.execute("SELECT setval('monitoring_metrics_id_seq', %s)", [rows])
    connection.execute(
        f"""
        INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name)
        SELECT DISTINCT model_name, metric_type, metric_name FROM (
            SELECT {columns} FROM generate_series(0, %s) AS i CROSS JOIN (SELECT now() AS moment) AS at
        ) AS series ON CONFLICT DO NOTHING
        """,
        [series - 1],
    )
    # Each table by itself, as autovacuum does, which never analyses a partitioned table.
    for table in [*partitions(connection), "mlops_internal.metric_series"]:
        connection.execute(f"VACUUM (ANALYZE) {table}")
    connection.execute("CHECKPOINT")


def partitions(connection: psycopg.Connection[Any]) -> list[str]:
    """The partitions of monitoring_metrics, oldest first, with their schema."""
    found = connection.execute("SELECT partition FROM mlops_internal.metric_partitions()")
    return [f"mlops_internal.{name}" for (name,) in found]


def copy_text(rows: int, *, start: dt.datetime) -> bytes:
    """That many rows for COPY, from a moment on, a millisecond apart."""
    lines = []
    for i in range(rows):
        series = i % SERIES
        kind = ("coverage", "drift", "performance")[series // 10 % 3]
        moment = start + dt.timedelta(milliseconds=i)
        lines.append(f'model_{series % 10}\t{kind}\tmetric_{series // 30}\t{moment}\t0.5\t{{"window": "1d"}}\n')
    return "".join(lines).encode()


COPY = "COPY {} (model_name, metric_type, metric_name, timestamp, metric_value, metadata) FROM STDIN"


def _drop_partitions(connection: psycopg.Connection[Any]) -> None:
    for name in partitions(connection):
        connection.execute(f"DROP TABLE {name}")


def _add_partition(
    connection: psycopg.Connection[Any], name: str, lower: dt.datetime | str, upper: dt.datetime | str
) -> None:
    bounds = [sql.SQL(end) if isinstance(end, str) else sql.Literal(end) for end in (lower, upper)]
    connection.execute(
        sql.SQL("CREATE TABLE {} PARTITION OF monitoring_metrics FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier("mlops_internal", f"monitoring_metrics_{name}"), *bounds
        )
    )


def _load_partition(
    connection: psycopg.Connection[Any], month: dt.datetime, end: dt.datetime, moments: str, columns: str
) -> None:
    name = f"mlops_internal.monitoring_metrics_{month:%Y_%m}"
    connection.execute(f"CREATE TABLE {name} (LIKE monitoring_metrics INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    connection.execute(
        f"""
        INSERT INTO {name} (id, timestamp, created_at, model_name, metric_type, metric_name, metric_value, metadata)
        SELECT i, moment, moment, {columns} FROM {moments}
        """
    )
    key = "(model_name, metric_type, metric_name, timestamp, id) INCLUDE (metric_value)"
    connection.execute(f"ALTER TABLE {name} ADD PRIMARY KEY {key}")
    connection.execute(
        sql.SQL("ALTER TABLE monitoring_metrics ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.SQL(name), sql.Literal(month), sql.Literal(end)
        )
    )


def _months_later(month: dt.datetime, months: int) -> dt.datetime:
    count = month.year * 12 + month.month - 1 + months
    return month.replace(year=count // 12, month=count % 12 + 1)
