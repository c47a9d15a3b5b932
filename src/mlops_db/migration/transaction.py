"""The transaction that a revision's statements run in: where they look for names, and that it is not theirs to end.

Each revision is one transaction, in which the run also records that the revision is done. A COMMIT of the revision's
own would apply one half of it whatever becomes of the other. So it is refused before it is sent: each statement is
read, and psycopg2's and SQLAlchemy's methods refuse, too. Alembic's autocommit_block() is the way out.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from psycopg2 import sql
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mlops_db.errors import DataLossError, MlopsDbError, RefusedError, StatementFailedError
from mlops_db.migration.statements import ends_transaction
from mlops_db.server.guests import REFUSE_GUESTS, SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    from mlops_db.migration.judge import Judge

# A revision's statements create and find tables in public without naming it. Temporary objects come last: nobody but
# the run can make any, and nothing of the schema is to be taken for one.
REVISION_PATH = "public, pg_temp"
# Set for the revision's transaction only: where it is missing at the end, that was another transaction.
_MARK = "mlops_db.revision"
REVISION_OF_TRANSACTION = f"current_setting('{_MARK}', true)"
NOTHING_DONE = "nothing of it was applied"
HALF_DONE = "what came before that may stay, and nothing of what came after it was applied"


def transaction_refusal(revision: str, words: str, *, done: str) -> RefusedError:
    """The error for a revision that ends the transaction that it runs in.

    Args:
        revision: its id.
        words: what it says, such as `COMMIT`.
        done: what became of its statements.
    """
    return RefusedError(
        f"revision {revision} says {words}, but only the run may end its transaction; {done}",
        hint="Take it out. What has to run outside of a transaction goes into op.get_context().autocommit_block(): "
        "docs/writing-a-revision.md.",
    )


class RunConnection(psycopg2.extensions.connection):
    """A connection whose commit() and rollback() are refused while a revision runs.

    Attributes:
        transaction: what a revision that runs is held to; None while none runs.
    """

    transaction: RevisionTransaction | None = None

    def cursor(self, *args: Any, **parameters: Any) -> Any:
        """Make a cursor; while a revision runs, of whatever class, one that reads what it sends."""
        if self.transaction is not None:
            wanted = parameters.get("cursor_factory") or self.cursor_factory
            parameters["cursor_factory"] = _held_cursor(wanted, self.transaction)
        return super().cursor(*args, **parameters)

    def commit(self) -> None:
        """Commit, unless a revision asks."""
        self._refuse("commit()")
        super().commit()

    def rollback(self) -> None:
        """Roll back, unless a revision asks."""
        self._refuse("rollback()")
        super().rollback()

    def _refuse(self, method: str) -> None:
        if self.transaction is not None:
            self.transaction.refuse(method)


class RevisionTransaction:
    """What the statements of one revision are held to.

    Attributes:
        outside: whether they run outside of a transaction, each for itself, because the revision asked for that.
    """

    def __init__(self, revision: str, judge: Judge | None) -> None:
        """Take the revision's id, and for a downgrade that must not lose rows its judge."""
        self.revision = revision
        self.judge = judge
        self.outside = False
        self._refusal: RefusedError | None = None

    def refuse(self, words: str, *, done: str = NOTHING_DONE) -> None:
        """Refuse what ends the transaction, unless there is none.

        Raises:
            RefusedError: there is one.
        """
        if not self.outside:
            self._refusal = transaction_refusal(self.revision, words, done=done)
            raise self._refusal

    def refuse_closing(self, words: str) -> None:
        """Refuse what closes the connection, also where there is no transaction: the run goes on with it.

        Raises:
            RefusedError: always.
        """
        self._refusal = transaction_refusal(self.revision, words, done=HALF_DONE if self.outside else NOTHING_DONE)
        raise self._refusal

    def end(self, driver: Any = None) -> None:
        """Refuse once more what the revision was told, in case it did not listen, or went past us.

        Raises:
            RefusedError: it was told so, or the transaction of `driver` is over.
            DataLossError: it was told so.
        """
        if self._refusal is not None:
            raise self._refusal
        self._require_transaction(driver)
        if self.judge is not None and not self.outside:
            self.judge.conclude()

    def explain(self, error: Exception) -> None:
        """Say what the revision was told rather than what failed afterwards, because of it; or what psycopg2 says.

        Raises:
            RefusedError: it was told so.
            StatementFailedError: psycopg2 sends no such thing, as an empty statement.
        """
        if self._refusal is not None:
            raise self._refusal from error
        said = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(said, psycopg2.ProgrammingError) and said.pgcode is None:  # not the server's
            raise StatementFailedError(
                f"psycopg2 refuses what revision {self.revision} does: {said}", hint="Take that out."
            ) from error

    def _require_transaction(self, driver: Any) -> None:
        """Refuse if the transaction is over: a cursor that we did not make may have ended it."""
        if driver is not None and driver.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            self.refuse("COMMIT or ROLLBACK", done=HALF_DONE)

    def read(self, statement: str) -> None:
        """Refuse a statement that ends the transaction, before it is sent.

        Raises:
            RefusedError: it does.
        """
        words = ends_transaction(statement)
        if words is not None:
            self.refuse(words)

    def carry_out(
        self, cursor: psycopg2.extensions.cursor, statement: str, execute: Callable[[], None], *, once: bool = False
    ) -> None:
        """Send a statement, if it may be sent; `once` if it cannot be sent again.

        Raises:
            RefusedError: it ends the transaction.
            DataLossError: it would lose rows that are protected, or nobody could tell.
        """
        self._require_transaction(cursor.connection)
        self.read(statement)
        if self.judge is None:
            execute()
        elif cursor.name is not None:
            raise DataLossError(
                f"revision {self.revision} reads from a cursor on the server in its downgrade, where "
                "MLOPS_ENV=production cannot see what each fetch does; it was not opened",
                hint="Read without stream_results and without a name for the cursor; or take a backup (pg_dump), then "
                "say -x allow-data-loss=true.",
            )
        elif self.outside:
            self._judge_alone(cursor, statement, execute, once=once)
        else:
            self.judge.carry_out(statement, execute, once=once)

    def _judge_alone(
        self, cursor: psycopg2.extensions.cursor, statement: str, execute: Callable[[], None], *, once: bool
    ) -> None:
        """Give a statement that commits by itself a transaction, to be judged in before it does."""
        assert self.judge is not None
        control = psycopg2.extensions.cursor(cursor.connection)
        commits = DataLossError(
            f"revision {self.revision} commits within a statement of its downgrade, where MLOPS_ENV=production cannot "
            "see whether rows are lost; that statement was not carried out"
        )
        if ends_transaction(statement):
            raise commits
        control.execute("BEGIN")
        try:
            self.judge.begin()
            self.judge.carry_out(statement, execute, once=once)
            self.judge.conclude()
        except psycopg2.errors.ActiveSqlTransaction as error:
            control.execute("ROLLBACK")
            # CREATE INDEX CONCURRENTLY and its like have to run alone; none of them deletes rows of our tables. Other
            # statements say the same: SET TRANSACTION ISOLATION LEVEL, or a function that says VACUUM.
            if error.diag.source_function != "PreventInTransactionBlock" or error.diag.context:
                raise commits from None
            execute()
        except psycopg2.errors.InvalidTransactionTermination:
            control.execute("ROLLBACK")
            raise commits from None
        except BaseException:
            if not cursor.connection.closed:
                control.execute("ROLLBACK")
            raise
        else:
            control.execute("COMMIT")


