"""The pool of connections: opening one, testing it before use, running one transaction, and keeping it to its process.

A pooler such as PgBouncer in transaction mode gives each transaction another server process. So each transaction sets
at its beginning everything that it needs. State that outlives a transaction cannot work there: SET without LOCAL,
temporary tables, LISTEN, session advisory locks, PREPARE, cursors WITH HOLD. Nothing of this package uses it.
"""

import logging
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from mlops_db.errors import PoolerError, PoolExhaustedError, StandbyError
from mlops_db.revisions.gate import require_usable
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS
from mlops_db.server.connection import open_connection
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.driver_types import CASTERS
from mlops_db.server.guests import SAFE_PATH
from mlops_db.server.pins import JOB_PINS, MARK, set_local, startup_options
from mlops_db.settings import Settings
from mlops_db.storage.failures import is_failure_of, translate_failure
from mlops_db.storage.owned_connection import OwnedConnection
from mlops_db.storage.timeouts import Timeouts

_log = logging.getLogger("mlops_db.storage")

# Sets the pins where a pooler dropped the options; %s is for the timeouts, whose statements need the safe path.
_BEGIN_WITHOUT_OPTIONS = (
    f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = {SAFE_PATH}; %s{set_local(JOB_PINS)}"
)
_WHERE_THIS_IS = "SELECT current_setting(%s, true), current_setting('citus.shard_count', true) IS NOT NULL"
# A server that vanished without a word is noticed within two minutes; libpq leaves it to the system, which takes hours.
_KEEPALIVE = {
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
    "tcp_user_timeout": "120000",
}
# A connection that was idle for longer is tested by a query. Before that its socket shows whether the server closed it,
# without a round trip.
IDLE_S = 30.0
# Who waits longer for a connection should know of it: the next one may wait in vain.
LONG_WAIT_S = 1.0

_Taken = TypeVar("_Taken")


class _Pool(QueuePool):
    """SQLAlchemy's pool, but a connection that is in use during `dispose()` is closed when it comes back.

    `Engine.dispose()` replaces the pool, and with `close=False` leaves the connections of the old one open.
    """

    __module__ = QueuePool.__module__  # SQLAlchemy names its loggers after it: these records are not ours

    _disposed = False
    _before: "_Pool | None" = None

    def dispose(self) -> None:
        self._disposed = True
        super().dispose()
        if self._before is not None:
            self._before.dispose()

    def recreate(self) -> "_Pool":
        new: Any = super().recreate()
        new._before = None if self._disposed else self  # noqa: SLF001  (another of this class)
        return new  # type: ignore[no-any-return]

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        if self._disposed:
            super().dispose()


