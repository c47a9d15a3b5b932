"""The connection that revisions run on: its own, unpooled, and with what protects everybody else set from the start."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import RefusedError
from mlops_db.migration.history import client
from mlops_db.migration.transaction import RunConnection
from mlops_db.schema.guests import SAFE_PATH
from mlops_db.server.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from mlops_db.settings import Settings

# On the safe path but for a revision's own statements (`migration.transaction`); with an error where a policy would
# hide rows (manual, "row_security"); in UTC, so that what a revision computes from the clock is the same whoever runs
# it; at READ COMMITTED, so that a lock holder's snapshot cannot hold up CREATE INDEX CONCURRENTLY.
SESSION = (
    f"-c search_path={SAFE_PATH.replace(' ', '')} -c row_security=off -c timezone=UTC"
    " -c default_transaction_isolation=read\\ committed"
)
# Where revisions 0005 to 0007 look for `-x legacy-timezone`.
LEGACY_TIMEZONE = "mlops_db.legacy_timezone"
# How soon the server notices that a killed client is gone, and ends its statement and its run lock with it.
CHECK_CLIENT = "SET client_connection_check_interval = '500ms'"
CHECK_CLIENT_SINCE = 140000


@contextmanager
def migration_connection(
    settings: Settings, *, lock_timeout: int, statement_timeout: int, legacy_timezone: str = "UTC"
) -> Iterator[Connection]:
    """Connect as a migration run does; the timeouts are milliseconds, the rest is `Options`'.

    They come with the connection instead of with a SET, so that a rollback does not take them back and that raw SQL in
    a revision has them too.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: a second one is asked for while this one is open.
    """
    options = (
        f"{settings.parameters.get('options', '')} {SESSION}"
        f" -c lock_timeout={lock_timeout} -c statement_timeout={statement_timeout}"
        f" -c {LEGACY_TIMEZONE}={legacy_timezone} -c mlops_db.lock_wait={settings.lock_wait}ms"
    )

    opened: list[psycopg2.extensions.connection] = []

    def creator() -> Any:
        if opened and not opened[-1].closed:
            raise RefusedError(
                "a revision asks for a second connection, whose transaction would not be the run's",
                hint="Use op.execute() or op.get_bind(): docs/writing-a-revision.md.",
            )
        connection = connect(
            settings,
            options=options,
            fallback_application_name=f"mlops-db {client()}",
            connection_factory=RunConnection,
        )
        if connection.server_version >= CHECK_CLIENT_SINCE:
            with suppress(psycopg2.errors.InvalidParameterValue), connection.cursor() as cursor:
                cursor.execute(CHECK_CLIENT)  # refused where the server's system cannot do it
        connection.commit()
        opened.append(connection)
        return connection

    engine = create_engine(
        "postgresql+psycopg2://",
        creator=creator,
        poolclass=NullPool,
        use_native_hstore=False,  # it would look for the extension first
    )
    with engine.connect() as connection:
        # SQLAlchemy takes the first schema of the path for it; a revision that inspects means the one of its tables.
        connection.dialect.default_schema_name = "public"
        yield connection
