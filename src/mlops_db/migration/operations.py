"""`op.create_index_concurrently` and `op.validate_constraint`: for the two statements that need longer timeouts.

Revisions import nothing of this package; they find these beside Alembic's own operations, because env.py loads this
module. Both lift the timeouts for their own statement only, and both write themselves in `--sql` mode too.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import CreateIndexOp
from sqlalchemy import Column, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, DropIndex
from sqlalchemy.types import NullType

from mlops_db.errors import RefusedError
from mlops_db.server.guests import SAFE_PATH
from mlops_db.settings import duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Index
    from sqlalchemy.sql.elements import ColumnElement, TextClause

    from mlops_db.migration.options import Options

LONG = "6h"
OPTIONS = "mlops_db_options"  # key of MigrationContext.opts: the run's, or the script's, Options


@Operations.register_operation("create_index_concurrently")
class CreateIndexConcurrently(MigrateOperation):
    """CREATE INDEX CONCURRENTLY that can be interrupted and run again."""

    def __init__(self, index: Index, model: Index, timeout_ms: int) -> None:
        """Take the index, the same one for a temporary table of the name `_MODEL`, and a timeout in milliseconds."""
        self.index = index
        self.model = model
        self.timeout_ms = timeout_ms

    @classmethod
    def create_index_concurrently(  # noqa: PLR0913  (an index has that many properties)
        cls,
        operations: Operations,
        index_name: str,
        table_name: str,
        columns: Sequence[str | TextClause | ColumnElement[Any]],
        *,
        schema: str | None = None,
        unique: bool = False,
        where: str | None = None,
        timeout: str = LONG,
        **postgresql: Any,
    ) -> None:
        """Create an index without keeping writers from the table.

        What came before it in the revision is committed first, since it cannot run in a transaction (manual, "CREATE
        INDEX", Building Indexes Concurrently): have it alone in its revision. An invalid index that a stopped run left
        under this name is dropped and built again; a valid one that is the same is kept.

        Args:
            operations: given by Alembic.
            index_name: name of the index.
            table_name: the table; not a partitioned one, for which PostgreSQL has no CONCURRENTLY.
            columns: column names, or `sa.text(...)` for expressions and orderings.
            schema: the table's schema; default: the search path's, public.
            unique: whether no two rows may be equal in it.
            where: the predicate of a partial index.
            timeout: a duration such as `6h`: how long it may take, waits for old transactions included, unless
                `-x statement-timeout` says otherwise.
            postgresql: further options of Alembic's `op.create_index`, such as `postgresql_using`.

        Raises:
            RefusedError: another index is there under that name.
        """
        if where is not None:
            postgresql["postgresql_where"] = text(where)
        listed = list(columns)
        index = CreateIndexOp(
            index_name, table_name, listed, schema=schema, unique=unique, postgresql_concurrently=True, **postgresql
        )
        model = CreateIndexOp(f"{_MODEL}_index", _MODEL, listed, schema="pg_temp", unique=unique, **postgresql)
        built, modelled = index.to_index(), model.to_index()
        for made in (built, modelled):
            assert made.table is not None
            # SQLAlchemy looks them up in the table, which here has only the columns of the index itself.
            for name in postgresql.get("postgresql_include") or ():
                if name not in made.table.c:
                    made.table.append_column(Column(name, NullType()))
        operations.invoke(cls(built, modelled, duration_ms(timeout, "timeout")))


@Operations.register_operation("validate_constraint")
class ValidateConstraint(MigrateOperation):
    """ALTER TABLE ... VALIDATE CONSTRAINT, with the time that reading the whole table takes."""

    def __init__(self, constraint_name: str, table_name: str, schema: str | None, timeout_ms: int) -> None:
        """Take the names, and the statement's timeout in milliseconds."""
        self.constraint_name = constraint_name
        self.table_name = table_name
        self.schema = schema
        self.timeout_ms = timeout_ms

    @classmethod
    def validate_constraint(
        cls,
        operations: Operations,
        constraint_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        timeout: str = LONG,
    ) -> None:
        """Check the rows that a constraint added NOT VALID has not seen.

        Reads the whole table under SHARE UPDATE EXCLUSIVE, which keeps nobody from reading or writing; lock_timeout
        stays short. Have it in a revision after the one that adds the constraint: in the same transaction it would run
        under that one's ACCESS EXCLUSIVE lock.

        Args:
            operations: given by Alembic.
            constraint_name: name of the constraint.
            table_name: its table.
            schema: the table's schema; default: the search path's, public.
            timeout: a duration such as `6h`: how long it may take, unless `-x statement-timeout` says otherwise.
        """
        operations.invoke(cls(constraint_name, table_name, schema, duration_ms(timeout, "timeout")))


@Operations.implementation_for(ValidateConstraint)
def _validate_constraint(operations: Operations, operation: ValidateConstraint) -> None:
    quote = operations.get_context().dialect.identifier_preparer.quote
    table = ".".join(quote(name) for name in (operation.schema, operation.table_name) if name)
    validate = f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote(operation.constraint_name)}"
    timeout = _long_timeout(operations, operation.timeout_ms)
    if operations.get_context().as_sql:
        with _setting(operations, "statement_timeout", timeout):
            operations.execute(validate)
    else:
        # All in one message, of which the timeout holds for each statement (manual, "statement_timeout").
        back = _setting_back(operations, "statement_timeout").replace("SET ", "SET LOCAL ")
        operations.execute(f"SET LOCAL statement_timeout = {timeout}; {validate}; {back}")


