"""A datetime with the index of a mapped run, for runs about the same moment such as Airflow's mapped tasks."""

import operator
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from time import struct_time
from typing import Any, SupportsIndex, cast, overload

from mlops_db.errors import InvalidValueError
from mlops_db.storage.arguments import check_moment, excerpt

_HINT = "Give the run's place among the mapped runs, a whole number from 0; for a run that is not mapped, a datetime."


class MappedMoment(datetime):
    """A datetime with the index of one of several runs about this moment: `MappedMoment.of(moment, map_index=3)`.

    As the timestamp of a row of metrics it adds its `map_index` to the row's metadata. As `replace=` of
    `db.monitoring.log_many` it keeps the rows of the other runs. Elsewhere it compares, hashes and reads like any other
    datetime. Arithmetic, `replace()`, `astimezone()`, copying and pickling keep the index. Text and the types of other
    libraries, such as pandas' Timestamp, lose it: pass them to `of` again.
    """

    __slots__ = ("_map_index",)

    _map_index: int

    # datetime's own constructors, such as now(), fail because they give no map_index.
    def __new__(cls, *args: Any, map_index: int, **kwargs: Any) -> "MappedMoment":  # noqa: PYI034  (Python 3.11's Self)
        """Take datetime's own arguments, and the run's index."""
        made = super().__new__(cls, *args, **kwargs)
        made._map_index = _check_index(map_index)
        return made

    @property
    def map_index(self) -> int:
        """The index of the run; the first run is 0."""
        return self._map_index

    @staticmethod
    def of(value: datetime, map_index: int) -> "MappedMoment":
        """The moment `value`, in UTC, with the index of a run.

        Args:
            value: an aware datetime.
            map_index: the index of the run; the first run is 0.

        Raises:
            InvalidValueError: `value` is no aware datetime, or `map_index` no whole number from 0.
        """
        return _with_index(check_moment(value, "value"), map_index)

    def _plain(self) -> datetime:
        return datetime.combine(self.date(), self.timetz())

    def __add__(self, value: timedelta, /) -> "MappedMoment":
        """A later moment of the same run."""
        return _with_index(self._plain() + value, self.map_index)

    __radd__ = __add__

    @overload  # type: ignore[override]
    def __sub__(self, value: datetime, /) -> timedelta: ...
    @overload
    def __sub__(self, value: timedelta, /) -> "MappedMoment": ...
    def __sub__(self, value: datetime | timedelta, /) -> "timedelta | MappedMoment":
        """An earlier moment of the same run, or the time since another moment."""
        difference = self._plain() - value
        return _with_index(difference, self.map_index) if isinstance(difference, datetime) else difference

    def replace(self, *args: Any, **kwargs: Any) -> "MappedMoment":
        """As datetime's, with the index of the same run."""
        return _with_index(self._plain().replace(*args, **kwargs), self.map_index)

    __replace__ = replace  # of copy.replace()

    def astimezone(self, tz: tzinfo | None = None) -> "MappedMoment":
        """As datetime's, with the index of the same run."""
        return _with_index(self._plain().astimezone(tz), self.map_index)

    def utctimetuple(self) -> struct_time:
        """As datetime's, which would make a moment of this class without an index."""
        return self._plain().utctimetuple()

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        """How pickle and copy make it again."""
        return _with_index, (self._plain(), self.map_index)

    def serialize(self) -> dict[str, Any]:
        """The value for Airflow's XCom."""
        return {"moment": self.isoformat(), "map_index": self.map_index}

    @staticmethod
    def deserialize(data: Mapping[str, Any], _version: int) -> "MappedMoment":
        """The moment, in UTC, from a value of Airflow's XCom, if `allowed_deserialization_classes` allows it."""
        return MappedMoment.of(datetime.fromisoformat(data["moment"]), data["map_index"])

    def __repr__(self) -> str:
        """As datetime's, with the run's index."""
        return f"{super().__repr__()[:-1]}, map_index={self.map_index})"


def map_index_of(value: object) -> int | None:
    """The index of the mapped run that a moment is of; None for any other value."""
    return value.map_index if isinstance(value, MappedMoment) else None


def _with_index(plain: datetime, map_index: int) -> MappedMoment:
    day, time = plain.date(), plain.timetz()
    return MappedMoment(
        *(day.year, day.month, day.day, time.hour, time.minute, time.second, time.microsecond, time.tzinfo),
        fold=time.fold,
        map_index=map_index,
    )


def _check_index(map_index: object) -> int:
    try:
        index = -1 if isinstance(map_index, bool) else operator.index(cast("SupportsIndex", map_index))
    except TypeError:
        index = -1
    if index < 0:
        raise InvalidValueError("map_index", f"is {excerpt(map_index)}", hint=_HINT)
    return index
