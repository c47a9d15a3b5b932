"""Finds all rows that later revisions would refuse, before these run.

Such a revision has TABLE, the table that it checks, and BROKEN, a condition in SQL for each rule's name. The table
still has the baseline's columns: times without time zone, which are in UTC, and no model_name.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg2
from alembic.script import ScriptDirectory

from mlops_db.drift.rendering import rolled_back
from mlops_db.project import BASELINE
from mlops_db.server.failures import first_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.config import Config
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)


_IN_UTC = re.compile(r"timezone\('UTC', (\w+)\)")
# The table has another shape, a policy hides some of it, or it is too large for the statement timeout.
_CANNOT_CHECK = (psycopg2.ProgrammingError, psycopg2.errors.QueryCanceled)


@dataclass(frozen=True)
class BrokenRule:
    """A rule that rows break, or that could not be checked.

    Attributes:
        revision: the revision that would stop.
        table: the table whose rows break it.
        what: the rule's name in the revision.
        count: how many rows break it; None if it could not be checked.
        ids: the ids of the first ten of them, or why it could not be checked.
        select: the statement that finds them all.
    """

    revision: str
    table: str
    what: str
    count: int | None
    ids: str
    select: str

    def __str__(self) -> str:
        """The rule in one line."""
        if self.count is None:
            return f"{self.table}: {self.what}: could not be checked ({self.ids})"
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        return f"{self.table}: {self.what}: {rows}, id {self.ids} (revision {self.revision})"


def broken_rules(cursor: Cursor, config: Config) -> list[BrokenRule]:
    """Find the rules of the revisions after the baseline that rows break, or that could not be checked, in their order.

    Args:
        cursor: in a transaction, of a database at the baseline, or close to it.
        config: Alembic's configuration, which knows the revisions.
    """
    scripts = list(ScriptDirectory.from_config(config).iterate_revisions("heads", BASELINE))
    modules = [script.module for script in reversed(scripts)]
    rules = [
        _check_rule(cursor, module.revision, module.TABLE, what, condition)
        for module in modules
        if (broken := getattr(module, "BROKEN", {})) and not _all_hold(cursor, module.TABLE, broken.values())
        for what, condition in broken.items()
    ]
    return [rule for rule in rules if rule.count != 0]


def _all_hold(cursor: Cursor, table: str, conditions: Iterable[str]) -> bool:
    """Whether no row meets any of the conditions, in one pass over the table; False if that could not be found out."""
    shape, rows = _shape_and_rows(table, " OR ".join(f"({condition})" for condition in conditions))
    with rolled_back(cursor), suppress(*_CANNOT_CHECK):
        cursor.execute(f"{shape}SELECT NOT EXISTS (SELECT {rows})")
        ((hold,),) = cursor.fetchall()
        return bool(hold)
    return False


def _shape_and_rows(table: str, condition: str) -> tuple[str, str]:
    """What stands before the SELECT of the rows that meet a condition, and its FROM and WHERE."""
    as_it_is = _IN_UTC.sub(r"\1", condition)
    if "model_name" in condition:
        shape = f"WITH {table} AS (SELECT *, 'default' AS model_name FROM public.{table}) "
        return shape, f"FROM {table} WHERE {as_it_is}"
    return "", f"FROM public.{table} WHERE {as_it_is}"


def _check_rule(cursor: Cursor, revision: str, table: str, what: str, condition: str) -> BrokenRule:
    shape, rows = _shape_and_rows(table, condition)
    select = f"{shape}SELECT * {rows} ORDER BY id;"
    with rolled_back(cursor):
        try:
            cursor.execute(
                f"{shape}SELECT count(*), string_agg(id::text, ', ' ORDER BY id) FILTER (WHERE place <= 10)"
                f" FROM (SELECT id, row_number() OVER (ORDER BY id) AS place {rows}) AS broken"
            )
            ((count, ids),) = cursor.fetchall()
        except _CANNOT_CHECK as error:
            return BrokenRule(revision, table, what, None, first_line(str(error)), select)
    more = ", ..." if count > 10 else ""  # noqa: PLR2004  (as in the statement)
    return BrokenRule(revision, table, what, count, f"{ids}{more}", select)
