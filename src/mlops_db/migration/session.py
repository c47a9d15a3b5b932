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
from mlops_db.server.connection import connect
from mlops_db.server.pins import PINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from mlops_db.settings import Settings

# Where revisions 0005 to 0007 look for `-x legacy-timezone`.
LEGACY_TIMEZONE = "mlops_db.legacy_timezone"
# Where revisions that read or rewrite all rows look for `-x statement-timeout`, if it was given: else they take hours.
LONG_TIMEOUT = "mlops_db.long_statement_timeout"
# How soon the server notices that a killed client is gone, and ends its statement and its run lock with it.
CHECK_CLIENT = "SET client_connection_check_interval = '500ms'"
CHECK_CLIENT_SINCE = 140000


def run_pins(
    settings: Settings,
    *,
    lock_timeout: int,
    statement_timeout: int,
    long_timeout: int | None = None,
    legacy_timezone: str = "UTC",
) -> dict[str, str]:
    """What holds for the session of a run, whoever set it otherwise; the arguments are those of `Options`."""
    return {
        **PINS,
        "row_security": "off",  # an error where a policy would hide rows
        "lock_timeout": f"{lock_timeout}",
        "statement_timeout": f"{statement_timeout}",
        LONG_TIMEOUT: "" if long_timeout is None else f"{long_timeout}",
        LEGACY_TIMEZONE: legacy_timezone,
        "mlops_db.lock_wait": f"{settings.lock_wait}ms",
        **({"role": settings.owner_role} if settings.owner_role else {}),
    }


@contextmanager
def migration_connection(settings: Settings, **options: Any) -> Iterator[Connection]:
    """Connect as a migration run does.

    Everything that protects others, and that a revision's meaning depends on, is pinned (`server.pins`).

    Args:
        settings: where to connect.
        options: the timeouts, and what else `run_pins` takes.

    Raises:
        ConnectionFailedError: no connection.
        RefusedError: a second one is asked for while this one is open.
    """
    pins = run_pins(settings, **options)
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
