"""The revision that a database says it is at."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import UnknownRevisionError, UnmanagedDatabaseError
from mlops_db.schema.objects import PRESENT_SQL, TABLES
from mlops_db.schema.revisions import pending


def recorded_revision(cursor: Cursor, target: str) -> str | None:
    """The revision that the database is at; None before the first one.

    Args:
        cursor: of a connection to the database.
        target: how errors name the database.

    Raises:
        UnknownRevisionError: it is not one of ours.
        UnmanagedDatabaseError: our tables are there, made by hand.
    """
    recorded: list[str] = []
    cursor.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL")
    if cursor.fetchone() == (True,):
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
