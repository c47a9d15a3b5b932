"""One read-only transaction that sees one moment, so that all numbers that are read in it agree."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from mlops_db.errors import NotPermittedError, RefusedError, StatementFailedError, alembic
from mlops_db.project import REPORTING_FUNCTIONS, REPORTING_VIEWS, VIEWS
from mlops_db.revisions import gate
from mlops_db.revisions.tables import OWNS_OURS, VERSION_TABLE
from mlops_db.server.connection import open_cursor
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import first_line, quoted
from mlops_db.settings import Settings

# A script that waits for ever alarms nobody.
STATEMENT_TIMEOUT = "2min"
LOCK_TIMEOUT = "15s"
_FUNCTIONS = [function.partition("(")[0] for function in REPORTING_FUNCTIONS]
_NAMES = [*(f"public.{view}" for view in VIEWS), *(f"reporting.{name}" for name in (*REPORTING_VIEWS, *_FUNCTIONS))]

# The reader role may not read the revision. False then; NULL if there is no table for it.
_MAY_READ_REVISION = f"""
    SELECT has_table_privilege(c.oid, 'SELECT') FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = '{VERSION_TABLE}'
"""
# to_regclass fails for a role that may not use the schema.
_FOUND = f"""
    WITH found AS (
        SELECT n.oid AS schema, n.nspname || '.' || c.relname AS name, c.relowner AS owner,
               has_table_privilege(c.oid, 'SELECT') AS may_read
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         UNION ALL
        SELECT n.oid, n.nspname || '.' || p.proname, p.proowner, has_function_privilege(p.oid, 'EXECUTE')
          FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    )
    SELECT name, role.rolname, {OWNS_OURS}, may_read AND has_schema_privilege(schema, 'USAGE')
      FROM unnest(%s) WITH ORDINALITY AS wanted (name, place)
      LEFT JOIN found USING (name)
      LEFT JOIN pg_roles AS role ON role.oid = found.owner
     ORDER BY place
"""


@contextmanager
def open_snapshot(settings: Settings) -> Iterator[SafeCursor]:
    """Lend a cursor for one block: read-only, REPEATABLE READ, and with time limits for each statement.

    The role needs the privileges of `mlops-db grant-reader`, and no others.

    Args:
        settings: where to connect, and as whom.

    Raises:
        ConnectionFailedError: no connection.
        BehindHeadError: the database is at an earlier revision, or empty. The other errors of `gate.find_position`,
            too, if the role may read the revision.
        RefusedError: a view is missing, or belongs to a role that could run its own code in it.
        NotPermittedError: the role may not read a view.
        StatementFailedError: a statement of the block failed, or took too long.
    """
    with open_cursor(settings, readonly=True, isolation_level="REPEATABLE READ") as cursor:
        # LOCAL: a transaction pooler may give the session to another client afterwards.
        # The plans have many partitions: compiling all that takes longer than running it.
        cursor.execute(
            "SET LOCAL statement_timeout = %s; SET LOCAL lock_timeout = %s; SET LOCAL jit = off",
            (STATEMENT_TIMEOUT, LOCK_TIMEOUT),
        )
        if cursor.value(_MAY_READ_REVISION) is not False:
            gate.require_usable(cursor, settings.target)
        _refuse_without_views(cursor, settings)
        try:
            yield cursor
        except psycopg2.errors.QueryCanceled as error:
            raise StatementFailedError(
                f"{settings.target}: {first_line(error.pgerror or str(error))}",
                hint=f"A statement may take {STATEMENT_TIMEOUT} here. Name models (--model), or try again when the "
                "server has less to do.",
            ) from None


def _refuse_without_views(cursor: SafeCursor, settings: Settings) -> None:
    """Refuse a database in which one of the views is missing, somebody else's, or not to be read by this role."""
    cursor.execute(_FOUND, (_NAMES,))
    for name, owner, is_ours, may_read in cursor.fetchall():
        if owner is None:
            raise RefusedError(
                f"{settings.target} has no {name}: it is at an earlier revision, or drifted",
                hint=f"Run `{alembic('upgrade head')}` as the owner of the database; if nothing is left to do, "
                "`mlops-db check --sql` prints the repair.",
            )
        if not is_ours:
            raise RefusedError(
                f"{settings.target}: {name} belongs to {owner}, and {VERSION_TABLE} does not; it was not read",
                hint="Look at it (psql: \\d+), and let the role that migrates own it.",
            )
        if not may_read:
            role = settings.owner_role or settings.user
            raise NotPermittedError(
                f"{settings.target}: the role {quoted(role)} may not read {name}",
                hint=f"The owner of the database runs `mlops-db grant-reader {shlex.quote(role)}`, or grants it a role "
                "that has been granted this.",
            )
