"""Checks every revision of a project, for the author of the next one and for CI.

First the files are read. Then the revisions run, on scratch databases of the server that the settings name: each goes
up, down and up again, with rows in every table. The rules of `lint.rules` judge the files and the runs.
"""

from __future__ import annotations

import configparser
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple
from psycopg2 import sql
from sqlalchemy import event

from mlops_db.drift.scratch import scratch_database
from mlops_db.errors import SettingsError
from mlops_db.lint.lineage import Lineage
from mlops_db.lint.observation import BATCH, Head, Moment, Run, Step, Watch, read_moment
from mlops_db.lint.revision_source import Project, RevisionSource
from mlops_db.lint.rows import Coming, insert_rows
from mlops_db.lint.rule import FileRule, Finding, first_line
from mlops_db.lint.rules import ACCEPTABLE, FILE_RULES, HEAD_RULES, RULES, RUN_RULES
from mlops_db.lint.writes import find_refused_writes, find_working_writes
from mlops_db.migration.commands import alembic_config, run_command
from mlops_db.migration.history import CREATE as CREATE_HISTORY
from mlops_db.migration.progress import Progress
from mlops_db.migration.revision_graph import checked_folders, graph_of, our_folder
from mlops_db.migration.session import migration_connection
from mlops_db.revisions.files import revision_paths
from mlops_db.server.connection import open_cursor
from mlops_db.server.failures import find_server_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from alembic.config import Config
    from alembic.script import Script
    from sqlalchemy import Connection

    from mlops_db.revisions.graph import Graph
    from mlops_db.settings import Settings

_COLUMN_OF = {rule.name: rule.column for rule in RULES}


@dataclass(frozen=True)
class Report:
    """What the rules found.

    Attributes:
        project: the revisions.
        findings: everything that is wrong.
        ran: which columns of the table were checked for which file; nothing runs after a revision that does not run.
    """

    project: Project
    findings: list[Finding] = field(default_factory=list)
    ran: set[tuple[str, str]] = field(default_factory=set)

    @property
    def files(self) -> list[str]:
        """The revisions' file names, in order."""
        return [file.name for file in self.project.files]

    def verdict(self, file: str, column: str) -> str:
        """`ok`, the number of findings, or `-` for what did not run."""
        count = sum(finding.file == file and _COLUMN_OF[finding.rule] == column for finding in self.findings)
        if count:
            return str(count)
        return "ok" if (file, column) in self.ran else "-"

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings that are not there yet: a second upgrade can repeat those of the first."""
        self.findings.extend(found for found in dict.fromkeys(findings) if found not in self.findings)


def check_revisions(settings: Settings, ini: Path, *, progress: TextIO | None = None) -> Report:
    """Check every revision of the project of `ini`.

    Args:
        settings: the server for the scratch databases; the role needs CREATEDB, nothing else is touched.
        ini: the project's alembic.ini.
        progress: a stream for the progress.

    Raises:
        ConnectionFailedError: no connection to the server.
        NotPermittedError: the role may not create databases.
        MissingExtraError: squawk is needed and not installed.
        SettingsError: there is no project.
        RefusedError: it has no revisions.
    """
    config = alembic_config(settings, ini=ini)
    try:
        directory = ScriptDirectory.from_config(config)
        folders = checked_folders(directory)
    except (CommandError, configparser.Error, ImportError, OSError, ValueError) as error:
        raise SettingsError(
            f"there is no Alembic project at {ini}: {' '.join(str(error).split())}",
            hint="Set ALEMBIC_CONFIG to its alembic.ini, or unset it.",
        ) from error
    graph = graph_of(directory)
    is_beside = our_folder(directory) not in folders
    if is_beside or not any(map(revision_paths, folders)):
        graph.refuse_faults()
    report = Report(read_project(folders, graph, is_beside=is_beside))
    report.add(check_files(report.project, FILE_RULES))
    report.ran.update((file, "files") for file in report.files)
    stopping = {rule.name for rule in FILE_RULES if rule.stops_runs}
    if not any(finding.rule in stopping for finding in report.findings):
        shown = Progress(progress)
        try:
            _Runs(settings, config, report, shown).run_all(directory)
        finally:
            shown.stop()
    return report


def read_project(folders: Iterable[Path], graph: Graph, *, is_beside: bool = False) -> Project:
    """Read the revisions of folders."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return Project([RevisionSource.read(path) for path in paths], graph, ACCEPTABLE, is_beside=is_beside)


def check_files(project: Project, rules: Iterable[FileRule]) -> Iterator[Finding]:
    """Every finding of these rules, file by file."""
    for file in project.files:
        for rule in rules:
            accepted = rule.may_be_accepted and file.accepts(rule.name)
            if rule.name == "syntax" or (file.error is None and not accepted):
                yield from rule.complete(rule.check(file, project), file.name)


