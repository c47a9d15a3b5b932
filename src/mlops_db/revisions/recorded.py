"""The revision that a database says it is at."""

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import (
    BehindHeadError,
    RecordedRevisionError,
    UnknownRevisionError,
    UnmanagedDatabaseError,
    alembic,
)
from mlops_db.project import TABLES, VIEWS
from mlops_db.revisions.graph import Graph, package_graph
from mlops_db.revisions.remains import refuse_remains
from mlops_db.revisions.tables import VERSION_TABLE, reading_fault, refuse_to_read
from mlops_db.server.guests import TRUSTED

# SQL for, of the row `role` of pg_roles that owns an object: it is one of ours.
OWNS_OURS = f"""
    ({TRUSTED} OR role.oid = (SELECT relowner FROM pg_class WHERE oid = to_regclass('{VERSION_TABLE}')))
"""
_OTHERS = f"""
    SELECT c.relname, role.rolname FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (ARRAY{[*TABLES, *VIEWS]}) AND NOT {OWNS_OURS}
"""


def refuse_others_objects(cursor: Cursor, target: str) -> None:
    """Refuse to use the six objects if one of them is somebody else's, put there after the owner's was dropped.

    Args:
        cursor: of a connection to the database, at whatever revision.
        target: how errors name the database.

    Raises:
        RefusedError: one of them belongs to another role than alembic_version.
    """
    cursor.execute(_OTHERS)
    for name, owner in cursor.fetchall():
        refuse_to_read(f"public.{name}", f"belongs to {owner}, and {VERSION_TABLE} does not", target)


def recorded_heads(cursor: Cursor, target: str) -> tuple[str, ...]:
    """The revisions that the database is at: none before the first one, several where branches are yet to be merged.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        RevisionFilesError: the package's own revisions cannot be relied on.
        UnknownRevisionError: it is not one of ours.
        RecordedRevisionError: the rows of alembic_version exclude each other, or there is none, and there should be.
        UnmanagedDatabaseError: our tables are there, made by hand.
        RefusedError: alembic_version is not to be read.
    """
    graph = package_graph()
    recorded = _rows(cursor, target)
    if not recorded:
        try:
            refuse_remains(cursor, graph, target)
        except (UnmanagedDatabaseError, RecordedRevisionError):
            # The first run may have committed between the two questions.
            recorded = _rows(cursor, target)
            if not recorded:
                raise
    refuse_unknown_rows(recorded, graph, target)
    refuse_overlapping_rows(recorded, graph, target)
    return recorded


def _rows(cursor: Cursor, target: str) -> tuple[str, ...]:
    cursor.execute(reading_fault(VERSION_TABLE))
    for (fault,) in cursor.fetchall():
        if fault:
            refuse_to_read(VERSION_TABLE, fault, target)
        cursor.execute(f"SELECT version_num FROM {VERSION_TABLE} ORDER BY version_num")
        return tuple(revision for (revision,) in cursor.fetchall())
    return ()


def recorded_revision(cursor: Cursor, target: str) -> str | None:
    """The one revision that the database is at; None before the first one.

    Args and errors are those of `recorded_heads`, and

    Raises:
        BehindHeadError: it is at several, because branches are yet to be merged.
    """
    recorded = recorded_heads(cursor, target)
    if len(recorded) > 1:
        raise BehindHeadError(" and ".join(recorded), target)
    return recorded[0] if recorded else None


def refuse_unknown_rows(recorded: Sequence[str], graph: Graph, target: str) -> None:
    """Refuse rows of alembic_version that name no revision of the graph.

    Raises:
        UnknownRevisionError: one does.
    """
    for revision in recorded:
        if revision not in graph:
            raise UnknownRevisionError(revision, target, beside=[one for one in recorded if one in graph])


def refuse_overlapping_rows(recorded: Sequence[str], graph: Graph, target: str) -> None:
    """Refuse rows of alembic_version that no run leaves: a step replaces the rows of all that it goes on from.

    Raises:
        RecordedRevisionError: one is there twice, or beside what comes after it.
    """
    last = [one for one in dict.fromkeys(recorded) if one not in graph.ancestors(*({*recorded} - {one}))]
    if len(last) < len(recorded):
        raise RecordedRevisionError(
            f"{VERSION_TABLE} of {target} holds {' and '.join(recorded)}, and no run leaves another row beside "
            f"{' and '.join(last)}; nothing was changed",
            hint=f"If that is what ran there last, run `{alembic('stamp --purge')} {' '.join(last)}`; then "
            "`mlops-db check` tells whether it is.",
        )
