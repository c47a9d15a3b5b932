"""The way in for jobs: `DatabaseManager`, and `get_db_manager()` for the one that a process shares.

SQLAlchemy and psycopg2 are loaded by the first call that needs a connection, not by importing this.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

from mlops_db.errors import (
    AuthenticationFailedError,
    BehindHeadError,
    ConnectionFailedError,
    InvalidValueError,
    ManagerClosedError,
    MlopsDbError,
)
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    import psycopg2.extensions
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

    from mlops_db.server.cursor import SafeCursor
    from mlops_db.storage.decisions import Decisions
    from mlops_db.storage.model_versions import ModelVersions
    from mlops_db.storage.monitoring import Monitoring
    from mlops_db.storage.pool import ConnectionPool

POLL_S = 0.25
LEAST_PROBE_S, MOST_PROBE_S = 2.0, 10.0
MAX_PING_S = 86_400.0


class DatabaseManager:
    """The database, for jobs: pooled connections, and the tables behind `models`, `monitoring` and `decisions`.

    One for each process is enough, and threads can share it: `get_db_manager()`. Making one connects to nothing; the
    first call does, and checks once that the database is at a revision that this code knows. Every block of
    `connection()`, `session()`, `cursor()` and `get_connection()` is one transaction: committed at its end, rolled back
    if anything is raised in it. Sessions have the time zone UTC, the search path `public`, and READ COMMITTED. What a
    block does to its connection beyond that is taken back at its end: see `get_connection()`.

    Behind PgBouncer in transaction mode all this is so, too, but for what outlives a transaction: a plain SET,
    temporary tables, LISTEN, session advisory locks, prepared statements, cursors WITH HOLD.

    A child process that is forked has the manager, too, with a pool of its own. After a restart of the server the next
    call gets a new connection; the call that the restart interrupts raises `ConnectionLostError`.

    Every call may raise what follows. Where `retryable` of the error is true, nothing was stored, and the same call may
    succeed a little later. What only a defect of a program can cause, such as a syntax error in SQL, stays psycopg2's
    or SQLAlchemy's error. So do errors of other connections that a block uses, of whatever database.

    Raises:
        ConnectionFailedError: there is no connection (subclasses say why), or it broke (`ConnectionLostError`).
        PoolExhaustedError: all connections are in use, and none came back within MLOPS_POOL_TIMEOUT.
        UnknownRevisionError, UnmanagedDatabaseError, BehindHeadError: the database is not at this code's revision.
        StatementFailedError, NotPermittedError, RefusedError: the server refused; subclasses of the first are
            `StatementTimeoutError` (MLOPS_POOL_STATEMENT_TIMEOUT), `ContentionError` (MLOPS_POOL_LOCK_TIMEOUT, a
            deadlock) and `StandbyError`.
        ManagerClosedError: after `close()`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the database, and the sizes of the pool, from `settings`; by default from the environment.

        Raises:
            SettingsError: the environment holds what cannot be used.
        """
        self.settings = settings or Settings.from_environment()
        self._pool: ConnectionPool | None = None
        self._schema_is_known = False
        self._closed = False
        self._opening = threading.Lock()
        _managers.add(self)

    def __repr__(self) -> str:
        """Say where it connects, without the password."""
        return f"<{type(self).__name__} {self.settings.target}>"

    def __enter__(self) -> DatabaseManager:  # noqa: PYI034  (Self is Python 3.11's)
        """Return the manager, to be closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @cached_property
    def models(self) -> ModelVersions:
        """Which versions of the models exist, and which are in production."""
        from mlops_db.storage.model_versions import ModelVersions  # noqa: PLC0415  (loads psycopg2)

        return ModelVersions(self)

    @cached_property
    def monitoring(self) -> Monitoring:
        """What monitoring measured."""
        from mlops_db.storage.monitoring import Monitoring  # noqa: PLC0415  (loads psycopg2)

        return Monitoring(self)

    @cached_property
    def decisions(self) -> Decisions:
        """Why candidates were promoted or rejected."""
        from mlops_db.storage.decisions import Decisions  # noqa: PLC0415  (loads psycopg2)

        return Decisions(self)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine of this process; ask for it anew after a fork. Its own errors are not translated."""
        return self._opened().engine

    def connection(self) -> AbstractContextManager[Connection]:
        """Lend a SQLAlchemy connection for one transaction."""
        return self._opened().connection()

    def session(self) -> AbstractContextManager[Session]:
        """Lend a SQLAlchemy ORM session for one transaction; objects stay readable after its end."""
        return self._opened().session()

    def cursor(self) -> AbstractContextManager[psycopg2.extensions.cursor]:
        """Lend a psycopg2 cursor for one transaction: the least that a short statement can cost."""
        return self._opened().cursor()

    def safe_cursor(self) -> AbstractContextManager[SafeCursor]:
        """Lend a cursor for one transaction of this package's own: a name without its schema is PostgreSQL's there."""
        return self._opened().safe_cursor()

    def get_connection(self) -> AbstractContextManager[psycopg2.extensions.connection]:
        """Lend a psycopg2 connection for one transaction.

        It goes back as it was when it was opened, as those of `connection()`, `session()`, `cursor()`, `engine` and
        `execute_query()` do. What psycopg2 keeps of it (autocommit, isolation level, cursor_factory, types, encoding)
        is set back, and the session is told DISCARD ALL, which ends settings, roles, temporary tables, LISTEN, session
        locks and prepared statements, and costs a round trip. One that cannot be set back, such as within a transaction
        in two phases, is closed instead.

        Behind a transaction pooler the session is not ours, and only psycopg2's side is set back; a plain SET there
        meets whoever gets the session next. Say SET LOCAL.
        """
        return self._opened().driver_connection()

    def execute_query(
        self, sql: str, params: Iterable[Any] | Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]] | int:
        """Run one statement in a transaction of its own.

        Args:
            sql: the statement, with %s (or %(name)s) where a parameter goes; a literal % is %% if there are parameters.
            params: the parameters; an empty sequence or mapping is none. NumPy's scalars, and others that have an
                `item()`, count as the Python values that they hold, also within lists, tuples and dicts.

        Returns:
            The rows of a statement that has a result set, else how many rows it changed: 0 for one that counts none,
            such as TRUNCATE, CREATE TABLE or SET.

        Raises:
            InvalidValueError: `params` is text or has no order, or a parameter is NA, NaT or masked (NULL is None); it
                names which, as `params[0]` or `params.name`. Nothing was sent.
        """
        from mlops_db.storage.parameters import python_parameters  # noqa: PLC0415  (only needed here)

        parameters = python_parameters(params)
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            return max(cursor.rowcount, 0) if cursor.description is None else cursor.fetchall()

    def ping(self, timeout: float = 5.0) -> None:
        """Ask the server for an answer, whatever revision the database is at.

        It asks on a connection of its own: an exhausted pool does not hold it up, and neither does a frozen server.

        Args:
            timeout: how many seconds it may take in all; above 0.

        Raises:
            NoAnswerError: the server gave no answer within `timeout`.
            ConnectionFailedError: there is none for another reason; subclasses say which.
            InvalidValueError: `timeout` is no such number.
        """
        from mlops_db.storage.pool import probe  # noqa: PLC0415  (loads SQLAlchemy)

        self._opened()
        probe(self.settings, timeout=_seconds(timeout, least=sys.float_info.min, most=MAX_PING_S), check_schema=False)

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server answers, the database exists, and it is at this code's revision.

        For containers that start together with the server and with the migration. A wrong password and another tool's
        database do not mend themselves: they are raised at once.

        Args:
            timeout: seconds; 0 to look once, infinity to wait for ever. A server that is frozen is given two seconds
                at least.

        Raises:
            ConnectionFailedError: after `timeout`, there still is no server or no database.
            BehindHeadError: after `timeout`, the migration still has not run.
            InvalidValueError: `timeout` is no such number.
        """
        deadline = time.monotonic() + _seconds(timeout, least=0, most=math.inf)
        while (failure := self._probe(deadline - time.monotonic())) is not None:
            if time.monotonic() + POLL_S > deadline:
                raise failure
            time.sleep(POLL_S)

    def close(self) -> None:
        """Close all connections, those in use at the end of their blocks. The manager cannot be used after that."""
        with self._opening:
            self._closed = True
            if self._pool is not None:
                self._pool.close()

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def _opened(self) -> ConnectionPool:
        pool = self._pool
        if pool is None or self._closed:
            return self._open()
        return pool

    def _open(self) -> ConnectionPool:
        from mlops_db.storage.pool import ConnectionPool  # noqa: PLC0415  (loads SQLAlchemy)

        with self._opening:
            if self._closed:
                raise ManagerClosedError(
                    f"the DatabaseManager of {self.settings.target} was closed",
                    hint="Make a new one, or call get_db_manager(), and close it when all is done.",
                )
            if self._pool is None:
                self._pool = ConnectionPool(self.settings, schema_is_known=self._schema_is_known)
            return self._pool

    def _probe(self, left_s: float) -> MlopsDbError | None:
        """Look once, on a connection of its own that does not wait longer than is left; returns what may yet change."""
        from mlops_db.storage.pool import probe  # noqa: PLC0415  (loads SQLAlchemy)

        pool = self._opened()
        try:
            probe(self.settings, timeout=min(MOST_PROBE_S, max(LEAST_PROBE_S, left_s)), check_schema=True)
        except AuthenticationFailedError:
            raise
        except (ConnectionFailedError, BehindHeadError) as failure:
            return failure
        pool.schema_is_known = True
        return None

    def _forked(self) -> None:
        """Leave the parent's connections to the parent, and its locks to threads that this process does not have."""
        if self._pool is not None:
            self._schema_is_known = self._pool.schema_is_known
        self._pool = None
        self._opening = threading.Lock()


