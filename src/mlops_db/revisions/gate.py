"""The gate: reads the revision of a database and refuses a database that is not ours to work on.

Migration runs, jobs and commands all ask here. `find_heads` reads the revisions, `require_head` also refuses a database
that is not at head. Alembic reads its table itself in a run, which then calls `refuse_wrong_rows`.
"""

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
from mlops_db.revisions.tables import VERSION_TABLE, is_readable, refuse_to_read
from mlops_db.server.guests import TRUSTED

# SQL condition on the row `role` of pg_roles, the owner of an object: the object is one of ours.
OWNS_OURS = f"""
    ({TRUSTED} OR role.oid = (SELECT relowner FROM pg_class WHERE oid = to_regclass('{VERSION_TABLE}')))
"""
_OTHERS = f"""
    SELECT c.relname, role.rolname FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (ARRAY{[*TABLES, *VIEWS]}) AND NOT {OWNS_OURS}
"""


def find_heads(cursor: Cursor, target: str) -> tuple[str, ...]:
    """Read the revisions that the database is at: none before the first one, several where branches are not merged yet.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        RefusedError: the package's own revisions cannot be relied on.
        UnknownRevisionError: it is not one of ours.
        RecordedRevisionError: the rows of alembic_version exclude each other, or they are missing.
        UnmanagedDatabaseError: our tables are there, made by hand.
        RefusedError: alembic_version is not to be read.
    """
    graph = package_graph()
    heads = _read_rows(cursor, target)
    if not heads:
        try:
            refuse_remains(cursor, graph, target)
        except (UnmanagedDatabaseError, RecordedRevisionError):
            # The first run may have committed between the two questions.
            heads = _read_rows(cursor, target)
            if not heads:
                raise
    refuse_wrong_rows(heads, graph, target)
    return heads


def find_head(cursor: Cursor, target: str) -> str | None:
    """Read the one revision that the database is at; None before the first one.

    Args and errors are those of `find_heads`, and

    Raises:
        BehindHeadError: it is at several revisions, because branches are not merged yet.
    """
    heads = find_heads(cursor, target)
    if len(heads) > 1:
        raise BehindHeadError(" and ".join(heads), target)
    return heads[0] if heads else None


def require_head(cursor: Cursor, target: str) -> None:
    """Refuse a database that is not at head, or in which a table or view of ours belongs to somebody else.

    Args and errors are those of `find_heads`, and

    Raises:
        BehindHeadError: it is at an earlier revision, or empty.
        RefusedError: alembic_version, or a table or view of ours, is somebody else's: using it would run his code.
    """
    heads = find_heads(cursor, target)
    cursor.execute(_OTHERS)
    for name, owner in cursor.fetchall():
        refuse_to_read(f"public.{name}", f"belongs to {owner}, and {VERSION_TABLE} does not", target)
    refuse_behind_head(heads, package_graph(), target)


def refuse_behind_head(heads: Sequence[str], graph: Graph, target: str) -> None:
    """Refuse a database that has revisions of the graph still to run.

    Raises:
        BehindHeadError: it has.
    """
    if graph.pending(*heads):
        raise BehindHeadError(" and ".join(heads) or None, target)


def refuse_wrong_rows(heads: Sequence[str], graph: Graph, target: str, *, overlap: bool = True) -> None:
    """Refuse rows of alembic_version that no run can have left.

    Args:
        heads: what the rows hold.
        graph: the revisions that can have run there.
        target: how errors name the database.
        overlap: whether to refuse rows that exclude each other. A run replaces the rows of the revisions that it goes
            on from, so a revision is never recorded twice, or beside one that follows it.

    Raises:
        UnknownRevisionError: a row names no revision of the graph.
        RecordedRevisionError: the rows exclude each other.
    """
    for revision in heads:
        if revision not in graph:
            raise UnknownRevisionError(revision, target, beside=[one for one in heads if one in graph])
    last = [one for one in dict.fromkeys(heads) if one not in graph.ancestors(*({*heads} - {one}))]
    if overlap and len(last) < len(heads):
        raise RecordedRevisionError(
            f"{VERSION_TABLE} of {target} holds {' and '.join(heads)}, and no run leaves another row beside "
            f"{' and '.join(last)}; nothing was changed",
            hint=f"If that is what ran there last, run `{alembic('stamp --purge')} {' '.join(last)}`; then "
            "`mlops-db check` shows whether it is.",
        )


def _read_rows(cursor: Cursor, target: str) -> tuple[str, ...]:
    if not is_readable(cursor, VERSION_TABLE, target):
        return ()
    cursor.execute(f"SELECT version_num FROM {VERSION_TABLE} ORDER BY version_num")
    return tuple(revision for (revision,) in cursor.fetchall())
