"""The revision that a database says it is at."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import RefusedError, UnknownRevisionError, UnmanagedDatabaseError
from mlops_db.revisions.graph import pending
from mlops_db.schema.guests import MAY_BE_READ, TRUSTED
from mlops_db.schema.objects import PRESENT_SQL, TABLES, VIEWS

VERSION_TABLE = "public.alembic_version"


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


# SQL for, of the row `role` of pg_roles that owns an object: it is one of ours.
OWNS_OURS = f"""
    ({TRUSTED} OR role.oid = (SELECT relowner FROM pg_class WHERE oid = to_regclass('{VERSION_TABLE}')))
"""
_OTHERS = f"""
    SELECT c.relname, role.rolname FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY (ARRAY{[*TABLES, *VIEWS]}) AND NOT {OWNS_OURS}
"""


def refuse_others_objects(cursor: Cursor, target: str) -> None:
    """Refuse to use the six objects if one of them is somebody else's, put there after the owner's was dropped.

    Args:
        cursor: of a connection to the database, at whatever revision.
        target: how errors name the database.

    Raises:
        RefusedError: one of them belongs to another role than alembic_version.
    """
    cursor.execute(_OTHERS)
    for name, owner in cursor.fetchall():
        refuse_to_read(f"public.{name}", f"belongs to {owner}, and {VERSION_TABLE} does not", target)


def recorded_revision(cursor: Cursor, target: str) -> str | None:
    """The revision that the database is at; None before the first one.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        UnknownRevisionError: it is not one of ours.
        UnmanagedDatabaseError: our tables are there, made by hand.
        RefusedError: alembic_version is not to be read.
    """
    recorded: list[str] = []
    cursor.execute(reading_fault(VERSION_TABLE))
    for (fault,) in cursor.fetchall():
        if fault:
            refuse_to_read(VERSION_TABLE, fault, target)
        cursor.execute(f"SELECT version_num FROM {VERSION_TABLE} ORDER BY version_num")
        recorded = [revision for (revision,) in cursor.fetchall()]
    for revision in recorded:
        if pending(revision) is None:
            raise UnknownRevisionError(revision, target)
    if recorded:
        return recorded[-1]
    cursor.execute(PRESENT_SQL)
    tables = [name for name, _ in cursor.fetchall() if name in TABLES]
    if tables:
        raise UnmanagedDatabaseError(tables, target)
    return None
