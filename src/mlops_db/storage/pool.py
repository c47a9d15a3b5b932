"""The pool of connections: how one is opened, found alive, used for one transaction, and kept to its process.

Behind a pooler that hands each transaction to another server process (PgBouncer's transaction mode), everything that a
transaction needs is said at its beginning. What cannot work there is what outlives a transaction: SET without LOCAL,
temporary tables, LISTEN, session advisory locks, PREPARE, cursors WITH HOLD. Nothing of ours uses them.
"""

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from mlops_db.errors import (
    BehindHeadError,
    IgnoredFailureError,
    InheritedConnectionError,
    PoolerError,
    PoolExhaustedError,
)
from mlops_db.revisions.graph import package_graph
from mlops_db.revisions.recorded import recorded_heads, refuse_others_objects
from mlops_db.server.bounded import no_answer, open_bounded
from mlops_db.server.connection import SafeCursor, open_connection
from mlops_db.server.pins import MARK, startup_options
from mlops_db.settings import Settings
from mlops_db.storage.failures import failure_of

# What each transaction starts from, whoever connects. READ COMMITTED, because what is read after waiting for an
# advisory lock must be what the holder of that lock has committed.
_SESSION = startup_options(
    {"search_path": "public", "timezone": "UTC", "default_transaction_isolation": "read committed", MARK: "on"}
)
_TRANSACTION = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL search_path = public; SET LOCAL timezone = 'UTC'"
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


