"""Builds an index of a partitioned table while others write to it.

PostgreSQL has no CREATE INDEX CONCURRENTLY for a partitioned table. This is the way of the manual ("Partition
Maintenance"): create the index on the partitioned table alone, where it is invalid, and where every new partition gets
one like it; build one on each partition concurrently; attach each. With the last one the index becomes valid.

PostgreSQL names the indexes of the partitions. An index that somebody has built on a partition is attached if it is the
same and holds no constraint; one that a stopped run left invalid is dropped and built again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from mlops_db.errors import RefusedError
from mlops_db.migration.retry import with_retries
from mlops_db.migration.statements import literal, split_statements
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS
from mlops_db.server.guests import SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from mlops_db.migration.step import RunningStep

_USING = "substr(pg_get_indexdef({row}.indexrelid), strpos(pg_get_indexdef({row}.indexrelid), ' USING ') + 7)"


def index_definition(row: str) -> str:
    """SQL for all that makes an index the same as another; `row` is its row of pg_index."""
    return f"CASE WHEN {row}.indisunique THEN 'unique ' ELSE '' END || {_USING.format(row=row)}"


_IS_PARTITIONED = "SELECT relkind = 'p' AS is_partitioned FROM pg_class WHERE oid = {table}::regclass"
# Those that cannot have an index like it, or whose own partitions would need one each.
_UNFIT = """
    SELECT string_agg(regexp_replace(p.oid::regclass::text, '^public\\.', ''), ', ')
      FROM pg_inherits AS t JOIN pg_class AS p ON p.oid = t.inhrelid
     WHERE t.inhparent = {table}::regclass AND p.relkind <> 'r'
"""
# The next statement for each partition whose index is not attached, and whether it only attaches. On Citus, an invalid
# index may be missing on some nodes.
_STATEMENTS = f"""
    SELECT CASE WHEN own.name IS NULL
                THEN 'CREATE ' || CASE WHEN whole.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX CONCURRENTLY ON '
                     || p.oid::regclass::text || ' USING ' || {_USING.format(row="whole")}
                WHEN NOT own.valid THEN 'DROP INDEX CONCURRENTLY IF EXISTS ' || own.name
                ELSE 'ALTER INDEX ' || whole.indexrelid::regclass::text || ' ATTACH PARTITION ' || own.name END
           AS statement, coalesce(own.valid, false) AS attaches
      FROM pg_index AS whole
      JOIN pg_inherits AS t ON t.inhparent = whole.indrelid
      JOIN pg_class AS p ON p.oid = t.inhrelid
      LEFT JOIN LATERAL (
           SELECT i.indexrelid::regclass::text AS name, i.indisvalid AS valid
             FROM pg_index AS i
            WHERE i.indrelid = p.oid AND {index_definition("i")} = {index_definition("whole")}
              AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = i.indexrelid)
              AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND contype IN ('p', 'u', 'x'))
            ORDER BY i.indisvalid, i.indexrelid LIMIT 1) AS own ON true
     WHERE whole.indexrelid = {{index}}::regclass
       AND NOT EXISTS (SELECT FROM pg_inherits AS a JOIN pg_index AS i ON i.indexrelid = a.inhrelid
                        WHERE a.inhparent = whole.indexrelid AND i.indrelid = p.oid)
     ORDER BY p.oid::regclass::text
"""


# PostgreSQL refuses an index of a partitioned table if default_tablespace names the database's own. The setting is
# cleared with the statement, because outside of a transaction it would not be kept.
_CLEAR_TABLESPACE = """\
DO $own$ BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_database AS d JOIN pg_catalog.pg_tablespace AS t ON t.oid = d.dattablespace
                WHERE d.datname = pg_catalog.current_database()
                  AND t.spcname = pg_catalog.current_setting('default_tablespace')) THEN
        PERFORM pg_catalog.set_config('default_tablespace', '', true);
    END IF;
END $own$;"""


class CreateIndexOnOnly(CreateIndex):
    """CREATE INDEX for a partitioned table without its partitions."""


@compiles(CreateIndexOnOnly)
def _compile(create: CreateIndexOnOnly, compiler: Any, **options: Any) -> str:
    on = f" ON {compiler.preparer.format_table(create.element.table)} "
    statement: str = compiler.visit_create_index(create, **options)
    only = on.replace(" ON ", " ON ONLY ", 1)
    return f"{_CLEAR_TABLESPACE} {statement.replace('INDEX CONCURRENTLY ', 'INDEX ', 1).replace(on, only, 1)}"


# For psql, where \gexec executes one column after the other. The statements are asked for twice: one that drops an
# invalid index is followed by one that builds it. Those that lock briefly are in transactions, in which waits on the
# workers of Citus are bounded.
_SCRIPT = r"""
{is_partitioned} \gset
\if :is_partitioned
DO $unfit$
DECLARE
    unfit constant text := ({unfit});
