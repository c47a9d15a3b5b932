"""Runs the statements of a revision in a transaction that the revision cannot end.

Each revision is one transaction, in which the run also records that the revision is done. A COMMIT in the revision
would apply one half of it, even if the other half fails. So the run reads each statement and refuses it before it is
sent; the methods of psycopg2 and SQLAlchemy refuse, too. A revision that has to commit uses Alembic's
autocommit_block().
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mlops_db.errors import DataLossError, MlopsDbError, RefusedError, StatementFailedError
from mlops_db.migration.guard.row_guard import ALL_ROWS, UNSEEN_HINT
from mlops_db.migration.statements import ends_transaction, sets_only, split_statements
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS
from mlops_db.server.guests import REFUSE_GUESTS, SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    from mlops_db.migration.guard.row_guard import RowGuard

# A revision's statements create and find tables in public without naming it. Temporary objects come last, so that none
# hides an object of the schema.
REVISION_PATH = "public, pg_temp"
# Set for the revision's transaction only: if it is missing at the end, the revision has begun another one.
_MARK = "mlops_db.revision"
REVISION_OF_TRANSACTION = f"current_setting('{_MARK}', true)"
# What a script of --sql does first in each transaction of a revision.
SCRIPT_ENTERS = f"{REFUSE_GUESTS}\n\n{BOUND_WAITS_ON_WORKERS}"
# PostgreSQL raises these for a statement that commits by itself.
_COMMITS_INSIDE = (psycopg2.errors.ActiveSqlTransaction, psycopg2.errors.InvalidTransactionTermination)
NOTHING_DONE = "nothing of it was applied"
HALF_DONE = "what came before that may stay, and nothing of what came after it was applied"


def transaction_refusal(revision: str, words: str, *, done: str) -> RefusedError:
    """The error for a revision that ends the transaction that it runs in.

    Args:
        revision: its id.
        words: the words of the statement, such as `COMMIT`.
        done: what happened to its statements.
    """
    return RefusedError(
        f"revision {revision} executes {words}, but only the run may end its transaction; {done}",
        hint="Take it out. What has to run outside of a transaction goes into op.get_context().autocommit_block(): "
        "docs/writing-a-revision.md.",
    )


def unfinished_refusal(revision: str) -> RefusedError:
    """The error for a revision that `alembic revision` wrote and nobody has completed."""
    return RefusedError(
        f"revision {revision} has no statements yet (NotImplementedError); nothing of it was applied",
        hint="Write its upgrade() and downgrade(): docs/writing-a-revision.md.",
    )


class RunConnection(psycopg2.extensions.connection):
    """A connection whose commit() and rollback() are refused while a revision runs.

    Attributes:
        transaction: of the revision that runs; None while none runs.
    """

    transaction: RevisionTransaction | None = None

    def cursor(self, *args: Any, **parameters: Any) -> Any:
        """Make a cursor; while a revision runs, one that reads what it sends, of any class."""
        if self.transaction is not None:
            wanted = parameters.get("cursor_factory") or self.cursor_factory
            parameters["cursor_factory"] = _checked_cursor(wanted, self.transaction)
        return super().cursor(*args, **parameters)

    def commit(self) -> None:
        """Commit, unless a revision calls it."""
        self._refuse("commit()")
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless a revision calls it."""
        self._refuse("rollback()")
        super().rollback()

    def _refuse(self, method: str) -> None:
        if self.transaction is not None:
            self.transaction.refuse(method)


