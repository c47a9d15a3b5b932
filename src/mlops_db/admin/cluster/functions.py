"""Rewrites functions of ours that Citus cannot run over distributed tables; and back."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)


def make_distributable(cursor: Cursor) -> list[str]:  # noqa: ARG001
    """Rewrite them as PL/pgSQL; returns their names, none if that is done."""
    return []


def make_plain(cursor: Cursor) -> list[str]:  # noqa: ARG001
    """Rewrite them as they are in the revisions; returns their names, none if that is done."""
    return []
