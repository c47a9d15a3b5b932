"""Upgrade, downgrade and stamp on one connection; the commands that only read use it, too.

`OnlineRun.migrate` is a run from top to bottom: take the run lock, find the steps, guard the rows, run each revision in
its own transaction.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg2
from alembic.runtime.migration import RevisionStep
from psycopg2.errors import DiskFull
from sqlalchemy.exc import SQLAlchemyError

from mlops_db.errors import DataLossError, MlopsDbError, RefusedError, UsageError, alembic
from mlops_db.migration import lock, view_grants
from mlops_db.migration.autogenerate import comparison_options
from mlops_db.migration.batches import positions
from mlops_db.migration.blockers import BlockerWatch
from mlops_db.migration.database_state import (
    check_version_table_owner,
    refuse_steps_of_others,
    refuse_wrong_database,
)
from mlops_db.migration.dependents import refuse_dependents
from mlops_db.migration.distributed_tables import refuse_distributed
from mlops_db.migration.history import History
from mlops_db.migration.operations import OPTIONS, REVISION_FILE
from mlops_db.migration.plan import plan_lines, stamp_lines, step_name
from mlops_db.migration.preview import GIVING_UP, describe, written_sql
from mlops_db.migration.progress import duration
from mlops_db.migration.retry import with_retries
from mlops_db.migration.step import STEP, RunningStep, direction_name, disk_full
from mlops_db.migration.transaction import revision_statements, unfinished_refusal
from mlops_db.server.citus import BOUND_WAITS_ON_WORKERS, has_citus
from mlops_db.server.failures import find_server_error, first_line
from mlops_db.server.guests import REFUSE_GUESTS, SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection, MetaData

    from mlops_db.migration.backup import Backup
    from mlops_db.migration.guard.row_guard import RowGuard
    from mlops_db.migration.options import Options
    from mlops_db.migration.progress import Progress
    from mlops_db.revisions.graph import Graph
    from mlops_db.settings import Settings

    Steps = Callable[[Any, MigrationContext], Iterable[Any]]


@dataclass
class OnlineRun:
    """One command on one connection.

    Attributes:
        context: Alembic's, of the command.
        connection: runs everything.
        graph: the revisions of the project.
        settings: where the connection goes, and what protects its rows.
        options: those of `-x`.
        progress: shows what happens.
        metadatas: the schema at head; then those of a project beside ours.
    """

    context: EnvironmentContext
    connection: Connection
    graph: Graph
    settings: Settings
    options: Options
    progress: Progress
    metadatas: Sequence[MetaData]

    current: str = ""  # the revision of the step that runs
    guard: RowGuard | None = None  # of that step
    attempted_downgrades: set[str] = field(default_factory=set)
    downgrades: dict[str, str | None] = field(default_factory=dict)  # their SQL by revision; None if it is not known
    step: RunningStep | None = None  # the last one
    grants_saved: bool = False
    on_citus: bool = False  # known once it migrates
    total: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        """Note whether the caller has begun a transaction: then it is also the caller who ends it."""
        self.callers_transaction = self.connection.in_transaction()
        self.describe_blockers: Callable[[], str] = lambda: "nobody seen"
        self.history = History(self.connection, self.graph, callers_transaction=self.callers_transaction)
        self.backup: Backup | None = None
        if self.options.backup is not None:
            from mlops_db.migration.backup import Backup  # noqa: PLC0415  (other runs start without it)

            self.backup = Backup(self.options.backup, self.settings, self.options)

    def carry_out(self) -> None:
        """Carry out the command."""
        migration = self.configure()
        if "destination_rev" in migration.opts:
            self.migrate(migration)
        else:
            self.read(migration)

    def migrate(self, migration: MigrationContext) -> None:
        """Carry out upgrade, downgrade or stamp."""
        alembics_steps: Steps = migration.opts["fn"]
        self.progress.fields["target"] = self.settings.target
        lock.require_direct_connection(self.connection)
        self.end_reading()
        if self.options.plan:
            self.print_plan(migration, alembics_steps)
            return
        with (
            self.logged_failure(),
            lock.run_lock(self.connection, wait_ms=self.options.lock_wait, progress=self.progress),
        ):
            self.refuse_guests()
            steps = self.find_steps(migration, alembics_steps)
            self.prepare_backup(steps)
            if migration.opts.get("purge"):  # of stamp; Alembic empties its table before it asks for the steps
                self.attempt(alembics_steps)
            elif steps:
                self.refuse_distributed(steps)
                self.refuse_dependents(steps)
                self.guard_rows(steps)
                with self.logged_steps(steps):
                    self.run_steps(steps)
            else:
                self.history.close_interrupted()
                self.progress.note("%s: nothing to do", self.settings.target)
            self.note_unfinished_batches()

    @contextmanager
    def logged_failure(self) -> Iterator[None]:
        """Log why the run fails; it may be one of several in a program that goes on."""
        try:
            yield
        except BaseException as error:
            is_ours = isinstance(error, MlopsDbError)
            text = str(error if is_ours else find_server_error(error) or error)
            reason = first_line(text) if text else type(error).__name__  # the other lines may have values of rows
            where = f"revision {self.current}" if self.current else "the run"
            fields = {"revision": self.current} if self.current else {}
            self.progress.log(logging.ERROR, "%s failed: %s", where, reason, **fields, error=type(error).__name__)
            raise

    @contextmanager
    def logged_steps(self, steps: list[Any]) -> Iterator[None]:
        """Log the beginning and the end of the run."""
        began = time.monotonic()
        ends = " and ".join(steps[-1].info.destination_revision_ids) or "base"
        begins = " and ".join(steps[0].info.source_revision_ids) or "base"
        fields = {"from_revision": begins, "to_revision": ends, "steps": len(steps)}
        self.progress.log(logging.INFO, "the run from %s to %s begins, steps: %s", begins, ends, len(steps), **fields)
        yield
        took_s = time.monotonic() - began
        self.progress.log(
            logging.INFO,
            "the run from %s to %s has ended, after %s",
            begins,
            ends,
            duration(took_s),
            **fields,
            duration_s=round(took_s, 3),
        )

    def note_unfinished_batches(self) -> None:
        """Warn of revisions that were stopped between their batches, and that this run has not finished."""
        if self.connection.exec_driver_sql(f"SELECT {positions.ARE_THERE}").scalar_one():
            for revision, direction, rows in self.connection.exec_driver_sql(positions.UNFINISHED):
                self.progress.warn(
                    f"revision {revision} ({direction}) was stopped when it had changed {rows:,} rows; "
                    f"the same {direction} finishes it",
                    revision=revision,
                    direction=direction,
                )
        self.end_reading()

    def read(self, migration: MigrationContext) -> None:
        """Carry out check, current, history or autogenerate, which must not leave an alembic_version behind."""
        if "revision_context" in migration.opts:
            self.refuse_guests()
            migration = self.configure(**comparison_options(self.metadatas, migration.opts["fn"], migration))
        refuse_wrong_database(migration, self.graph, self.settings.target)
        migration.opts["dont_mutate"] = True
        self.end_reading()
        try:
            self.run_migrations()
        except AssertionError as error:  # Alembic's: the revisions that it sorts are connected by depends_on only
            if not (shown := getattr(self.context.config.cmd_opts, "rev_range", None)):
                raise
            raise RefusedError(
                f"Alembic cannot list {shown}, whose ends are on two lines of revisions",
                hint=f"Name two ends of one line. `{alembic('history')}` lists all lines.",
            ) from error
        if not self.callers_transaction:
            self.connection.commit()  # ensure_version writes even then

    def configure(self, **options: Any) -> MigrationContext:
        """Create Alembic's context, with further options."""
        self.context.configure(
            **{
                "connection": self.connection,
                "target_metadata": self.metadatas[0],
                "transaction_per_migration": True,
                "version_table_schema": "public",
                OPTIONS: self.options,
                **options,
            }
        )
        migration = self.context.get_context()
        check_version_table_owner(migration, self.settings.target)
        return migration

    def run_migrations(self) -> None:
        """Let Alembic run its function."""
        with self.context.begin_transaction():
            self.context.run_migrations()

    def refuse_guests(self) -> None:
        """Stop if another role has created objects that the run could take for PostgreSQL's or ours."""
        self.connection.exec_driver_sql(REFUSE_GUESTS, execution_options={"no_parameters": True})

    def end_reading(self) -> None:
        """End the transaction that reading began: Alembic would take it for its caller's, and commit nothing."""
        if not self.callers_transaction:
            self.connection.rollback()

    def find_steps(self, migration: MigrationContext, alembics_steps: Steps) -> list[Any]:
        """Ask Alembic for the steps from the revision of the database to the target."""
        refuse_wrong_database(migration, self.graph, self.settings.target)
        steps = list(alembics_steps(migration.get_current_heads(), migration))
        self.end_reading()
        refuse_steps_of_others(
            self.graph,
            steps,
            migration.opts["destination_rev"],
            self.settings.target,
            purge=bool(migration.opts.get("purge")),
        )
        return steps

    def refuse_distributed(self, steps: list[Any]) -> None:
        """Stop before the first step if one of them does not run while a table is distributed that is."""
        with closing(cast("Cursor", self.connection.connection.cursor())) as cursor:
            self.on_citus = has_citus(cursor)
        if self.on_citus:
            refuse_distributed(self.connection, [step for step in steps if isinstance(step, RevisionStep)])
        self.end_reading()

    def refuse_dependents(self, steps: list[Any]) -> None:
        """Stop before the first step if something of others depends on what one of them drops or replaces."""
        revisions = [step.revision for step in steps if isinstance(step, RevisionStep)]
        is_upgrade = bool(revisions) and steps[0].is_upgrade
        first = self.graph.revisions[0].id
        # Before our first revision there is nothing of ours.
        if revisions and not (is_upgrade and any(one.revision == first for one in revisions)):
            refuse_dependents(self.connection, self.context.script, revisions, is_upgrade=is_upgrade)
        self.end_reading()

    def print_plan(self, migration: MigrationContext, alembics_steps: Steps) -> None:
        """Print what the run would do."""
        steps = self.find_steps(migration, alembics_steps)
        self.prepare_backup(steps)
        if "purge" in migration.opts:  # of stamp, which with --purge asks for the steps from an empty table
            recorded, purge = migration.get_current_heads(), migration.opts["purge"]
            kept = () if purge else recorded
            lines = stamp_lines(recorded, kept, alembics_steps(kept, migration), self.settings.target)
        else:
            lines = plan_lines(self.connection, steps, self.settings.target, backup=self.backup is not None)
        for line in lines:
            self.context.config.print_stdout(line)
        self.end_reading()

    def guard_rows(self, steps: list[Any]) -> None:
        """Read from the SQL of downgrades which rows they lose: refuse that in production, else warn."""
        self.downgrades = {
            step.revision.revision: written_sql(step.revision, "downgrade") for step in steps if _is_downgrade(step)
        }
        if not self.downgrades:
            return
        from mlops_db.migration.guard.sql_losses import find_losses, refuse_losses  # noqa: PLC0415  (as below)

        losses = find_losses(self.connection, self.downgrades)
        self.end_reading()
        if self.protects_rows and self.backup is None:
            refuse_losses(losses)
        for verb, certain in (("loses", True), ("may lose", False)):
            if lost := ", ".join(loss.what for loss in losses if loss.certain == certain):
                self.progress.warn("this downgrade %s %s", verb, lost)

    @property
    def protects_rows(self) -> bool:
        """Whether a downgrade must not lose rows, or none that are not in a backup."""
        return self.backup is not None or (
            self.settings.environment == "production" and not self.options.allow_data_loss
        )

    def prepare_backup(self, steps: list[Any]) -> None:
        """Find what the backups of `-x backup` need, and refuse it where there can be none."""
        if self.backup is None:
            return
        if not all(map(_is_downgrade, steps)):
            raise UsageError(
                "-x backup is for downgrades; nothing was changed",
                hint="Leave it out: only a downgrade loses rows. A backup of the whole database is made with pg_dump.",
            )
        if self.context.config.attributes.get("connection") is not None:
            raise RefusedError(
                "-x backup needs a connection of the run's own, and was given one; nothing was changed",
                hint="Run it without config.attributes['connection'].",
            )
        self.backup.prepare(self.connection)

    def back_up(self, revision: str) -> list[int] | None:
        """Back up what the downgrade of a revision loses, at the beginning of its transaction; returns the tables."""
        if self.backup is None:
            return None
        from mlops_db.migration.guard.sql_losses import find_losses  # noqa: PLC0415  (upgrades start without it)

        losses = find_losses(self.connection, {revision: self.downgrades[revision]})
        self.backup.need(revision, {loss.table for loss in losses if loss.certain and loss.table is not None})
        tables = self.backup.lock(self.connection, revision)
        if tables:
            names = ", ".join(table.shown for table in tables if table.asked)
            self.progress.note(f"backup of {names} begins; sessions that write wait until revision {revision} is done")
            file = self.backup.write(self.connection, revision, tables)
            self.history.name_backup(str(file))
            self.progress.note("backup of %s: %s", names, file, revision=revision)
        return [table.oid for table in tables]

    def run_steps(self, steps: list[Any]) -> None:
        """Run the steps; retry one that gets no lock, unless the caller's transaction would fail with it."""
        for step in steps:
            if isinstance(step, RevisionStep):
                step.migration_fn = self.in_transaction(step)
        self.total = len(steps)

        def steps_left(*_: Any) -> list[Any]:
            # Alembic is not asked again: after a first step, the +2 of `alembic upgrade +2` would lead further.
            return steps[self.done :]

        if self.callers_transaction:
            self.attempt(steps_left)
            return
        driver: Any = self.connection.connection.dbapi_connection
        watch = BlockerWatch(
            self.settings,
            driver.info.backend_pid,  # that of the server, as there is no pooler in between
            self.progress,
            lock_timeout_ms=self.options.lock_timeout,
            show_queries=self.options.show_queries,
        )
        # The watch connects by itself, and the password of a caller's connection is not known here.
        self.describe_blockers = lambda: watch.describe_blockers(self.connection)
        callers_connection = self.context.config.attributes.get("connection") is not None
        with nullcontext() if callers_connection else watch.running():
            with_retries(
                lambda: self.attempt_with_backups(steps_left),
                position=lambda: self.done,
                blockers=self.describe_blockers,
                retry_for_ms=self.options.retry_for,
                progress=self.progress,
            )

    def attempt_with_backups(self, steps: Steps) -> None:
        """Run the steps; if the guard finds a loss and there are backups, run that step again with one of it."""
        while True:
            try:
                self.attempt(steps)
            except DataLossError as error:  # noqa: PERF203  (the loop exists for the retry)
                unsaved = self.guard.unsaved if self.guard else set()
                if self.backup is None or not self.backup.need(self.current, unsaved):
                    raise
                self.progress.note(f"{error}; next try with a backup")
            else:
                return

    def attempt(self, steps: Steps) -> None:
        """Run the steps, and record them in the history."""
        migration = self.configure(
            fn=lambda heads, migration: self.record_steps(steps(heads, migration)),
            on_version_apply=self.before_commit,
        )
        try:
            self.create_tables(migration)
            self.run_migrations()
        except Exception as error:
            if not self.callers_transaction:
                self.roll_back()
                self.record_failure(error)
            if isinstance(error, NotImplementedError):
                raise unfinished_refusal(self.current) from error
            if isinstance(cause := find_server_error(error), DiskFull) and self.step is not None:
                raise disk_full(self.step, cause) from error
            raise

    def create_tables(self, migration: MigrationContext) -> None:
        """Create the history and alembic_version, and check again that no other role owns them."""
        self.history.create()
        migration._ensure_version_table()  # noqa: SLF001  (or Alembic would create it later, or use another role's)
        if not self.callers_transaction:
            self.connection.commit()
        self.refuse_guests()
        self.history.close_interrupted()

    def record_steps(self, steps: Iterable[Any]) -> Iterator[Any]:
        """Hand Alembic one step after the other; it commits each before it asks for the next."""
        for step in steps:
            if isinstance(step, RevisionStep):
                self.current, label = step.revision.revision, step_name(step)
                direction = "upgrade" if step.is_upgrade else "downgrade"
            else:
                self.current, direction = ", ".join(step.info.destination_revision_ids) or "base", "stamp"
                label = self.current
            self.grants_saved = self.history.begin_step(self.current, direction)
            label = label if direction == "upgrade" else f"{direction} {label}"
            place = f"[{self.done + 1}/{max(self.total, self.done + 1)}]"
            self.progress.begin(f"{place} {label}", revision=self.current, direction=direction)
            yield step
            if self.backup is not None:
                self.backup.file = None  # it belongs to a step that is done, and stays
            self.progress.done()
            self.done += 1

    def in_transaction(self, step: RevisionStep) -> Callable[..., None]:
        """Wrap upgrade() or downgrade() of a revision, so that it keeps to its transaction and loses no row."""
        revision, migrate = step.revision.revision, step.migration_fn

        @wraps(migrate)
        def migrate_in_transaction(**options: Any) -> None:
            self.guard = None
            if self.on_citus:
                with closing(cast("Cursor", self.connection.connection.cursor())) as cursor:
                    cursor.execute(BOUND_WAITS_ON_WORKERS)
            if self.protects_rows and not step.is_upgrade:
                from mlops_db.migration.guard.row_guard import RowGuard  # noqa: PLC0415  (upgrades start without it)

                driver = self.connection.connection.dbapi_connection
                self.guard = RowGuard(
                    driver,
                    revision,
                    keep_readers_out=revision in self.attempted_downgrades,
                    backed_up=self.back_up(revision),
                    on_citus=self.on_citus,
                )
                self.attempted_downgrades.add(revision)
            migration = self.context.get_context()
            migration.opts[REVISION_FILE] = Path(step.revision.path)
            with revision_statements(migration, revision, self.guard, on_citus=self.on_citus) as transaction:
                migration.opts[STEP] = self.step = RunningStep(
                    revision,
                    direction_name(is_upgrade=step.is_upgrade),
                    transaction,
                    self.progress,
                    self.describe_blockers,
                    describe(step.revision.module.__doc__ or "").sections.get(GIVING_UP, ""),
                )
                migrate(**options)

        return migrate_in_transaction

    def before_commit(self, *, step: MigrationInfo, heads: set[str], **_: Any) -> None:
        """Alembic's on_version_apply: the last thing in a revision's transaction."""
        if self.grants_saved:
            view_grants.restore(self.connection)
        if step.is_stamp:
            purged = self.context.get_context().opts.get("purge")
            self.history.complete(None, heads, passed=None if purged else self.graph.between(step))
        else:
            self.history.complete(self.current, heads, passed=[self.current])

    @property
    def has_connection(self) -> bool:
        """Whether the connection is open: it can break, or a revision can close it through the driver."""
        return not self.connection.invalidated and self.connection.connection.dbapi_connection is not None

    def roll_back(self) -> None:
        """Roll back, even if SQLAlchemy believes that a revision has ended the transaction."""
        if self.has_connection:
            with suppress(psycopg2.Error):  # the connection broke, and the transaction with it
                self.connection.rollback()
                self.connection.connection.rollback()
                self.connection.exec_driver_sql(f"SET search_path = {SAFE_PATH}")
                self.connection.commit()

    def record_failure(self, error: Exception) -> None:
        """Record in the history why the step failed."""
        if not self.has_connection:
            return  # the run lock went with the connection; the next run marks the entry as interrupted
        reason = str(find_server_error(error) or error).strip() or type(error).__name__
        with suppress(SQLAlchemyError, MlopsDbError):  # the connection broke
            self.connection.rollback()
            if not self.history.record_failure(reason) and self.backup is not None:
                self.backup.discard()


def _is_downgrade(step: Any) -> bool:
    return isinstance(step, RevisionStep) and not step.is_upgrade
