"""Refuses revisions that do not run while certain tables are distributed by Citus, before the first of them runs.

A revision declares them in its docstring, `Distributed tables: not orders, not archive.old_orders; <why>`: the first
part, up to a semicolon, names the tables. One without a schema is in public.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, cast

from mlops_db.errors import RefusedError
from mlops_db.migration.preview import DISTRIBUTED_TABLES, describe
from mlops_db.server.citus import HAS_CITUS, list_distributed_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from alembic.runtime.migration import RevisionStep
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

HINT = "Run `mlops-db undistribute`, then the same command."
_NAME = re.compile(r"[\w$.]+")


def names_declared(docstring: str) -> set[str]:
    """The words in which a revision names the tables that must not be distributed while it runs, with their schemas."""
    declared = describe(docstring).sections.get(DISTRIBUTED_TABLES, "").partition(";")[0]
    words = (word.strip(".") for word in _NAME.findall(declared))
    return {word if "." in word else f"public.{word}" for word in words}


def find_distributed(connection: Connection) -> set[str]:
    """The distributed tables of the database, with their schemas; none without Citus."""
    with closing(cast("Cursor", connection.connection.cursor())) as cursor:
        return {table.qualified_name for table in list_distributed_tables(cursor)}


def in_the_way(docstring: str, distributed: Collection[str]) -> list[str]:
    """The distributed tables with which a revision does not run, as people name them."""
    return sorted(name.removeprefix("public.") for name in names_declared(docstring).intersection(distributed))


def verb(names: Sequence[str]) -> str:
    """`is` or `are`."""
    return "is" if len(names) == 1 else "are"


def refuse_distributed(connection: Connection, steps: Sequence[RevisionStep]) -> None:
    """Refuse steps that do not run while the tables are distributed that are distributed now.

    Raises:
        RefusedError: names the first such step, and the tables.
    """
    declaring = [step for step in steps if names_declared(step.revision.module.__doc__ or "")]
    distributed = find_distributed(connection) if declaring else set()
    for step in declaring:
        if names := in_the_way(step.revision.module.__doc__ or "", distributed):
            direction = "upgrade" if step.is_upgrade else "downgrade"
            raise RefusedError(
                f"revision {step.revision.revision} ({direction}) does not run while {' and '.join(names)} "
                f"{verb(names)} distributed; nothing was changed",
                hint=HINT,
            )


def refuse_in_script(docstring: str) -> str:
    """The same for a script of `--sql`, as one statement; empty if the revision declares no table."""
    names = sorted(names_declared(docstring))
    if not names:
        return ""
    listed = ", ".join(f"'{name}'" for name in names)
    return f"""\
DO $distributed$
DECLARE
    found text;
BEGIN
    IF {HAS_CITUS} THEN
        EXECUTE $find$
            SELECT string_agg(n.nspname || '.' || c.relname, ' and ' ORDER BY n.nspname, c.relname)
              FROM pg_catalog.pg_dist_partition AS d JOIN pg_class AS c ON c.oid = d.logicalrelid
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE d.partmethod = 'h' AND n.nspname || '.' || c.relname = ANY (ARRAY[{listed}])
        $find$ INTO found;
        IF found IS NOT NULL THEN
            RAISE object_not_in_prerequisite_state USING
                MESSAGE = 'the script does not run while these tables are distributed: ' || found
                          || '; nothing was changed',
                HINT = '{HINT}';
        END IF;
    END IF;
END $distributed$;"""
