"""Stores the range of normal values of a series together with its rows: `db.monitoring.log_many(bounds=)`."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass

from mlops_db.errors import InvalidValueError
from mlops_db.schema.limits import DEFAULT_MODEL
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.arguments import excerpt
from mlops_db.storage.metrics.rows import check_bounds, check_series

# In the order in which the trigger registers series (revision 0015), by the same collation, so that two jobs with the
# same series cannot deadlock. They can if each has bounds for a new series that only the other one measures; then
# PostgreSQL ends one of them, with an error that is retryable. Bounds that do not change are not written.
_SET_BOUNDS = """
INSERT INTO mlops_internal.metric_series AS series
       (metric_type, metric_name, lower_threshold, upper_threshold, model_name)
SELECT *
  FROM unnest(%s::text[], %s::text[], %s::float8[], %s::float8[], %s::text[])
       AS bounds (metric_type, metric_name, lower_threshold, upper_threshold, model_name)
 ORDER BY model_name, metric_type, metric_name
    ON CONFLICT (model_name, metric_type, metric_name) DO UPDATE
   SET lower_threshold = excluded.lower_threshold, upper_threshold = excluded.upper_threshold
 WHERE (series.lower_threshold, series.upper_threshold)
       IS DISTINCT FROM (excluded.lower_threshold, excluded.upper_threshold)
"""
_HINT = f"Give a list of Bounds, of {__name__}."


@dataclass(frozen=True)
class Bounds:
    """The values between which a series is normal. `log_many` checks them, as `expect` does its arguments.

    Attributes:
        metric_type: the kind of metric, 1 to 100 characters.
        metric_name: the metric, 1 to 255 characters.
        lower: the least normal value; finite. None: there is no lower bound.
        upper: the greatest normal value; finite, and not below `lower`. None: there is no upper bound.
        model_name: the model that is measured, 1 to 255 characters.
    """

    metric_type: str
    metric_name: str
    lower: float | None = None
    upper: float | None = None
    model_name: str = DEFAULT_MODEL


def check_bounds_of_series(bounds: Iterable[Bounds]) -> list[Bounds]:
    """The bounds to store, one for each series.

    Raises:
        InvalidValueError: it is no iterable of Bounds, two differ about one series, or one of them cannot be stored; it
            names which.
    """
    found: dict[tuple[str, str, str], tuple[int, Bounds]] = {}
    for place, given in enumerate(_list_bounds(bounds)):
        try:
            checked = _check(given)
        except InvalidValueError as refused:
            key = f"bounds[{place}].{refused.key}".rstrip(".")
            raise InvalidValueError(key, refused.reason, hint=refused.hint) from None
        first, same = found.setdefault((checked.model_name, checked.metric_type, checked.metric_name), (place, checked))
        if same != checked:
            raise InvalidValueError(
                f"bounds[{place}]",
                f"differs from bounds[{first}], which is about the same series: {checked} and {same}",
                hint="Give the bounds of a series once.",
            )
    return [checked for _, checked in found.values()]


def set_bounds(cursor: SafeCursor, bounds: list[Bounds]) -> None:
    """Store the bounds, and register series that are not known.

    Args:
        cursor: of a transaction that has written to monitoring_metrics, because `forget` waits for such transactions.
        bounds: checked.
    """
    cursor.execute(_SET_BOUNDS, [list(column) for column in zip(*map(astuple, bounds), strict=True)])


def _list_bounds(bounds: Iterable[Bounds]) -> list[Bounds]:
    if isinstance(bounds, str | bytes | Mapping) or not isinstance(bounds, Iterable):
        raise InvalidValueError("bounds", f"{excerpt(bounds)} is no list of Bounds", hint=_HINT)
    try:
        return list(bounds)
    except Exception as error:
        # A foreign iterator may raise anything: the error names the argument.
        raise InvalidValueError("bounds", f"cannot be read: {excerpt(error)}", hint=_HINT) from error


def _check(given: Bounds) -> Bounds:
    if not issubclass(type(given), Bounds):
        raise InvalidValueError(
            "", f"{excerpt(given)} is no Bounds", hint="Give Bounds(metric_type, metric_name, ...)."
        )
    names = check_series(given.model_name, given.metric_type, given.metric_name)
    lower, upper = check_bounds(given.lower, given.upper)
    return Bounds(**names, lower=lower, upper=upper)