class ConnectionPool:
    """Pooled connections to one database, each lent for one transaction. Safe to share between threads."""

    def __init__(self, settings: Settings, *, schema_is_known: bool) -> None:
        """Open nothing yet.

        Args:
            settings: the database, and the sizes of the pool.
            schema_is_known: whether its revision was checked before; otherwise the first transaction checks it.
        """
        self.settings = settings
        self.schema_is_known = schema_is_known
        self._timeouts = Timeouts(settings)
        self._refuse_older_than = 0.0
        self.engine = create_engine(
            "postgresql+psycopg2://",  # the rest, and the password above all, is the creator's
            creator=self._open,
            poolclass=_Pool,
            pool_reset_on_return=None,  # _on_reset() does
            pool_size=settings.pool_size,
            max_overflow=settings.pool_overflow,
            pool_timeout=settings.pool_timeout / 1000,
            pool_recycle=settings.pool_recycle / 1000 or -1,
            pool_use_lifo=True,
            use_native_hstore=False,  # it would look for the extension with every connection
        )
        event.listen(self.engine, "connect", _on_connect)
        event.listen(self.engine, "checkout", self._on_checkout)
        event.listen(self.engine, "reset", _on_reset)
        event.listen(self.engine, "checkin", _on_checkin)

    def close(self) -> None:
        """Close the connections; those in use are closed when they come back."""
        self.engine.pool.dispose()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a SQLAlchemy connection for one transaction."""
        connection = self._take(self.engine.connect)
        driver: Any = connection.connection.driver_connection
        try:
            with self._transaction(driver):
                yield connection
        finally:
            if driver.closed and not connection.invalidated:
                connection.invalidate()
            connection.close()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Lend an ORM session for one transaction."""
        with self.connection() as connection, Session(connection, expire_on_commit=False) as session:
            yield session
            session.commit()

    @contextmanager
    def driver_connection(self) -> Iterator[OwnedConnection]:
        """Lend a psycopg2 connection for one transaction."""
        fairy = self._take(self.engine.raw_connection)
        driver: Any = fairy.driver_connection
        try:
            with self._transaction(driver):
                yield driver
        finally:
            fairy.close()

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """Lend a psycopg2 cursor for one transaction."""
        with self.driver_connection() as connection, connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def safe_cursor(self) -> Iterator[SafeCursor]:
        """Lend a cursor for statements of this package, for one transaction."""
        with self.driver_connection() as connection:
            connection.stays_clean = True
            with connection.cursor(cursor_factory=SafeCursor) as cursor:
                if connection.may_have_citus:
                    cursor.first = f"{BOUND_WAITS_ON_WORKERS} "
                yield cursor

    @contextmanager
    def _transaction(self, driver: OwnedConnection) -> Iterator[None]:
        commits = driver.commits
        partly_stored = committing = False
        if driver.may_have_citus:
            driver.notices = []  # what follows is of this transaction
        try:
            if not self.schema_is_known:
                require_known_schema(driver, self.settings)
                self.schema_is_known = True
            if not driver.pinned:
                with driver.cursor(cursor_factory=SafeCursor) as cursor:
                    cursor.execute_alone(_BEGIN_WITHOUT_OPTIONS % self._timeouts.statements)
            yield
            partly_stored = _may_be_stored(driver, commits)
            committing = not driver.closed
            driver.commit()
        except BaseException as error:
            driver.stays_clean = False  # so that _on_reset() looks at it
            partly_stored = partly_stored or (not committing and _may_be_stored(driver, commits))
            failure = None
            if is_failure_of(driver, error):
                committed = None if partly_stored or committing else False
                failure = translate_failure(
                    error,
                    self.settings,
                    broken=driver.broken,
                    committed=committed,
                    partly_stored=partly_stored,
                    notices=driver.notices if driver.may_have_citus else None,
                )
            with suppress(psycopg2.Error):
                driver.rollback()
            if isinstance(failure, StandbyError):
                self._refuse_older_than = time.monotonic()
            if failure is None or failure is error:
                raise
            raise failure from error

    def _on_checkout(self, connection: OwnedConnection, *_: Any) -> None:
        is_old = connection.opened_at < self._refuse_older_than
        # A caller has kept the connection, or a cursor of it, and used it after the end of the block.
        is_in_use = connection.autocommit or connection.status != psycopg2.extensions.STATUS_READY
        if is_old or is_in_use or (self.settings.pool_pre_ping and not _is_alive(connection)):
            self._log_replaced(connection, is_old=is_old, is_in_use=is_in_use)
            raise DisconnectionError  # the pool replaces it

    def _log_replaced(self, connection: OwnedConnection, *, is_old: bool, is_in_use: bool) -> None:
        level, reason = logging.INFO, "the server or the network has closed it"
        if connection.inherited:
            level, reason = logging.DEBUG, "it is the parent process's"
        elif is_in_use:
            level, reason = logging.WARNING, "somebody has used it after the end of its block"
        elif is_old:
            reason = "its server took no writes, as a standby"
        fields = {"target": self.settings.target, "reason": reason}
        _log.log(level, "%s: a pooled connection is replaced: %s", self.settings.target, reason, extra=fields)

    def _take(self, take: Callable[[], _Taken]) -> _Taken:
        began = time.monotonic()
        try:
            taken = take()
        except PoolTimeoutError:
            settings = self.settings
            raise PoolExhaustedError(
                f"all {settings.pool_size + settings.pool_overflow} connections of the pool are in use, and none came "
                f"back in {settings.pool_timeout / 1000:g} s",
                hint="Leave `with` blocks sooner and open none inside another; or set MLOPS_POOL_SIZE, "
                "MLOPS_POOL_OVERFLOW or MLOPS_POOL_TIMEOUT higher.",
            ) from None
        except (psycopg2.Error, SQLAlchemyError) as error:
            failure = translate_failure(error, self.settings, broken=True, committed=False)
            if failure is None:
                raise
            raise failure from error
        waited_s = time.monotonic() - began
        if waited_s >= LONG_WAIT_S:
            self._log_wait(waited_s)
        return taken

    def _log_wait(self, waited_s: float) -> None:
        settings = self.settings
        _log.warning(
            "%s: a connection came after %.1f s: all of the pool (%d) were in use, or the server was slow to connect",
            settings.target,
            waited_s,
            settings.pool_size + settings.pool_overflow,
            extra={"target": settings.target, "duration_s": round(waited_s, 3)},
        )

    def _open(self) -> OwnedConnection:
        connection = self._connect(self._timeouts.options)
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            settled = not connection.pinned or self._timeouts.are_settled(cursor)
        if not settled:
            connection.close()
            with closing(self._connect({})) as without, without.cursor(cursor_factory=SafeCursor) as cursor:
                self._timeouts.settle(cursor)
            connection = self._connect(self._timeouts.options)
        connection.autocommit = False
        return connection

    def _connect(self, timeouts: Mapping[str, str]) -> OwnedConnection:
        """Open a connection with these timeouts, in autocommit."""
        settings = self.settings
        given: dict[str, Any] = {name: value for name, value in _KEEPALIVE.items() if name not in settings.parameters}
        if settings.pool_application_name:
            given["application_name"] = settings.pool_application_name
        given["connection_factory"] = OwnedConnection
        options = startup_options({**JOB_PINS, MARK: "on", **timeouts})
        connection: Any
        try:
            connection = open_connection(settings, options=options, **given)
        except PoolerError:
            connection = open_connection(settings, **given)
        connection.string_types.update(CASTERS)
        connection.autocommit = True
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            cursor.execute(_WHERE_THIS_IS, (MARK,))
            ((pinned, connection.may_have_citus),) = cursor.fetchall()
            connection.pinned = pinned == "on"
            # PGTZ reaches the server beside the options, and overrides them.
            if connection.pinned and connection.info.parameter_status("TimeZone") != JOB_PINS["timezone"]:
                cursor.execute_alone(f"SET timezone = '{JOB_PINS['timezone']}'")
        return connection  # type: ignore[no-any-return]