def _seconds(timeout: Any, *, least: float, most: float) -> float:
    """The argument `timeout` of a call.

    Raises:
        InvalidValueError: it is no number from `least` to `most`.
    """
    from mlops_db.storage.values import excerpt  # noqa: PLC0415  (of use here alone)

    seconds = math.nan
    if isinstance(timeout, Real | Decimal) and not isinstance(timeout, bool):
        with suppress(OverflowError, ValueError):
            seconds = float(timeout)
    if not least <= seconds <= most:
        raise InvalidValueError(
            "timeout",
            f"{excerpt(timeout)} is not how many seconds to wait",
            hint=f"Give a number of seconds, {'above' if least else 'from'} 0 to {most:g}.",
        )
    return seconds


_managers: weakref.WeakSet[DatabaseManager] = weakref.WeakSet()
_shared: list[DatabaseManager] = []
_sharing = threading.Lock()


def get_db_manager() -> DatabaseManager:
    """The `DatabaseManager` that all of a process shares, with the environment's settings of the first call.

    After its `close()` the next call makes a new one. A forked child has the same one, with connections of its own.

    Raises:
        SettingsError: the environment holds what cannot be used.
    """
    with _sharing:
        if not _shared or _shared[0].closed:
            _shared[:] = [DatabaseManager()]
        return _shared[0]


def _after_fork() -> None:
    global _sharing  # noqa: PLW0603  (another thread of the parent may have held it)
    _sharing = threading.Lock()
    for manager in list(_managers):
        manager._forked()  # noqa: SLF001  (of this module)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
