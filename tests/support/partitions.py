"""The partitions of monitoring_metrics: their bounds, their rows, and the names of months."""

from support.database import Database


def partitions(database: Database) -> dict[str, tuple[str, int]]:
    """The bounds and the number of rows of each partition, by its name."""
    database.query("SET timezone = 'UTC'")
    found = database.query("""
        SELECT relname, pg_get_expr(relpartbound, c.oid) FROM pg_class AS c JOIN pg_inherits ON inhrelid = c.oid
         WHERE inhparent = 'monitoring_metrics'::regclass AND relnamespace = 'mlops_internal'::regnamespace
    """)
    return {name: (bounds, database.value(f"SELECT count(*) FROM mlops_internal.{name}")) for name, bounds in found}


def months(database: Database, first: int, last: int) -> list[str]:
    """The names of the partitions from the month `first` to the month `last`; 0 is this month."""
    return [
        f"monitoring_metrics_{name}"
        for (name,) in database.query(
            "SELECT to_char(now() AT TIME ZONE 'UTC' + n * interval '1 month', 'YYYY_MM') FROM unnest(%s::int[]) n",
            [list(range(first, last + 1))],
        )
    ]
