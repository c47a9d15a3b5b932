"""What `migrations/env.py` runs: one run at a time, checked before anything changes, each revision in a transaction."""

from __future__ import annotations

import io
import logging.config
import sys
from contextlib import nullcontext, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions
from alembic.runtime.migration import RevisionStep
from alembic.util import CommandError
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from mlops_db.errors import InterruptedRunError, MlopsDbError
from mlops_db.migration import history, lock, view_grants
from mlops_db.migration.blockers import Watch
from mlops_db.migration.given import given_connection, reached
from mlops_db.migration.guard import losses, read_only_ours, refuse_losses, refuse_wrong_database
from mlops_db.migration.judge import Judge
from mlops_db.migration.new_files import refuse_new_file_in_package
from mlops_db.migration.numbering import give_merge_next_number, give_next_number
from mlops_db.migration.offline import unfinished_refusal, write_script
from mlops_db.migration.operations import OPTIONS  # which registers the operations
from mlops_db.migration.options import Options
from mlops_db.migration.plan import plan_lines, stamp_lines, step_name
from mlops_db.migration.preview import written_sql
from mlops_db.migration.progress import Progress
from mlops_db.migration.retry import with_retries
from mlops_db.migration.revision_graph import graph_of_command
from mlops_db.migration.session import migration_connection, run_pins
from mlops_db.migration.transaction import revision_statements
from mlops_db.schema.base import metadata
from mlops_db.server.failures import translate_statement_failure
from mlops_db.server.guests import REFUSE_GUESTS, SAFE_PATH, TABLES_IN_PUBLIC, TABLES_OF_OTHERS
from mlops_db.server.waiting import wait_interruptibly
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import Connection

    from mlops_db.revisions.graph import Graph

    Steps = Callable[[Any, MigrationContext], Iterable[Any]]


def run(context: EnvironmentContext) -> None:
    """Carry out the command that Alembic was given.

    By default the environment says where to connect, and the command line shows progress on standard error.
    A program may say otherwise in `config.attributes`:

    - `settings`: the Settings to use.
    - `connection`: a Connection or an Engine of SQLAlchemy's on psycopg2 to use (`migration.given`). If the connection
      is in a transaction of its caller's, everything happens in that transaction and nothing is tried twice.
    - `progress`: a text stream that is told what happens.

    Raises:
        CommandError: what went wrong and what to do about it. Alembic prints it as one line and a hint; the cause is
            the `MlopsDbError`. The database stands at a revision boundary.
    """
    config = context.config
    on_command_line = config.cmd_opts is not None
    if on_command_line:
        _prepare_command_line(config)
    progress = Progress(sys.stderr if on_command_line else config.attributes.get("progress"))
    settings = None
    try:
        graph = graph_of_command(context)
        settings = config.attributes.get("settings") or Settings.from_environment()
        options = Options.parse(context.get_x_argument(as_dictionary=False), settings)
        if context.is_offline_mode():
            write_script(context, settings, options)
        elif _only_writes_a_file(context):
            context.run_migrations()
        else:
            given = config.attributes.get("connection")
            with _connection(given, settings, options) as connection:
                if given is not None:
                    settings = reached(connection, settings)
                _Run(context, connection, graph, settings, options, progress).carry_out()
    except MlopsDbError as error:
        raise _command_error(error) from error
    except KeyboardInterrupt:
        if not on_command_line:
            raise
        interrupted = InterruptedRunError()
        raise _command_error(interrupted) from interrupted
    except (SQLAlchemyError, psycopg2.Error) as error:
        refused = _refused_by_server(error)
        if refused is None or settings is None:
            raise
        told = translate_statement_failure(refused, settings)
        raise _command_error(told) from told
    finally:
        progress.stop()


