"""`mlops_internal.batch_positions`: how far the jobs are that are not finished.

A job is one direction of one revision. Its row is written in the transaction of each batch, and deleted in the one that
moves alembic_version. The history has created the schema by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.migration.statements import literal
from mlops_db.revisions.tables import POSITIONS_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

CREATE = f"""
CREATE TABLE IF NOT EXISTS {POSITIONS_TABLE} (
    revision text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('upgrade', 'downgrade')),
    statement text NOT NULL,
    key text NOT NULL,
    source oid NOT NULL,
    target oid NOT NULL,
    columns text[] NOT NULL, -- those that the statement names, with their numbers: one that is made anew has another
    first bigint NOT NULL,
    position bigint NOT NULL,
    last bigint NOT NULL,
    changed_rows bigint NOT NULL DEFAULT 0,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (revision, direction)
);
COMMENT ON TABLE {POSITIONS_TABLE} IS
    'How far revisions are that change rows in batches; the row of a revision goes when it is done.';
"""
ARE_THERE = f"to_regclass('{POSITIONS_TABLE}') IS NOT NULL"


UNFINISHED = f"SELECT revision, direction, changed_rows FROM {POSITIONS_TABLE} WHERE position > first ORDER BY 1, 2"
# On a row `p`: one of its tables was dropped, so it would begin anew.
TABLE_IS_GONE = """
    EXISTS (SELECT FROM unnest(ARRAY[p.source, p.target]) AS was (oid)
             WHERE was.oid <> 0::oid AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = was.oid))"""


def forget(revisions: Iterable[str] | None) -> str:
    """SQL that deletes the positions of revisions, None for all, and drops the table if no other is left.

    Those whose table is gone go with them.
    """
    condition = ""
    if revisions is not None:
        ids = ", ".join(map(literal, revisions)) or "NULL"
        condition = f" AS p WHERE p.revision IN ({ids}) OR {TABLE_IS_GONE}"
    return f"""\
DO $forget$ BEGIN
    IF {ARE_THERE} THEN
        DELETE FROM {POSITIONS_TABLE}{condition};
        IF NOT EXISTS (SELECT FROM {POSITIONS_TABLE}) THEN DROP TABLE {POSITIONS_TABLE}; END IF;
    END IF;
END $forget$;"""
