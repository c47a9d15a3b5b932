"""Refuses a database whose state the command cannot start from, before a run changes anything."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from alembic.runtime.migration import RevisionStep
from alembic.util import to_tuple

from mlops_db.errors import RefusedError, UnknownRevisionError, alembic
from mlops_db.migration.revision_graph import add_others
from mlops_db.revisions.gate import Position, refuse_behind_head, refuse_wrong_rows
from mlops_db.revisions.remains import refuse_remains
from mlops_db.revisions.running_code import read_running_code
from mlops_db.revisions.tables import VERSION_TABLE, reading_fault, refuse_to_read
from mlops_db.server.citus import refuse_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.revisions.graph import Graph


def check_version_table_owner(migration: MigrationContext, target: str) -> None:
    """Let Alembic read alembic_version only if its owner can be trusted, each time that it reads it.

    From now on `get_current_heads` raises RefusedError if alembic_version must not be read.

    Args:
        migration: a configured context of the run.
        target: where the connection goes, for the messages.
    """
    connection, read_current_heads = migration.connection, migration.get_current_heads
    assert connection is not None

    def current_heads() -> tuple[str, ...]:
        query = reading_fault(VERSION_TABLE)
        found = connection.exec_driver_sql(query, execution_options={"no_parameters": True}).all()
        for (fault,) in found:
            if fault:
                refuse_to_read(VERSION_TABLE, fault, target)
        return read_current_heads() if found else ()  # another role may have created a missing one by now

    migration.get_current_heads = current_heads  # type: ignore[method-assign]  # of this one context


def refuse_wrong_database(migration: MigrationContext, graph: Graph, target: str) -> None:
    """Stop if the database is not in a state that the command can start from.

    Only reads, and leaves the transaction that it read in to the caller. Revisions of a project beside ours, which
    these files lack, and which a run has recorded, are known to Alembic and to the graph from then on.

    Args:
        migration: the configured context of the run.
        graph: the revisions of the run.
        target: where the connection goes, for the messages.

    Raises:
        RefusedError: alembic_version must not be read.
        UnknownRevisionError: `alembic_version` names a revision that this checkout does not have.
        RecordedRevisionError: its rows exclude each other, unless `alembic stamp --purge` deletes them; or it has no
            row, and should have one.
        WorkerNodeError: it is a worker of a Citus cluster.
        UnmanagedDatabaseError: the tables were created by hand. `alembic stamp` is allowed, because it is the remedy.
        BehindHeadError: `alembic check` and `--autogenerate` compare with head, and the database is behind it.
    """
    connection = migration.connection
    assert connection is not None
    current = migration.get_current_heads()
    _know_others(migration, graph, current, target)
    refuse_wrong_rows(current, graph, target, overlap=not migration.opts.get("purge"))
    if not current:
        with closing(cast("Cursor", connection.connection.cursor())) as cursor:
            refuse_worker(cursor, target)
            if "purge" not in migration.opts:
                refuse_remains(cursor, graph, target)
    if "revision_context" in migration.opts:
        refuse_behind_head(Position(current, graph.pending(*current)), target)


def refuse_steps_of_others(
    graph: Graph, steps: Sequence[Any], destination: object, target: str, *, purge: bool
) -> None:
    """Stop a run that would revert revisions of a project beside ours, or forget them, although it names ours.

    Args:
        graph: the revisions of the run.
        steps: Alembic's, of the run.
        destination: what the command names.
        target: where the connection goes, for the messages.
        purge: whether the command deletes all rows of alembic_version first, which is no step.

    Raises:
        RefusedError: names them.
    """
    if graph.recorded and (purge or not all(isinstance(step, RevisionStep) and step.is_upgrade for step in steps)):
        raise RefusedError(
            f"{target} is also at {' and '.join(sorted(graph.recorded))} of a project beside mlops-db, whose files are "
            "not here; nothing was changed",
            hint="Run it with an alembic.ini that has all their folders in version_locations. If they are gone for "
            "good, docs/own-tables.md has the way out.",
        )
    reverted = [step.revision for step in steps if isinstance(step, RevisionStep) and not step.is_upgrade]
    theirs = [found for found in reverted if found.revision in graph.others]
    if theirs and len(theirs) < len(reverted) and destination != "base":
        names = " and ".join(found.revision for found in theirs)
        raise RefusedError(
            f"{names} of a project beside mlops-db would be reverted, too; nothing was changed",
            hint=f"Revert them first: {commands_that_revert(theirs)}. "
            f"Or revert everything: `{alembic('downgrade base')}`.",
        )


def commands_that_revert(theirs: Sequence[Script]) -> str:
    """The commands, for a hint, that revert these revisions of a project beside ours, and none of ours."""
    parents = {found.revision: to_tuple(found.down_revision, ()) for found in theirs}
    targets = (
        f"{one}@{above[0] if above else 'base'}" for one, above in parents.items() if parents.keys().isdisjoint(above)
    )
    return " and ".join(f"`{alembic(f'downgrade {target}')}`" for target in targets)


def _know_others(migration: MigrationContext, graph: Graph, current: tuple[str, ...], target: str) -> None:
    unknown = [revision for revision in current if revision not in graph]
    if not unknown:
        return
    connection, script = migration.connection, migration.script
    assert connection is not None
    assert script is not None
    with closing(cast("Cursor", connection.connection.cursor())) as cursor:
        record = read_running_code(cursor, target)
    if record is None or not record.is_current:
        return
    ours = record.our_heads(graph)
    for revision in ours:
        if revision not in graph:
            raise UnknownRevisionError(revision, target)
    add_others(script, graph, unknown, depend_on=[revision for revision in ours if revision not in current])
