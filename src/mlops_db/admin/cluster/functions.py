"""Functions with parameters over distributed tables: Citus takes them in PL/pgSQL and refuses them in SQL.

In SQL, PostgreSQL inlines them, so that is their language everywhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.server.distributable import unwrap, wrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

# Those that others made in the schema stay as they are.
_FUNCTIONS = """
    SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid)
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspowner = p.proowner
      JOIN pg_language AS l ON l.oid = p.prolang
     WHERE n.nspname = 'reporting' AND p.prokind = 'f' AND p.proretset AND p.pronargs > 0
       AND l.lanname IN ('sql', 'plpgsql')
     ORDER BY 1
"""


def find_undistributable(cursor: Cursor) -> list[str]:
    """The functions of schema reporting that Citus would refuse over distributed tables."""
    return [name for name, _ in _rewritten(cursor, wrap)]


def make_distributable(cursor: Cursor) -> list[str]:
    """Rewrite the functions of schema reporting that take parameters, so that they can read distributed tables.

    Signature, owner, grants and comment stay.

    Args:
        cursor: of the owner, in a transaction. Its search path is ours.

    Returns:
        The functions that were rewritten; none if that was done already.
    """
    return _rewrite(cursor, wrap)


def make_plain(cursor: Cursor) -> list[str]:
    """Undo `make_distributable`; returns the functions that were rewritten.

    Before any row is moved: afterwards Citus does not send functions to the workers in the same transaction.
    """
    return _rewrite(cursor, unwrap)


def _rewrite(cursor: Cursor, change: Callable[[str], str]) -> list[str]:
    changes = _rewritten(cursor, change)
    for _, definition in changes:
        cursor.execute(definition)
    return [name for name, _ in changes]


def _rewritten(cursor: Cursor, change: Callable[[str], str]) -> list[tuple[str, str]]:
    """The functions that the change changes, with their new definitions."""
    cursor.execute(_FUNCTIONS)
    return [(name, changed) for name, definition in cursor if (changed := change(definition)) != definition]