class OwnedConnection(psycopg2.extensions.connection):
    """A connection of the process that opened it.

    A forked child has the same socket: whatever it said there would be said in the parent's session. Here, it can
    neither use the connection nor end it. (A psycopg2 cursor that was made before the fork is beyond our reach.)

    Attributes:
        owner: the process's id.
        pinned: whether the session has our options; otherwise they are said in each transaction.
        commits: how often a commit was begun; what became of it is another question.
        idle_since: when it went back into the pool, by the monotonic clock; None before that.
    """

    def __init__(self, *args: Any, **parameters: Any) -> None:
        """Connect."""
        super().__init__(*args, **parameters)
        self.owner = os.getpid()
        self.pinned = True
        self.commits = 0
        self.idle_since: float | None = None

    @property
    def inherited(self) -> bool:
        """Whether this process is a child of the one that opened it."""
        return os.getpid() != self.owner

    def cursor(self, *args: Any, **parameters: Any) -> Any:
        """Make a cursor, in the process that opened the connection."""
        self._require_owner()
        return super().cursor(*args, **parameters)

    def commit(self) -> None:
        """Commit, in the process that opened the connection."""
        self._require_owner()
        if self.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INERROR:
            raise IgnoredFailureError  # the server would answer this COMMIT with ROLLBACK, and psycopg2 would not tell
        if not self.closed:
            self.commits += 1
        super().commit()

    def rollback(self) -> None:
        """Roll back; in a child, leave the parent's transaction alone."""
        if not self.inherited:
            super().rollback()

    def close(self) -> None:
        """Close; in a child, leave the parent's session alone."""
        if not self.inherited:
            super().close()

    def _require_owner(self) -> None:
        if self.inherited:
            raise InheritedConnectionError(
                "this process was forked while the connection was open in its parent, whose connection it is",
                hint="Fork outside of connections' `with` blocks; a child gets its own from the same DatabaseManager.",
            )


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
        self.engine = _engine(settings)
        self._pool = self.engine.pool
        self._closed = False

    def close(self) -> None:
        """Close the connections: those in use when they come back."""
        self._closed = True
        self._pool.dispose()

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
            self._given_back()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Lend an ORM session for one transaction."""
        with self.connection() as connection, Session(connection, expire_on_commit=False) as session:
            yield session
            session.commit()

    @contextmanager
    def driver_connection(self, *, check_schema: bool = True) -> Iterator[OwnedConnection]:
        """Lend a psycopg2 connection for one transaction."""
        fairy = self._taken(self.engine.raw_connection)
        driver: Any = fairy.driver_connection
        try:
            with self._transaction(driver, check_schema=check_schema):
                yield driver
        finally:
            if driver.closed:
                fairy.invalidate()
            else:
                _without_session_settings(driver)
            fairy.close()
            self._given_back()

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """Lend a psycopg2 cursor for one transaction."""
        with self.driver_connection() as connection, connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def safe_cursor(self) -> Iterator[SafeCursor]:
        """Lend a cursor for statements of our own, for one transaction."""
        with self.driver_connection() as connection, connection.cursor(cursor_factory=SafeCursor) as cursor:
            yield cursor

    @contextmanager
    def _transaction(self, driver: OwnedConnection, *, check_schema: bool = True) -> Iterator[None]:
        committed: bool | None = False
        begun = driver.commits
        try:
            if check_schema and not self.schema_is_known:
                require_known_schema(driver, self.settings)
                self.schema_is_known = True
            if not driver.pinned:
                with driver.cursor() as cursor:
                    cursor.execute(_TRANSACTION)
            yield
            committed = False if driver.closed else None
            driver.commit()
        except BaseException as error:
            if driver.commits != begun and committed is False:
                committed = None  # a session, or the block itself, had begun to commit
            told = failure_of(error, broken=driver.closed > 1, committed=committed, settings=self.settings)
            with suppress(psycopg2.Error):
                driver.rollback()
            if told is None or told is error:
                raise
            raise told from error

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

    def _given_back(self) -> None:
        if self._closed:
            self._pool.dispose()


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
        current = recorded_heads(cursor, settings.target)
        refuse_others_objects(cursor, settings.target)
    connection.rollback()
    if package_graph().pending(*current):
        raise BehindHeadError(" and ".join(current), settings.target)


def _engine(settings: Settings) -> Engine:
    engine = create_engine(
        "postgresql+psycopg2://",  # the rest, and the password above all, is the creator's
        creator=lambda: _opened(settings),
        poolclass=QueuePool,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_overflow,
        pool_timeout=settings.pool_timeout / 1000,
        pool_recycle=settings.pool_recycle / 1000 or -1,
        pool_use_lifo=True,
        use_native_hstore=False,  # it would look for the extension with every connection
    )

    def checkin(connection: Any, _: Any) -> None:
        if connection is not None:  # None: it was invalidated
            connection.idle_since = time.monotonic()

    def checkout(connection: OwnedConnection, *_: Any) -> None:
        if not _alive(connection):
            raise DisconnectionError  # the pool replaces it

    event.listen(engine, "checkin", checkin)
    if settings.pool_pre_ping:
        event.listen(engine, "checkout", checkout)
    return engine


def _opened(settings: Settings) -> OwnedConnection:
    given: dict[str, Any] = {name: value for name, value in _KEEPALIVE.items() if name not in settings.parameters}
    if settings.pool_application_name:
        given["application_name"] = settings.pool_application_name
    given["connection_factory"] = OwnedConnection
    connection: Any
    try:
        connection = open_connection(settings, options=_SESSION, **given)
    except PoolerError:
        connection = open_connection(settings, **given)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting(%s, true)", (MARK,))
        connection.pinned = cursor.fetchone() == ("on",)
        # PGTZ reaches the server beside the options, and wins over them.
        if connection.pinned and connection.info.parameter_status("TimeZone") != "UTC":
            cursor.execute("SET timezone = 'UTC'")
    connection.autocommit = False
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


def _without_session_settings(driver: OwnedConnection) -> None:
    """Take back what a caller changed for the session on psycopg2's side, or the next one would have it, too."""
    if driver.inherited:
        return
    if driver.autocommit:
        driver.autocommit = False
    for attribute in ("isolation_level", "readonly", "deferrable"):
        if getattr(driver, attribute) is not None:
            setattr(driver, attribute, None)