@contextmanager
def revision_statements(migration: MigrationContext, revision: str, judge: Judge | None) -> Iterator[None]:
    """Let a revision's statements run in the block, in a transaction that has begun.

    Args:
        migration: Alembic's context, on a connection of psycopg2's.
        revision: the revision's id.
        judge: judges what they do to rows; None if nothing is protected.

    Raises:
        RefusedError: one of them ends the transaction.
        DataLossError: one of them would lose rows that are protected.
    """
    connection = migration.connection
    assert connection is not None
    driver: Any = connection.connection.dbapi_connection

    begun = None

    def enter() -> None:
        nonlocal begun
        with psycopg2.extensions.cursor(driver) as cursor:  # of a class that reads nothing
            cursor.execute(
                f"SELECT pg_catalog.set_config('{_MARK}', %(mark)s, true), pg_catalog.transaction_timestamp()",
                {"mark": revision},
            )
            _, begun = cursor.fetchone() or (None, None)
        if judge is not None and not transaction.outside:
            judge.begin()

    def leave() -> None:
        transaction.end(driver)

    transaction = RevisionTransaction(revision, judge)
    path = f"SET search_path = {REVISION_PATH}"
    role = connection.exec_driver_sql(f"{path}; SELECT pg_catalog.current_setting('role')").scalar_one()
    enter()
    with _held(connection, transaction), _autocommit_block(migration, transaction, leave=leave, enter=enter):
        try:
            yield
        except Exception as error:
            if not isinstance(error, MlopsDbError):
                transaction.explain(error)
            raise
        leave()
    # The next revision, and what the run writes by itself, are not for a role that this one became and stayed. What
    # RESET ALL took is said again, if this still is the transaction.
    connection.exec_driver_sql(
        f"SET search_path = {SAFE_PATH};"
        " SELECT set_config('role', %(role)s, false) WHERE current_setting('role') <> %(role)s;"
        f" SELECT set_config('{_MARK}', %(mark)s, true) WHERE transaction_timestamp() = %(begun)s",
        {"role": role, "mark": revision, "begun": begun},
    )