class RevisionTransaction:
    """The rules for the statements of one revision.

    Attributes:
        outside: whether each statement commits by itself, because the revision is in an autocommit_block().
        in_batches: whether batches of it are committed, also by an earlier run.
        on_citus: whether the database has Citus: its nodes take one statement at a time, and a lock_timeout of their
            own.
        bounds: of the rows that the next statement changes.
    """

    def __init__(self, revision: str, guard: RowGuard | None, *, on_citus: bool = False) -> None:
        """Take the revision's id, and the guard of a downgrade that must not lose rows."""
        self.revision = revision
        self.on_citus = on_citus
        self.guard = guard
        self.outside = False
        self.in_batches = False
        self.bounds = ALL_ROWS
        self._refusal: RefusedError | None = None
        self._sent = False  # a statement other than SET
        self._alone = ""  # the operation that admits no other statement

    def refuse(self, words: str, *, done: str = NOTHING_DONE) -> None:
        """Refuse what ends the transaction, unless there is none.

        Raises:
            RefusedError: the revision is in its transaction.
        """
        if not self.outside:
            self._refusal = transaction_refusal(self.revision, words, done=done)
            raise self._refusal

    def refuse_closing(self, words: str) -> None:
        """Refuse to close the connection, also outside of a transaction, because the run still needs it.

        Raises:
            RefusedError: always.
        """
        self._refusal = transaction_refusal(self.revision, words, done=HALF_DONE if self.outside else NOTHING_DONE)
        raise self._refusal

    def end(self, driver: Any = None) -> None:
        """Raise the refusal again if the revision caught it, and check that the transaction has not ended.

        Raises:
            RefusedError: a statement was refused, or the transaction of `driver` is over.
            DataLossError: rows would be lost.
        """
        if self._refusal is not None:
            raise self._refusal
        self._require_transaction(driver)
        if self.guard is not None and not self.outside:
            self.guard.finish()

    def explain(self, error: Exception) -> None:
        """Raise the refusal instead of an error that followed from it, and explain an error of psycopg2.

        Raises:
            RefusedError: a statement was refused before.
            StatementFailedError: psycopg2 did not send the statement, as an empty one.
        """
        if self._refusal is not None:
            raise self._refusal from error
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, psycopg2.ProgrammingError) and cause.pgcode is None:  # not from the server
            raise StatementFailedError(
                f"psycopg2 refuses a statement of revision {self.revision}: {cause}",
                hint="Remove or fix that statement.",
            ) from error

    def _require_transaction(self, driver: Any) -> None:
        """Refuse if the transaction is over: a cursor of another class may have ended it."""
        if driver is not None and driver.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            self.refuse("COMMIT or ROLLBACK", done=HALF_DONE)

    def read(self, statement: str) -> None:
        """Refuse a statement that ends the transaction, or that stands beside what has to be alone, before it is sent.

        Raises:
            RefusedError: it must not run.
        """
        words = ends_transaction(statement)
        if words is not None:
            self.refuse(words)
        if not sets_only(statement):
            if self._alone:
                self._refuse_company()
            self._sent = True

    @contextmanager
    def alone(self, operation: str) -> Iterator[None]:
        """Run the statements of an operation in the block; none but SET may come before it or after it.

        Raises:
            RefusedError: one came before it.
        """
        if self._sent or self._alone:
            self._alone = operation
            self._refuse_company()
        yield
        self._alone = operation

    def _refuse_company(self) -> None:
        self._refusal = RefusedError(
            f"revision {self.revision} has other statements beside {self._alone}, which commits before its revision is "
            "done",
            hint=f"Put {self._alone} into a revision of its own.",
        )
        raise self._refusal

    def run(
        self, cursor: psycopg2.extensions.cursor, statement: str, send: Callable[[], None], *, only_once: bool = False
    ) -> None:
        """Send a statement unless it breaks a rule; `only_once` if it cannot be sent again.

        Raises:
            RefusedError: it ends the transaction.
            DataLossError: it would lose rows that are protected, or the run could not see it.
        """
        self._require_transaction(cursor.connection)
        self.read(statement)
        if self.guard is None:
            send()
        elif cursor.name is not None:
            raise DataLossError(
                f"revision {self.revision} reads from a cursor on the server in its downgrade, so the run cannot see "
                "what each fetch does; it was not opened",
                hint=f"Read without stream_results and without a name for the cursor. Or {UNSEEN_HINT}",
            )
        elif self.outside:
            self._run_outside(cursor, statement, send, only_once=only_once)
        else:
            self.guard.run(statement, send, only_once=only_once, bounds=self.bounds, changed=lambda: cursor.rowcount)

    def send_one_by_one(self, cursor: psycopg2.extensions.cursor, statement: str, send: Callable[[str], None]) -> None:
        """Send statements one by one: a node of Citus takes one at a time, and would get the text of all of them.

        Outside of a transaction, several statements in one message are one transaction, and so they are here.
        """
        statements = list(split_statements(statement))
        if len(statements) <= 1 or ends_transaction(statement):
            send(statement)
            return
        control = psycopg2.extensions.cursor(cursor.connection)  # so that the last statement's rows stay
        alone = cursor.connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
        if alone:
            control.execute("BEGIN")
            control.execute(BOUND_WAITS_ON_WORKERS)
        try:
            for each in statements:
                send(each)
        except psycopg2.Error:
            if alone and not cursor.connection.closed:
                control.execute("ROLLBACK")
            raise
        if alone:
            control.execute("COMMIT")

    @contextmanager
    def own_transaction(self, connection: Connection) -> Iterator[None]:
        """Within an autocommit_block, run what is sent in the block in a transaction, under the rules for one.

        Raises:
            RefusedError: a statement ends the transaction.
            DataLossError: rows would be lost.
        """
        driver: Any = connection.connection.dbapi_connection
        control = psycopg2.extensions.cursor(driver)
        control.execute("BEGIN")
        if self.on_citus:
            control.execute(BOUND_WAITS_ON_WORKERS)
        self.outside = False
        try:
            if self.guard is not None:
                self.guard.begin()
            yield
            self.end(driver)
        except BaseException:
            if not driver.closed:
                control.execute("ROLLBACK")
            raise
        else:
            control.execute("COMMIT")
            self.in_batches = True
        finally:
            self.outside = True

    def _run_outside(
        self, cursor: psycopg2.extensions.cursor, statement: str, send: Callable[[], None], *, only_once: bool
    ) -> None:
        """Run a statement that commits by itself in a transaction, so that the guard sees it before the commit."""
        assert self.guard is not None
        control = psycopg2.extensions.cursor(cursor.connection)
        commits = DataLossError(
            f"revision {self.revision} commits within a statement of its downgrade, so the run cannot see whether rows "
            "are lost; that statement was not run",
            hint=f"Write its statements one by one. Or {UNSEEN_HINT}",
        )
        if ends_transaction(statement):
            raise commits
        control.execute("BEGIN")
        if self.on_citus:
            control.execute(BOUND_WAITS_ON_WORKERS)
        try:
            self.guard.begin()
            self.guard.run(statement, send, only_once=only_once, changed=lambda: cursor.rowcount)
            self.guard.finish()
        except BaseException as error:
            if not cursor.connection.closed:
                control.execute("ROLLBACK")
            if not isinstance(error, _COMMITS_INSIDE):
                raise
            # CREATE INDEX CONCURRENTLY and the like have to run alone, and delete no rows of our tables. Other
            # statements fail with the same error: SET TRANSACTION ISOLATION LEVEL, or a function that runs VACUUM.
            if error.diag.source_function != "PreventInTransactionBlock" or error.diag.context:
                raise commits from None
            send()
        else:
            control.execute("COMMIT")