def _may_be_stored(driver: OwnedConnection, commits: int) -> bool:
    """Whether a part of the block may be stored even if the rest fails: the block has committed by itself."""
    return driver.commits != commits or driver.autocommit or driver.committed_by_hand


def require_known_schema(connection: psycopg2.extensions.connection, settings: Settings) -> None:
    """Refuse a database that this code does not work with; ends the transaction that it reads in.

    Raises:
        UnknownRevisionError: its revision is not one of this package's.
        OutdatedCodeError: it is at a newer revision, where this code does not work.
        UnmanagedDatabaseError: its tables were made by hand.
        BehindHeadError: it is at an earlier revision, or empty.
        RefusedError: alembic_version, or a table or view of ours, belongs to another role.
    """
    with connection.cursor(cursor_factory=SafeCursor) as cursor:
        require_usable(cursor, settings.target)
    connection.rollback()


def _on_connect(connection: OwnedConnection, _: Any) -> None:
    for oid in CASTERS:
        connection.string_types.pop(oid, None)  # they were for SQLAlchemy's first queries
    connection.remember()


def _on_reset(connection: OwnedConnection, record: Any, _: Any) -> None:
    if record is None or connection.inherited:  # detached from the pool; or the parent's
        return
    if connection.closed or not (connection.stays_clean or connection.restore()):
        record.invalidate()
    connection.stays_clean = False


def _on_checkin(connection: OwnedConnection | None, _: Any) -> None:
    if connection is not None:  # None: it was invalidated
        connection.idle_since = time.monotonic()


def _is_alive(connection: OwnedConnection) -> bool:
    """Whether the session of a pooled connection still exists, and belongs to this process."""
    if connection.idle_since is None:
        return True  # just opened
    if connection.closed or connection.inherited:
        return False
    # The server sends nothing to an idle session, unless it ends it.
    if time.monotonic() - connection.idle_since < IDLE_S and not _has_input(connection.fileno()):
        return True
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except psycopg2.Error:
        return False
    return True


def _has_input(socket: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([socket], [], [], 0)[0])
    # Each call comes by here. A selector would take ten times as long; select() takes no descriptor above 1,023.
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
