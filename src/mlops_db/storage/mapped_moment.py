"""The moment of one of several runs that are about the same moment, such as Airflow's mapped tasks."""

import operator
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from time import struct_time
from typing import Any, SupportsIndex, cast, overload

from mlops_db.errors import InvalidValueError
from mlops_db.storage.values import excerpt, moment

_HINT = "Give the run's place among the mapped ones, a whole number from 0; for a run that is not mapped, a datetime."


class MappedMoment(datetime):
    """A datetime that knows which of several runs about this moment it is of: `MappedMoment.of(moment, map_index=3)`.

    Rows of metrics whose moment it is get its `map_index` into their metadata, and as `replace=` of
    `db.monitoring.log_many` it leaves what the other runs stored. Elsewhere it is a datetime like any other: it
    compares, hashes and reads like one. What is made of it by arithmetic, `replace()`, `astimezone()`, copying or
    pickling is of the same run. Text is not, nor is what another library makes of it, such as pandas' Timestamp: give
    that to `of` again.
    """

    __slots__ = ("_map_index",)

    _map_index: int

    # Whatever datetime itself would make of this class, such as now(), lacks the run, and fails for want of it.
    def __new__(cls, *args: Any, map_index: int, **kwargs: Any) -> "MappedMoment":  # noqa: PYI034  (Python 3.11's Self)
        """Take datetime's own arguments, and the run."""
        made = super().__new__(cls, *args, **kwargs)
        made._map_index = _checked(map_index)
        return made

    @property
    def map_index(self) -> int:
        """Which of the runs; the first one is 0."""
        return self._map_index

    @staticmethod
    def of(value: datetime, map_index: int) -> "MappedMoment":
        """The moment `value`, in UTC, as that of one run.

        Args:
            value: an aware datetime.
            map_index: which of the runs; the first one is 0.

        Raises:
            InvalidValueError: `value` is no aware datetime, or `map_index` no whole number from 0.
        """
        return _mapped(moment(value, "value"), map_index)

    def _plain(self) -> datetime:
        return datetime.combine(self.date(), self.timetz())

    def __add__(self, value: timedelta, /) -> "MappedMoment":
        """A moment of the same run."""
        return _mapped(self._plain() + value, self.map_index)

    __radd__ = __add__

    @overload  # type: ignore[override]
    def __sub__(self, value: datetime, /) -> timedelta: ...
    @overload
    def __sub__(self, value: timedelta, /) -> "MappedMoment": ...
    def __sub__(self, value: datetime | timedelta, /) -> "timedelta | MappedMoment":
        """A moment of the same run; less another moment, the time between them."""
        found = self._plain() - value
        return _mapped(found, self.map_index) if isinstance(found, datetime) else found

    def replace(self, *args: Any, **kwargs: Any) -> "MappedMoment":
        """As datetime's; of the same run."""
        return _mapped(self._plain().replace(*args, **kwargs), self.map_index)

    __replace__ = replace  # of copy.replace()

    def astimezone(self, tz: tzinfo | None = None) -> "MappedMoment":
        """As datetime's; of the same run."""
        return _mapped(self._plain().astimezone(tz), self.map_index)

    def utctimetuple(self) -> struct_time:
        """As datetime's, which makes a moment of this class on its way."""
        return self._plain().utctimetuple()

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        """How pickle and copy make it anew."""
        return _mapped, (self._plain(), self.map_index)

    def serialize(self) -> dict[str, Any]:
        """How Airflow's XCom takes it."""
        return {"moment": self.isoformat(), "map_index": self.map_index}

    @staticmethod
    def deserialize(data: Mapping[str, Any], _version: int) -> "MappedMoment":
        """How Airflow's XCom makes it anew, where `allowed_deserialization_classes` lets it; in UTC."""
        return MappedMoment.of(datetime.fromisoformat(data["moment"]), data["map_index"])

    def __repr__(self) -> str:
        """As datetime's, with the run."""
        return f"{super().__repr__()[:-1]}, map_index={self.map_index})"


def map_index_of(value: object) -> int | None:
    """Which of several runs a moment is of; None if it does not tell."""
    return value.map_index if isinstance(value, MappedMoment) else None


def _mapped(plain: datetime, map_index: int) -> MappedMoment:
    day, time = plain.date(), plain.timetz()
    return MappedMoment(
        *(day.year, day.month, day.day, time.hour, time.minute, time.second, time.microsecond, time.tzinfo),
        fold=time.fold,
        map_index=map_index,
    )


def _checked(map_index: object) -> int:
    try:
        index = -1 if isinstance(map_index, bool) else operator.index(cast("SupportsIndex", map_index))
    except TypeError:
        index = -1
    if index < 0:
        raise InvalidValueError("map_index", f"is {excerpt(map_index)}", hint=_HINT)
    return index
