"""`db.monitoring`: the measurements of monitoring jobs, written and read back.

A metric series is named by model_name, metric_type and metric_name. Its rows are values, each about a moment; all
moments are aware datetimes, and come back in UTC. A value that could not be computed is stored as None with the reason
in its metadata (`log_failure`), never as a number that would read as a measurement.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat

from mlops_db.errors import ContentionError, InvalidValueError, printable
from mlops_db.schema.limits import DEFAULT_MODEL
from mlops_db.storage.arguments import (
    check_choice,
    check_flag,
    check_limit,
    check_moment,
    check_name,
    check_number,
    excerpt,
    refuse_future,
)
from mlops_db.storage.json_values import encode_json
from mlops_db.storage.mapped_moment import map_index_of
from mlops_db.storage.metrics import history_frames
from mlops_db.storage.metrics.bounds import Bounds, check_bounds_of_series, set_bounds
from mlops_db.storage.metrics.copy_stream import MetricCopy, SkippedRow
from mlops_db.storage.metrics.gaps import Gap, gaps_query
from mlops_db.storage.metrics.history import Metric, read_history
from mlops_db.storage.metrics.latest import latest_query
from mlops_db.storage.metrics.replacement import begin_replacement, remove_earlier_rows
from mlops_db.storage.metrics.rows import (
    TIMESTAMP_HINT,
    VALUE_HINT,
    add_map_index,
    check_bounds,
    check_filters,
    check_interval,
    check_series,
    copy_metadata,
)
from mlops_db.storage.metrics.series import EXPECT, forget_series
from mlops_db.storage.metrics.tables import rows_of
from mlops_db.storage.owned_connection import is_on_citus
from mlops_db.storage.transactions import Transactions, columns_of, equal, read_records

if TYPE_CHECKING:
    from pandas import DataFrame

    from mlops_db.storage.metrics.arrow_tables import ArrowTable

_log = logging.getLogger("mlops_db.storage")

MAX_REASON = 10_000  # characters of an error's text that are kept
PAUSE_S = 1.0  # between two attempts to forget a series, in which writers go on

_INSERT = """
INSERT INTO public.monitoring_metrics (metric_type, metric_name, model_name, timestamp, metric_value, metadata)
VALUES (%(metric_type)s, %(metric_name)s, %(model_name)s, coalesce(%(timestamp)s, CURRENT_TIMESTAMP), %(metric_value)s,
        %(metadata)s)
RETURNING id, created_at::timestamptz
"""


@dataclass(frozen=True)
class LogResult:
    """The result of `log_many`.

    Attributes:
        written: how many rows were stored.
        replaced: how many rows of earlier runs were removed.
        skipped: the rows that were refused and left out, the first 1,000 of them.
        skipped_count: how many rows were left out.
    """

    written: int
    replaced: int
    skipped: tuple[SkippedRow, ...]
    skipped_count: int


@dataclass(frozen=True)
class SeriesState:
    """The newest value of a series and its health: a row of v_recent_monitoring.

    Attributes:
        model_name: the model that was measured.
        metric_type: the kind of metric.
        metric_name: the metric.
        health: ok, low, high (beyond a threshold), failed (no value), stale, missing (no row), or drifted (the metadata
            of the newest row has `drift_detected` true).
        stale: whether the newest value is older than the expected interval, or a value is expected and there is none.
        id: the newest row's id; None if the series has no row, as are all values of the row.
        timestamp: the moment that the newest value is about, in UTC.
        age: the time since then.
        metric_value: the newest value; None if it could not be computed.
        previous_value: the value before it.
        delta: the newest value minus the one before it.
        expected_interval: how often a value is expected; None if no value is.
        lower_threshold: the least normal value; None if there is no bound.
        upper_threshold: the greatest normal value; None if there is no bound.
        metadata: the newest row's details.
        created_at: when the newest row was written, in UTC.
    """

    model_name: str
    metric_type: str
    metric_name: str
    health: Literal["ok", "low", "high", "failed", "stale", "missing", "drifted"]
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
        expected_interval: how often a value is expected; None if no value is.
        lower_threshold: the least normal value; None if there is no bound.
        upper_threshold: the greatest normal value; None if there is no bound.
        registered_at: when the first value was stored, or the series was first expected, in UTC.
    """

    model_name: str
    metric_type: str
    metric_name: str
    expected_interval: timedelta | None
    lower_threshold: float | None
    upper_threshold: float | None
    registered_at: datetime


