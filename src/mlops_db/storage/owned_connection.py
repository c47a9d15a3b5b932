"""The connection that the pool lends: it belongs to the process that opened it, and comes back as it was opened."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import psycopg2
from psycopg2 import extensions
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)
from psycopg2.extensions import cursor as Cursor  # noqa: N812

from mlops_db.errors import RefusedError, StatementFailedError
from mlops_db.server.citus import has_citus

# Settings by which psycopg2 reads values, and which the server reports. PGTZ, PGDATESTYLE and psycopg2 itself set some
# of them after the session began, so that RESET does not restore them.
_REPORTED = ("client_encoding", "DateStyle", "IntervalStyle", "TimeZone")

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _note_failures(method: _Method) -> _Method:
    """Remember the errors of a method as this connection's; psycopg2's errors only name a connection with a cursor."""

    @wraps(method)
    def noting(self: "OwnedConnection", *args: Any, **parameters: Any) -> Any:
        try:
            return method(self, *args, **parameters)
        except Exception as error:
            self.failures.append(error)
            raise

    return noting  # type: ignore[return-value]


def may_have_citus(cursor: Cursor) -> bool:
    """Whether the server has the library of Citus, so that its databases may get the extension at any time."""
    return getattr(cursor.connection, "may_have_citus", True)


def is_on_citus(cursor: Cursor) -> bool:
    """Whether the database has the extension Citus by now; a server without its library is not asked."""
    return may_have_citus(cursor) and has_citus(cursor)


@dataclass(frozen=True)
class _State:
    """The state of a connection that a caller can change on psycopg2's side."""

    attributes: dict[str, Any]
    cursor_factory: Any
    encoding: str
    string_types: dict[Any, Any]
    binary_types: dict[Any, Any]
    reported: dict[str, str | None]