class _Run:
    """One command on one connection."""

    def __init__(  # noqa: PLR0913, PLR0917  (all that a run is made of)
        self,
        context: EnvironmentContext,
        connection: Connection,
        graph: Graph,
        settings: Settings,
        options: Options,
        progress: Progress,
    ) -> None:
        self.context = context
        self.connection = connection
        self.graph = graph
        self.settings = settings
        self.options = options
        self.progress = progress
        self.callers_transaction = connection.in_transaction()
        self.history = history.History(connection, callers_transaction=self.callers_transaction)
        self.running = ""
        self.attempted_downgrades: set[str] = set()
        self.grants_saved = False
        self.total = 0
        self.done = 0

    def carry_out(self) -> None:
        migration = self.configured()
        if "destination_rev" in migration.opts:
            self.change(migration)
            return
        if "revision_context" in migration.opts:
            self.refuse_guests()
            migration = self.configured(**_comparing(migration.opts["fn"]))
        # check, current, history and autogenerate only look: they must not leave an alembic_version behind.
        refuse_wrong_database(migration, self.graph, self.settings.target)
        migration.opts["dont_mutate"] = True
        self.end_reading()
        self.run_migrations()
        if not self.callers_transaction:
            self.connection.commit()  # for ensure_version, which writes after all

    def configured(self, **options: Any) -> MigrationContext:
        self.context.configure(
            **{
                "connection": self.connection,
                "target_metadata": metadata,
                "transaction_per_migration": True,
                "version_table_schema": "public",
                OPTIONS: self.options,
                **options,
            }
        )
        migration = self.context.get_context()
        read_only_ours(migration, self.settings.target)
        return migration

    def run_migrations(self) -> None:
        with self.context.begin_transaction():
            self.context.run_migrations()

    def refuse_guests(self) -> None:
        """Refuse to go on where a guest has made what the run's statements could take for PostgreSQL's or ours."""
        self.connection.exec_driver_sql(REFUSE_GUESTS, execution_options={"no_parameters": True})

    def end_reading(self) -> None:
        """End the transaction that reading began: Alembic would take it for its caller's, and commit nothing."""
        if not self.callers_transaction:
            self.connection.rollback()

    def change(self, migration: MigrationContext) -> None:
        """Carry out upgrade, downgrade or stamp."""
        alembics_steps: Steps = migration.opts["fn"]
        lock.require_direct_connection(self.connection)
        self.end_reading()
        if self.options.plan:
            self.print_plan(migration, alembics_steps)
            return
        with lock.run_lock(self.connection, wait_ms=self.options.lock_wait, progress=self.progress):
            self.refuse_guests()
            steps = self.steps_to_go(migration, alembics_steps)
            if migration.opts.get("purge"):  # of stamp; Alembic empties its table before it asks for the steps
                self.attempt(alembics_steps)
                return
            if not steps:
                self.history.close_interrupted()
                self.progress.note(f"{self.settings.target}: nothing to do")
                return
            revisions = [step for step in steps if isinstance(step, RevisionStep)]
            self.guard(revisions)
            for step in revisions:
                step.migration_fn = self.in_transaction(step)
            self.total = len(steps)

            def left(*_: Any) -> list[Any]:
                # Not asked anew: after a first step, the +2 of `alembic upgrade +2` would lead further.
                return steps[self.done :]

            if self.callers_transaction:
                self.attempt(left)
            else:
                self.attempt_until_done(left)

    def steps_to_go(self, migration: MigrationContext, alembics_steps: Steps) -> list[Any]:
        refuse_wrong_database(migration, self.graph, self.settings.target)
        steps = list(alembics_steps(migration.get_current_heads(), migration))
        self.end_reading()
        return steps

    def print_plan(self, migration: MigrationContext, alembics_steps: Steps) -> None:
        steps = self.steps_to_go(migration, alembics_steps)
        if "purge" in migration.opts:  # of stamp, which with --purge asks for the steps from an empty table
            recorded, purge = migration.get_current_heads(), migration.opts["purge"]
            left = () if purge else recorded
            lines = stamp_lines(recorded, left, alembics_steps(left, migration), self.settings.target)
        else:
            lines = plan_lines(self.connection, steps, self.settings.target)
        for line in lines:
            self.context.config.print_stdout(line)
        self.end_reading()

    def guard(self, steps: list[RevisionStep]) -> None:
        downgrades = {step.revision.revision: written_sql(step.migration_fn) for step in steps if not step.is_upgrade}
        found = losses(self.connection, downgrades)
        self.end_reading()
        if found and self.protects_rows:
            refuse_losses(found)
        if lost := ", ".join(loss.what for loss in found if loss.certain):
            self.progress.note(f"warning: this downgrade loses {lost}")
        if perhaps := ", ".join(loss.what for loss in found if not loss.certain):
            self.progress.note(f"warning: this downgrade may lose {perhaps}")

    @property
    def protects_rows(self) -> bool:
        return self.settings.environment == "production" and not self.options.allow_data_loss

    def attempt_until_done(self, steps: Steps) -> None:
        pid = self.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        self.end_reading()
        watch = Watch(self.settings, pid, self.progress, lock_timeout_ms=self.options.lock_timeout)
        # Not with a connection that a program brought: its password is not known here.
        handed_in = self.context.config.attributes.get("connection") is not None
        with nullcontext() if handed_in else watch.watching():
            with_retries(
                lambda: self.attempt(steps),
                position=lambda: self.done,
                blockers=watch.take_blockers,
                retry_for_ms=self.options.retry_for,
                show_queries=self.options.show_queries,
                progress=self.progress,
            )

    def attempt(self, steps: Steps) -> None:
        """Run the steps, and enter them in the history."""
        migration = self.configured(
            fn=lambda heads, migration: self.journalled(steps(heads, migration)),
            on_version_apply=self.before_commit,
        )
        try:
            self.make_tables(migration)
            self.run_migrations()
        except Exception as error:
            if not self.callers_transaction:
                self.roll_back()
                self.record_failure(error)
            if isinstance(error, NotImplementedError):
                raise unfinished_refusal(self.running) from error
            raise

    def make_tables(self, migration: MigrationContext) -> None:
        """Make the run's own two tables, and refuse a guest's: from now on nobody can put another in their place."""
        self.history.create()
        migration._ensure_version_table()  # noqa: SLF001  (or Alembic would create it later, or find a guest's)
        if not self.callers_transaction:
            self.connection.commit()
        self.refuse_guests()
        self.history.close_interrupted()

    def journalled(self, steps: Iterable[Any]) -> Iterator[Any]:
        """Hand Alembic one step after the other; it commits each before it asks for the next."""
        for step in steps:
            if isinstance(step, RevisionStep):
                revision, name = step.revision.revision, step_name(step)
                direction = "upgrade" if step.is_upgrade else "downgrade"
                label = name if step.is_upgrade else f"downgrade {name}"
            else:
                revision, direction = ", ".join(step.info.destination_revision_ids) or "base", "stamp"
                label = f"stamp {revision}"
            self.running = revision
            self.grants_saved = self.history.begin(revision, direction)
            self.progress.begin(f"[{self.done + 1}/{max(self.total, self.done + 1)}] {label}")
            yield step
            self.progress.done()
            self.done += 1

    def in_transaction(self, step: RevisionStep) -> Callable[..., None]:
        revision, migrate = step.revision.revision, step.migration_fn

        @wraps(migrate)
        def within(**options: Any) -> None:
            judge = None
            if self.protects_rows and not step.is_upgrade:
                driver = self.connection.connection.dbapi_connection
                judge = Judge(driver, revision, keep_readers_out=revision in self.attempted_downgrades)
                self.attempted_downgrades.add(revision)
            with revision_statements(self.context.get_context(), revision, judge):
                migrate(**options)

        return within

    def before_commit(self, *, step: MigrationInfo, **_: Any) -> None:
        """Alembic's on_version_apply: the last thing in a revision's transaction."""
        if self.grants_saved:
            view_grants.restore(self.connection)
        self.history.applied(None if step.is_stamp else self.running)

    @property
    def has_connection(self) -> bool:
        """Whether it neither broke nor was given back, by the driver's close() in a revision."""
        return not self.connection.invalidated and self.connection.connection.dbapi_connection is not None

    def roll_back(self) -> None:
        """Roll back also what SQLAlchemy takes to be over: a revision may have tried to end it."""
        if self.has_connection:
            with suppress(psycopg2.Error):  # the connection broke, and the transaction with it
                self.connection.rollback()
                self.connection.connection.rollback()
                self.connection.exec_driver_sql(f"SET search_path = {SAFE_PATH}")
                self.connection.commit()

    def record_failure(self, error: Exception) -> None:
        if not self.has_connection:
            return  # the run lock went with the connection; the next run marks the entry as interrupted
        reason = str(_refused_by_server(error) or error).strip() or type(error).__name__
        with suppress(SQLAlchemyError, MlopsDbError):  # as above
            self.connection.rollback()
            self.history.failed(reason)