@contextmanager
def revision_script(migration: MigrationContext, revision: str) -> Iterator[None]:
    """Let a revision write its statements for `--sql` in the block.

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
        with _autocommit_block(migration, transaction, leave=transaction.end, enter=lambda: write(REFUSE_GUESTS)):
            yield
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
    """Within the block, let Alembic's own leave the transaction and come back into another."""
    alembics = migration.autocommit_block

    @contextmanager
    def autocommit_block() -> Iterator[None]:
        leave()
        before, transaction.outside = transaction.outside, True
        try:
            with alembics():
                yield
        except Exception:
            transaction.outside = before
            with suppress(SQLAlchemyError, psycopg2.Error):  # the revision may go on, unless the connection broke
                enter()
            raise
        transaction.outside = before
        enter()

    migration.autocommit_block = autocommit_block  # type: ignore[method-assign]  # of this one context
    try:
        yield
    finally:
        migration.autocommit_block = alembics  # type: ignore[method-assign]  # as before


@contextmanager
def _held(connection: Connection, transaction: RevisionTransaction) -> Iterator[None]:
    """Hold all that is sent over the connection, by whatever way, to the rules of `transaction`."""
    driver: Any = connection.connection.dbapi_connection

    def refuse_commit(_: Connection) -> None:
        transaction.refuse("commit()")

    def refuse_rollback(_: Connection) -> None:
        transaction.refuse("rollback()")

    invalidate = connection.invalidate

    def refuse_invalidate(broken: BaseException | None = None) -> None:
        if broken is None:
            transaction.refuse_closing("invalidate()")
        invalidate(broken)  # SQLAlchemy's own, for a connection that broke

    streams = connection.get_execution_options().get("stream_results", False)
    event.listen(connection, "commit", refuse_commit)
    event.listen(connection, "rollback", refuse_rollback)
    vars(connection).update(close=lambda: transaction.refuse_closing("close()"), invalidate=refuse_invalidate)
    before = driver.cursor_factory
    if isinstance(driver, RunConnection):
        driver.transaction = transaction
    else:
        driver.cursor_factory = _held_cursor(before, transaction)
    try:
        yield
    finally:
        if isinstance(driver, RunConnection):
            driver.transaction = None
        driver.cursor_factory = before
        del vars(connection)["close"], vars(connection)["invalidate"]
        event.remove(connection, "commit", refuse_commit)
        event.remove(connection, "rollback", refuse_rollback)
        connection.execution_options(stream_results=streams)  # the run's own statements are no queries


def _held_cursor(wanted: Any, transaction: RevisionTransaction) -> type[psycopg2.extensions.cursor]:
    """A class like the one that is wanted, None for psycopg2's own, which sends nothing unread."""
    base: Any = wanted or psycopg2.extensions.cursor

    class RevisionCursor(base):  # type: ignore[misc]  # known only now
        def execute(self, query: str | bytes | sql.Composable, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
            send = super().execute
            transaction.carry_out(self, _text(query, self), lambda: send(query, vars))

        def executemany(self, query: str | bytes | sql.Composable, vars_list: Any) -> None:
            send, rows = super().executemany, list(vars_list)
            transaction.carry_out(self, _text(query, self), lambda: send(query, rows))

        def callproc(self, procname: str, *parameters: Any) -> Any:
            send = super().callproc
            transaction.carry_out(self, f"SELECT * FROM {procname}()", lambda: send(procname, *parameters))
            return parameters[0] if parameters else None

        def copy_expert(self, sql: str | bytes | sql.Composable, *file: Any, **options: Any) -> None:
            send = super().copy_expert
            transaction.carry_out(self, _text(sql, self), lambda: send(sql, *file, **options), once=True)

        def copy_from(self, *file: Any, **options: Any) -> None:
            send = super().copy_from
            transaction.carry_out(self, "COPY", lambda: send(*file, **options), once=True)

        def copy_to(self, *file: Any, **options: Any) -> None:
            send = super().copy_to
            transaction.carry_out(self, "COPY", lambda: send(*file, **options), once=True)

    return RevisionCursor


def _text(query: str | bytes | sql.Composable, cursor: psycopg2.extensions.cursor) -> str:
    if isinstance(query, sql.Composable):
        return query.as_string(cursor)
    return query if isinstance(query, str) else query.decode(errors="replace")
