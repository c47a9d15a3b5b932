"""How a series goes out of the catalogue: `db.monitoring.forget`.

A writer registers the series that its rows are of only if the catalogue does not have them (revision 0014). It may look
before the entry goes, and commit after that: its rows would be of a series that nobody knows. So whoever removes an
entry waits for the writers, and lets no new one begin meanwhile. Only a program that took its snapshot before, at
REPEATABLE READ, and writes afterwards, is not seen; maintenance registers the series of its rows.
"""

from mlops_db.errors import SeriesNotEmptyError, UnknownSeriesError
from mlops_db.server.cursor import SafeCursor

# Not longer than anybody notices: all writers wait behind whoever waits for this lock.
_LOCK = """
SET LOCAL lock_timeout = '300ms';
LOCK TABLE ONLY public.monitoring_metrics IN SHARE ROW EXCLUSIVE MODE
"""
_OF_SERIES = "model_name = %(model_name)s AND metric_type = %(metric_type)s AND metric_name = %(metric_name)s"


def forget_series(cursor: SafeCursor, names: dict[str, str], *, with_rows: bool) -> int:
    """Remove the entry of a series, and its rows if that is wanted; returns how many rows there were.

    Args:
        cursor: of a transaction that has done nothing yet.
        names: its model_name, metric_type and metric_name.
        with_rows: whether its rows go, too.

    Raises:
        SeriesNotEmptyError: it has rows, and they are to stay.
        UnknownSeriesError: there is no such series.
    """
    series = "series {metric_name!r} of type {metric_type!r} of model {model_name!r}".format(**names)
    rows = 0
    cursor.execute(_LOCK)
    if with_rows:
        cursor.execute(f"DELETE FROM public.monitoring_metrics WHERE {_OF_SERIES}", names)
        rows = cursor.rowcount
    else:
        cursor.execute(f"SELECT EXISTS (SELECT FROM public.monitoring_metrics WHERE {_OF_SERIES})", names)
        if cursor.fetchone() == (True,):
            raise SeriesNotEmptyError(
                f"{series} has rows; nothing was removed",
                hint="Remove them with it: with_rows=True. Or wait until they are as old as maintenance keeps them.",
            )
    cursor.execute(f"DELETE FROM mlops_internal.metric_series WHERE {_OF_SERIES}", names)
    if rows == cursor.rowcount == 0:
        raise UnknownSeriesError(
            f"there is no {series}", hint="db.monitoring.series() has them all: is one of the three names misspelt?"
        )
    return rows
