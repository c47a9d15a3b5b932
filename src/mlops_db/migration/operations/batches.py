"""`op.run_in_batches`: one statement for all rows of a table, in batches that each are a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.operations import MigrateOperation, Operations

from mlops_db.errors import RefusedError
from mlops_db.migration.batches.online import BatchRun
from mlops_db.migration.batches.statement import BatchStatement
from mlops_db.migration.operations.timeouts import OPTIONS
from mlops_db.migration.step import STEP
from mlops_db.settings import duration_ms

if TYPE_CHECKING:
    from mlops_db.migration.options import Options
    from mlops_db.migration.step import RunningStep

TARGET = "250ms"


@Operations.register_operation("run_in_batches")
class RunInBatches(MigrateOperation):
    """A statement in batches, which can be interrupted and run again."""

    @classmethod
    def run_in_batches(  # noqa: PLR0913  (the statement, its rows, and how long a batch takes)
        cls,
        operations: Operations,
        statement: str,
        *,
        table: str,
        key: str,
        schema: str | None = None,
        target: str = TARGET,
    ) -> None:
        """Run a statement for the rows of a table, in batches that are committed one by one.

        Args:
            operations: given by Alembic.
            statement: an UPDATE, DELETE or INSERT ... SELECT with the bounds `:after` (exclusive) and `:upto`
                (inclusive) of the key. Everything else is sent as it is written.
            table: the table, partitioned table or view whose rows are divided into batches.
            key: its column of type smallint, integer or bigint.
            schema: the table's schema; default: the search path's, public.
            target: a duration: how long a batch should take.

        Raises:
            RefusedError: it cannot be run in batches.
        """
        migration = operations.get_context()
        batched = BatchStatement.parse(statement)
        target_ms = duration_ms(target, "target")
        quote = migration.dialect.identifier_preparer.quote
        source = ".".join(quote(name) for name in (schema, table) if name)
        if migration.as_sql:
            raise RefusedError("run_in_batches has no --sql yet", hint="Run it without --sql.")
        if migration._in_external_transaction:  # noqa: SLF001  (Alembic itself would stop at an assertion)
            raise RefusedError(
                "a revision runs in batches, each in a transaction of its own, and cannot in the transaction of the "
                "caller",
                hint="Hand over a connection that is in no transaction, or let the run connect by itself.",
            )
        step: RunningStep = migration.opts[STEP]
        options: Options = migration.opts[OPTIONS]
        with migration.autocommit_block():
            BatchRun(
                operations.get_bind(), step, batched, source, quote(key), target_ms / 1000, options.retry_for
            ).run()