class OwnedConnection(Connection):
    """A connection that only the process which opened it can use or close.

    A forked child has the same socket, so its statements would run in the parent's session. (A psycopg2 cursor that was
    made before the fork cannot be kept from that.)

    Attributes:
        owner: the process's id.
        pinned: whether the session has the pool's options; otherwise each transaction sets them.
        may_have_citus: whether the server has the library of Citus, which it gets only when it starts.
        stays_clean: whether only statements of this package run on it for now, after which nothing is to restore.
        commits: how many commits were begun, and not refused; the outcome of one that broke is unknown.
        failures: the errors that were raised through it since it was lent, other than by a cursor.
        opened_at: when it was opened, by the monotonic clock.
        idle_since: when it went back into the pool, by the monotonic clock; None before that.
    """

    def __init__(self, *args: Any, **parameters: Any) -> None:
        """Connect."""
        super().__init__(*args, **parameters)
        self.owner = os.getpid()
        self.pinned = True
        self.may_have_citus = False
        self.stays_clean = False
        self.commits = 0
        self.failures: list[Exception] = []
        self.opened_at = time.monotonic()
        self.idle_since: float | None = None
        self._opened: _State | None = None
        self._was_broken = False

    @property
    def broken(self) -> bool:
        """Whether it broke. SQLAlchemy closes a broken one, and then psycopg2 only knows that it is closed."""
        return self._was_broken or self.closed > 1

    @property
    def committed_by_hand(self) -> bool:
        """Whether a COMMIT was sent without psycopg2's knowledge; each statement after it commits by itself."""
        if self.status != extensions.STATUS_BEGIN:
            return False
        return bool(self.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE)

    @property
    def inherited(self) -> bool:
        """Whether this process is a child of the one that opened it."""
        return os.getpid() != self.owner

    @_note_failures
    def cursor(self, *args: Any, **parameters: Any) -> Any:
        """Make a cursor, in the process that opened the connection."""
        self._require_owner()
        return super().cursor(*args, **parameters)

    @_note_failures
    def commit(self) -> None:
        """Commit, in the process that opened the connection."""
        self._require_owner()
        status = self.info.transaction_status
        if status == extensions.TRANSACTION_STATUS_INERROR:
            # The server would answer this COMMIT with ROLLBACK, and psycopg2 reports no error then.
            raise StatementFailedError(
                "a statement of this block failed, and its error was caught inside: nothing of the block was stored",
                hint="Let the error out of the `with` block, or put a savepoint around the statement that may fail.",
            )
        if not self.closed:
            self.commits += 1
        if self.autocommit and status == extensions.TRANSACTION_STATUS_INTRANS:
            with super().cursor(cursor_factory=Cursor) as cursor:
                cursor.execute("COMMIT")  # of a BEGIN by hand, of which psycopg2 does not know
        try:
            super().commit()
        except psycopg2.Error:
            if not self.closed:
                self.commits -= 1  # the server has refused it
            raise

    def rollback(self) -> None:
        """Roll back; in a child, leave the parent's transaction alone."""
        if not self.inherited:
            self.commits += self.committed_by_hand
            super().rollback()

    @_note_failures
    def tpc_prepare(self) -> None:
        """Do the first half of a commit in two phases; after it the transaction manager ends the transaction."""
        self.commits += 1
        super().tpc_prepare()

    @_note_failures
    def tpc_commit(self, *args: Any) -> None:
        """Commit in two phases, or do the second half."""
        self.commits += 1
        super().tpc_commit(*args)

    def close(self) -> None:
        """Close; in a child, leave the parent's session alone."""
        if not self.inherited:
            self._was_broken = self.broken
            super().close()

    def remember(self) -> None:
        """Remember the current state, for `restore()`."""
        self._opened = _State(
            attributes=dict(vars(self)),
            cursor_factory=self.cursor_factory,
            encoding=self.encoding,
            string_types=dict(self.string_types),
            binary_types=dict(self.binary_types),
            reported=self._reported_settings(),
        )

    def restore(self) -> bool:
        """Restore the remembered state, on psycopg2's side and in the session; False if that is not possible.

        Behind a pooler the session is shared, and stays as it is. The result is False if a setting that the pooler
        keeps for its clients, such as the time zone, has changed.
        """
        opened = self._opened
        if opened is None:
            return False
        vars(self).clear()
        vars(self).update(opened.attributes, failures=[], _opened=opened)
        try:
            self.rollback()
            # A transaction in two phases; a BEGIN by hand under autocommit; a statement that runs asynchronously.
            if self.status != extensions.STATUS_READY or self.isexecuting():
                return False
            if self.info.transaction_status != extensions.TRANSACTION_STATUS_IDLE:
                return False
            self.set_session(isolation_level="default", readonly="default", deferrable="default", autocommit=True)
            self.cursor_factory = opened.cursor_factory
            self.notices, self.notifies = [], []
            for now, before in ((self.string_types, opened.string_types), (self.binary_types, opened.binary_types)):
                now.clear()
                now.update(before)
            if self.encoding != opened.encoding:
                self.set_client_encoding(opened.encoding)
            if self.pinned:
                self._discard_all(opened)
            self.autocommit = False
        except psycopg2.Error:
            return False
        return self._reported_settings() == opened.reported

    def _discard_all(self, opened: _State) -> None:
        with super().cursor(cursor_factory=Cursor) as cursor:
            cursor.execute("DISCARD ALL")
            for name, value in self._reported_settings().items():
                if value != opened.reported[name]:
                    cursor.execute(f"SET {name} = '{opened.reported[name]}'")

    def _reported_settings(self) -> dict[str, str | None]:
        return {name: self.info.parameter_status(name) for name in _REPORTED}

    def _require_owner(self) -> None:
        if self.inherited:
            raise RefusedError(
                "the connection belongs to the parent process: this process was forked while it was open",
                hint="Fork outside of connections' `with` blocks; a child gets its own from the same DatabaseManager.",
            )