class Monitoring:
    """The metrics, as `db.monitoring`. Safe to share between threads.

    Every method may also raise the errors that `DatabaseManager` lists; nothing of the call is stored then, unless the
    connection broke during the commit (`ConnectionLostError`).
    """

    def __init__(self, transactions: Transactions) -> None:
        """Use the connections of `transactions`."""
        self._transactions = transactions

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
                PyTorch, Arrow and the like as the value that they hold. A whole number that no double holds is refused.
                None: there is no value, for instance roc_auc where only one class occurred; the series' health is
                `failed` until the next value.
            timestamp: the moment that the value is about, aware and at most a day ahead of the server's clock; by
                default now, by that clock. A `MappedMoment` adds its `map_index` to `metadata`.
            metadata: any value that JSON can hold; it comes back equal. With a `MappedMoment` a mapping, or None.
            model_name: the model that was measured, 1 to 255 characters.

        Raises:
            InvalidValueError: one of them cannot be stored; it names which. Nothing is stored.
        """
        when = None if timestamp is None else check_moment(timestamp, "timestamp", hint=TIMESTAMP_HINT)
        map_index = map_index_of(timestamp)
        if map_index is not None:
            metadata = add_map_index(metadata, map_index)
        row = {
            **check_series(model_name, metric_type, metric_name),
            "timestamp": when,
            "metric_value": check_number(metric_value, "metric_value", hint=VALUE_HINT),
            "metadata": None if metadata is None else encode_json(metadata, "metadata"),
        }
        with self._transactions.safe_cursor() as cursor:
            cursor.execute(_INSERT, row)
            id_: int
            ((id_, created_at),) = cursor.fetchall()
            # Citus returns no time but that of the row, which a trigger may have set.
            if when is not None and when > created_at:
                refuse_future(when, cursor.value("SELECT CURRENT_TIMESTAMP"), "timestamp", hint=TIMESTAMP_HINT)
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

        The row has no value. Its metadata is `metadata` with the text of `error`, cut to 10,000 characters, under the
        key `error`. The other arguments are those of `log`.

        Raises:
            InvalidValueError: as with `log`, or `metadata` is no mapping or already has the key `error`.
        """
        details = copy_metadata(metadata, "the error's text")
        if "error" in details:
            raise InvalidValueError("metadata", "has the key error already", hint="Rename that key.")
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

        The rows are read once and sent by COPY while they are read: a generator of millions of rows needs no more
        memory than one of a thousand. The call keeps a connection of the pool all the while.

        Args:
            rows: mappings with the keys metric_type, metric_name, metric_value and optionally timestamp, metadata and
                model_name, as the arguments of `log`. A row without a timestamp gets the time, by the server's clock,
                at which the call began. Or a table with these columns: a pandas DataFrame, where NaN in `metadata` and
                NA in `metric_value` mean None, and a level of the index that holds moments, or has the name of a key,
                is a column, too; or a table with Arrow's PyCapsule interface, such as a polars DataFrame or a pyarrow
                Table, where null means None.
            replace: the moment that the values are about, such as a task's logical date, for a run that may be
                repeated. It is every row's timestamp; a row that has one must have the same. The call removes the rows
                that were stored before for this moment in the series of the new rows, in the same transaction, so that
                each series has the values of its last run. Other series keep their rows, even those of which an
                earlier run had rows. If two such runs overlap, the one that commits last wins completely.

                A `MappedMoment`, such as `logical_date()` returns in a mapped task of Airflow, belongs to one of
                several runs about this moment. Then the metadata of each row gets the run's `map_index`, as it does
                from a row's own timestamp, and only earlier rows with the same index are removed. Rows of other
                indices stay, and so do rows without an index. A plain datetime removes all of them.
            bounds: the values between which series are normal, as with `expect`, from the same transaction on. Each
                replaces both bounds of its series; None means no bound. The expected interval stays as it is. A series
                that has no rows yet is registered.
            on_invalid: `skip` leaves out rows that cannot be stored, and the result lists them; with `raise` nothing
                is stored then.

        Raises:
            InvalidMetricError: a row cannot be stored; it names the row and the key. Nothing is stored. With a
                `MappedMoment`, a row is refused if its metadata is no mapping, or has another `map_index`.
            InvalidValueError: `replace` is no such moment or more than a day ahead of the server's clock, `rows` is no
                iterable of mappings, a column is missing, not known or there twice, or `bounds` are no Bounds that can
                be stored, or differ about one series.
            MissingExtraError: `rows` is a table other than pandas', and pyarrow is not installed.
            WaitCallbackError: psycopg2 has a wait callback in this process (gevent's, say) and cannot COPY.
        """
        history_frames.require_copy()
        skip = check_choice(on_invalid, "on_invalid", ("raise", "skip")) == "skip"
        hint = "Give the moment that the values are about, such as a task's logical date, as an aware datetime."
        only_at = None if replace is None else check_moment(replace, "replace", hint=hint)
        map_index = map_index_of(replace)
        checked_bounds = check_bounds_of_series(bounds)
        stream = rows_of(rows)
        replaced = 0
        with self._transactions.safe_cursor() as cursor:
            began = None if only_at is None else begin_replacement(cursor)
            now = began.now if began else cursor.value("SELECT CURRENT_TIMESTAMP")
            if only_at is not None:
                refuse_future(only_at, now, "replace", hint=hint)
            copy = MetricCopy(stream, at=only_at or now, only_at=only_at is not None, skip=skip, map_index=map_index)
            copy.send(cursor)
            if checked_bounds:
                # After the rows, so that `forget` and this cannot wait for each other; and before the lock of the
                # moment, because others that have registered a series may still want it.
                set_bounds(cursor, checked_bounds)
            if only_at is not None and began is not None:
                wait_ms = self._transactions.settings.lock_wait
                replaced = remove_earlier_rows(
                    cursor,
                    copy.series,
                    at=only_at,
                    began=began,
                    written=copy.stored,
                    map_index=map_index,
                    wait_ms=wait_ms,
                )
        if copy.skipped:
            _log_skipped(copy)
        _log.debug("log_many stored %d rows and replaced %d", copy.sent, replaced, extra={"rows": copy.sent})
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
        """Set how often a value of a series is expected, and between which bounds it is normal.

        `latest()` and v_recent_monitoring use it from then on, also for a series that has no value yet. Each call
        replaces all three settings: None means no expectation.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            interval: the series is stale if its newest value is older than this; above 0, 360,000 days at most.
            lower: a value below it is low; finite.
            upper: a value above it is high; finite, and not below `lower`.
            model_name: as with `log`.

        Raises:
            InvalidValueError: one of them cannot be stored; it names which.
        """
        series = check_series(model_name, metric_type, metric_name)
        checked_interval = check_interval(interval)
        least, greatest = check_bounds(lower, upper)
        with self._transactions.safe_cursor() as cursor:
            cursor.execute(EXPECT, {**series, "interval": checked_interval, "lower": least, "upper": greatest})

    def forget(
        self, metric_type: str, metric_name: str, *, model_name: str = DEFAULT_MODEL, with_rows: bool = False
    ) -> int:
        """Forget a series and what is expected of it; returns how many of its rows were removed.

        Meanwhile writers of metrics wait: for a few milliseconds, or with rows for some seconds per million of them.
        The call waits for transactions that have written metrics, up to MLOPS_LOCK_WAIT, and lets others write
        meanwhile. A value that is stored later registers the series again.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            model_name: as with `log`.
            with_rows: remove its rows, too, in the same transaction.

        Raises:
            InvalidValueError: one of them is no name, or `with_rows` is neither True nor False.
            UnknownSeriesError: there is no such series.
            SeriesNotEmptyError: it has rows, and `with_rows` is false.
            ContentionError: transactions that write metrics did not end in time; nothing was removed.
        """
        names = check_series(model_name, metric_type, metric_name)
        with_rows = check_flag(with_rows, "with_rows")
        wait_s = self._transactions.settings.lock_wait / 1000
        ends = time.monotonic() + wait_s
        while True:
            try:
                with self._transactions.safe_cursor() as cursor:
                    removed = forget_series(cursor, names, with_rows=with_rows)
                break
            except ContentionError as busy:
                if time.monotonic() + PAUSE_S > ends:
                    raise ContentionError(
                        f"monitoring_metrics is still written to after {wait_s:g} s: {busy}; nothing was removed",
                        hint="Try again once that is done; SELECT pg_terminate_backend(pid) ends a session that is "
                        "stuck. MLOPS_LOCK_WAIT is how long to wait.",
                    ) from busy
                _log.info("forget waits for transactions that write metrics: %s", busy)
            time.sleep(PAUSE_S)
        shown = " ".join(map(printable, names.values()))
        _log.info("series %s is forgotten, with %d rows", shown, removed, extra={**names, "rows": removed})
        return removed

    def latest(self, model_name: str | None = None, metric_type: str | None = None) -> list[SeriesState]:
        """The newest value of every series with its health, the most recent first, series without a row last.

        Args:
            model_name: only series of this model.
            metric_type: only series of this kind.

        Raises:
            InvalidValueError: one of them is no name.
        """
        filters = check_filters(model_name=model_name, metric_type=metric_type)
        with self._transactions.safe_cursor() as cursor:
            query = latest_query(columns_of(SeriesState), filters, on_citus=is_on_citus(cursor))
            cursor.execute(query, filters)
            return [SeriesState(*row) for row in cursor]

    def series(self, model_name: str | None = None) -> list[Series]:
        """Every series that ever had a value or an expectation, by model_name, metric_type and metric_name.

        A series stays in the list when its last row is dropped for its age.

        Args:
            model_name: only series of this model.

        Raises:
            InvalidValueError: it is no name.
        """
        filters = check_filters(model_name=model_name)
        query = f"""
            SELECT {columns_of(Series)} FROM mlops_internal.metric_series WHERE {equal(filters)}
             ORDER BY model_name, metric_type, metric_name
        """
        return read_records(self._transactions, Series, query, filters)

    def gaps(
        self,
        model_name: str | None = None,
        metric_type: str | None = None,
        metric_name: str | None = None,
        *,
        since: datetime,
        until: datetime | None = None,
    ) -> list[Gap]:
        """Where values are missing, by the interval that `expect` has set; by series, the oldest gap first.

        A gap is where two neighbouring rows are at least one and a half intervals apart. A value is missing once it is
        half an interval late, and counts at that moment: the counts of two adjoining times add up. Values that are
        missing at the beginning and at the end of the time asked for count, too, but none from before the series began:
        before its first row or registration (the earlier of the two). A row without a value is not missing: `latest`
        reports it as failed. A row that was dropped for its age is missing. A series without an expected interval has
        no gaps.

        Args:
            model_name: only series of this model.
            metric_type: only series of this kind.
            metric_name: only series of this name.
            since: the first moment, aware.
            until: the moment after the last, aware; by default, and at most, now, by the server's clock.

        Raises:
            InvalidValueError: a moment has no time zone, or a name is no name.
        """
        filters = check_filters(model_name=model_name, metric_type=metric_type, metric_name=metric_name)
        parameters = {
            **filters,
            "since": check_moment(since, "since"),
            "until": "infinity" if until is None else check_moment(until, "until"),
        }
        return read_records(self._transactions, Gap, gaps_query(filters), parameters)

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
        """The rows of a series, newest first, read 5,000 at a time while the iterator is used.

        No connection is held between two reads, and each read sees the rows that are committed by then.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            model_name: as with `log`.
            since: the first moment, aware; by default from the beginning.
            until: the moment after the last, aware: a row of exactly this moment is left out.
            limit: how many rows at most, the newest; None for all.

        Raises:
            InvalidValueError: at once, if a moment has no time zone, `limit` is below 0, or a name is no name.
        """
        series = check_series(model_name, metric_type, metric_name)
        return read_history(self._transactions, {**series, **_check_options(since, until, limit)})

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
        """A series as a pandas DataFrame, oldest first, as computations with time series need it.

        It is read at once, by COPY; a million rows need some 60 MB for a moment, and 16 MB as a frame.

        Args:
            metric_type: as with `log`.
            metric_name: as with `log`.
            model_name: as with `log`.
            since: the first moment, aware; by default from the beginning.
            until: the moment after the last, aware: a row of exactly this moment is left out.
            limit: how many rows of the frame at most, the newest; None for all.
            metadata: whether to read the details, too. Each is a Python object then, which takes some twenty times as
                long.
            every: the width of buckets into which the server puts the rows, as a timedelta or text such as 500ms, 5s,
                15min, 1h, 1d or 1w. They are counted from Monday, 2000-01-03, in UTC: days begin at midnight, weeks on
                Monday. If `since` or `until` is within a bucket, the bucket has only the rows that are asked for.

        Returns:
            The index is `timestamp`, in UTC and microseconds. The column metric_value is float64, NaN where the value
            could not be computed; the column metadata, if asked for, holds the details as they were given. With `every`
            the index is each bucket's beginning, and the columns are min, mean and max of the values, count: how many
            values there are, and failed: how many rows have no value. A bucket without any row is left out.

        Raises:
            InvalidValueError: as `history`; or `every` is no such width, or given together with `metadata`.
            MissingExtraError: pandas is not installed.
            WaitCallbackError: psycopg2 has a wait callback in this process (gevent's, say) and cannot COPY; with
                `metadata` there is no COPY.
        """
        series = check_series(model_name, metric_type, metric_name)
        parameters = {**series, **_check_options(since, until, limit, every)}
        metadata = check_flag(metadata, "metadata")
        if metadata and every is not None:
            raise InvalidValueError("metadata", "is of a row, not of a bucket", hint="Leave out metadata, or every.")
        history_frames.require_pandas()
        if not metadata:
            history_frames.require_copy()
        read = history_frames.read_series_with_metadata if metadata else history_frames.read_series
        with self._transactions.safe_cursor() as cursor:
            return read(cursor, parameters)

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
            metric_type: only series of this kind, or of these kinds; by default of all, as with the next two.
            metric_name: only series of this name, or of these names.
            model_name: only series of this model, or of these models.
            since: the first moment, as with `history_frame`.
            until: the moment after the last, as with `history_frame`.
            limit: how many rows of each series at most, the newest; None for all.
            every: the width of buckets, as with `history_frame`.
            layout: `long` or `wide`.

        Returns:
            Long, the default: a row for each value, series after series, each oldest first. The index and the columns
            are those of `history_frame`, after the series' model_name, metric_type and metric_name (categories).

            Wide: a row for each moment of any series, oldest first, and a column for each series, even if it has no
            row then. The columns are named by those of model_name, metric_type and metric_name that were not given as
            one name, in several levels if they are several; if all three were given so, by metric_name. Where a series
            has no row, or no value, there is NaN; of several rows at one moment the one with the greatest id is taken.
            With `every` there are such columns below each of min, mean, max, count and failed (0 where there is no
            row): `frame["mean"]` is a frame of them. Series that were not measured at the same moments need `every`, or
            most of the frame is NaN.

        Raises:
            InvalidValueError: as `history_frame`; or `layout` is neither, or one of the names is no name.
            MissingExtraError: pandas is not installed.
            WaitCallbackError: as `history_frame`.
        """
        names = {"model_name": model_name, "metric_type": metric_type, "metric_name": metric_name}
        filters = {key: _check_names(given, key) for key, given in names.items() if given is not None}
        parameters = _check_options(since, until, limit, every)
        wide = check_choice(layout, "layout", ("long", "wide")) == "wide"
        several = [key for key, given in names.items() if not isinstance(given, str)] or ["metric_name"]
        history_frames.require_pandas()
        history_frames.require_copy()
        where = " AND ".join(f"{key} = ANY (%({key})s)" for key in filters) or "true"
        with self._transactions.safe_cursor() as cursor:
            on_citus = is_on_citus(cursor)
            cursor.execute(
                f"SELECT {', '.join(names)} FROM mlops_internal.metric_series WHERE {where} ORDER BY 1, 2, 3", filters
            )
            wide_by = several if wide else None
            return history_frames.read_several_series(cursor, cursor.fetchall(), parameters, wide_by, on_citus=on_citus)


def failure_reason(error: BaseException | str) -> str:
    """The text of `error`, cut to 10,000 characters, as JSON in PostgreSQL can hold it; never raises."""
    if isinstance(error, str):
        text = str.__str__(error)  # a subclass may have a __str__ of its own
    else:
        try:
            text = f"{type(error).__name__}: {error}"
        except Exception as second:  # noqa: BLE001  (the error's own code may raise anything)
            text = f"{type(error).__name__}, whose text raises {type(second).__name__}"
    return text[:MAX_REASON].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _log_skipped(copy: MetricCopy) -> None:
    """Log that rows were left out; the first one by its place and key, because values may be personal."""
    first = copy.skipped[0]
    _log.warning(
        "log_many left out %d of %d rows, which cannot be stored; the first one is row %d (%s)",
        copy.skipped_count,
        copy.skipped_count + copy.sent,
        first.row,
        printable(first.key) or "the whole row",
        extra={"rows": copy.sent, "skipped": copy.skipped_count, "row": first.row, "key": first.key},
    )


def _check_names(names: str | Iterable[str], key: str) -> list[str]:
    if not isinstance(names, Iterable):
        raise InvalidValueError(key, f"{excerpt(names)} is not text", hint="Give a name, or several, or None for all.")
    return [check_name(name, key) for name in ([names] if isinstance(names, str) else names)]


def _check_options(
    since: datetime | None, until: datetime | None, limit: int | None, every: str | timedelta | None = None
) -> dict[str, Any]:
    """The rows to read of a series, and the width of their buckets, as parameters of a query."""
    return {
        "since": "-infinity" if since is None else check_moment(since, "since"),
        "until": "infinity" if until is None else check_moment(until, "until"),
        "limit": check_limit(limit),
        "width": history_frames.parse_width(every),
    }
