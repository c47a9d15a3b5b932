"""Reads which code works with a newer database: `mlops_internal.running_code`, where runs record it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from mlops_db.errors import NotPermittedError
from mlops_db.revisions.tables import OWNS_OURS, RUNNING_CODE_TABLE, VERSION_TABLE, is_readable

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.revisions.graph import Graph

_MAY_READ = f"""
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), current_user
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = '{RUNNING_CODE_TABLE}'
"""
# One statement sees one moment, even if a run commits meanwhile.
_RECORD = f"""
    SELECT ARRAY(SELECT version_num::text FROM {VERSION_TABLE}), heads, revisions, works_from,
           ARRAY(SELECT jsonb_array_elements_text(to_jsonb(record) -> 'others')) -- a run of earlier code lacks it
      FROM {RUNNING_CODE_TABLE} AS record
"""


class RunningCode(NamedTuple):
    """What the latest step of a run has recorded.

    Attributes:
        at: the rows of alembic_version, read together with the record.
        heads: the rows of alembic_version after that step; if they differ, something else has changed them since.
        revisions: all revisions of ours that were applied then.
        works_from: those that code must know: the latest ones that break the code before them.
        others: those of the heads that are not ours, but of a project beside ours.
    """

    at: tuple[str, ...]
    heads: frozenset[str]
    revisions: frozenset[str]
    works_from: tuple[str, ...]
    others: frozenset[str]

    @property
    def is_current(self) -> bool:
        """Whether it explains the rows of alembic_version."""
        return self.heads == {*self.at} and self.heads <= self.revisions | self.others

    def is_newer_than(self, graph: Graph) -> bool:
        """Whether it is about a database where all our revisions of this graph have run, and others after them."""
        return self.revisions >= {*graph.heads} and any(revision not in graph for revision in self.revisions)

    def our_heads(self, graph: Graph) -> tuple[str, ...]:
        """The revisions of ours that the database is at.

        Where one of the others depends on the last one of ours, alembic_version holds only the other.
        """
        unknown = [revision for revision in self.revisions if revision not in graph]
        if not unknown:
            return graph.last(self.revisions)
        return tuple(revision for revision in self.at if revision not in self.others) or (max(unknown),)


def read_running_code(cursor: Cursor, target: str) -> RunningCode | None:
    """Read the record; None if there is none.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        RefusedError: the table is not to be trusted, because it belongs to another role than alembic_version.
        NotPermittedError: this role may not read it.
    """
    if not is_readable(cursor, RUNNING_CODE_TABLE, target, owners=OWNS_OURS):
        return None
    cursor.execute(_MAY_READ)
    for may_read, role in cursor.fetchall():
        if not may_read:
            raise NotPermittedError(
                f"{target} is at a revision that this code does not have, and the role {role} may not read "
                f"{RUNNING_CODE_TABLE}, which says whether this code works there; nothing was changed",
                hint=f"Let the owner run `mlops-db grant-writer {shlex.quote(role)}`, or update this code.",
            )
    cursor.execute(_RECORD)
    row = cursor.fetchone()
    if row is None:
        return None
    at, heads, revisions, works_from, others = row
    return RunningCode(
        tuple(sorted(at)), frozenset(heads), frozenset(revisions), tuple(works_from), frozenset(others).intersection(at)
    )