@Operations.implementation_for(CreateIndexConcurrently)
def _create_index_concurrently(operations: Operations, operation: CreateIndexConcurrently) -> None:
    migration = operations.get_context()
    if migration._in_external_transaction:  # noqa: SLF001  (Alembic itself would stop at an assertion)
        raise RefusedError(
            f"index {operation.index.name} is created concurrently, which PostgreSQL cannot do in the transaction of "
            "the caller",
            hint="Hand over a connection that is in no transaction, or let the run connect by itself.",
        )
    with (
        migration.autocommit_block(),
        # It waits for every older transaction, as a lock on that transaction: a short lock_timeout would end it there.
        _setting(operations, "lock_timeout", 0),
        _setting(operations, "statement_timeout", _long_timeout(operations, operation.timeout_ms)),
    ):
        if migration.as_sql:
            operations.execute(CreateIndex(operation.index))
        else:
            _build(operations.get_bind(), operation)


def _build(connection: Connection, operation: CreateIndexConcurrently) -> None:
    index = operation.index
    found = _found(connection, index)
    if found is not None and found.same_table and not found.valid:
        connection.execute(DropIndex(index))
        found = None
    built = found is None
    if built:
        try:
            connection.execute(CreateIndex(index))
        except DBAPIError:
            # Left behind, it would go on slowing writes. If this fails too, the next run drops it.
            with suppress(SQLAlchemyError):
                left = _found(connection, index)
                if left is not None and left.same_table and not left.valid:
                    connection.execute(DropIndex(index))
            raise
        found = _found(connection, index)
    if found is not None and found.same_table and found.valid and built:
        return
    wanted = _wanted(connection, operation)
    if found is None or not (found.same_table and found.valid and found.definition == wanted):
        seen = (
            "missing" if found is None else f"{found.definition}{'' if found.valid else ', INVALID'} on {found.table}"
        )
        table = _quoted_table(connection, index).removeprefix("public.")
        raise RefusedError(
            f"index {index.name} should be {wanted} on {table}, and is {seen}",
            hint=f"See who made it; if nobody needs it: DROP INDEX CONCURRENTLY {index.name}. Then run again.",
        )


def _quoted_table(connection: Connection, index: Index) -> str:
    assert index.table is not None
    table = connection.dialect.identifier_preparer.format_table(index.table)
    return table if index.table.schema else f"public.{table}"  # where CREATE INDEX finds it


class _Found(NamedTuple):
    table: str
    same_table: bool
    valid: bool
    definition: str


_DEFINITION = """
    CASE WHEN i.indisunique THEN 'unique ' ELSE '' END
    || substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING ') + 7)
"""


def _found(connection: Connection, index: Index) -> _Found | None:
    table = _quoted_table(connection, index)
    row = connection.execute(
        # Constants; the path is set with the statement, because outside of a transaction it would not be kept.
        text(rf"""
            SET LOCAL search_path = {SAFE_PATH};
            SELECT regexp_replace(i.indrelid::regclass::text, '^public\.', ''), i.indrelid = wanted.oid, i.indisvalid,
                   {_DEFINITION}
              FROM pg_class AS wanted
              JOIN pg_class AS c ON c.relnamespace = wanted.relnamespace AND c.relname = :index
              JOIN pg_index AS i ON i.indexrelid = c.oid
             WHERE wanted.oid = CAST(:table AS regclass)
        """),
        {"table": table, "index": index.name},
    ).first()
    return None if row is None else _Found(*row)


def _wanted(connection: Connection, operation: CreateIndexConcurrently) -> str:
    """The index as PostgreSQL would describe it, read off an empty temporary table of the same columns."""
    table = _quoted_table(connection, operation.index)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_MODEL} (LIKE {table})")
    try:
        connection.execute(CreateIndex(operation.model))
        statement = text(
            f"SET LOCAL search_path = {SAFE_PATH}; "
            f"SELECT {_DEFINITION} FROM pg_index AS i WHERE i.indrelid = CAST('pg_temp.{_MODEL}' AS regclass)"
        )
        definition: str = connection.execute(statement).scalar_one()
    finally:
        connection.exec_driver_sql(f"DROP TABLE pg_temp.{_MODEL}")
    return definition


_MODEL = "mlops_db_model"


def _long_timeout(operations: Operations, timeout_ms: int) -> int:
    """How long a statement may take that its revision allows `timeout_ms`: whoever runs it may say otherwise."""
    options: Options | None = operations.get_context().opts.get(OPTIONS)
    return timeout_ms if options is None or options.long_timeout is None else options.long_timeout


@contextmanager
def _setting(operations: Operations, name: str, milliseconds: int) -> Iterator[None]:
    """Set a timeout of the session and take it back afterwards."""
    operations.execute(f"SET {name} = {milliseconds}")
    back = _setting_back(operations, name)
    try:
        yield
    except BaseException:
        # In autocommit mode this takes it back; in a transaction that failed the rollback does, and this cannot.
        with suppress(SQLAlchemyError):
            operations.execute(back)
        raise
    operations.execute(back)


def _setting_back(operations: Operations, name: str) -> str:
    """To what the run has: RESET would go back to what the connection started with, which is not always its own."""
    options: Options | None = operations.get_context().opts.get(OPTIONS)
    return f"RESET {name}" if options is None else f"SET {name} = {getattr(options, name)}"
