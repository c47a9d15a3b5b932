"""What `migrations/env.py` runs: one connection, checked before anything changes, each revision in a transaction."""

from __future__ import annotations

import logging.config
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from mlops_db.errors import MlopsDbError
from mlops_db.migration.guard import refuse_wrong_database
from mlops_db.schema.head import metadata
from mlops_db.server.connection import connect, explained_statement_failure
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy import Connection

# The revisions name no schema. Pinned, so that a schema named like the role does not catch the tables; and UTC, so
# that what a revision computes from the clock does not depend on who runs it.
SESSION = "-c search_path=public -c timezone=UTC"


def run(context: EnvironmentContext) -> None:
    """Carry out the command that Alembic was given.

    A program may hand over its own connection in `config.attributes["connection"]` and its own settings in
    `config.attributes["settings"]`; otherwise the environment says where to connect.

    Raises:
        CommandError: what went wrong and what to do about it. Alembic prints it as one line and a hint; the cause is
            the `MlopsDbError`. The database stands at a revision boundary.
    """
    config = context.config
    if config.cmd_opts is not None and config.config_file_name is not None:
        # Only for the command line: a program that calls Alembic has a logging configuration of its own.
        logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)
    settings = None
    try:
        settings = config.attributes.get("settings") or Settings.from_environment()
        if context.is_offline_mode():
            _write_sql(context)
        else:
            with _connection(config, settings) as connection:
                _run_on(connection, context, settings)
    except MlopsDbError as error:
        raise _command_error(error) from error
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg2.Error) or settings is None:
            raise
        raise _command_error(explained_statement_failure(error.orig, settings)) from error


def _write_sql(context: EnvironmentContext) -> None:
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        target_metadata=metadata,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_on(connection: Connection, context: EnvironmentContext, settings: Settings) -> None:
    ours_to_end = not connection.in_transaction()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        compare_type=True,
        compare_server_default=True,
    )
    migration = context.get_context()
    refuse_wrong_database(migration, settings.target)
    if "destination_rev" not in migration.opts:
        # check, current, history and autogenerate only look: they must not leave an alembic_version behind.
        migration.opts["dont_mutate"] = True
    if ours_to_end:
        # What the check has read must not stay open as a transaction that Alembic would take for its caller's.
        connection.rollback()
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def _connection(config: Config, settings: Settings) -> Iterator[Connection]:
    given: Connection | None = config.attributes.get("connection")
    if given is not None:
        yield given
        return

    def creator() -> Any:
        return connect(settings, options=f"{settings.parameters.get('options', '')} {SESSION}".strip())

    engine = create_engine("postgresql+psycopg2://", creator=creator, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def _command_error(error: MlopsDbError) -> CommandError:
    return CommandError(f"{error}\nHint: {error.hint}")
