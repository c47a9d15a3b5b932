"""The CHECKs that rows must meet at each revision, so that later revisions accept them, too.

A column keeps its oid when it is renamed. If another table or column takes its place, it keeps its name. So rows
meet every CHECK that their column has at this revision or at a later one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_db.project import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    Place = tuple[str, str, str]  # schema, table, column
    Column = tuple[int, int]  # oid of the table, number in it

_COLUMNS = """
    SELECT n.nspname, c.relname, a.attname, quote_ident(a.attname), c.oid::bigint, a.attnum,
           coalesce((SELECT json_agg(pg_get_constraintdef(k.oid) ORDER BY k.conname) FROM pg_constraint AS k
                      WHERE k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY(k.conkey)), '[]')
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
_CONSTRAINTS = """
    SELECT k.conname, k.oid::bigint FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = k.connamespace
     WHERE n.nspname = ANY (%s)
"""


_ITSELF = "\0"  # stands for the column's name, which can change


@dataclass(frozen=True)
class _Stage:
    """The tables as one revision leaves them: quoted names and CHECKs by column, with _ITSELF for the column's name."""

    columns: dict[Place, Column]
    names: dict[Column, str]
    checks: dict[Column, list[str]]
    constraints: dict[str, int]


class Lineage:
    """The columns and constraints of one database, read after each revision."""

    def __init__(self) -> None:
        """Start without any revision."""
        self._stages: dict[str, _Stage] = {}

    def note(self, cursor: Cursor) -> None:
        """Read the database, if it is at a revision that was not read yet."""
        cursor.execute("SELECT to_regclass('public.alembic_version')")
        if cursor.fetchone() == (None,):
            return
        cursor.execute("SELECT version_num FROM public.alembic_version")
        for (revision,) in cursor.fetchall():
            if revision not in self._stages:
                self._stages[revision] = _read_stage(cursor)

    def coming(self, revision: str) -> dict[Place, str]:
        """The CHECKs that each column has now and later, the earliest first, with the name that it has now."""
        order = list(self._stages)
        stages = [self._stages[name] for name in order[order.index(revision) :]] if revision in order else []
        return {
            place: " ".join(dict.fromkeys(_follow(place, column, stages))).replace(_ITSELF, stages[0].names[column])
            for place, column in (stages[0].columns if stages else {}).items()
        }

    def made_by(self, constraint: str, *revisions: str) -> str | None:
        """The revision that made a constraint of this name; None if it is not the same at all of these revisions."""
        found = {
            self._stages[revision].constraints.get(constraint) for revision in revisions if revision in self._stages
        }
        if len(found) != 1 or found == {None}:
            return None
        return next(name for name, stage in self._stages.items() if stage.constraints.get(constraint) in found)


def _read_stage(cursor: Cursor) -> _Stage:
    stage = _Stage({}, {}, {}, {})
    cursor.execute(_COLUMNS, (list(SCHEMAS),))
    for schema, table, name, quoted, oid, number, texts in cursor.fetchall():
        column = oid, number
        stage.columns[schema, table, name] = column
        stage.names[column] = quoted
        # Not in a literal, in another name or in a cast.
        itself = re.compile(rf"(?<![\w\".:']){re.escape(quoted)}(?![\w\"('])")
        stage.checks[column] = [itself.sub(_ITSELF, text) for text in texts]
    cursor.execute(_CONSTRAINTS, (list(SCHEMAS),))
    stage.constraints.update(cursor.fetchall())
    return stage


def _follow(place: Place, column: Column, stages: list[_Stage]) -> Iterator[str]:
    """The CHECKs of a column at this stage, and of its successors at the later ones."""
    stage, *later = stages
    yield from stage.checks.get(column, ())
    if later:
        if column in later[0].checks:
            place_then = next(then for then, there in later[0].columns.items() if there == column)
            yield from _follow(place_then, column, later)
        successor = later[0].columns.get(place)
        if successor is not None and successor != column and successor not in stage.checks:
            yield from _follow(place, successor, later)