@contextmanager
def revision_statements(
    migration: MigrationContext, revision: str, guard: RowGuard | None, *, on_citus: bool = False
) -> Iterator[RevisionTransaction]:
    """Run a revision's statements in the block, in a transaction that has begun; yields the rules for them.

    Args:
        migration: Alembic's context, on a connection of psycopg2.
        revision: the revision's id.
        guard: guards the rows; None if nothing is protected.
        on_citus: whether the database has Citus.

    Raises:
        RefusedError: one of them ends the transaction.
        DataLossError: one of them would lose rows that are protected.
    """
    connection = migration.connection
    assert connection is not None
    driver: Any = connection.connection.dbapi_connection

    mark = (
        f"SELECT pg_catalog.set_config('{_MARK}', %(mark)s, true), pg_catalog.transaction_timestamp(),"
        " pg_catalog.current_setting('role')"
    )
    transaction = RevisionTransaction(revision, guard, on_citus=on_citus)
    path = f"SET search_path = {REVISION_PATH}"
    _, begun, role = connection.exec_driver_sql(f"{path}; {mark}", {"mark": revision}).one()
    if guard is not None:
        guard.begin()

    def enter() -> None:
        nonlocal begun
        with psycopg2.extensions.cursor(driver) as cursor:  # psycopg2's own class, which checks nothing
            cursor.execute(mark, {"mark": revision})
            _, begun, _ = cursor.fetchone() or (None, None, None)
            if on_citus and not transaction.outside:
                cursor.execute(BOUND_WAITS_ON_WORKERS)
        if guard is not None and not transaction.outside:
            guard.begin()

    def leave() -> None:
        transaction.end(driver)

    with _enforce(connection, transaction), _autocommit_block(migration, transaction, leave=leave, enter=enter):
        try:
            yield transaction
        except Exception as error:
            if not isinstance(error, MlopsDbError):
                transaction.explain(error)
            raise
        leave()
    # A role that the revision became must not run the next one, or write the run's own records. The mark is set again,
    # because RESET ALL removes it, but only if this is still the same transaction.
    connection.exec_driver_sql(
        f"SET search_path = {SAFE_PATH};"
        " SELECT set_config('role', %(role)s, false) WHERE current_setting('role') <> %(role)s;"
        f" SELECT set_config('{_MARK}', %(mark)s, true) WHERE transaction_timestamp() = %(begun)s",
        {"role": role, "mark": revision, "begun": begun},
    )


