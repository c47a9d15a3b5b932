"""The pre-step: create the database that the revisions fill. `python -m mlops_db.server.create_database` runs it."""

import sys
from contextlib import closing, suppress

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its class like a function)

from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    NotPermittedError,
    ServerUnreachableError,
    StatementFailedError,
    exit_code_of,
)
from mlops_db.server.advisory import HOLDERS, held
from mlops_db.server.connection import SafeCursor, connect, explained_statement_failure
from mlops_db.settings import Settings, checked_database_name

MAINTENANCE_DATABASES = ("postgres", "template1")
# Serialises creators. Advisory locks count per database, so nobody else's lock of the same number in another one hurts.
CREATE_LOCK = 0x6D6C6F70732D6462  # "mlops-db" in ASCII

# Incomplete: made by a creator that was stopped between its two statements, or empty and made by hand. A database that
# holds anything keeps its time zone: to change it would change what its naive timestamps mean.
_IS_INCOMPLETE = """
    SELECT pg_has_role(d.datdba, 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS setting
                        WHERE s.setdatabase = d.oid AND s.setrole = 0 AND setting ILIKE 'timezone=%')
       AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
      FROM pg_database d WHERE d.datname = current_database()
"""


def create_database(settings: Settings) -> bool:
    """Create the settings' database: owned by their role, UTF8, with the time zone UTC as its default.

    Says on standard output what it does. Safe to repeat and to run several times at once. CREATE DATABASE cannot be
    part of a transaction (manual, "CREATE DATABASE"), so a run that is killed in between can leave an empty database
    without its time zone; the next run completes it. Apart from that, a database that exists is left as it is.

    Returns:
        True if this call created it, False if it was there.

    Raises:
        DatabaseNameError: PostgreSQL allows no database of that name.
        ConnectionFailedError: no connection to the server.
        NotPermittedError: the role may not create databases.
        StatementFailedError: the server refused for another reason.
    """
    checked_database_name(settings.database)
    try:
        complete = not _is_incomplete(settings)
    except (AuthenticationFailedError, ServerUnreachableError):
        raise
    except ConnectionFailedError:
        complete = False  # most likely it does not exist: pg_database will tell, whatever language the server speaks
    created = False if complete else _create_or_complete(settings)
    _say(
        f"✅ Database '{settings.database}' created successfully"
        if created
        else f"Database '{settings.database}' already exists"
    )
    return created


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # nobody reads on, and the work is to be done all the same
        print(line, flush=True)


def _create_or_complete(settings: Settings) -> bool:
    name = sql.Identifier(settings.database)
    with (
        closing(_maintenance_connection(settings)) as connection,
        connection.cursor(cursor_factory=SafeCursor) as cursor,
    ):
        try:
            _wait_for_other_creators(cursor, settings)
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (settings.database,))
            created = cursor.rowcount == 0 and _create(cursor, settings)
            if created or _is_incomplete(settings):
                cursor.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'UTC'").format(name))
        except psycopg2.Error as error:
            raise explained_statement_failure(error, settings) from None
    return created


def _wait_for_other_creators(cursor: SafeCursor, settings: Settings) -> None:
    cursor.execute("SET lock_timeout = %s", (max(settings.lock_wait, 1),))  # 0 would be no bound
    try:
        cursor.execute("SELECT pg_advisory_lock(%s)", (CREATE_LOCK,))
    except psycopg2.errors.LockNotAvailable:
        cursor.execute(f"SELECT {HOLDERS} {held('%(key)s')}", {"key": CREATE_LOCK})
        (holders,) = cursor.fetchone() or (None,)
        raise StatementFailedError(
            f"another creation of a database has not ended after {settings.lock_wait / 1000:g} s: "
            f"{holders or 'one that has just ended'}; nothing was changed",
            hint="Let it end and try again, wait longer with MLOPS_LOCK_WAIT=10min, or end it with "
            "SELECT pg_terminate_backend(pid).",
        ) from None


def _create(cursor: SafeCursor, settings: Settings) -> bool:
    """Create it; False if somebody who does not take our lock was quicker."""
    _say(f"Creating database '{settings.database}'...")
    # template0 is the only template that takes another encoding than its own, and that nobody is ever connected to.
    statement = sql.SQL("CREATE DATABASE {} OWNER {} ENCODING 'UTF8' TEMPLATE template0")
    try:
        cursor.execute_alone(statement.format(sql.Identifier(settings.database), sql.Identifier(settings.user)))
    except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
        return False
    except psycopg2.errors.InsufficientPrivilege:
        raise NotPermittedError(
            f'role "{settings.user}" may not create databases on this server',
            hint=f'Let a superuser run ALTER ROLE "{settings.user}" CREATEDB, or create the database for it.',
        ) from None
    return True


def _is_incomplete(settings: Settings) -> bool:
    with closing(connect(settings)) as connection, connection.cursor(cursor_factory=SafeCursor) as cursor:
        try:
            cursor.execute(_IS_INCOMPLETE)
        except psycopg2.Error as error:
            raise explained_statement_failure(error, settings) from None
        (incomplete,) = cursor.fetchone() or (False,)
        return bool(incomplete)


def _maintenance_connection(settings: Settings) -> Connection:
    """Connect to a database that is there before ours, in autocommit, as CREATE DATABASE demands."""
    try:
        connection = connect(settings, dbname=MAINTENANCE_DATABASES[0])
    except (AuthenticationFailedError, ServerUnreachableError):
        raise
    except ConnectionFailedError:
        connection = connect(settings, dbname=MAINTENANCE_DATABASES[1])
    connection.autocommit = True
    return connection


def main() -> int:
    """Run the pre-step with the environment's settings."""
    create_database(Settings.from_environment())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
