"""`db.monitoring`: what monitoring jobs measured, written and read back.

A metric series is named by model_name, metric_type and metric_name. Its rows are values, each about a moment; all
moments are aware datetimes, and come back in UTC. A value that could not be computed is stored as None with the reason
in its metadata (`log_failure`), never as a number that would read as a measurement.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat, TypeVar

import psycopg2
import psycopg2.extensions

from mlops_db.errors import ContentionError, InvalidValueError, WaitCallbackError
from mlops_db.storage import history_frames
from mlops_db.storage.history import Metric, read_history
from mlops_db.storage.json_values import checked_json
from mlops_db.storage.mapped_moment import map_index_of
from mlops_db.storage.metric_bounds import Bounds, checked_bounds_of_series, set_bounds
from mlops_db.storage.metric_copy import COPY, PIECE, MetricCopy, SkippedRow
from mlops_db.storage.metric_frames import rows_of
from mlops_db.storage.metric_gaps import GAPS, Gap
from mlops_db.storage.metric_rows import (
    MAP_INDEX,
    MAX_CHARACTERS,
    TIMESTAMP_HINT,
    VALUE_HINT,
    checked_bounds,
    checked_interval,
    metadata_to_extend,
    with_map_index,
)
from mlops_db.storage.metric_series import forget_series
from mlops_db.storage.turns import take_turn
from mlops_db.storage.values import (
    DEFAULT_MODEL,
    choice,
    excerpt,
    flag,
    in_utc,
    moment,
    number,
    require_not_ahead,
    text,
)
from mlops_db.storage.values import limit as checked_limit

if TYPE_CHECKING:
    from pandas import DataFrame

    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.storage.metric_arrow import ArrowTable

MAX_REASON = 10_000  # characters of an error's text that are kept
PAUSE_S = 1.0  # between two tries to forget a series, in which writers go on

_INSERT = """
INSERT INTO public.monitoring_metrics (metric_type, metric_name, model_name, timestamp, metric_value, metadata)
VALUES (%s, %s, %s, coalesce(%s, CURRENT_TIMESTAMP), %s, %s) RETURNING id, CURRENT_TIMESTAMP
"""

# The new rows are there already: which series they are of, nobody knew before. They are those of this transaction.
# Two reruns at once have written both; whoever gets the lock last finds the other's rows committed, which a transaction
# at READ COMMITTED sees, and removes them.
_REMOVE_EARLIER = """
DELETE FROM public.monitoring_metrics AS m
 USING unnest(%s::text[], %s::text[], %s::text[]) AS replaced (model_name, metric_type, metric_name)
 WHERE m.timestamp = %s AND m.model_name = replaced.model_name
   AND m.metric_type = replaced.metric_type AND m.metric_name = replaced.metric_name
   AND m.xmin <> pg_current_xact_id()::xid
"""
_OF_MAP_INDEX = f" AND m.metadata -> '{MAP_INDEX}' = to_jsonb(%s::numeric)"

_EXPECT = """
INSERT INTO mlops_internal.metric_series AS series
       (model_name, metric_type, metric_name, expected_interval, lower_threshold, upper_threshold)
VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (model_name, metric_type, metric_name) DO UPDATE
   SET expected_interval = excluded.expected_interval,
       lower_threshold = excluded.lower_threshold, upper_threshold = excluded.upper_threshold
