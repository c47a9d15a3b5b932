"""Sends rows of metrics to COPY: checks and encodes them a piece at a time, never all at once."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import psycopg2

from mlops_db.errors import InvalidMetricError, InvalidValueError
from mlops_db.schema.limits import DEFAULT_MODEL
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.arguments import (
    MAX_AHEAD,
    MAX_EXCERPT,
    check_moment,
    check_name,
    check_number,
    excerpt,
    refuse_future,
)
from mlops_db.storage.json_values import encode_json
from mlops_db.storage.mapped_moment import map_index_of
from mlops_db.storage.metrics.rows import KEYS, ROW_HINT, TIMESTAMP_HINT, VALUE_HINT, add_map_index, check_keys

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
_REPLACE_HINT = "With replace= leave the timestamps out, or give each row the same one."
_INFINITY = float("inf")
# Manual, "COPY", Text Format: the characters that end a value or a row, and the escape character itself.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True)
class SkippedRow:
    """A row that was not stored.

    Attributes:
        row: the row's place; the first row is 0.
        key: the key whose value was refused, or the path of a part of it; empty if the whole row was refused.
        reason: why it was refused.
        excerpt: the row as Python writes it, cut to some 300 characters.
    """

    row: int
    key: str
    reason: str
    excerpt: str


class MetricCopy:
    """A file, as psycopg2's `copy_expert` reads it, of rows that are encoded while it is read.

    Attributes:
        sent: how many rows went into the stream.
        stored: how many rows the server has stored of them; fewer if a trigger of somebody's left some out.
        skipped: the first 1,000 rows that were refused, if refused rows are skipped.
        skipped_count: how many rows were refused.
        series: each (model_name, metric_type, metric_name) that occurred, if there is only one moment.
    """

    def __init__(
        self, rows: Iterable[Any], *, at: datetime, only_at: bool, skip: bool, map_index: int | None = None
    ) -> None:
        """Take the rows and the options that hold for all of them.

        Args:
            rows: mappings; other items are refused.
            at: the timestamp, in UTC, of rows that have none: the time by the server's clock, or the moment to replace.
            only_at: refuse any other timestamp.
            skip: leave out a row that is refused; otherwise it ends the stream with InvalidMetricError.
            map_index: the index of the mapped run that wrote the rows, a key of their metadata; None: each row's
                timestamp may have one.
        """
        self.sent = self.stored = 0
        self.skipped: list[SkippedRow] = []
        self.skipped_count = 0
        self.series: set[tuple[str, str, str]] = set()
        self._failure: BaseException | None = None
        self._at = at
        self._only_at = only_at
        self._skip = skip
        self._only_map_index = map_index
        self._prefixes: dict[object, str] = {}
        self._latest = at + MAX_AHEAD
        self._last_timestamp: object = None
        self._last_moment = at
        self._last_text = at.isoformat()
        self._last_map_index = map_index
        self._pieces = self._encode(rows)

    def send(self, cursor: SafeCursor) -> None:
        """Send the rows by COPY.

        Raises:
            InvalidMetricError: a row was refused. Errors of the iterable of rows are raised as they are.
        """
        try:
            cursor.copy_expert(COPY, self, PIECE)  # type: ignore[arg-type]  # it needs no readline()
        except psycopg2.Error as error:
            # The server names this function if reading the rows failed. Any other error came before that.
            reading_failed = error.diag.source_function == "CopyGetData"
            if self._failure is not None and (reading_failed or not isinstance(self._failure, Exception)):
                raise self._failure from None
            raise error from self._failure
        self.stored = cursor.rowcount

    def read(self, _size: int = -1) -> bytes:
        """The next piece, empty at the end. It may be longer than asked for: psycopg2 sends what it gets."""
        try:
            return next(self._pieces, b"")
        except BaseException as error:
            self._failure = error  # psycopg2 only reports that reading failed
            raise

    def _encode(self, rows: Iterable[Any]) -> Iterator[bytes]:
        lines: list[str] = []
        size = 0
        for place, row in enumerate(rows):
            try:
                line = self._encode_row(row)
            except InvalidValueError as refused:
                self._refuse(place, row, refused)
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

    def _encode_row(self, row: Any) -> str:
        if type(row) is not dict:
            row = _to_dict(row)
        get = row.get
        value = get("metric_value")
        # A row may have the value None, but must have the key. Missing names are found when the names are checked.
        if value is None or not KEYS.issuperset(row):
            check_keys(row)
        if type(value) is float and -_INFINITY < value < _INFINITY:
            measured = repr(value)
        else:
            value = check_number(value, "metric_value", hint=VALUE_HINT)
            measured = "\\N" if value is None else repr(value)
        timestamp = get("timestamp")
        when = self._last_text if timestamp is self._last_timestamp else self._encode_timestamp(timestamp)
        metadata = get("metadata")
        if self._last_map_index is not None:
            metadata = add_map_index(metadata, self._last_map_index)
        # JSON escapes every control character itself, with a backslash.
        details = "\\N" if metadata is None else encode_json(metadata, "metadata").replace("\\", "\\\\")
        names = (get("metric_type"), get("metric_name"), get("model_name", DEFAULT_MODEL))
        try:
            prefix = self._prefixes[names]
        except Exception:  # noqa: BLE001  (new; or of a type whose hash or == raises, which check_name() refuses)
            check_keys(row)
            prefix = self._encode_names(*names)  # after all other checks, because it notes the series to replace
        return f"{prefix}{when}\t{measured}\t{details}\n"

    def _encode_names(self, metric_type: object, metric_name: object, model_name: object) -> str:
        names = {"metric_type": metric_type, "metric_name": metric_name, "model_name": model_name}
        checked = tuple(check_name(name, key) for key, name in names.items())
        if self._only_at:
            self.series.add((checked[2], checked[0], checked[1]))
        if len(self._prefixes) >= MAX_REMEMBERED:
            self._prefixes.clear()
        prefix = "".join(f"{name.translate(_ESCAPES)}\t" for name in checked)
        self._prefixes[checked] = prefix
        return prefix

    def _encode_timestamp(self, timestamp: object) -> str:
        map_index = self._only_map_index
        if type(timestamp) is datetime and timestamp.tzinfo is timezone.utc:
            when = timestamp
        elif timestamp is None:
            when = self._at
        else:
            when = check_moment(timestamp, "timestamp", hint=TIMESTAMP_HINT)
            map_index = self._check_map_index(timestamp)
        if when != self._last_moment:
            if self._only_at:
                reason = f"{timestamp} is not the moment that is replaced, {self._at}"
                raise InvalidValueError("timestamp", reason, hint=_REPLACE_HINT)
            if when > self._latest:
                refuse_future(when, self._at, "timestamp", hint=TIMESTAMP_HINT)
            self._last_moment, self._last_text = when, when.isoformat()
        self._last_timestamp, self._last_map_index = timestamp, map_index
        return self._last_text

    def _check_map_index(self, timestamp: object) -> int | None:
        found, only = map_index_of(timestamp), self._only_map_index
        if found is not None and only not in (None, found):
            reason = f"is of map index {found}, but the rows are of map index {only}"
            raise InvalidValueError("timestamp", reason, hint=_REPLACE_HINT)
        return only if found is None else found

    def _refuse(self, place: int, row: object, refused: InvalidValueError) -> None:
        if not self._skip:
            raise InvalidMetricError(place, refused.key, refused.reason, hint=refused.hint) from None
        self.skipped_count += 1
        if len(self.skipped) < MAX_SKIPPED:
            # A key of metadata may be of any length.
            key, reason = refused.key[:MAX_EXCERPT], refused.reason[:MAX_EXCERPT]
            self.skipped.append(SkippedRow(place, key, reason, excerpt(row)))


def _to_dict(row: Any) -> dict[Any, Any]:
    """The row as a dict; a foreign mapping that raises makes this row alone invalid."""
    try:
        if isinstance(row, Mapping):
            return dict(row)
    except Exception as error:  # noqa: BLE001
        raise InvalidValueError("", f"{excerpt(row)} cannot be read: {excerpt(error)}", hint=ROW_HINT) from None
    raise InvalidValueError("", f"{excerpt(row)} is not a mapping", hint=ROW_HINT)
