"""The pool of connections: how one is opened, found alive, used for one transaction, and kept to its process.

Behind a pooler that hands each transaction to another server process (PgBouncer's transaction mode), everything that a
transaction needs is said at its beginning. What cannot work there is what outlives a transaction: SET without LOCAL,
temporary tables, LISTEN, session advisory locks, PREPARE, cursors WITH HOLD. Nothing of ours uses them.
"""

import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from mlops_db.errors import (
    PoolerError,
    PoolExhaustedError,
    StandbyError,
)
from mlops_db.revisions.gate import require_head
from mlops_db.server.bounded import no_answer, open_bounded
from mlops_db.server.connection import open_connection
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.driver_types import CASTERS
from mlops_db.server.guests import SAFE_PATH
from mlops_db.server.pins import MARK, startup_options
from mlops_db.settings import Settings
from mlops_db.storage.failures import failure_of, is_failure_of
from mlops_db.storage.owned_connection import OwnedConnection
from mlops_db.storage.timeouts import Timeouts

# What each transaction starts from, whoever connects. READ COMMITTED, because what is read after waiting for an
# advisory lock must be what the holder of that lock has committed.
_SESSION = {
    "search_path": "public",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    # As psycopg2 reads them, and to the last digit.
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    MARK: "on",
}
_TRANSACTION = (
    f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = {SAFE_PATH}; %s"
    "SET LOCAL search_path = public; SET LOCAL timezone = 'UTC'; SET LOCAL IntervalStyle = 'postgres'; "
    "SET LOCAL extra_float_digits = 1"
)
# A server that vanished without a word is noticed within two minutes; libpq leaves it to the system, which takes hours.
_KEEPALIVE = {
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
    "tcp_user_timeout": "120000",
}
# A connection that was idle for longer is asked; before that, a look at its socket tells whether the server closed it,
# and costs no round trip.
IDLE_S = 30.0

_Taken = TypeVar("_Taken")


