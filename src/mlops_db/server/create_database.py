"""Creates the database that the revisions fill. `python -m mlops_db.server.create_database` runs it."""

import sys
from contextlib import closing
from dataclasses import replace

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its class like a function)

from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    DatabaseMissingError,
    NotPermittedError,
    ServerUnreachableError,
    StatementFailedError,
    exit_code_of,
)
from mlops_db.server.advisory import select_holders
from mlops_db.server.citus import refuse_worker
from mlops_db.server.connection import connect, open_cursor
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import quoted, translate_statement_failures
from mlops_db.settings import Settings, check_database_name
from mlops_db.terminal import print_line

MAINTENANCE_DATABASES = ("postgres", "template1")
# Only one process creates at a time. Advisory locks are per database, so a lock of this number in another one does not
# matter.
CREATE_LOCK = 0x6D6C6F70732D6462  # "mlops-db" in ASCII

# A database is incomplete if its creator was stopped between its two statements, or if it is empty and handmade.
# A database that holds anything keeps its time zone: another one would change the meaning of its naive timestamps.
_IS_INCOMPLETE = """
    SELECT pg_has_role(d.datdba, 'USAGE')
       AND NOT EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) AS setting
                        WHERE s.setdatabase = d.oid AND s.setrole = 0 AND setting ILIKE 'timezone=%')
       AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_')
      FROM pg_database d WHERE d.datname = current_database()
"""


def create_database(settings: Settings) -> bool:
    """Create the settings' database: owned by the role in force, UTF8, with the time zone UTC as its default.

    Prints its steps. Safe to repeat and to run several times at once. CREATE DATABASE cannot be part of a transaction
    (manual, "CREATE DATABASE"), so a run that is killed in between can leave an empty database without its time zone;
    the next run completes it. Apart from that, an existing database is not changed, and no other database is needed.

    Returns:
        True if this call created it, False if it was there.

    Raises:
        SettingsError: PostgreSQL allows no database of that name.
        ConnectionFailedError: no connection to the server.
        DatabaseMissingError: it is missing, and there is no other database that we can connect to and create it from.
        NotPermittedError: the role may not create databases.
        WorkerNodeError: it is there, on a worker of a Citus cluster.
        StatementFailedError: the server refused for another reason.
    """
    check_database_name(settings.database)
    created = False
    try:
        _complete(settings)
    except (AuthenticationFailedError, ServerUnreachableError):
        raise
    except ConnectionFailedError as error:
        # Most likely it does not exist. pg_database shows that in any language of the server's messages.
        created = _create(settings, error)
        _complete(settings)
    print_line(
        f"✅ Database '{settings.database}' created successfully"
        if created
        else f"Database '{settings.database}' already exists"
    )
    return created


def _complete(settings: Settings) -> None:
    """Give the database its time zone if it is incomplete."""
    with open_cursor(settings, autocommit=True) as cursor:
        refuse_worker(cursor, settings.target)
        if cursor.value(_IS_INCOMPLETE):
            _wait_for_other_creators(cursor, settings)
            if cursor.value(_IS_INCOMPLETE):
                name = sql.Identifier(settings.database)
                cursor.execute(sql.SQL("ALTER DATABASE {} SET timezone TO 'UTC'").format(name))


def _create(settings: Settings, missing: ConnectionFailedError) -> bool:
    """Create it; False if it exists, and the connection failed for another reason."""
    with (
        closing(_connect_to_another(settings, missing)) as connection,
        translate_statement_failures(settings),
        connection.cursor(cursor_factory=SafeCursor) as cursor,
    ):
        _wait_for_other_creators(cursor, settings)
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (settings.database,))
        return cursor.rowcount == 0 and _create_unless_there(cursor, settings)


def _wait_for_other_creators(cursor: SafeCursor, settings: Settings) -> None:
    cursor.execute("SET lock_timeout = %s", (max(settings.lock_wait, 1),))  # 0 would be no bound
    try:
        cursor.execute("SELECT pg_advisory_lock(%s)", (CREATE_LOCK,))
    except psycopg2.errors.LockNotAvailable:
        holders = cursor.value(select_holders("%(key)s"), {"key": CREATE_LOCK})
        raise StatementFailedError(
            f"another creation of a database has not ended after {settings.lock_wait / 1000:g} s: "
            f"{holders or 'one that has just ended'}; nothing was changed",
            hint="Let it end and try again, wait longer with MLOPS_LOCK_WAIT=10min, or end it with "
            "SELECT pg_terminate_backend(pid).",
        ) from None


def _create_unless_there(cursor: SafeCursor, settings: Settings) -> bool:
    """Create it; False if another creator, without our lock, was faster."""
    print_line(f"Creating database '{settings.database}'...")
    # Only template0 allows another encoding than its own, and nobody is ever connected to it.
    statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0")
    try:
        cursor.execute_alone(statement.format(sql.Identifier(settings.database)))
    except (psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
        return False
    except psycopg2.errors.InsufficientPrivilege:
        role = cursor.value("SELECT current_user")  # a role setting of PGOPTIONS or of the login may be in force
        raise NotPermittedError(
            f"role {quoted(role)} may not create databases on this server",
            hint=f"Let a superuser run ALTER ROLE {quoted(role)} CREATEDB, or create the database for it.",
        ) from None
    return True


def _connect_to_another(settings: Settings, missing: ConnectionFailedError) -> Connection:
    """Connect to another database, in autocommit, which CREATE DATABASE requires.

    Raises:
        ConnectionFailedError: there is no connection to any; `missing` is the reason for ours.
    """
    reasons = []
    for database in MAINTENANCE_DATABASES:
        try:
            connection = connect(replace(settings, database=database))
        except ConnectionFailedError as error:  # noqa: PERF203  (the next one may let us in)
            reasons.append(error)
        else:
            connection.autocommit = True
            return connection
    if not isinstance(missing, DatabaseMissingError):
        raise missing
    name, role = quoted(settings.database), quoted(settings.owner_role or settings.user)
    raise DatabaseMissingError(
        f"{missing}, and there is no other to create it from: {reasons[0]}",
        hint=f"Let somebody create it: CREATE DATABASE {name} OWNER {role} ENCODING 'UTF8' TEMPLATE template0;",
    )


def main() -> int:
    """Run the pre-step with the environment's settings."""
    create_database(Settings.from_environment())
    return 0


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
