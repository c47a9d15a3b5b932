"""The tables that runs keep beside those of the revisions, and whether it is safe to read them."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import RefusedError
from mlops_db.server.guests import MAY_BE_READ, TRUSTED

VERSION_TABLE = "public.alembic_version"
HISTORY_TABLE = "mlops_internal.migration_history"
POSITIONS_TABLE = "mlops_internal.batch_positions"
RUNNING_CODE_TABLE = "mlops_internal.running_code"
RUN_TABLES = (VERSION_TABLE, HISTORY_TABLE, POSITIONS_TABLE, RUNNING_CODE_TABLE)

# SQL condition on the row `role` of pg_roles, the owner of an object: the object is one of ours.
OWNS_OURS = f"""
    ({TRUSTED} OR role.oid = (SELECT relowner FROM pg_class WHERE oid = to_regclass('{VERSION_TABLE}')))
"""


def reading_fault(table: str, *, owners: str = MAY_BE_READ) -> str:
    """SQL that returns why it is not safe to read a table of the runs: no row if it is missing, NULL if it is safe.

    Reading a table can run code of its owner: the query of a view, a policy, an index on an expression. A policy would
    also show a part of the rows as if it were all.

    Args:
        table: one of `RUN_TABLES`.
        owners: SQL condition on a row `role` of pg_roles: the table may belong to that role.
    """
    schema, name = table.split(".")
    return f"""
        SELECT CASE WHEN c.relkind NOT IN ('r', 'p') THEN 'is a view'
                    WHEN row_security_active(c.oid) THEN 'has a row level security policy'
                    WHEN NOT {owners} THEN format('belongs to %I, who is neither the owner of the database'
                                                       ' nor a superuser', role.rolname) END
          FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
          JOIN pg_namespace AS n ON n.oid = c.relnamespace -- to_regclass fails for a role that may not use the schema
         WHERE n.nspname = '{schema}' AND c.relname = '{name}'
    """


def is_readable(cursor: Cursor, table: str, target: str, *, owners: str = MAY_BE_READ) -> bool:
    """Whether a table of the runs is there.

    Args:
        cursor: of a connection to the database.
        table: one of `RUN_TABLES`.
        target: how errors name the database.
        owners: as for `reading_fault`.

    Raises:
        RefusedError: it is there, and it is not safe to read it.
    """
    cursor.execute(reading_fault(table, owners=owners))
    found = cursor.fetchone()
    if found is not None and found != (None,):
        refuse_to_read(table, found[0], target)
    return found is not None


def refuse_to_read(table: str, fault: str, target: str) -> None:
    """Refuse to read the table.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(
        f"{target}: {table} {fault}; it was not read",
        hint=f"Look at it (psql: \\d+ {table}). Let the role that migrates own the database (ALTER DATABASE ... OWNER "
        "TO), and disable a policy meanwhile; drop it only if nobody knows it.",
    )