def _comparing(compare: Steps) -> dict[str, Any]:
    """What `alembic check` and `revision --autogenerate` compare with, and how; nobody else waits for it to load."""
    import mlops_db.schema.head  # noqa: F401, PLC0415  (adds the tables to the metadata)
    from mlops_db.migration import made, views  # noqa: PLC0415

    def named(heads: Any, migration: MigrationContext) -> Iterable[Any]:
        """Compare what is named with its schema: SQLAlchemy would look for the other tables in the search path."""
        assert migration.connection is not None
        dialect = migration.connection.dialect
        before, dialect.default_schema_name = dialect.default_schema_name, None
        try:
            others.update(migration.connection.exec_driver_sql(TABLES_OF_OTHERS).scalars())
            unknown = set(migration.connection.exec_driver_sql(TABLES_IN_PUBLIC).scalars()) - known
            if unknown:
                assert migration.script is not None
                others.update(unknown - made.made_by_revisions(migration.script))
            return list(compare(heads, migration))
        finally:
            dialect.default_schema_name = before

    others: set[str] = set()
    known = {table.name for table in metadata.tables.values()} | {"alembic_version"}
    in_public = MetaData(naming_convention=metadata.naming_convention)
    in_public.info.update(metadata.info)
    for table in metadata.sorted_tables:
        table.to_metadata(in_public, schema=table.schema or "public")
    return {
        "fn": named,
        "target_metadata": in_public,
        "include_schemas": True,
        "include_name": lambda name, kind, _: (
            name not in others if kind == "table" else kind != "schema" or name == "public"
        ),
        "compare_type": True,
        "compare_server_default": True,
        "process_revision_directives": give_next_number,
        "autogenerate_plugins": ["alembic.autogenerate.*", views.PLUGIN],
    }


