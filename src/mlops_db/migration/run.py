"""The entry point of `migrations/env.py`: reads what the user asked for and hands it to the module that does it.

`online` runs revisions on a connection, `offline` writes them as a script for `--sql`, `autogenerate` compares the
code's tables and views with the database and names new revision files.
"""

from __future__ import annotations

import logging.config
import sys
from typing import TYPE_CHECKING

import psycopg2
from alembic.util import CommandError
from sqlalchemy import MetaData
from sqlalchemy.exc import SQLAlchemyError

from mlops_db.errors import InterruptedRunError, MlopsDbError
from mlops_db.migration.autogenerate import only_writes_a_file
from mlops_db.migration.callers_connection import settings_of_connection, use_callers_connection
from mlops_db.migration.online import OnlineRun
from mlops_db.migration.options import Options
from mlops_db.migration.progress import Progress
from mlops_db.migration.revision_graph import graph_of_command
from mlops_db.migration.session import migration_connection, run_pins
from mlops_db.server.failures import find_server_error, translate_statement_failure
from mlops_db.server.waiting import wait_interruptibly
from mlops_db.settings import Settings
from mlops_db.terminal import report_lost_output, survive_lost_output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from sqlalchemy import Connection

_log = logging.getLogger("mlops_db.migration")


def run(context: EnvironmentContext, *, target_metadata: MetaData | Sequence[MetaData]) -> None:
    """Carry out the command that Alembic was given.

    By default the environment decides where to connect, and the command line shows progress on standard error.
    A program can change that through `config.attributes`:

    - `settings`: the Settings to use.
    - `connection`: a Connection or an Engine of SQLAlchemy on psycopg2 to use (`migration.callers_connection`). If the
      connection is in a transaction, everything happens in that transaction and nothing is retried.
    - `progress`: a text stream for the progress. Without one, the run logs to `mlops_db.migration`.

    Args:
        context: Alembic's `alembic.context`.
        target_metadata: the tables and views at head, with which autogenerate compares the database; its naming
            convention names the constraints that revisions create. A project beside ours gives a list: ours, theirs.

    Raises:
        CommandError: what went wrong and what to do about it. Alembic prints it as one line and a hint; the cause is
            the `MlopsDbError`. The database is at a revision.
    """
    config = context.config
    on_command_line = config.cmd_opts is not None
    if on_command_line:
        _prepare_command_line(config)
    progress = Progress(sys.stderr if on_command_line else config.attributes.get("progress"), _log)
    settings = None
    metadatas = (target_metadata,) if isinstance(target_metadata, MetaData) else tuple(target_metadata)
    try:
        graph = graph_of_command(context)
        settings = config.attributes.get("settings") or Settings.from_environment()
        options = Options.parse(context.get_x_argument(as_dictionary=False), settings)
        if context.is_offline_mode():
            from mlops_db.migration.offline import write_script  # noqa: PLC0415  (a run starts without it)

            write_script(context, graph, metadatas[0], settings, options)
        elif only_writes_a_file(context):
            context.run_migrations()
        else:
            with _open_connection(config, settings, options) as connection:
                if config.attributes.get("connection") is not None:
                    settings = settings_of_connection(connection, settings)
                OnlineRun(context, connection, graph, settings, options, progress, metadatas).carry_out()
    except MlopsDbError as error:
        raise _command_error(error) from error
    except KeyboardInterrupt:
        if not on_command_line:
            raise
        interrupted = InterruptedRunError()
        raise _command_error(interrupted) from interrupted
    except (SQLAlchemyError, psycopg2.Error) as error:
        server_error = find_server_error(error)
        if server_error is None or settings is None:
            raise
        explained = translate_statement_failure(server_error, settings)
        raise _command_error(explained) from explained
    finally:
        progress.stop()
    _finish_command_line(config)


def _prepare_command_line(config: Config) -> None:
    """Only for the command line: a program that calls Alembic has its own logging and its own way to wait."""
    if config.config_file_name is not None and config.file_config.has_section("loggers"):
        logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)
    wait_interruptibly()
    survive_lost_output()
    if config.stdout is sys.__stdout__:
        config.stdout = sys.stdout


def _finish_command_line(config: Config) -> None:
    """Fail if output was lost, which `alembic` would not notice. What it prints later is its own again."""
    if config.cmd_opts is not None and config.stdout is sys.stdout:
        config.stdout = sys.__stdout__ or sys.stdout
        if code := report_lost_output(0):
            sys.exit(code)


def _open_connection(config: Config, settings: Settings, options: Options) -> AbstractContextManager[Connection]:
    """Take the connection that a program handed in, or open one."""
    callers = config.attributes.get("connection")
    if callers is None:
        return migration_connection(settings, options)
    return use_callers_connection(callers, run_pins(settings, options))


def _command_error(error: MlopsDbError) -> CommandError:
    return CommandError(f"{error}\nHint: {error.hint}")
