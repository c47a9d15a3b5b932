"""`op.stop_if_broken`: stop a revision whose rules the rows of its table break, before it changes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic.operations import MigrateOperation, Operations

from mlops_db.migration.operations.sql_files import execute_as_written

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOK = """
    SELECT count(*), left(string_agg(id::text, ', ' ORDER BY id) FILTER (WHERE place <= 10), 200)
      INTO rows, ids
      FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM public.{table} WHERE {condition}) AS broken;
    IF rows > 0 THEN
        found := found || format('%s (%s %s, id %s%s)', $what${what}$what$, rows,
                                 CASE rows WHEN 1 THEN 'row' ELSE 'rows' END, ids,
                                 CASE WHEN rows > 10 THEN ', ...' ELSE '' END);
    END IF;"""
_STOP = """
DO $find$
DECLARE
    rows bigint;
    ids text;
    found text[] := '{{}}';
BEGIN
    -- Mostly there is no such row: one pass over the table tells that, instead of one for each rule. EXECUTE may read
    -- in parallel.
    EXECUTE $every$SELECT count(*) FROM (SELECT 1 FROM public.{table} WHERE {every} LIMIT 1) AS broken$every$ INTO rows;
    IF rows = 0 THEN
        RETURN;
    END IF;
    {looks}
    IF found <> '{{}}' THEN
        RAISE check_violation USING
            MESSAGE = format('rows of {table} break rules of revision {revision}: %s; nothing was changed',
                             array_to_string(found, '; ')),
            HINT = 'Correct these rows, then run it again: '
                   || $all$SELECT * FROM {table} WHERE {every} ORDER BY id$all$;
    END IF;
END $find$
"""


@Operations.register_operation("stop_if_broken")
class StopIfBroken(MigrateOperation):
    """A statement that fails if rows break a rule."""

    @classmethod
    def stop_if_broken(cls, operations: Operations, table: str, broken: Mapping[str, str], *, revision: str) -> None:
        """Fail if rows meet one of the conditions, and name the rules, the first ten rows of each, and a query for all.

        A revision has both in constants, TABLE and BROKEN: `mlops-db adopt` reads them, too.

        Args:
            operations: given by Alembic.
            table: a table of schema public with a column id.
            broken: of each rule, what the message says and the SQL condition of the rows that break it.
            revision: the id of the revision, for the message.
        """
        looks = "".join(_LOOK.format(table=table, what=what, condition=condition) for what, condition in broken.items())
        every = " OR ".join(f"({condition})" for condition in broken.values())
        execute_as_written(operations, _STOP.format(table=table, revision=revision, looks=looks, every=every))
