"""What rows have to keep to at each revision so that those that are to come take them, whatever is renamed meanwhile.

A column is followed by its oid through renames, and by its name where another table or column takes its place. So the
rows of today keep to every CHECK that its column has, one day, until it is dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""
_CONSTRAINTS = """
    SELECT k.conname, k.oid::bigint FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = k.connamespace
     WHERE n.nspname IN ('public', 'mlops_internal')
"""


_ITSELF = "\0"  # in place of the column's name, which is another one at another revision


@dataclass(frozen=True)
class _Stage:
    """The tables as one revision leaves them; names as SQL has them by column, CHECKs without its name."""

    columns: dict[Place, Column]
    names: dict[Column, str]
    checks: dict[Column, list[str]]
    constraints: dict[str, int]


class Lineage:
    """The columns and constraints of one database, noted after each revision."""

    def __init__(self) -> None:
        """Begin with nothing noted."""
        self._stages: dict[str, _Stage] = {}

    def note(self, cursor: Cursor) -> None:
        """Note what is there, if the database is at another revision than the last time."""
        cursor.execute("SELECT to_regclass('public.alembic_version')")
        if cursor.fetchone() == (None,):
            return
        cursor.execute("SELECT version_num FROM public.alembic_version")
        for (revision,) in cursor.fetchall():
            if revision not in self._stages:
                self._stages[revision] = _read_stage(cursor)

    def coming(self, revision: str) -> dict[Place, str]:
        """The CHECKs that each column has from this revision on, the earliest first, as if it kept its name."""
        order = list(self._stages)
        stages = [self._stages[name] for name in order[order.index(revision) :]] if revision in order else []
        return {
            place: " ".join(dict.fromkeys(_followed(place, column, stages))).replace(_ITSELF, stages[0].names[column])
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
    cursor.execute(_COLUMNS)
    for schema, table, name, quoted, oid, number, texts in cursor.fetchall():
        column = oid, number
        stage.columns[schema, table, name] = column
        stage.names[column] = quoted
        # Not in a literal, in another name or in a cast.
        itself = re.compile(rf"(?<![\w\".:']){re.escape(quoted)}(?![\w\"('])")
        stage.checks[column] = [itself.sub(_ITSELF, text) for text in texts]
    cursor.execute(_CONSTRAINTS)
    stage.constraints.update(cursor.fetchall())
    return stage


def _followed(place: Place, column: Column, stages: list[_Stage]) -> Iterator[str]:
    """The CHECKs of a column at this stage, and of what it becomes at the later ones."""
    stage, *later = stages
    yield from stage.checks.get(column, ())
    if later:
        if column in later[0].checks:
            place_then = next(then for then, there in later[0].columns.items() if there == column)
            yield from _followed(place_then, column, later)
        successor = later[0].columns.get(place)
        if successor is not None and successor != column and successor not in stage.checks:
            yield from _followed(place, successor, later)
