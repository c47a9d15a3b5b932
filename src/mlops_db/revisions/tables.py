"""The two tables that runs keep beside those of the revisions, and whether it is safe to read them."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import RefusedError
from mlops_db.server.guests import MAY_BE_READ

VERSION_TABLE = "public.alembic_version"
HISTORY_TABLE = "mlops_internal.migration_history"


def reading_fault(table: str) -> str:
    """SQL that returns why it is not safe to read a table of the runs: no row if it is missing, NULL if it is safe.

    Reading a table can run code of its owner: the query of a view, a policy, an index on an expression. A policy would
    also show a part of the rows as if it were all.
    """
    return f"""
        SELECT CASE WHEN c.relkind NOT IN ('r', 'p') THEN 'is a view'
                    WHEN row_security_active(c.oid) THEN 'has a row level security policy'
                    WHEN NOT {MAY_BE_READ} THEN format('belongs to %I, who is neither the owner of the database'
                                                       ' nor a superuser', role.rolname) END
          FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
         WHERE c.oid = to_regclass('{table}')
    """


def is_readable(cursor: Cursor, table: str, target: str) -> bool:
    """Whether a table of the runs is there.

    Args:
        cursor: of a connection to the database.
        table: one of the two.
        target: how errors name the database.

    Raises:
        RefusedError: it is there, and it is not safe to read it.
    """
    cursor.execute(reading_fault(table))
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