"""

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class LogResult:
    """What `log_many` did.

    Attributes:
        written: how many rows were stored.
        replaced: how many rows of earlier runs were removed for them.
        skipped: the rows that were refused and left out; of more than 1,000 the first ones.
        skipped_count: how many were left out.
    """

    written: int
    replaced: int
    skipped: tuple[SkippedRow, ...]
    skipped_count: int


@dataclass(frozen=True)
class SeriesState:
    """The newest value of a series, and what to think of it: a row of v_recent_monitoring.

    Attributes:
        model_name: the model that was measured.
        metric_type: the kind of metric.
        metric_name: the metric.
        health: ok, low, high (beyond a threshold), failed (no value), stale, or missing (no row).
        stale: whether the newest value is older than the expected interval, or there should be one and is none.
        id: the newest row's id; None, as all that follows from the row, if the series has no row.
        timestamp: the moment that the newest value is about, in UTC.
        age: the time since then.
        metric_value: the newest value; None if it could not be computed.
        previous_value: the value before it.
        delta: the newest value less the one before it.
        expected_interval: how often a value is expected; None if nobody said.
        lower_threshold: the least value that is normal.
        upper_threshold: the greatest value that is normal.
        metadata: the newest row's details.
        created_at: when the newest row was written, in UTC.
    """

    model_name: str
    metric_type: str
    metric_name: str
    health: Literal["ok", "low", "high", "failed", "stale", "missing"]
    stale: bool
    id: int | None
    timestamp: datetime | None
    age: timedelta | None
    metric_value: float | None
    previous_value: float | None
    delta: float | None
    expected_interval: timedelta | None
    lower_threshold: float | None
    upper_threshold: float | None
    metadata: Any
    created_at: datetime | None


@dataclass(frozen=True)
class Series:
    """A metric series, and what is expected of it.

    Attributes:
        model_name: the model that is measured.
        metric_type: the kind of metric.
        metric_name: the metric.
        expected_interval: how often a value is expected; None if nobody said.
        lower_threshold: the least value that is normal.
        upper_threshold: the greatest value that is normal.
        registered_at: when the first value, or the expectation, came, in UTC.
    """

    model_name: str
    metric_type: str
    metric_name: str
    expected_interval: timedelta | None
    lower_threshold: float | None
    upper_threshold: float | None
    registered_at: datetime


class Monitoring:
    """What monitoring jobs call, as `db.monitoring`. Safe to share between threads.

    Every call may also raise what `DatabaseManager` says; nothing of the call is stored then, unless a
    `ConnectionLostError` says that nobody knows.
    """

    def __init__(self, manager: "DatabaseManager") -> None:
        """Use the connections of `manager`."""
        self._manager = manager

    def log(  # noqa: PLR0913  (a row has that many columns)
        self,
        metric_type: str,
        metric_name: str,
        metric_value: SupportsFloat | None,
        *,
        timestamp: datetime | None = None,
        metadata: Any = None,
        model_name: str = DEFAULT_MODEL,
    ) -> int:
        """Store one value; returns the row's id.

        Args:
            metric_type: the kind of metric, 1 to 100 characters.
            metric_name: the metric, 1 to 255 characters.
            metric_value: a finite number, stored as the nearest double; booleans count as 1 and 0, scalars of NumPy,
                PyTorch, Arrow and the like as what they hold. A whole number that no double holds is refused. None says
                that there is no value, for instance roc_auc where only one class occurred, and makes the series' health
                `failed` until the next value.
            timestamp: the moment that the value is about, aware and at most a day ahead of the server's clock; by
                default now, by that clock. A `MappedMoment` puts its `map_index` into `metadata`.
            metadata: anything that JSON can hold, and gives back equal; with a `MappedMoment` a mapping, or None.
            model_name: the model that was measured, 1 to 255 characters.

        Raises:
            InvalidValueError: one of them cannot be stored; it names which. Nothing is stored.
        """
        when = None if timestamp is None else moment(timestamp, "timestamp", hint=TIMESTAMP_HINT)
        map_index = map_index_of(timestamp)
        if map_index is not None:
            metadata = with_map_index(metadata, map_index)
        row = (
            *_checked_names(metric_type=metric_type, metric_name=metric_name, model_name=model_name).values(),
            when,
            number(metric_value, "metric_value", hint=VALUE_HINT),
            None if metadata is None else checked_json(metadata, "metadata"),
        )
        with self._manager.safe_cursor() as cursor:
            cursor.execute(_INSERT, row)
            id_: int
            ((id_, now),) = cursor.fetchall()
            if when is not None:
                require_not_ahead(when, now, "timestamp", hint=TIMESTAMP_HINT)
        return id_

    def log_failure(  # noqa: PLR0913  (the same)
        self,
        metric_type: str,
        metric_name: str,
        error: BaseException | str,
        *,
        timestamp: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        model_name: str = DEFAULT_MODEL,
    ) -> int:
        """Store that a value could not be computed, and why; returns the row's id.

        The row has no value, and its metadata is `metadata` with the text of `error`, up to 10,000 characters of it,
        under the key `error`. The rest is as with `log`.

        Raises:
            InvalidValueError: as with `log`, or `metadata` is no mapping or has an `error` of its own.
        """
        details = metadata_to_extend(metadata, "the error's text")
        if "error" in details:
            raise InvalidValueError("metadata", "has the key error already", hint="Rename that one.")
        return self.log(
            metric_type,
            metric_name,
            None,
            timestamp=timestamp,
            metadata={**details, "error": failure_reason(error)},
            model_name=model_name,
        )

    def log_many(
        self,
        rows: "Iterable[Mapping[str, Any]] | DataFrame | ArrowTable",
        *,
        replace: datetime | None = None,
        bounds: Iterable[Bounds] = (),
        on_invalid: Literal["raise", "skip"] = "raise",
    ) -> LogResult:
        """Store many values in one transaction: all of them, or after any error none.

        The rows are read once and go to the server by COPY while they are read: a generator of millions of rows needs
        no more memory than one of a thousand. A connection is taken out of the pool for as long.

        Args:
            rows: mappings with the keys metric_type, metric_name, metric_value and at will timestamp, metadata and
                model_name, as the arguments of `log`. Rows without a timestamp get the time, by the server's clock, at
                which the call began. Or a table with these columns: a pandas DataFrame, where NaN in `metadata` means
                none, NA in `metric_value` means None, and a level of the index that holds moments, or has the name of
                a key, is a column, too; or what has Arrow's PyCapsule interface, such as a polars DataFrame or a
                pyarrow Table, where null means None.
            replace: the moment that the values are about, such as a task's logical date, for a run that may be
                repeated. It is every row's timestamp; a row that has one must have the same. Whatever was stored before
                for this moment in the series that the rows are of is removed in the same transaction, so that each has
                the values of its last run. Other series stay, those of an earlier run that this one has no row of
                included. Of two such runs at once, the values of the one that ends last remain, whole.

                A `MappedMoment`, as `logical_date()` gives it in a mapped task of Airflow, is of one of several runs
                about this moment. Then each row's metadata gets the run's `map_index`, as it does of a row's own
                timestamp, and only what the same index wrote is removed. What the other indices wrote stays, and so
                does what was written without an index. A plain datetime removes all of them.
            bounds: between which values series are normal, as `expect` says it, from the same transaction on. Each
                replaces both bounds of its series; None means no bound. How often a value is expected stays as it is. A
                series that has no rows yet is registered.
            on_invalid: `skip` leaves out rows that cannot be stored and tells which; `raise` stores nothing then.

        Raises:
            InvalidMetricError: a row cannot be stored; it names the row and the key. Whatever was sent before is rolled
                back: nothing is left behind. With a `MappedMoment`, a row whose metadata is no mapping, or that is of
                another `map_index`, is one.
            InvalidValueError: `replace` is no such moment or more than a day ahead of the server's clock, `rows` is no
                iterable of mappings, a column is missing, not known or there twice, or `bounds` are no Bounds that can
                be stored, or differ about one series.
            MissingExtraError: `rows` is a table other than pandas', and pyarrow is not installed.
            WaitCallbackError: psycopg2 was told to wait in a way (gevent's, say) that it cannot COPY with.
        """
        if psycopg2.extensions.get_wait_callback() is not None:
            raise WaitCallbackError
        skip = choice(on_invalid, "on_invalid", ("raise", "skip")) == "skip"
        hint = "Give the moment that the values are about, such as a task's logical date, as an aware datetime."
        only_at = None if replace is None else moment(replace, "replace", hint=hint)
        map_index = map_index_of(replace)
        normal = checked_bounds_of_series(bounds)
        stream = rows_of(rows)
        replaced = 0
        with self._manager.safe_cursor() as cursor:
            cursor.execute("SELECT CURRENT_TIMESTAMP")
            now = in_utc(cursor.fetchall()[0][0])
            if only_at is not None:
                require_not_ahead(only_at, now, "replace", hint=hint)
            copy = MetricCopy(stream, at=only_at or now, only_at=only_at is not None, skip=skip, map_index=map_index)
            try:
                cursor.copy_expert(COPY, copy, PIECE)  # type: ignore[arg-type]  # it needs no readline()
            except psycopg2.Error as error:
                # To a reader that failed the server answers that; anything else that it says came before.
                answered = error.diag.source_function == "CopyGetData"
                if copy.failure is not None and (answered or not isinstance(copy.failure, Exception)):
                    raise copy.failure from None
                raise error from copy.failure
            if normal:
                # After the rows, so that `forget` and this cannot wait for each other; and before the turn, because
                # others that have registered a series may still want it.
                set_bounds(cursor, normal)
            if only_at is not None and copy.series:
                moment_in_words = only_at.isoformat()
                take_turn(
                    cursor, f"mlops_db.replace {moment_in_words}", moment_in_words, self._manager.settings.lock_wait
                )
                names = [list(part) for part in zip(*sorted(copy.series), strict=True)]
                if map_index is None:
                    cursor.execute(_REMOVE_EARLIER, (*names, only_at))
                else:
                    cursor.execute(_REMOVE_EARLIER + _OF_MAP_INDEX, (*names, only_at, map_index))
                replaced = cursor.rowcount
        return LogResult(copy.sent, replaced, tuple(copy.skipped), copy.skipped_count)

    def expect(  # noqa: PLR0913  (the same)
        self,
        metric_type: str,
        metric_name: str,
        *,
        interval: timedelta | None = None,
        lower: float | None = None,
        upper: float | None = None,
        model_name: str = DEFAULT_MODEL,
    ) -> None:
        """Say how often a value of a series is expected, and between which bounds it is normal.

        `latest()` and v_recent_monitoring judge by it from then on, also a series that has no value yet. A call says
        all: what is None is not expected any more.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            interval: the series is stale once its newest value is older than this; above 0, 360,000 days at most.
            lower: a value below it is low; finite.
            upper: a value above it is high; finite, and not below `lower`.
            model_name: as with `log`.

        Raises:
            InvalidValueError: one of them cannot be stored; it names which.
        """
        row = (
            *_checked_names(model_name=model_name, metric_type=metric_type, metric_name=metric_name).values(),
            checked_interval(interval),
            *checked_bounds(lower, upper),
        )
        with self._manager.safe_cursor() as cursor:
            cursor.execute(_EXPECT, row)

    def forget(
        self, metric_type: str, metric_name: str, *, model_name: str = DEFAULT_MODEL, with_rows: bool = False
    ) -> int:
        """Forget a series and what is expected of it; returns how many rows of it were removed.

        Writers of metrics wait while that happens, a few milliseconds, or with rows some seconds per million of them.
        It waits for writers that have begun, as long as MLOPS_LOCK_WAIT says, and lets others go on meanwhile. A value
        that is written later makes the series anew.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            model_name: as with `log`.
            with_rows: remove its rows, too, in the same transaction.

        Raises:
            InvalidValueError: one of them is no name, or `with_rows` neither True nor False.
            UnknownSeriesError: there is no such series.
            SeriesNotEmptyError: it has rows, and `with_rows` is not said.
            ContentionError: writers of metrics have not come to an end in time; nothing was removed.
        """
        names = _checked_names(model_name=model_name, metric_type=metric_type, metric_name=metric_name)
        with_rows = flag(with_rows, "with_rows")
        wait_s = self._manager.settings.lock_wait / 1000
        ends = time.monotonic() + wait_s
        while True:
            try:
                with self._manager.safe_cursor() as cursor:
                    return forget_series(cursor, names, with_rows=with_rows)
            except ContentionError as busy:
                if time.monotonic() + PAUSE_S > ends:
                    raise ContentionError(
                        f"monitoring_metrics is still written to after {wait_s:g} s: {busy}; nothing was removed",
                        hint="Try again once that is done; SELECT pg_terminate_backend(pid) ends a session that is "
                        "stuck. MLOPS_LOCK_WAIT is how long to wait.",
                    ) from busy
            time.sleep(PAUSE_S)

    def latest(self, model_name: str | None = None, metric_type: str | None = None) -> list[SeriesState]:
        """The newest value of every series with its health, the most recent first, those without any value last.

        Args:
            model_name: only series of this model.
            metric_type: only series of this kind.

        Raises:
            InvalidValueError: one of them is no name.
        """
        return self._read(
            SeriesState,
            "public.v_recent_monitoring",
            "timestamp DESC NULLS LAST, id DESC, model_name, metric_type, metric_name",
            model_name=model_name,
            metric_type=metric_type,
        )

    def series(self, model_name: str | None = None) -> list[Series]:
        """Every series that ever had a value or an expectation, by model_name, metric_type and metric_name.

        A series stays, also when its last row was dropped for its age.

        Args:
            model_name: only series of this model.

        Raises:
            InvalidValueError: it is no name.
        """
        return self._read(
            Series, "mlops_internal.metric_series", "model_name, metric_type, metric_name", model_name=model_name
        )

    def gaps(
        self,
        model_name: str | None = None,
        metric_type: str | None = None,
        metric_name: str | None = None,
        *,
        since: datetime,
        until: datetime | None = None,
    ) -> list[Gap]:
        """Where values are missing, by what `expect` says of their interval; by series, the oldest first.

        A gap is where two neighbouring rows are at least one and a half intervals apart. A value is missing once it is
        half an interval late, and counts at that moment: the counts of two times that adjoin add up. What is
        missing at the beginning and at the end of the time asked for counts, too, but nothing before the series was
        there: before its first row, or before it was registered, if that was earlier. A row without a value counts as
        there: `latest` tells it as failed. What was dropped for its age is missing. Series of which no interval is
        expected have no gaps.

        Args:
            model_name: only series of this model.
            metric_type: only series of this kind.
            metric_name: only series of this name.
            since: the first moment, aware.
            until: the moment after the last, aware; by default, and at most, now, by the server's clock.

        Raises:
            InvalidValueError: a moment has no time zone, or a name is none.
        """
        names = {"model_name": model_name, "metric_type": metric_type, "metric_name": metric_name}
        given = _checked_names(**{column: value for column, value in names.items() if value is not None})
        where = " AND ".join(f"series.{column} = %({column})s" for column in given) or "true"
        parameters = {
            **given,
            "since": moment(since, "since"),
            "until": "infinity" if until is None else moment(until, "until"),
        }
        with self._manager.safe_cursor() as cursor:
            cursor.execute(GAPS.format(where=where), parameters)
            return [Gap(*map(in_utc, row)) for row in cursor]

    def history(  # noqa: PLR0913  (a series has a name of three parts)
        self,
        metric_type: str,
        metric_name: str,
        *,
        model_name: str = DEFAULT_MODEL,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Metric]:
        """The rows of a series, newest first, read 5,000 at a time while they are asked for.

        No connection is held between two reads, and each read sees what is committed by then.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            model_name: as with `log`.
            since: the first moment, aware; by default from the beginning.
            until: the moment after the last, aware: a row of exactly this moment is left out.
            limit: only so many rows, the newest.

        Raises:
            InvalidValueError: at once, if a moment has no time zone, `limit` is below 0, or a name is none.
        """
        of = _checked_names(model_name=model_name, metric_type=metric_type, metric_name=metric_name)
        return read_history(self._manager, {**of, **_checked_span(since, until)}, checked_limit(limit))

    def history_frame(  # noqa: PLR0913  (the same)
        self,
        metric_type: str,
        metric_name: str,
        *,
        model_name: str = DEFAULT_MODEL,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        metadata: bool = False,
        every: str | timedelta | None = None,
    ) -> "DataFrame":
        """A series as a pandas DataFrame, oldest first, as time series are computed with.

        It is read at once, by COPY; a million rows need some 60 MB for a moment, and 16 MB as a frame.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            model_name: as with `log`.
            since: the first moment, aware; by default from the beginning.
            until: the moment after the last, aware: a row of exactly this moment is left out.
            limit: only so many rows of the frame, the newest.
            metadata: whether the details come along. Each is a Python object then, which takes
                some twenty times as long.
            every: the width of buckets into which the server puts the rows, as a timedelta or text such as 500ms, 5s,
                15min, 1h, 1d or 1w. They are counted from Monday, 2000-01-03, in UTC: days begin at midnight, weeks on
                Monday. With `since` or `until` within a bucket, it has only the rows that are asked for.

        Returns:
            The index is `timestamp`, in UTC and microseconds. The column metric_value is float64, NaN where it could
            not be computed; metadata, if asked for, is what was given. With `every` the index is each bucket's
            beginning, and the columns are min, mean and max of the values that there are, count, of how many, and
            failed, how many rows have none. A bucket without any row is left out.

        Raises:
            InvalidValueError: as `history`; or `every` is no such width, or there with `metadata`.
            MissingExtraError: pandas is not installed.
            WaitCallbackError: psycopg2 was told to wait in a way (gevent's, say) that it cannot COPY with; with
                `metadata` there is no COPY.
        """
        parameters = {
            **_checked_names(model_name=model_name, metric_type=metric_type, metric_name=metric_name),
            **_checked_span(since, until),
            "limit": checked_limit(limit),
            "width": history_frames.bucket_width(every),
        }
        metadata = flag(metadata, "metadata")
        if metadata and every is not None:
            raise InvalidValueError("metadata", "is of a row, not of a bucket", hint="Leave out metadata, or every.")
        history_frames.require_pandas()
        if not metadata:
            history_frames.require_copy()
        with self._manager.safe_cursor() as cursor:
            if metadata:
                return history_frames.frame_with_metadata(cursor, parameters)
            return history_frames.frame_of_one(cursor, parameters)

    def frame(  # noqa: PLR0913  (the same)
        self,
        metric_type: str | Iterable[str] | None = None,
        metric_name: str | Iterable[str] | None = None,
        *,
        model_name: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        every: str | timedelta | None = None,
        layout: Literal["long", "wide"] = "long",
    ) -> "DataFrame":
        """Several series as one pandas DataFrame.

        Args:
            metric_type: only series of this kind, or of these kinds; by default of all, as with the two that follow.
            metric_name: only series of this name, or of these names.
            model_name: only series of this model, or of these models.
            since: as with `history_frame`, as the two that follow.
            until: the moment after the last.
            limit: only so many rows of each series, the newest.
            every: the width of buckets.
            layout: `long` or `wide`.

        Returns:
            Long, the default: a row for each value, series after series, each oldest first. The index and the columns
            are those of `history_frame`, after the series' model_name, metric_type and metric_name (categories).

            Wide: a row for each moment of any series, oldest first, and a column for each series, also for one that has
            no row then. Columns are named by those of model_name, metric_type and metric_name that were not given as
            one name, in several levels if they are several; if all were, by metric_name. Where a series has no row, or
            no value, there is NaN; of several rows at one moment the newest stays, that with the greatest id. With
            `every` there are such columns below each of min, mean, max, count and failed (0 where there is no row):
            `frame["mean"]` is a frame of them. Series that were not measured at the same moments need `every`, or most
            of the frame is NaN.

        Raises:
            InvalidValueError: as `history_frame`; or `layout` is neither, or one of the names is none.
            MissingExtraError: pandas is not installed.
            WaitCallbackError: as `history_frame`.
        """
        filters = {
            "model_name": _checked_choices(model_name, "model_name"),
            "metric_type": _checked_choices(metric_type, "metric_type"),
            "metric_name": _checked_choices(metric_name, "metric_name"),
        }
        bounds = {
            **_checked_span(since, until),
            "limit": checked_limit(limit),
            "width": history_frames.bucket_width(every),
        }
        wide = choice(layout, "layout", ("long", "wide")) == "wide"
        several = [
            key
            for key, given in zip(filters, (model_name, metric_type, metric_name), strict=True)
            if not isinstance(given, str)
        ]
        history_frames.require_pandas()
        history_frames.require_copy()
        where = (
            " AND ".join(f"{key} = ANY (%({key})s)" for key, names in filters.items() if names is not None) or "true"
        )
        with self._manager.safe_cursor() as cursor:
            cursor.execute(
                f"SELECT {', '.join(filters)} FROM mlops_internal.metric_series WHERE {where} ORDER BY 1, 2, 3", filters
            )
            series = cursor.fetchall()
            return history_frames.frame_of_several(
                cursor, series, bounds, (several or ["metric_name"]) if wide else None
            )

    def _read(self, of: type[_Row], relation: str, order: str, **equal: str | None) -> list[_Row]:
        given = _checked_names(**{column: value for column, value in equal.items() if value is not None})
        where = " AND ".join(f"{column} = %({column})s" for column in given) or "true"
        with self._manager.safe_cursor() as cursor:
            cursor.execute(f"SELECT {_columns(of)} FROM {relation} WHERE {where} ORDER BY {order}", given)
            return [of(*map(in_utc, row)) for row in cursor]


def failure_reason(error: BaseException | str) -> str:
    """The text of `error`, up to 10,000 characters of it, as JSON in PostgreSQL can hold it."""
    # What went wrong must not be lost because of how it is told.
    if isinstance(error, str):
        told = str.__str__(error)  # a subclass may have another idea of its text
    else:
        try:
            told = f"{type(error).__name__}: {error}"
        except Exception as second:  # noqa: BLE001  (it is the error's own code that runs)
            told = f"{type(error).__name__}, whose text raises {type(second).__name__}"
    return told[:MAX_REASON].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _columns(of: type[Any]) -> str:
    return ", ".join(field.name for field in fields(of))


def _checked_names(**names: object) -> dict[str, str]:
    return {key: text(name, key, most=MAX_CHARACTERS[key]) for key, name in names.items()}


def _checked_choices(names: str | Iterable[str] | None, key: str) -> list[str] | None:
    """The names to choose by; None for all."""
    if names is None:
        return None
    if not isinstance(names, str) and not isinstance(names, Iterable):
        raise InvalidValueError(key, f"{excerpt(names)} is not text", hint="Give a name, or several, or None for all.")
    return [text(name, key, most=MAX_CHARACTERS[key]) for name in ([names] if isinstance(names, str) else names)]


def _checked_span(since: datetime | None, until: datetime | None) -> dict[str, Any]:
    return {
        "since": "-infinity" if since is None else moment(since, "since"),
        "until": "infinity" if until is None else moment(until, "until"),
    }