BEGIN
    IF unfit <> '' THEN
        RAISE wrong_object_type USING MESSAGE = '{unfit_message}' || unfit, HINT = '{unfit_hint}';
    END IF;
END $unfit$;
SELECT 'BEGIN', {bound_waits}, {create}, 'COMMIT' WHERE to_regclass({index}) IS NULL \gexec
{patient}
SELECT next.statement FROM ({statements}) AS next WHERE NOT next.attaches \gexec
SELECT next.statement FROM ({statements}) AS next WHERE NOT next.attaches \gexec
{impatient}
SELECT 'BEGIN', {bound_waits}, next.statement, 'COMMIT' FROM ({statements}) AS next WHERE next.attaches \gexec
\else
{patient}
{create_concurrently};
{impatient}
\endif
"""
_UNFIT_MESSAGE = "an index cannot be created concurrently on partitions that are no plain tables: "
_UNFIT_HINT = "Create it with op.create_index, which blocks writers."


@dataclass
class PartitionIndexes:
    """The indexes of the partitions, for an index of a partitioned table.

    Attributes:
        connection: in autocommit mode.
        table: the partitioned table, as a literal of SQL.
        index: its index, as a literal of SQL.
        long: sets the timeouts for a long statement in a block.
        step: the step that this is a part of; None outside of a run.
        retry_for_ms: how long an index is tried to attach that gets no lock, in milliseconds.
    """

    connection: Connection
    table: str
    index: str
    long: Callable[[], AbstractContextManager[None]]
    step: RunningStep | None
    retry_for_ms: int

    @property
    def are_needed(self) -> bool:
        """Whether the table is partitioned."""
        return self._query(_IS_PARTITIONED.format(table=self.table)) == [(True,)]

    def require_plain_partitions(self) -> None:
        """Refuse partitions that have partitions of their own, or are foreign tables.

        Raises:
            RefusedError: names them.
        """
        ((unfit,),) = self._query(_UNFIT.format(table=self.table))
        if unfit:
            raise RefusedError(f"{_UNFIT_MESSAGE}{unfit}", hint=_UNFIT_HINT)

    def build(self) -> None:
        """Build and attach those that are missing, also of partitions that come meanwhile.

        Raises:
            RefusedError: one gets no lock in time; those before it stay attached.
        """
        while following := self._query(f"{_STATEMENTS.format(index=self.index)} LIMIT 1"):
            ((statement, attaches),) = following
            if attaches:
                self._attach(statement)
                continue
            with self.long():
                try:
                    self._execute(statement)
                except DBAPIError:
                    # An invalid index slows down writes. If this fails too, the next run drops it.
                    with suppress(SQLAlchemyError):
                        self._drop_invalid()
                    raise

    def _attach(self, statement: str) -> None:
        # Two statements are one transaction, in which waits on the workers of Citus are bounded, too.
        statement = f"SET LOCAL search_path = {SAFE_PATH}; {statement}"
        if self.step is None:
            self._execute(statement)
            return
        with_retries(
            lambda: self._execute(statement),
            position=lambda: 0,
            blockers=self.step.describe_blockers,
            retry_for_ms=self.retry_for_ms,
            progress=self.step.progress,
            unit="index",
        )

    def _drop_invalid(self) -> None:
        for statement, _ in self._query(_STATEMENTS.format(index=self.index)):
            if statement.startswith("DROP"):
                self._execute(statement)

    def _query(self, query: str) -> list[Any]:
        # The path is set with the query, because outside of a transaction it would not be kept.
        return list(self._execute(f"SET LOCAL search_path = {SAFE_PATH}; {query}"))

    def _execute(self, statement: str) -> Any:
        return self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def index_script(table: str, index: str, statements: tuple[str, str], *, patient: str, impatient: str) -> str:
    """Write for psql how an index is created, on a partitioned table or another.

    Args:
        table: as a literal of SQL.
        index: the same.
        statements: those of another table, and of a partitioned one.
        patient: statements that set the timeouts for a long statement.
        impatient: statements that set those of the run.
    """
    create_concurrently, create = statements
    return _SCRIPT.format(
        is_partitioned=_IS_PARTITIONED.format(table=table),
        unfit=_UNFIT.format(table=table).strip(),
        unfit_message=_UNFIT_MESSAGE,
        unfit_hint=_UNFIT_HINT,
        statements=_STATEMENTS.format(index=index).strip(),
        index=index,
        bound_waits=literal(BOUND_WAITS_ON_WORKERS),
        create=", ".join(map(literal, split_statements(create))),
        create_concurrently=create_concurrently,
        patient=patient,
        impatient=impatient,
    ).strip()
