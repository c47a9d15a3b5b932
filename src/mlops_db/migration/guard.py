"""What a run refuses before it changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from mlops_db.errors import BehindHeadError, UnknownRevisionError, UnmanagedDatabaseError
from mlops_db.schema.objects import PRESENT_SQL, TABLES

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext


def refuse_wrong_database(migration: MigrationContext, target: str) -> None:
    """Stop if the database is not in a state that the command can start from.

    Only reads, and leaves the transaction that it read in to the caller.

    Args:
        migration: the configured context of the run.
        target: where the connection goes, for the messages.

    Raises:
        UnknownRevisionError: `alembic_version` names a revision that this checkout does not have.
        UnmanagedDatabaseError: the tables are there, made by hand. `alembic stamp` may go on: it is the way out.
        BehindHeadError: `alembic check` and `--autogenerate` compare with head, and the database is not there.
    """
    script, connection = migration.script, migration.connection
    assert script is not None
    assert connection is not None
    current = migration.get_current_heads()
    known = {revision.revision for revision in script.walk_revisions()}
    for revision in current:
        if revision not in known:
            raise UnknownRevisionError(revision, target)
    stamping = "purge" in migration.opts
    if not current and not stamping:
        present = {name for name, _ in connection.execute(text(PRESENT_SQL))}
        tables = [name for name in TABLES if name in present]
        if tables:
            raise UnmanagedDatabaseError(tables, target)
    if "revision_context" in migration.opts and set(current) != set(script.get_heads()):
        raise BehindHeadError(", ".join(current) or None, target)
