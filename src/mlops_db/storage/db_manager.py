"""The entry point for jobs: `DatabaseManager`, and `get_db_manager()` for the one that a process shares.

The first call that needs a connection loads SQLAlchemy and psycopg2; importing this module does not.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import weakref
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from mlops_db.errors import (
    InvalidValueError,
    ManagerClosedError,
)
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import psycopg2.extensions
    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session

    from mlops_db.server.cursor import SafeCursor
    from mlops_db.storage.decisions import Decisions
    from mlops_db.storage.model_versions import ModelVersions
    from mlops_db.storage.monitoring import Monitoring
    from mlops_db.storage.pool import ConnectionPool

MAX_PING_S = 86_400.0
_Lent = TypeVar("_Lent")


class DatabaseManager:
    """The database, for jobs: pooled connections, and the tables behind `models`, `monitoring` and `decisions`.

    One manager for each process is enough, and threads can share it: `get_db_manager()`. A new manager opens no
    connection. The first call does, and checks once that the database is at a revision that this code knows. Every
    block of `connection()`, `session()`, `cursor()` and `get_connection()` is one transaction: it is committed at the
    block's end, and rolled back if the block raises an error. Sessions have the time zone UTC, the search path
    `public`, and READ COMMITTED. Other changes that a block makes to its connection are undone at its end: see
    `get_connection()`.

    All this also works behind PgBouncer in transaction mode, except for state that outlives a transaction: a plain SET,
    temporary tables, LISTEN, session advisory locks, prepared statements, cursors WITH HOLD.

    A forked child process can use the manager, with a pool of its own. After a restart of the server the next call gets
    a new connection; the call that the restart interrupts raises `ConnectionLostError`.

    Every call may raise the following errors. If `retryable` of the error is true, nothing was stored, and the same
    call may succeed a little later. Errors that only a defect of a program can cause, such as a syntax error in SQL,
    are not translated: they stay psycopg2's or SQLAlchemy's. So do errors of other connections that a block uses.

    Raises:
        ConnectionFailedError: there is no connection (subclasses say why), or it broke (`ConnectionLostError`). In a
            distributed database a worker may not answer (`WorkerUnreachableError`).
        PoolExhaustedError: all connections are in use, and none came back within MLOPS_POOL_TIMEOUT.
        UnknownRevisionError, UnmanagedDatabaseError, BehindHeadError: this code does not work at the database's
            revision; `OutdatedCodeError` is a subclass of the first.
        StatementFailedError, NotPermittedError, RefusedError: the server refused; subclasses of the first are
            `StatementTimeoutError` (MLOPS_POOL_STATEMENT_TIMEOUT), `ContentionError` (MLOPS_POOL_LOCK_TIMEOUT, a
            deadlock) and `StandbyError`.
        ManagerClosedError: after `close()`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the database, and the sizes of the pool, from `settings`; by default from the environment.

        Raises:
            SettingsError: a value of the environment cannot be used.
        """
        self.settings = settings or Settings.from_environment()
        self._pool: ConnectionPool | None = None
        self._schema_is_known = False
        self._closed = False
        self._opening = threading.Lock()
        _managers.add(self)

    def __repr__(self) -> str:
        """The manager and where it connects, without the password."""
        return f"<{type(self).__name__} {self.settings.target}>"

    def __enter__(self) -> DatabaseManager:  # noqa: PYI034  (Self is Python 3.11's)
        """The manager, which is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the manager."""
        self.close()

    @cached_property
    def models(self) -> ModelVersions:
        """Which versions of the models exist, and which are in production."""
        from mlops_db.storage.model_versions import ModelVersions  # noqa: PLC0415  (loads psycopg2)

        return ModelVersions(self)

    @cached_property
    def monitoring(self) -> Monitoring:
        """The measurements of monitoring."""
        from mlops_db.storage.monitoring import Monitoring  # noqa: PLC0415  (loads psycopg2)

        return Monitoring(self)

    @cached_property
    def decisions(self) -> Decisions:
        """Why candidates were promoted or rejected."""
        from mlops_db.storage.decisions import Decisions  # noqa: PLC0415  (loads psycopg2)

        return Decisions(self)

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine of this process; get it again after a fork. Its errors are not translated."""
        return self._open_pool().engine

    def connection(self) -> AbstractContextManager[Connection]:
        """Lend a SQLAlchemy connection for one transaction."""
        return _Block(self._open_pool().connection(), "connection")

    def session(self) -> AbstractContextManager[Session]:
        """Lend a SQLAlchemy ORM session for one transaction; its objects stay readable afterwards."""
        return _Block(self._open_pool().session(), "session")

    def cursor(self) -> AbstractContextManager[psycopg2.extensions.cursor]:
        """Lend a psycopg2 cursor for one transaction: the fastest way to run a short statement."""
        return _Block(self._open_pool().cursor(), "cursor")

    def safe_cursor(self) -> AbstractContextManager[SafeCursor]:
        """Lend a cursor for one transaction of this package; names without a schema are PostgreSQL's."""
        return self._open_pool().safe_cursor()

    def get_connection(self) -> AbstractContextManager[psycopg2.extensions.connection]:
        """Lend a psycopg2 connection for one transaction.

        At the end of the block it is restored to the state in which it was opened, as are those of `connection()`,
        `session()`, `cursor()`, `engine` and `execute_query()`. psycopg2's state (autocommit, isolation level,
        cursor_factory, types, encoding) is reset, and the session runs DISCARD ALL, which ends settings, roles,
        temporary tables, LISTEN, session locks and prepared statements, and costs a round trip. A connection that
        cannot be restored, for instance within a transaction in two phases, is closed.

        Behind a transaction pooler only psycopg2's side is restored, because the session is shared. A plain SET there
        affects the next client of the session. Use SET LOCAL.
        """
        return _Block(self._open_pool().driver_connection(), "get_connection")

    @overload
    def execute_query(
        self, sql: str, params: Iterable[Any] | Mapping[str, Any] | None = None, *, as_dicts: Literal[True]
    ) -> list[dict[str, Any]]: ...  # it is for statements with rows; with a number, callers would have to check

    @overload
    def execute_query(
        self, sql: str, params: Iterable[Any] | Mapping[str, Any] | None = None, *, as_dicts: Literal[False] = False
    ) -> list[tuple[Any, ...]] | int: ...

    def execute_query(
        self, sql: str, params: Iterable[Any] | Mapping[str, Any] | None = None, *, as_dicts: bool = False
    ) -> list[tuple[Any, ...]] | list[dict[str, Any]] | int:
        """Run one statement in a transaction of its own.

        Args:
            sql: the statement, with %s (or %(name)s) for each parameter; if there are parameters, %% is a literal %.
            params: the parameters; an empty sequence or mapping means none. NumPy's scalars, and others that have an
                `item()`, count as the Python values that they hold, also within lists, tuples and dicts.
            as_dicts: return each row as a dict of column names and values, instead of a tuple. It is for statements
                that have a result set; others return a number as without it.

        Returns:
            The rows, if the statement has a result set; otherwise how many rows it changed: 0 for statements that count
            none, such as TRUNCATE, CREATE TABLE or SET.

        Raises:
            InvalidValueError: `params` is text or has no order, or a parameter is NA, NaT or masked (pass None for
                NULL); it names which, as `params[0]` or `params.name`. Nothing was sent. Or `as_dicts` is true and
                several columns have the same name, so that a dict would lose values; the statement was rolled back.
        """
        from mlops_db.storage.parameters import convert_parameters  # noqa: PLC0415  (only needed here)

        parameters = convert_parameters(params)
        with self.cursor() as cursor:
            cursor.execute(sql, parameters)
            if cursor.description is None:
                return max(cursor.rowcount, 0)
            if not as_dicts:
                return cursor.fetchall()
            names = _column_names(cursor.description)
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def ping(self, timeout: float = 5.0) -> None:
        """Check that the server answers. The revision of the database does not matter.

        The check uses a connection of its own: an exhausted pool or a frozen server does not delay it.

        Args:
            timeout: how many seconds it may take in all; above 0, at most a day.

        Raises:
            NoAnswerError: the server gave no answer within `timeout`.
            ConnectionFailedError: there is no answer for another reason; subclasses say which.
            InvalidValueError: `timeout` is no such number.
        """
        from mlops_db.revisions.readiness import probe  # noqa: PLC0415  (loads psycopg2)

        seconds = _check_timeout(timeout, least=sys.float_info.min, most=MAX_PING_S)
        self._open_pool()
        probe(self.settings, timeout=seconds, stage="database")

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until the server answers, the database exists, and it is at a revision that this code works with.

        For containers that start together with the server and with the migration; `mlops-db wait` does the same. Errors
        that waiting cannot resolve, such as a wrong password or another tool's database, are raised at once.

        Args:
            timeout: seconds; 0 checks once, infinity waits for ever. A frozen server gets at least two seconds.

        Raises:
            ConnectionFailedError: there is no server or no database after `timeout`.
            BehindHeadError: the migration has not run after `timeout`.
            NotPermittedError: this role may not read the revision after `timeout`: a migration may grant it that.
            InvalidValueError: `timeout` is no such number.
        """
        from mlops_db.revisions.readiness import wait_until_ready  # noqa: PLC0415  (loads psycopg2)

        seconds = _check_timeout(timeout, least=0, most=math.inf)
        pool = self._open_pool()
        for _ in wait_until_ready(self.settings, timeout=seconds):
            pool = self._open_pool()  # which another thread may have closed
        pool.schema_is_known = True

    def close(self) -> None:
        """Close all connections; those in use at the end of their blocks. Then the manager cannot be used any more."""
        with self._opening:
            self._closed = True
            if self._pool is not None:
                self._pool.close()

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def _open_pool(self) -> ConnectionPool:
        pool = self._pool
        if pool is not None and not self._closed:
            return pool
        from mlops_db.storage.pool import ConnectionPool  # noqa: PLC0415  (loads SQLAlchemy)

        with self._opening:
            if self._closed:
                raise ManagerClosedError(
                    f"the DatabaseManager of {self.settings.target} was closed",
                    hint="Make a new one, or call get_db_manager(); close a manager only after its last use.",
                )
            if self._pool is None:
                self._pool = ConnectionPool(self.settings, schema_is_known=self._schema_is_known)
            return self._pool

    def _reset_after_fork(self) -> None:
        """Leave the parent's connections to the parent, and take new locks: the parent's threads may hold its locks."""
        if self._pool is not None:
            self._schema_is_known = self._pool.schema_is_known
        self._pool = None
        self._opening = threading.Lock()


class _Block(Generic[_Lent]):
    """What `with` lends for a block; used without `with`, it says how to write that."""

    def __init__(self, block: AbstractContextManager[_Lent], method: str) -> None:
        self._block = block
        self._method = method

    def __enter__(self) -> _Lent:
        return self._block.__enter__()

    def __exit__(self, *error: Any) -> bool | None:  # noqa: PYI036  (contextlib takes three)
        return self._block.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as copy.copy() asks before the attributes are there
            raise AttributeError(name)
        what = self._method.removeprefix("get_")
        raise AttributeError(
            f"{self._method}() lends a {what} for a block, and has no {name} itself. Write: "
            f"with db.{self._method}() as {what}:"
        )


def _column_names(description: Sequence[psycopg2.extensions.Column]) -> list[str]:
    """The names of the columns of a result.

    Raises:
        InvalidValueError: several columns have the same name.
    """
    names = [column.name for column in description]
    repeated = {name: None for name in names if names.count(name) > 1}
    if repeated:
        listed = ", ".join(f'"{name}"' for name in repeated)
        raise InvalidValueError(
            "sql",
            f"several columns of its result are called {listed}, and a dict holds only one of each; it was rolled back",
            hint="Give each column a name of its own: SELECT v.id AS version_id, d.id AS decision_id ...",
        )
    return names


def _check_timeout(timeout: Any, *, least: float, most: float) -> float:
    """A timeout in seconds.

    Raises:
        InvalidValueError: it is no number from `least` to `most`.
    """
    from mlops_db.storage.arguments import excerpt  # noqa: PLC0415  (only needed here)

    seconds = math.nan
    if isinstance(timeout, Real | Decimal) and not isinstance(timeout, bool):
        with suppress(OverflowError, ValueError):
            seconds = float(timeout)
    if not least <= seconds <= most:
        raise InvalidValueError(
            "timeout",
            f"{excerpt(timeout)} is no number of seconds to wait",
            hint=f"Give a number of seconds, {'above' if least else 'from'} 0 to {most:g}.",
        )
    return seconds


_managers: weakref.WeakSet[DatabaseManager] = weakref.WeakSet()
_shared: list[DatabaseManager] = []
_sharing = threading.Lock()


def get_db_manager() -> DatabaseManager:
    """The `DatabaseManager` that a process shares, with the settings that the environment had at the first call.

    After its `close()` the next call makes a new one. A forked child has the same one, with connections of its own.

    Raises:
        SettingsError: a value of the environment cannot be used.
    """
    with _sharing:
        if not _shared or _shared[0].closed:
            _shared[:] = [DatabaseManager()]
        return _shared[0]


@contextmanager
def replace_shared_manager() -> Iterator[None]:
    """Let `get_db_manager()` make a new manager in the block, with the environment's settings, and close it at the end.

    After the block `get_db_manager()` returns the one from before.
    """
    before, _shared[:] = list(_shared), []
    try:
        yield
    finally:
        for manager in _shared:
            manager.close()
        _shared[:] = before


def _after_fork() -> None:
    global _sharing  # noqa: PLW0603  (another thread of the parent may have held it)
    _sharing = threading.Lock()
    for manager in list(_managers):
        manager._reset_after_fork()  # noqa: SLF001  (of this module)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
