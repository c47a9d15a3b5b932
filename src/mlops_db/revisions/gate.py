"""The gate: reads the revision of a database and refuses a database that is not ours to work on.

Migration runs, jobs and commands all ask here. `find_heads` is for commands that compare or change the schema. The
others also work with newer revisions that leave running code unaffected: `find_position` accepts these, and
`require_usable` refuses a database that is behind head. Alembic reads its table itself in a run, which then calls
`refuse_wrong_rows`.
"""

import logging
import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import (
    BehindHeadError,
    OutdatedCodeError,
    RecordedRevisionError,
    UnknownRevisionError,
    UnmanagedDatabaseError,
    alembic,
)
from mlops_db.project import REPORTING_VIEWS, TABLES, VIEWS
from mlops_db.revisions.graph import Graph, Revision, package_graph
from mlops_db.revisions.remains import refuse_remains
from mlops_db.revisions.running_code import RunningCode, read_running_code
from mlops_db.revisions.tables import OWNS_OURS, VERSION_TABLE, is_readable, refuse_to_read
from mlops_db.server.citus import refuse_worker

_log = logging.getLogger("mlops_db.revisions")
# The databases whose newer revision was logged, by process: a forked one has a log of its own.
_logged: set[tuple[int, str]] = set()
_logging = threading.Lock()
_NEWER = "%s is at revision %s, newer than revision %s of this code, which still works with it"
_OTHERS = f"""
    SELECT n.nspname || '.' || c.relname, role.rolname
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE CASE n.nspname WHEN 'public' THEN c.relname = ANY (ARRAY{[*TABLES, *VIEWS]})
                          WHEN 'reporting' THEN c.relname = ANY (ARRAY{[*REPORTING_VIEWS]}) END
       AND c.relname = ANY (ARRAY{[*TABLES, *VIEWS, *REPORTING_VIEWS]})  -- which the index finds
       AND NOT {OWNS_OURS}
"""


class Position(NamedTuple):
    """Where a database is, seen from this code.

    Attributes:
        heads: the revisions of ours that it is at: none before the first one, several where branches are not merged.
        pending: the revisions of this code that an upgrade to head would run, in order.
        is_newer: whether it is at a revision that this code does not have, but works with.
        others: the revisions beside ours that it is at, of another project in the same alembic_version.
    """

    heads: tuple[str, ...]
    pending: tuple[Revision, ...]
    is_newer: bool = False
    others: tuple[str, ...] = ()


def find_heads(cursor: Cursor, target: str) -> tuple[str, ...]:
    """Read the revisions of ours that the database is at: none before the first one, several without a merge.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        RefusedError: the package's own revisions cannot be relied on.
        UnknownRevisionError: it is not one of ours.
        RecordedRevisionError: the rows of alembic_version exclude each other, or they are missing.
        UnmanagedDatabaseError: our tables are there, made by hand.
        WorkerNodeError: it is a worker of a Citus cluster, where the distributed tables are, and nothing else of ours.
        RefusedError: alembic_version is not to be read.
    """
    heads, _, _ = _find_ours(cursor, target)
    refuse_wrong_rows(heads, package_graph(), target)
    return heads


def find_position(cursor: Cursor, target: str) -> Position:
    """Find where a database is. Unlike for `find_heads`, it may be at newer revisions, if this code works with them.

    Args and errors are those of `find_heads`, and

    Raises:
        OutdatedCodeError: it is at newer revisions, and this code does not work with one of them.
        NotPermittedError: the role may not read whether it does.
    """
    graph = package_graph()
    heads, others, record = _find_ours(cursor, target)
    if record is None or not record.is_newer_than(graph):
        refuse_wrong_rows(heads, graph, target)
        return Position(heads, graph.pending(*heads), others=others)
    missing = [revision for revision in record.works_from if revision not in graph]
    if missing:
        raise OutdatedCodeError(heads, missing, graph.heads, target)
    return Position(heads, (), is_newer=True, others=others)


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


def require_usable(cursor: Cursor, target: str) -> None:
    """Refuse a database that this code does not work with, or in which a table or view of ours is somebody else's.

    If it is at a newer revision, that is logged: once for each process and database.

    Args and errors are those of `find_position`, and

    Raises:
        BehindHeadError: it is at an earlier revision, or empty.
        RefusedError: alembic_version, or a table or view of ours, is somebody else's: using it would run his code.
    """
    position = find_position(cursor, target)
    cursor.execute(_OTHERS)
    for name, owner in cursor.fetchall():
        refuse_to_read(name, f"belongs to {owner}, and {VERSION_TABLE} does not", target)
    refuse_behind_head(position, target)
    if position.is_newer and (os.getpid(), target) not in _logged:
        with _logging:
            first = (os.getpid(), target) not in _logged
            _logged.add((os.getpid(), target))
        if first:
            _log.warning(
                _NEWER, target, " and ".join(position.heads), " and ".join(package_graph().heads),
                extra={"target": target, "revision": " and ".join(position.heads)},
            )  # fmt: skip


def newer_note(position: Position, target: str) -> str:
    """The line that tells people that the database is at a newer revision than this code, which works with it."""
    return _NEWER % (target, " and ".join(position.heads), " and ".join(package_graph().heads))


def refuse_behind_head(position: Position, target: str) -> None:
    """Refuse a database that has revisions still to run.

    Raises:
        BehindHeadError: it has.
    """
    if position.pending:
        raise BehindHeadError(" and ".join(position.heads) or None, target)


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


def _find_ours(cursor: Cursor, target: str) -> tuple[tuple[str, ...], tuple[str, ...], RunningCode | None]:
    """Find our revisions that the database is at, and those beside ours, by the record of the last run.

    All rows count as ours without a record that explains them. The record is None, too, where nobody needs it.
    """
    graph = package_graph()
    rows = _find_rows(cursor, target)
    if all(row in graph for row in rows):
        return rows, (), None
    record = read_running_code(cursor, target)
    if record is None:
        return rows, (), None
    if not record.is_current:  # a run may have committed between the two questions
        return record.at, (), None
    return record.our_heads(graph), tuple(sorted(record.others)), record


def _find_rows(cursor: Cursor, target: str) -> tuple[str, ...]:
    """Read the rows of alembic_version; if there are none, refuse a database that should have some."""
    heads = _read_rows(cursor, target)
    if not heads:
        refuse_worker(cursor, target)
        try:
            refuse_remains(cursor, package_graph(), target)
        except (UnmanagedDatabaseError, RecordedRevisionError):
            # The first run may have committed between the two questions.
            heads = _read_rows(cursor, target)
            if not heads:
                raise
    return heads


def _read_rows(cursor: Cursor, target: str) -> tuple[str, ...]:
    if not is_readable(cursor, VERSION_TABLE, target):
        return ()
    cursor.execute(f"SELECT version_num FROM {VERSION_TABLE} ORDER BY version_num")
    return tuple(revision for (revision,) in cursor.fetchall())