class _Runs:
    """Runs the revisions, one after the other, and has the rules judge each."""

    def __init__(self, server: Settings, config: Config, report: Report, progress: Progress) -> None:
        self.server = server
        self.config = config
        self.report = report
        self.progress = progress
        self.lineage = Lineage()
        self.runs: list[Run] = []
        self.branched = False
        self.last = "base"
        self.without_rows: set[str] = set()
        self.before_copy: tuple[str, Moment] | None = None
        self.database: Settings
        self.watch: Watch

    def run_all(self, directory: ScriptDirectory) -> None:
        scripts = list(reversed(list(directory.walk_revisions())))
        self.follow_columns()
        with (
            scratch_database(self.server) as self.database,
            scratch_database(self.server) as scripted,
            migration_connection(self.database) as connection,
        ):
            self.watch = Watch(connection)
            for scratch in (self.database, scripted):
                with open_cursor(scratch) as cursor:
                    cursor.execute(CREATE_HISTORY)  # runs leave it, so it is there before the first revision, too
            self.config.attributes.update(settings=self.database, connection=connection)
            checked = {file.name for file in self.report.project.files}
            for number, script in enumerate(scripts, 1):
                self.progress.begin(f"[{number}/{len(scripts)}] {Path(script.path).stem}")
                if Path(script.path).name not in checked:  # ours, below a project beside ours
                    run_command(command.upgrade, self.config, script.revision)
                elif not self.check(script, scripted):
                    return
                self.last = script.revision
                self.progress.done()
            head = Head(self.runs, self.database, self.server, self.config)
            for rule in HEAD_RULES:
                self.report.add(rule.complete(rule.check(head)))
                self.report.ran.update((run.file.name, rule.column) for run in self.runs if not run.is_baseline)

    def follow_columns(self) -> None:
        """Run all revisions once, to read the CHECKs that rows have to meet at later revisions."""
        with scratch_database(self.server) as scratch, migration_connection(scratch) as connection:

            def note(connection: Connection) -> None:
                driver: Any = connection.connection.dbapi_connection
                with closing(driver.cursor()) as cursor:
                    self.lineage.note(cursor)

            event.listen(connection, "commit", note)
            self.config.attributes.update(settings=scratch, connection=connection)
            # A revision that does not run is found when its turn comes.
            with suppress(Exception):
                run_command(command.upgrade, self.config, "heads")

    def check(self, script: Script, scripted: Settings) -> bool:
        """Check one revision; False if it does not run, so that no later one can run."""
        parents = to_tuple(script.down_revision, default=("base",))
        file = next(file for file in self.report.project.files if file.name == Path(script.path).name)
        run = Run(file, script, parents, self.config, scripted)
        before = self.last
        try:
            self.run_online(run, before)
        except Exception as error:  # noqa: BLE001  (a revision can raise anything)
            run.error = error
            self.find_broken_constraint(run, before)
        for rule in RUN_RULES:
            # The script of a revision beside ours begins at one of ours, which this rule does not know.
            if rule.applies(run) and not (self.report.project.is_beside and rule.name == "sql-mode"):
                if not (rule.may_be_accepted and file.accepts(rule.name)):
                    self.report.add(rule.complete(rule.check(run), file.name))
                if run.error is None:
                    self.report.ran.add((file.name, rule.column))
        run.steps.clear()  # all those rows
        self.runs.append(run)
        return run.error is None

    def run_online(self, run: Run, before: str) -> None:
        """Take a revision up, down and up again."""
        revision = run.script.revision
        coming = self.lineage.coming(before)
        self.fill(coming)
        worked = {} if run.is_baseline else find_working_writes(self.database, coming)

        upgrade = self.migrate(run, command.upgrade, revision)
        if worked:
            run.refused = find_refused_writes(self.database, worked)

        self.fill(self.lineage.coming(revision))
        # Beside another branch, "0005" would take that one back, too; a merge goes back to either of its branches.
        self.branched = self.branched or run.parents != (before,)
        back = f"{revision}@-1" if self.branched and len(run.parents) == 1 else run.parents[0]
        self.migrate(run, command.downgrade, back)

        changed_whole = [] if run.is_baseline else upgrade.changed_whole()
        if changed_whole:  # the second upgrade finds more rows than a batch may have
            with open_cursor(self.database) as cursor:
                insert_rows(cursor, coming, rows=BATCH + 1)
        again = self.migrate(run, command.upgrade, revision)
        run.made = again.after.catalogue
        self.go_back_before_copy(run, back)
        if changed_whole:
            tables = sql.SQL(", ").join(table.sql for table in again.after.tables.values())
            with open_cursor(self.database) as cursor:
                cursor.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))

    def go_back_before_copy(self, run: Run, back: str) -> None:
        """If the revision ends a copy of a table, take back the whole copy, and do it again."""
        if run.file.is_one_way:
            self.before_copy = None
        elif run.steps[-1].after.copies:
            self.before_copy = self.before_copy or (back, run.steps[0].before)
        elif self.before_copy:
            (target, before), self.before_copy = self.before_copy, None
            self.watch.step = None
            run_command(command.downgrade, self.config, target)
            run.whole_way = before.catalogue, read_moment(self.database).catalogue
            run_command(command.upgrade, self.config, run.script.revision)

    def fill(self, coming: Coming) -> None:
        """Insert rows into every table; a note names each table that takes none."""
        with open_cursor(self.database) as cursor:
            refused = insert_rows(cursor, coming)
        for table, error in refused.items():
            if table not in self.without_rows:
                self.without_rows.add(table)
                self.progress.note(f"no rows for {table}, so the rules cannot judge it: {first_line(error)}")

    def migrate(self, run: Run, function: Callable[..., object], target: str) -> Step:
        """Go up or down, and record what that does."""
        step = Step(function.__name__, read_moment(self.database, run.steps[-1].after if run.steps else None))
        self.watch.step = step
        run_command(function, self.config, target)
        step.after = read_moment(self.database)
        run.steps.append(step)
        return step

    def find_broken_constraint(self, run: Run, before: str) -> None:
        """Find the earlier revision whose constraint the rows of before violate, if that is why it does not run."""
        error = find_server_error(run.error) if run.error is not None else None
        # From ExecConstraints, the revision itself has written the row.
        if error is None or error.diag.constraint_name is None or error.diag.source_function == "ExecConstraints":
            return
        maker = self.lineage.made_by(error.diag.constraint_name, before, run.script.revision)
        for earlier in self.runs:
            if earlier.script.revision == maker:
                run.broken_constraint, run.broken_file = error.diag.constraint_name, earlier.file.name
