"""`op.run_in_batches`: one statement for all rows of a table, in batches that each are a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.operations import MigrateOperation, Operations

from mlops_db.errors import RefusedError
from mlops_db.migration.batches import script
from mlops_db.migration.batches.job import Job
from mlops_db.migration.batches.online import OnlineJob
from mlops_db.migration.batches.positions import CREATE
from mlops_db.migration.batches.statement import BatchStatement
from mlops_db.migration.operations.timeouts import OPTIONS, session_timeout
from mlops_db.migration.step import STEP
from mlops_db.settings import duration_ms

if TYPE_CHECKING:
    from mlops_db.migration.options import Options

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
        """Run a statement for all rows of a table, in batches that are committed one by one.

        It changes each row once that was committed, or whose transaction was open, when it began, also if the run is
        killed and the command is run again, and if the statement is not idempotent. So it first waits for every open
        transaction of this database, as CREATE INDEX CONCURRENTLY does, for as long as a lock is retried
        (MLOPS_RETRY_FOR). It leaves out rows that are inserted later with a greater key.

        The statement runs alone in its direction of a revision; only SET may come before it. A batch that gets no lock
        is retried with fewer rows.

        Args:
            operations: given by Alembic.
            statement: an UPDATE, DELETE or INSERT ... SELECT with the bounds `:after` (exclusive) and `:upto`
                (inclusive) of the key, both of type bigint. Everything else is sent as it is written.
            table: the table, partitioned table or view whose rows are divided into batches. An index of the table, or
                of each partition, has to begin with the key; for a view this is not checked.
            key: its column of type smallint, integer or bigint, without NULL.
            schema: the table's schema; default: the search path's, public.
            target: a duration: how long a batch should take. Afterwards the run rests for a fifth of the time that it
                took.

        Raises:
            RefusedError: it cannot run in batches; or transactions that were open at the beginning do not end, or a
                batch gets no lock. The batches that are done stay, and the same command resumes.
        """
        migration = operations.get_context()
        batched = BatchStatement.parse(statement)
        target_ms = duration_ms(target, "target")
        if migration._in_external_transaction:  # noqa: SLF001  (Alembic itself would stop at an assertion)
            raise RefusedError(
                "run_in_batches commits each batch, which it cannot do in the transaction of the caller",
                hint="Hand over a connection that is in no transaction, or let the run connect by itself.",
            )
        step = migration.opts.get(STEP)
        if step is None:
            raise RefusedError(
                "op.run_in_batches was called outside of a run of revisions",
                hint="Run the revision with `alembic` and an env.py like that of this project.",
            )
        source = tuple(name for name in (schema, table) if name)
        job = Job(step.revision, step.direction, batched, source, key, target_ms)
        with step.transaction.alone("op.run_in_batches"):
            if migration.as_sql:
                _write(operations, job)
            else:
                operations.get_bind().exec_driver_sql(job.check(), execution_options={"no_parameters": True})
                with migration.autocommit_block():
                    OnlineJob(operations.get_bind(), step, migration.opts[OPTIONS], job).run()


def _write(operations: Operations, job: Job) -> None:
    """Write the job for `--sql`."""
    migration = operations.get_context()
    options: Options | None = migration.opts.get(OPTIONS)
    write = migration.impl.static_output  # as it is written: Alembic would replace tabs
    if options is None:  # a look at what a revision would do, of which our own tables are no part
        write(f"{job.statement.bind('0', '0')};")
        return
    for statement in (CREATE.strip(), job.check(), script.begin_in_transaction(job)):
        write(statement)
    # The limit would be that of the whole block.
    with migration.autocommit_block(), session_timeout(operations, "statement_timeout", 0):
        write(script.run(job, retry_for_ms=options.retry_for))
    write(script.end_in_transaction(job))
