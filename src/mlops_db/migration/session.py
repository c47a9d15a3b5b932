"""The connection that revisions run on: unpooled, with timeouts and other settings from its start."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import RefusedError
from mlops_db.migration.history import client
from mlops_db.migration.options import Options
from mlops_db.migration.transaction import RunConnection
from mlops_db.server.connection import connect
from mlops_db.server.pins import PINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from mlops_db.settings import Settings

# Revisions 0005, 0006, 0016 and 0019 read `-x legacy-timezone` here.
LEGACY_TIMEZONE = "mlops_db.legacy_timezone"
# Revisions that read or rewrite all rows read `-x statement-timeout` here; without it they allow hours.
LONG_TIMEOUT = "mlops_db.long_statement_timeout"
# How soon the server notices that a client was killed, and ends its statement and its run lock.
CHECK_CLIENT = "SET client_connection_check_interval = '500ms'"
CHECK_CLIENT_SINCE = 140000


def run_pins(settings: Settings, options: Options | None = None) -> dict[str, str]:
    """The settings of a run's session, which override all others."""
    options = options or Options.defaults(settings)
    return {
        **PINS,
        "row_security": "off",  # an error where a policy would hide rows
        "lock_timeout": f"{options.lock_timeout}",
        "statement_timeout": f"{options.statement_timeout}",
        LONG_TIMEOUT: "" if options.long_timeout is None else f"{options.long_timeout}",
        LEGACY_TIMEZONE: options.legacy_timezone,
        "mlops_db.lock_wait": f"{settings.lock_wait}ms",
        **({"role": settings.owner_role} if settings.owner_role else {}),
    }


@contextmanager
def migration_connection(settings: Settings, options: Options | None = None) -> Iterator[Connection]:
    """Connect as a migration run does.

    The settings that protect others, and those that a revision's meaning depends on, are pinned (`server.pins`).

    Args:
        settings: where to connect.
        options: the timeouts and the time zone; default: those of the settings.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: a revision asks for a second connection while this one is open.
    """
    pins = run_pins(settings, options)
    opened: list[psycopg2.extensions.connection] = []

    def creator() -> Any:
        if opened and not opened[-1].closed:
            raise RefusedError(
                "a revision asks for a second connection, whose transaction would not be the run's",
                hint="Use op.execute() or op.get_bind(): docs/writing-a-revision.md.",
            )
        connection = connect(
            settings,
            pins=pins,
            through_pooler=False,
            fallback_application_name=f"mlops-db {client()}",
            connection_factory=RunConnection,
        )
        if connection.server_version >= CHECK_CLIENT_SINCE:
            with suppress(psycopg2.errors.InvalidParameterValue), connection.cursor() as cursor:
                cursor.execute(CHECK_CLIENT)  # refused if the server's operating system cannot do it
        connection.commit()
        opened.append(connection)
        return connection

    engine = create_engine(
        "postgresql+psycopg2://",
        creator=creator,
        poolclass=NullPool,
        use_native_hstore=False,  # it would query for the extension first
    )
    with engine.connect() as connection:
        # For a revision that inspects tables; SQLAlchemy would take the first schema of the search path.
        connection.dialect.default_schema_name = "public"
        try:
            yield connection
        finally:
            if opened[-1].closed and not connection.closed and not connection.invalidated:
                connection.invalidate()  # SQLAlchemy would log that it cannot roll back, with a traceback