def _only_writes_a_file(context: EnvironmentContext) -> bool:
    """Whether the command is `revision` without autogenerate, or `merge`: both need no database."""
    context.configure(dialect_name="postgresql", process_revision_directives=give_next_number, as_sql=True)
    migration = context.get_context()
    options = migration.opts
    revision = options.get("revision_context")
    assert migration.script is not None
    refuse_new_file_in_package(migration.script)
    if "template_args" in options and revision is None:
        give_merge_next_number(migration.script)
        return True
    if revision and not revision.command_args["autogenerate"]:
        return True
    options["as_sql"] = False
    return False


def _connection(given: object, settings: Settings, options: Options) -> AbstractContextManager[Connection]:
    """The connection that the run uses: one of its own, unless a program has handed one in."""
    if given is not None:
        return given_connection(given, run_pins(settings, **options.pinned))
    return migration_connection(settings, **options.pinned)


def _prepare_command_line(config: Config) -> None:
    """Only for the command line: a program that calls Alembic has its own logging and its own way to wait."""
    if config.config_file_name is not None and config.file_config.has_section("loggers"):
        logging.config.fileConfig(config.config_file_name, disable_existing_loggers=False)
    wait_interruptibly()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in a pipe, too, before what standard error says next


def _refused_by_server(error: BaseException | None) -> psycopg2.Error | None:
    """What the server said; where a connection broke, SQLAlchemy's complaints about that come after it."""
    while error is not None:
        if isinstance(error, psycopg2.Error):
            return error
        if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg2.Error):
            return error.orig
        error = error.__context__
    return None


def _command_error(error: MlopsDbError) -> CommandError:
    return CommandError(f"{error}\nHint: {error.hint}")
