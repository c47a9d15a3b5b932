"""The catalogue of series, mlops_internal.metric_series: what is expected of a series, and how a series is removed.

A writer registers the series of its rows only if the catalogue does not have them (revision 0015). It may look before
an entry is removed and commit afterwards; then its rows would have no entry. So a removal waits for the writers and
blocks new ones meanwhile. It does not see a program that took its snapshot before, at REPEATABLE READ, and writes
afterwards; maintenance registers the series of such rows.
"""

from mlops_db.errors import SeriesNotEmptyError, UnknownSeriesError
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.transactions import equal

# All writers wait behind this statement, so the timeout is too short for anybody to notice.
_LOCK = f"""
SET LOCAL lock_timeout = '300ms';
{BOUND_WAITS_ON_WORKERS}
LOCK TABLE ONLY public.monitoring_metrics IN SHARE ROW EXCLUSIVE MODE
"""


EXPECT = """
INSERT INTO mlops_internal.metric_series AS series
       (model_name, metric_type, metric_name, expected_interval, lower_threshold, upper_threshold)
VALUES (%(model_name)s, %(metric_type)s, %(metric_name)s, %(interval)s, %(lower)s, %(upper)s)
    ON CONFLICT (model_name, metric_type, metric_name) DO UPDATE
   SET expected_interval = excluded.expected_interval,
       lower_threshold = excluded.lower_threshold, upper_threshold = excluded.upper_threshold
"""


def forget_series(cursor: SafeCursor, names: dict[str, str], *, with_rows: bool) -> int:
    """Remove the entry of a series, and its rows if that is wanted; returns how many rows were removed.

    Args:
        cursor: of a transaction that has done nothing yet.
        names: its model_name, metric_type and metric_name.
        with_rows: whether to remove its rows, too.

    Raises:
        SeriesNotEmptyError: it has rows, and `with_rows` is false.
        UnknownSeriesError: there is no such series.
    """
    series = "series {metric_name!r} of type {metric_type!r} of model {model_name!r}".format(**names)
    of_series = equal(names)
    rows = 0
    cursor.execute(_LOCK)
    if with_rows:
        cursor.execute(f"DELETE FROM public.monitoring_metrics WHERE {of_series}", names)
        rows = cursor.rowcount
    elif cursor.value(f"SELECT EXISTS (SELECT 1 FROM public.monitoring_metrics WHERE {of_series})", names):
        raise SeriesNotEmptyError(
            f"{series} has rows; nothing was removed",
            hint="Pass with_rows=True to remove them, too. Or wait until maintenance has dropped them.",
        )
    cursor.execute(f"DELETE FROM mlops_internal.metric_series WHERE {of_series}", names)
    if rows == cursor.rowcount == 0:
        raise UnknownSeriesError(
            f"there is no {series}", hint="db.monitoring.series() has them all: is one of the three names misspelt?"
        )
    return rows
