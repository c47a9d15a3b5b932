"""Rows of metrics as the stream that COPY reads: checked, encoded and sent a piece at a time, never all at once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from mlops_db.errors import InvalidMetricError
from mlops_db.storage.metric_rows import (
    DEFAULT_MODEL,
    KEYS,
    MAX_AHEAD,
    RefusedValueError,
    checked_keys,
    checked_metadata,
    checked_name,
    checked_timestamp,
    checked_value,
    excerpt,
    row_refusal,
)

# The names come first: they repeat, so that their checks and their encoding are remembered together.
COPY = (
    "COPY public.monitoring_metrics (metric_type, metric_name, model_name, timestamp, metric_value, metadata)"
    " FROM STDIN (FORMAT text, ENCODING 'UTF8')"
)
# Characters. A piece that fits into a socket's buffer leaves at once, and the server works on it while the next one is
# encoded; with pieces of 64 kB and more each waits for the other, and takes 1.5 times as long.
PIECE = 1 << 14
MAX_REMEMBERED = 10_000
MAX_SKIPPED = 1_000
_INFINITY = float("inf")
# Manual, "COPY", Text Format: what would end a value or a row, and the escape character itself.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True)
class SkippedRow:
    """A row that was not stored.

    Attributes:
        row: which it was; the first one is 0.
        key: whose value was refused, or the path of a part of it; empty if it was the whole row.
        reason: why.
        excerpt: the row as Python writes it, cut to some 300 characters.
    """

    row: int
    key: str
    reason: str
    excerpt: str


class MetricCopy:
    """A file, as psycopg2's `copy_expert` reads it, of rows that are made while it is read.

    Attributes:
        sent: how many rows went into what was read.
        skipped: the first 1,000 rows that were refused, if refused rows are skipped.
        skipped_count: how many were refused.
        groups: the pairs of model_name and metric_type that occurred, if there is only one moment.
        failure: what making the rows raised; psycopg2 tells only that something did.
    """

    def __init__(self, rows: Iterable[Any], *, moment: datetime, only_moment: bool, skip: bool) -> None:
        """Take the rows and what holds for all of them.

        Args:
            rows: mappings, or what is refused as none.
            moment: the timestamp, in UTC, of rows that have none.
            only_moment: refuse any other timestamp.
            skip: leave out a row that is refused; else it ends the stream with InvalidMetricError.
        """
        self.sent = 0
        self.skipped: list[SkippedRow] = []
        self.skipped_count = 0
        self.groups: set[tuple[str, str]] = set()
        self.failure: BaseException | None = None
        self._moment = moment
        self._only_moment = only_moment
        self._skip = skip
        self._prefixes: dict[object, str] = {}
        self._latest = datetime.now(timezone.utc) + MAX_AHEAD
        self._last_timestamp: object = None
        self._last_moment = moment
        self._last_text = moment.isoformat()
        self._pieces = self._encoded(rows)

    def read(self, _size: int = -1) -> bytes:
        """The next piece, empty at the end. It may be longer than asked for: psycopg2 sends what it gets."""
        try:
            return next(self._pieces, b"")
        except BaseException as error:
            self.failure = error
            raise

    def _encoded(self, rows: Iterable[Any]) -> Iterator[bytes]:
        lines: list[str] = []
        size = 0
        for number, row in enumerate(rows):
            try:
                line = self._line(row)
            except RefusedValueError as refused:
                self._refuse(number, row, refused)
                continue
            lines.append(line)
            size += len(line)
            if size >= PIECE:
                self.sent += len(lines)
                yield "".join(lines).encode()
                lines.clear()
                size = 0
        self.sent += len(lines)
        yield "".join(lines).encode()

    def _line(self, row: Any) -> str:
        if type(row) is not dict and not isinstance(row, Mapping):
            raise row_refusal(row)
        get = row.get
        value = get("metric_value")
        # A row may have the value None, but not lack it. That the names are there is seen where they are checked.
        if value is None or not KEYS.issuperset(row):
            checked_keys(row)
        if type(value) is float and -_INFINITY < value < _INFINITY:
            number = repr(value)
        else:
            value = checked_value(value)
            number = "\\N" if value is None else repr(value)
        timestamp = get("timestamp")
        moment = self._last_text if timestamp is self._last_timestamp else self._timestamp(timestamp)
        metadata = get("metadata")
        # JSON escapes every control character itself, with a backslash.
        details = "\\N" if metadata is None else checked_metadata(metadata).replace("\\", "\\\\")
        names = (get("metric_type"), get("metric_name"), get("model_name", DEFAULT_MODEL))
        try:
            prefix = self._prefixes[names]
        except (KeyError, TypeError):  # seen for the first time; or one is a list, say, which is nothing to look up
            checked_keys(row)
            prefix = self._prefix(*names)  # after all else, because it notes what is replaced
        return f"{prefix}{moment}\t{number}\t{details}\n"

    def _prefix(self, metric_type: object, metric_name: object, model_name: object) -> str:
        checked = (
            checked_name(metric_type, "metric_type"),
            checked_name(metric_name, "metric_name"),
            checked_name(model_name, "model_name"),
        )
        if self._only_moment:
            self.groups.add((checked[2], checked[0]))
        if len(self._prefixes) >= MAX_REMEMBERED:
            self._prefixes.clear()
        prefix = "".join(f"{name.translate(_ESCAPES)}\t" for name in checked)
        self._prefixes[checked] = prefix
        return prefix

    def _timestamp(self, timestamp: object) -> str:
        if type(timestamp) is datetime and timestamp.tzinfo is timezone.utc and timestamp <= self._latest:
            moment = timestamp
        else:
            moment = self._moment if timestamp is None else checked_timestamp(timestamp)
        if moment != self._last_moment:
            if self._only_moment:
                raise RefusedValueError(
                    "timestamp",
                    f"{timestamp} is not the moment that is replaced, {self._moment}",
                    hint="With replace= leave the timestamps out, or give each row the same one.",
                )
            self._last_moment, self._last_text = moment, moment.isoformat()
        self._last_timestamp = timestamp
        return self._last_text

    def _refuse(self, number: int, row: object, refused: RefusedValueError) -> None:
        if not self._skip:
            raise InvalidMetricError(refused.key, refused.reason, row=number, hint=refused.hint) from None
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            self.skipped.append(SkippedRow(number, refused.key, refused.reason, excerpt(row)))
