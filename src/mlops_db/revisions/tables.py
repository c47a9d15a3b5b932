"""The two tables that runs keep beside those of the revisions, and whether they are to be read."""

from mlops_db.errors import RefusedError
from mlops_db.server.guests import MAY_BE_READ

VERSION_TABLE = "public.alembic_version"
HISTORY_TABLE = "mlops_internal.migration_history"


def reading_fault(table: str) -> str:
    """SQL for: why a table of the runs' own is not to be read. No row: there is none; NULL: nothing is wrong.

    Whoever reads it may run what its owner has put into it: the query of a view, a policy, an index on an expression.
    A policy would also show a part of the rows as if it were all.
    """
    return f"""
        SELECT CASE WHEN c.relkind NOT IN ('r', 'p') THEN 'is a view'
                    WHEN row_security_active(c.oid) THEN 'has a row level security policy'
                    WHEN NOT {MAY_BE_READ} THEN format('belongs to %I, who is neither the owner of the database'
                                                       ' nor a superuser', role.rolname) END
          FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
         WHERE c.oid = to_regclass('{table}')
    """


def refuse_to_read(table: str, fault: str, target: str) -> None:
    """Say that the table is not to be read.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(
        f"{target}: {table} {fault}; it was not read",
        hint=f"Look at it (psql: \\d+ {table}). Let the role that migrates own the database (ALTER DATABASE ... OWNER "
        "TO), and disable a policy meanwhile; drop it only if nobody knows it.",
    )
