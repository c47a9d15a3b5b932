"""The revision that a database says it is at."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import RefusedError, UnknownRevisionError, UnmanagedDatabaseError
from mlops_db.schema.objects import PRESENT_SQL, TABLES
from mlops_db.schema.revisions import pending

# No row: there is none. Reading a view, or a table under a policy, would run what its maker has put into it, with the
# rights of whoever reads; and a policy would show a part of the rows as if it were all.
VERSION_TABLE_IS_PLAIN = """
    SELECT c.relkind IN ('r', 'p') AND NOT row_security_active(c.oid)
      FROM pg_class AS c WHERE c.oid = to_regclass('public.alembic_version')
"""


def refuse_odd_version_table(target: str) -> None:
    """Say that public.alembic_version is not what Alembic makes.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(
        f"{target}: public.alembic_version is a view, or has a row level security policy; it was not read",
        hint="See whose it is (psql: \\d+ public.alembic_version), and drop it, or disable its row level security.",
    )


def recorded_revision(cursor: Cursor, target: str) -> str | None:
    """The revision that the database is at; None before the first one.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        UnknownRevisionError: it is not one of ours.
        UnmanagedDatabaseError: our tables are there, made by hand.
        RefusedError: alembic_version is no plain table.
    """
    recorded: list[str] = []
    cursor.execute(VERSION_TABLE_IS_PLAIN)
    for (is_plain,) in cursor.fetchall():
        if not is_plain:
            refuse_odd_version_table(target)
        cursor.execute("SELECT version_num FROM public.alembic_version ORDER BY version_num")
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