class _Pool(QueuePool):
    """SQLAlchemy's, in which what was in use when it was disposed of is closed when it comes back.

    `Engine.dispose()` puts a new one in its place, and with `close=False` leaves open what is in the old one.
    """

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
    """Pooled connections to the settings' database, each lent for one transaction. Safe to share between threads."""

    def __init__(self, settings: Settings, *, schema_is_known: bool) -> None:
        """Open nothing yet.

        Args:
            settings: the database, and the sizes of the pool.
            schema_is_known: whether its revision was checked before; otherwise the first transaction does.
        """
        self.settings = settings
        self.schema_is_known = schema_is_known
        self._timeouts = Timeouts(settings)
        self.engine = _engine(settings, self._timeouts)
        self._refuse_older_than = 0.0
        event.listen(self.engine, "checkout", self._on_checkout)

    def close(self) -> None:
        """Close the connections: those in use when they come back."""
        self.engine.pool.dispose()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a SQLAlchemy connection for one transaction."""
        connection = self._taken(self.engine.connect)
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
        fairy = self._taken(self.engine.raw_connection)
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
        """Lend a cursor for statements of our own, for one transaction."""
        with self.driver_connection() as connection:
            connection.ours = True
            with connection.cursor(cursor_factory=SafeCursor) as cursor:
                yield cursor

    @contextmanager
    def _transaction(self, driver: OwnedConnection) -> Iterator[None]:
        begun = driver.commits
        partly = ending = False
        try:
            if not self.schema_is_known:
                require_known_schema(driver, self.settings)
                self.schema_is_known = True
            if not driver.pinned:
                with driver.cursor(cursor_factory=SafeCursor) as cursor:
                    cursor.execute_alone(_TRANSACTION % self._timeouts.statements)
            yield
            partly = _is_partly_stored(driver, begun)
            ending = not driver.closed
            driver.commit()
        except BaseException as error:
            driver.ours = False  # whatever happened to it is looked at when it goes back
            partly = partly or (not ending and _is_partly_stored(driver, begun))
            told = None
            if is_failure_of(driver, error):
                committed = None if partly or ending else False
                told = failure_of(
                    error, broken=driver.broken, committed=committed, partly=partly, settings=self.settings
                )
            with suppress(psycopg2.Error):
                driver.rollback()
            if isinstance(told, StandbyError):
                self._refuse_older_than = time.monotonic()
            if told is None or told is error:
                raise
            raise told from error

    def _on_checkout(self, connection: OwnedConnection, *_: Any) -> None:
        is_old = connection.opened_at < self._refuse_older_than
        # Somebody has kept it, or a cursor of it, and gone on after the end of his block.
        is_used = connection.autocommit or connection.status != psycopg2.extensions.STATUS_READY
        if is_old or is_used or (self.settings.pool_pre_ping and not _alive(connection)):
            raise DisconnectionError  # the pool replaces it

    def _taken(self, take: Callable[[], _Taken]) -> _Taken:
        try:
            return take()
        except PoolTimeoutError:
            settings = self.settings
            raise PoolExhaustedError(
                f"all {settings.pool_size + settings.pool_overflow} connections of the pool are in use, and none came "
                f"back in {settings.pool_timeout / 1000:g} s",
                hint="Leave `with` blocks sooner and open none inside another; or set MLOPS_POOL_SIZE, "
                "MLOPS_POOL_OVERFLOW or MLOPS_POOL_TIMEOUT higher.",
            ) from None
        except (psycopg2.Error, SQLAlchemyError) as error:
            told = failure_of(error, broken=True, committed=False, settings=self.settings)
            if told is None:
                raise
            raise told from error


def _is_partly_stored(driver: OwnedConnection, begun: int) -> bool:
    """Whether a part of the block may be stored, whatever becomes of the rest: it has committed by itself."""
    return driver.commits != begun or driver.autocommit or driver.committed_by_hand


def probe(settings: Settings, *, timeout: float, check_schema: bool) -> None:
    """Ask the server for an answer, outside of any pool.

    Args:
        settings: the database.
        timeout: how many seconds it may take in all.
        check_schema: whether to check the revision.

    Raises:
        NoAnswerError: there is no answer in that time.
        ConnectionFailedError: there is no connection for another reason, or it broke.
        BehindHeadError: as `require_known_schema`, and the others that it raises.
    """
    with closing(open_bounded(settings, timeout)) as connection:
        try:
            if check_schema:
                connection.begin()
                require_known_schema(connection, settings)
            else:
                with connection.cursor() as cursor:
                    cursor.execute_alone("SELECT 1")
        except TimeoutError:
            raise no_answer(settings, timeout) from None
        except psycopg2.Error as error:
            told = failure_of(error, broken=connection.closed > 1, committed=False, settings=settings)
            if told is None:
                raise
            raise told from error


def require_known_schema(connection: psycopg2.extensions.connection, settings: Settings) -> None:
    """Refuse a database that is not at this code's head; ends the transaction that it reads in.

    Raises:
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
        BehindHeadError: it is at an earlier revision, or empty.
        RefusedError: alembic_version, or one of the six objects, is somebody else's.
    """
    with connection.cursor(cursor_factory=SafeCursor) as cursor:
        require_head(cursor, settings.target)
    connection.rollback()


def _engine(settings: Settings, timeouts: Timeouts) -> Engine:
    engine = create_engine(
        "postgresql+psycopg2://",  # the rest, and the password above all, is the creator's
        creator=lambda: _opened(settings, timeouts),
        poolclass=_Pool,
        pool_reset_on_return=None,  # _on_reset() does
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.pool_timeout / 1000,
        pool_recycle=settings.pool_recycle / 1000 or -1,
        pool_use_lifo=True,
        use_native_hstore=False,  # it would look for the extension with every connection
    )

    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "reset", _on_reset)
    event.listen(engine, "checkin", _on_checkin)
    return engine


def _on_connect(connection: OwnedConnection, _: Any) -> None:
    for oid in CASTERS:
        connection.string_types.pop(oid, None)  # SQLAlchemy has asked its first questions with them
    connection.remember()


def _on_reset(connection: OwnedConnection, record: Any, _: Any) -> None:
    if record is None or connection.inherited:  # detached from the pool; or the parent's
        return
    if connection.closed or not (connection.ours or connection.restored()):
        record.invalidate()
    connection.ours = False


def _on_checkin(connection: OwnedConnection | None, _: Any) -> None:
    if connection is not None:  # None: it was invalidated
        connection.idle_since = time.monotonic()


def _opened(settings: Settings, timeouts: Timeouts) -> OwnedConnection:
    connection = _in_autocommit(settings, timeouts.options)
    with connection.cursor(cursor_factory=SafeCursor) as cursor:
        settled = not connection.pinned or timeouts.are_settled(cursor)
    if not settled:
        connection.close()
        with closing(_in_autocommit(settings, {})) as without, without.cursor(cursor_factory=SafeCursor) as cursor:
            timeouts.settle(cursor)
        connection = _in_autocommit(settings, timeouts.options)
    connection.autocommit = False
    return connection


def _in_autocommit(settings: Settings, timeouts: Mapping[str, str]) -> OwnedConnection:
    given: dict[str, Any] = {name: value for name, value in _KEEPALIVE.items() if name not in settings.parameters}
    if settings.pool_application_name:
        given["application_name"] = settings.pool_application_name
    given["connection_factory"] = OwnedConnection
    connection: Any
    try:
        connection = open_connection(settings, options=startup_options({**_SESSION, **timeouts}), **given)
    except PoolerError:
        connection = open_connection(settings, **given)
    connection.string_types.update(CASTERS)
    connection.autocommit = True
    with connection.cursor(cursor_factory=SafeCursor) as cursor:
        cursor.execute("SELECT current_setting(%s, true)", (MARK,))
        connection.pinned = cursor.fetchone() == ("on",)
        # PGTZ reaches the server beside the options, and wins over them.
        if connection.pinned and connection.info.parameter_status("TimeZone") != "UTC":
            cursor.execute_alone("SET timezone = 'UTC'")
    return connection  # type: ignore[no-any-return]


def _alive(connection: OwnedConnection) -> bool:
    """Whether the session behind a pooled connection is there still, and this process's."""
    if connection.idle_since is None:
        return True  # just opened
    if connection.closed or connection.inherited:
        return False
    # The server says nothing to an idle session, unless it ends it.
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
    poll = select.poll()  # select() takes no descriptor above 1,023
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))