@contextmanager
def revision_script(migration: MigrationContext, revision: str) -> Iterator[RevisionTransaction]:
    """Write a revision's statements for `--sql` in the block; yields the rules for them.

    Args:
        migration: Alembic's context of `--sql`.
        revision: the revision's id.

    Raises:
        RefusedError: one of them ends the transaction.
    """
    transaction = RevisionTransaction(revision, None)
    write = migration.impl.static_output

    def read_and_write(text: str) -> None:
        transaction.read(text)
        write(text)

    write(f"SET search_path = {REVISION_PATH};")
    migration.impl.static_output = read_and_write  # type: ignore[method-assign]  # of this one script
    try:
        with _autocommit_block(migration, transaction, leave=transaction.end, enter=lambda: write(SCRIPT_ENTERS)):
            yield transaction
            transaction.end()
    finally:
        migration.impl.static_output = write  # type: ignore[method-assign]  # as before
    write(f"SET search_path = {SAFE_PATH};")


@contextmanager
def _autocommit_block(
    migration: MigrationContext,
    transaction: RevisionTransaction,
    *,
    leave: Callable[[], None],
    enter: Callable[[], None],
) -> Iterator[None]:
    """Within the block, make Alembic's autocommit_block leave the transaction and return into another."""
    original = migration.autocommit_block

    @contextmanager
    def autocommit_block() -> Iterator[None]:
        leave()
        before, transaction.outside = transaction.outside, True
        interrupt: KeyboardInterrupt | None = None
        try:
            with original():
                try:
                    yield
                except KeyboardInterrupt as error:
                    interrupt = error
                    raise
        except Exception:
            if interrupt is not None:  # it broke the connection, so that the block could not be left
                raise interrupt from None
            transaction.outside = before
            with suppress(SQLAlchemyError, psycopg2.Error):  # the revision may continue, unless the connection broke
                enter()
            raise
        transaction.outside = before
        enter()

    migration.autocommit_block = autocommit_block  # type: ignore[method-assign]  # of this one context
    try:
        yield
    finally:
        migration.autocommit_block = original  # type: ignore[method-assign]  # as before


