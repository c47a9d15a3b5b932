"""`op.create_index_concurrently`: CREATE INDEX CONCURRENTLY that can be interrupted and run again."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import CreateIndexOp
from sqlalchemy import Column, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, DropIndex
from sqlalchemy.types import NullType

from mlops_db.errors import RefusedError
from mlops_db.migration.operations.partition_indexes import (
    CreateIndexOnOnly,
    PartitionIndexes,
    index_definition,
    index_script,
)
from mlops_db.migration.operations.timeouts import LONG, OPTIONS, long_timeout, own_timeout, session_timeout
from mlops_db.migration.statements import literal
from mlops_db.migration.step import STEP
from mlops_db.server.guests import SAFE_PATH
from mlops_db.settings import duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Index
    from sqlalchemy.sql.elements import ColumnElement, TextClause

    from mlops_db.migration.options import Options

_MODEL = "mlops_db_model"  # a temporary table


@Operations.register_operation("create_index_concurrently")
class CreateIndexConcurrently(MigrateOperation):
    """CREATE INDEX CONCURRENTLY that can be interrupted and run again."""

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
        """Create an index without blocking writers of the table.

        It cannot run in a transaction (manual, "CREATE INDEX", Building Indexes Concurrently), so the statements before
        it are committed first: give it a revision of its own. An invalid index that a stopped run left under this name
        is dropped and built again; a valid one with the same definition is kept.

        On a partitioned table it is created alone, under SHARE for a moment, and then on each partition concurrently
        (`partition_indexes`). If that stops, what is built stays: run it again, or drop the index.

        Args:
            operations: given by Alembic.
            index_name: name of the index.
            table_name: the table; it may be partitioned, if its partitions are not.
            columns: column names, or `sa.text(...)` for expressions and orderings.
            schema: the table's schema; default: the search path's, public.
            unique: whether no two rows may be equal in it.
            where: the predicate of a partial index.
            timeout: a duration such as `6h`: how long it may take, including the wait for older transactions, unless
                `-x statement-timeout` gives another.
            postgresql: further options of Alembic's `op.create_index`, such as `postgresql_using`.

        Raises:
            RefusedError: another index has that name.
        """
        if where is not None:
            postgresql["postgresql_where"] = text(where)
        listed = list(columns)
        index = CreateIndexOp(
            index_name, table_name, listed, schema=schema, unique=unique, postgresql_concurrently=True, **postgresql
        )
        model = CreateIndexOp(f"{_MODEL}_index", _MODEL, listed, schema="pg_temp", unique=unique, **postgresql)
        built, modelled = index.to_index(), model.to_index()
        for created in (built, modelled):
            assert created.table is not None
            # SQLAlchemy looks them up in the table, which here has only the key columns of the index.
            for name in postgresql.get("postgresql_include") or ():
                if name not in created.table.c:
                    created.table.append_column(Column(name, NullType()))
        _create(operations, built, modelled, duration_ms(timeout, "timeout"))


def _create(operations: Operations, index: Index, model: Index, timeout_ms: int) -> None:
    """Create the index; `model` is the same index for the temporary table `_MODEL`."""
    migration = operations.get_context()
    if migration._in_external_transaction:  # noqa: SLF001  (Alembic itself would stop at an assertion)
        raise RefusedError(
            f"index {index.name} is created concurrently, which PostgreSQL cannot do in the transaction of the caller",
            hint="Hand over a connection that is in no transaction, or let the run connect by itself.",
        )
    timeouts = {"lock_timeout": 0, "statement_timeout": long_timeout(operations, timeout_ms)}

    @contextmanager
    def patient() -> Iterator[None]:
        # It waits for every older transaction through a lock on it, so a short lock_timeout would end it.
        with ExitStack() as stack:
            for timeout, milliseconds in timeouts.items():
                stack.enter_context(session_timeout(operations, timeout, milliseconds))
            yield

    with migration.autocommit_block():
        if migration.as_sql:
            _write(operations, index, timeouts)
            return
        connection = operations.get_bind()
        options: Options | None = migration.opts.get(OPTIONS)
        partitions = PartitionIndexes(
            connection,
            literal(_quoted_table(connection.dialect, index)),
            literal(_quoted_name(connection.dialect, index)),
            patient,
            migration.opts.get(STEP),
            0 if options is None else options.retry_for,
        )
        if partitions.are_needed:
            _build_on_partitions(connection, partitions, index, model)
            return
        with patient():
            _build(connection, index, model)


def _write(operations: Operations, index: Index, timeouts: Mapping[str, int]) -> None:
    """Write for `--sql` how the index is created; `timeouts` are those of long statements."""
    migration = operations.get_context()
    create, dialect = CreateIndex(index), migration.dialect
    if migration.opts.get(OPTIONS) is None:  # a look at what a revision would do, which is not only for psql
        operations.execute(create)
        return
    script = index_script(
        literal(_quoted_table(dialect, index)),
        literal(_quoted_name(dialect, index)),
        (str(create.compile(dialect=dialect)), str(CreateIndexOnOnly(index).compile(dialect=dialect))),
        patient="\n".join(f"SET {name} = {value};" for name, value in timeouts.items()),
        impatient="\n".join(f"SET {name} = {own_timeout(operations, name)};" for name in timeouts),
    )
    migration.impl.static_output(script)


def _build(connection: Connection, index: Index, model: Index) -> None:
    found = _drop_invalid(connection, index)
    if found is None:
        try:
            connection.execute(CreateIndex(index))
        except DBAPIError:
            # An invalid index slows down writes. If this fails too, the next run drops it.
            with suppress(SQLAlchemyError):
                _drop_invalid(connection, index)
            raise
        found = _find(connection, index)
        if found is not None and found.usable:
            return
    _require(connection, index, found, _describe_wanted(connection, index, model))


def _build_on_partitions(connection: Connection, partitions: PartitionIndexes, index: Index, model: Index) -> None:
    partitions.require_plain_partitions()
    found = _find(connection, index)
    wanted = _describe_wanted(connection, index, model)
    if found is None:
        connection.execute(CreateIndexOnOnly(index))
    else:  # invalid if a run was stopped
        _require(connection, index, found._replace(valid=True), wanted)
    partitions.build()
    _require(connection, index, _find(connection, index), wanted)


def _require(connection: Connection, index: Index, found: _Found | None, wanted: str) -> None:
    """Refuse an index that is not the wanted one.

    Raises:
        RefusedError: says what it is.
    """
    if found is not None and found.usable and found.definition == wanted:
        return
    description = "missing"
    if found is not None:
        description = f"{found.definition}{'' if found.valid else ', INVALID'} on {found.table}"
    table = _quoted_table(connection.dialect, index).removeprefix("public.")
    raise RefusedError(
        f"index {index.name} should be {wanted} on {table}, and is {description}",
        hint=f"Find out who uses it. If nobody does: DROP INDEX {index.name}. Then run again.",
    )


def _drop_invalid(connection: Connection, index: Index) -> _Found | None:
    """Drop the index if it is invalid; returns the one that is left under its name."""
    found = _find(connection, index)
    if found is not None and found.same_table and not found.valid:
        # On Citus, an earlier try to drop it may have reached some of the shards.
        connection.execute(DropIndex(index, if_exists=True))
        return None
    return found


def _quoted_table(dialect: Dialect, index: Index) -> str:
    assert index.table is not None
    table = dialect.identifier_preparer.format_table(index.table)
    return table if index.table.schema else f"public.{table}"  # where CREATE INDEX finds it


def _quoted_name(dialect: Dialect, index: Index) -> str:
    assert index.table is not None
    quote = dialect.identifier_preparer.quote
    return f"{quote(index.table.schema or 'public')}.{quote(str(index.name))}"


class _Found(NamedTuple):
    table: str
    same_table: bool
    valid: bool
    definition: str

    @property
    def usable(self) -> bool:
        return self.same_table and self.valid


def _find(connection: Connection, index: Index) -> _Found | None:
    table = _quoted_table(connection.dialect, index)
    row = connection.execute(
        # The path is set with the statement, because outside of a transaction it would not be kept.
        text(rf"""
            SET LOCAL search_path = {SAFE_PATH};
            SELECT regexp_replace(i.indrelid::regclass::text, '^public\.', ''), i.indrelid = wanted.oid, i.indisvalid,
                   {index_definition("i")}
              FROM pg_class AS wanted
              JOIN pg_class AS c ON c.relnamespace = wanted.relnamespace AND c.relname = :index
              JOIN pg_index AS i ON i.indexrelid = c.oid
             WHERE wanted.oid = CAST(:table AS regclass)
        """),
        {"table": table, "index": index.name},
    ).first()
    return None if row is None else _Found(*row)


def _describe_wanted(connection: Connection, index: Index, model: Index) -> str:
    """The definition that PostgreSQL would give the index, read from an empty temporary table with the same columns."""
    table = _quoted_table(connection.dialect, index)
    connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_MODEL} (LIKE {table})")
    try:
        connection.execute(CreateIndex(model))
        statement = text(
            f"SET LOCAL search_path = {SAFE_PATH}; "
            f"SELECT {index_definition('i')} FROM pg_index AS i WHERE i.indrelid = CAST('pg_temp.{_MODEL}' AS regclass)"
        )
        wanted: str = connection.execute(statement).scalar_one()
    finally:
        connection.exec_driver_sql(f"DROP TABLE pg_temp.{_MODEL}")
    return wanted
