"""The bounds within which a series is normal, handed over together with its rows: `db.monitoring.log_many(bounds=)`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlops_db.errors import InvalidValueError
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.metric_rows import MAX_CHARACTERS, checked_bounds
from mlops_db.storage.values import DEFAULT_MODEL, excerpt, text

# In the order in which the trigger registers series (revision 0014), by the same collation: two jobs that take the same
# entries cannot wait for each other in a circle. They can where each has bounds for a new series that only the other
# one measures; then PostgreSQL ends one of them, with an error that is retryable. What is said already is not written
# once more.
_SET_BOUNDS = """
INSERT INTO mlops_internal.metric_series AS series
       (model_name, metric_type, metric_name, lower_threshold, upper_threshold)
SELECT *
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::float8[], %s::float8[])
       AS bounds (model_name, metric_type, metric_name, lower_threshold, upper_threshold)
 ORDER BY 1, 2, 3
    ON CONFLICT (model_name, metric_type, metric_name) DO UPDATE
   SET lower_threshold = excluded.lower_threshold, upper_threshold = excluded.upper_threshold
 WHERE (series.lower_threshold, series.upper_threshold)
       IS DISTINCT FROM (excluded.lower_threshold, excluded.upper_threshold)
"""
_HINT = "Give a list of Bounds, of mlops_db.storage.metric_bounds."


@dataclass(frozen=True)
class Bounds:
    """Between which values a series is normal. `log_many` checks it, as `expect` does its arguments.

    Attributes:
        metric_type: the kind of metric, 1 to 100 characters.
        metric_name: the metric, 1 to 255 characters.
        lower: a value below it is low; finite. None: no value is.
        upper: a value above it is high; finite, and not below `lower`. None: no value is.
        model_name: the model that is measured, 1 to 255 characters.
    """

    metric_type: str
    metric_name: str
    lower: float | None = None
    upper: float | None = None
    model_name: str = DEFAULT_MODEL


def checked_bounds_of_series(bounds: Iterable[Bounds]) -> list[Bounds]:
    """The bounds as they are stored, once for each series.

    Raises:
        InvalidValueError: it is no iterable of Bounds, two differ about one series, or one of them cannot be stored; it
            names which.
    """
    found: dict[tuple[str, str, str], tuple[int, Bounds]] = {}
    for place, given in enumerate(_listed(bounds)):
        try:
            checked = _checked(given)
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
    """Let them hold from the end of the transaction on; series that nobody knows are registered.

    Args:
        cursor: of a transaction that has written to monitoring_metrics, as `forget` waits for such.
        bounds: checked.
    """
    columns = zip(
        *((each.model_name, each.metric_type, each.metric_name, each.lower, each.upper) for each in bounds), strict=True
    )
    cursor.execute(_SET_BOUNDS, [list(column) for column in columns])


def _listed(bounds: Iterable[Bounds]) -> list[Bounds]:
    if isinstance(bounds, str | bytes | Mapping) or not isinstance(bounds, Iterable):
        raise InvalidValueError("bounds", f"{excerpt(bounds)} is no list of Bounds", hint=_HINT)
    try:
        return list(bounds)
    except Exception as error:
        # Whatever a foreign iterator raises: nothing was sent yet, and it says which argument it came from.
        raise InvalidValueError("bounds", f"cannot be read: {excerpt(error)}", hint=_HINT) from error


def _checked(given: Bounds) -> Bounds:
    if not issubclass(type(given), Bounds):
        raise InvalidValueError(
            "", f"{excerpt(given)} is no Bounds", hint="Give Bounds(metric_type, metric_name, ...)."
        )
    names = {key: text(getattr(given, key), key, most=most) for key, most in MAX_CHARACTERS.items()}
    lower, upper = checked_bounds(given.lower, given.upper)
    return Bounds(**names, lower=lower, upper=upper)