@contextmanager
def _enforce(connection: Connection, transaction: RevisionTransaction) -> Iterator[None]:
    """Apply the rules of `transaction` to everything that is sent over the connection."""
    driver: Any = connection.connection.dbapi_connection

    refusals = {name: lambda _, call=f"{name}()": transaction.refuse(call) for name in ("commit", "rollback")}
    invalidate = connection.invalidate

    def refuse_invalidate(broken: BaseException | None = None) -> None:
        if broken is None:
            transaction.refuse_closing("invalidate()")
        invalidate(broken)  # SQLAlchemy's own, for a connection that broke

    streams = connection.get_execution_options().get("stream_results", False)
    for name, refuse in refusals.items():
        event.listen(connection, name, refuse)
    vars(connection).update(close=lambda: transaction.refuse_closing("close()"), invalidate=refuse_invalidate)
    before = driver.cursor_factory
    if isinstance(driver, RunConnection):
        driver.transaction = transaction
    else:
        driver.cursor_factory = _checked_cursor(before, transaction)
    try:
        yield
    finally:
        if isinstance(driver, RunConnection):
            driver.transaction = None
        driver.cursor_factory = before
        del vars(connection)["close"], vars(connection)["invalidate"]
        for name, refuse in refusals.items():
            event.remove(connection, name, refuse)
        connection.execution_options(stream_results=streams)  # the run's own statements return no rows to stream


@lru_cache(maxsize=1)  # SQLAlchemy makes a cursor for each statement
def _checked_cursor(wanted: Any, transaction: RevisionTransaction) -> type[psycopg2.extensions.cursor]:
    """A subclass of the wanted cursor class, None for psycopg2's own, that checks each statement before it sends it."""
    base: Any = wanted or psycopg2.extensions.cursor

    class RevisionCursor(base):  # type: ignore[misc]  # known only now
        def execute(self, query: str | bytes | sql.Composable, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
            send, text = super().execute, statement_text(query, self)
            if not transaction.on_citus:
                transaction.run(self, text, lambda: send(query, vars))
                return
            complete = text if vars is None else statement_text(self.mogrify(query, vars), self)
            transaction.run(self, text, lambda: transaction.send_one_by_one(self, complete, send))

        def executemany(self, query: str | bytes | sql.Composable, vars_list: Any) -> None:
            send, rows = super().executemany, list(vars_list)
            transaction.run(self, statement_text(query, self), lambda: send(query, rows))

        def callproc(self, procname: str, *parameters: Any) -> Any:
            send = super().callproc
            transaction.run(self, f"SELECT * FROM {procname}()", lambda: send(procname, *parameters))
            return parameters[0] if parameters else None

        def copy_expert(self, sql: str | bytes | sql.Composable, *file: Any, **options: Any) -> None:
            send = super().copy_expert
            transaction.run(self, statement_text(sql, self), lambda: send(sql, *file, **options), only_once=True)

        def copy_from(self, *file: Any, **options: Any) -> None:
            send = super().copy_from
            transaction.run(self, "COPY", lambda: send(*file, **options), only_once=True)

        def copy_to(self, *file: Any, **options: Any) -> None:
            send = super().copy_to
            transaction.run(self, "COPY", lambda: send(*file, **options), only_once=True)

    return RevisionCursor


def statement_text(query: str | bytes | sql.Composable, cursor: psycopg2.extensions.cursor) -> str:
    """The text of a statement, in whatever form psycopg2 takes it."""
    if isinstance(query, sql.Composable):
        return query.as_string(cursor)
    return query if isinstance(query, str) else query.decode(errors="replace")
