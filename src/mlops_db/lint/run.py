"""The checks of the revisions themselves, for the author of the next one and for CI.

What needs a server runs on scratch databases of the one that the settings name: each revision goes up, down and up
again with rows in every table, and once more as a `--sql` script. `lint.rules` judges what it did meanwhile.
"""

from __future__ import annotations

import configparser
import io
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError, load_python_file, to_tuple
from psycopg2 import sql
from sqlalchemy import event

from mlops_db.drift.catalogue import Catalogue, read_catalogue
from mlops_db.drift.compare import Difference, differences
from mlops_db.drift.scratch import scratch_database
from mlops_db.errors import SettingsError
from mlops_db.lint.lineage import Lineage
from mlops_db.lint.observation import Step, Watch, look, writers
from mlops_db.lint.revision_files import (
    Finding,
    RevisionFile,
    accepted_rules,
    file_findings,
    is_one_way,
    strongest_lock,
)
from mlops_db.lint.rows import insert_rows
from mlops_db.lint.rules import (
    copies,
    locks,
    losses,
    names,
    running_code,
    schema_edits,
    squawk,
    two_tables,
    whole_tables,
)
from mlops_db.migration.commands import alembic_config, run_command
from mlops_db.migration.history import CREATE as CREATE_HISTORY
from mlops_db.migration.preview import describe, written_sql
from mlops_db.migration.progress import Progress
from mlops_db.migration.revision_graph import graph_of
from mlops_db.migration.session import migration_connection
from mlops_db.project import BASELINE, alembic_ini
from mlops_db.revisions.files import revision_paths
from mlops_db.server.client_programs import copy_schema, run_script
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from alembic.config import Config
    from alembic.script import Script
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.lint.rows import Coming
    from mlops_db.settings import Settings

KEEP_FROM_RUNNING = ("syntax", "loads", "upgrade", "one-id", "one-head", "linear", "name")
CHECKS = ("files", "round trip", "--sql", "squawk", "locks", "rows", "names", "copies")
_RULES = {
    "round-trip": "round trip",
    "sql-mode": "--sql",
    squawk.RULE: "squawk",
    locks.RULE: "locks",
    two_tables.RULE: "locks",
    whole_tables.RULE: "rows",
    losses.RULE: "rows",
    running_code.RULE: "rows",
    names.RULE: "names",
    copies.RULE: "copies",
}
_VERSION_TABLE = "public.alembic_version"


@dataclass(frozen=True)
class Report:
    """What the checks found.

    Attributes:
        files: the revisions' file names, in order.
        findings: everything that is wrong.
        ran: which of `CHECKS` were carried out for which file; a run ends at the first revision that does not run.
    """

    files: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)
    ran: set[tuple[str, str]] = field(default_factory=set)

    def verdict(self, file: str, check: str) -> str:
        """`ok`, the number of findings, or `-` for what did not run."""
        count = sum(finding.file == file and _RULES.get(finding.rule, "files") == check for finding in self.findings)
        if count:
            return str(count)
        return "ok" if (file, check) in self.ran else "-"


def check_revisions(settings: Settings, ini: Path, *, progress: TextIO | None = None) -> Report:
    """Check every revision of the project of `ini`.

    Args:
        settings: the server for the scratch databases; the role needs CREATEDB, nothing else is touched.
        ini: the project's alembic.ini.
        progress: a stream that is told what is being checked.

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
        folder = Path(directory.versions)
    except (CommandError, configparser.Error, ImportError, OSError, ValueError) as error:
        raise SettingsError(
            f"there is no Alembic project at {ini}: {' '.join(str(error).split())}",
            hint="Set ALEMBIC_CONFIG to its alembic.ini, or unset it.",
        ) from error
    graph = graph_of(directory)
    if not revision_paths(folder):
        graph.refuse_faults()
    report = Report(tuple(path.name for path in sorted(folder.glob("*.py"))))
    report.findings.extend(file_findings(folder))
    report.findings.extend(Finding(each.files[-1], "one-id", each.message, each.remedy) for each in graph.shared_ids)
    report.ran.update((file, "files") for file in report.files)
    report.findings.extend(_import_errors(folder, report))
    if not any(finding.rule in KEEP_FROM_RUNNING for finding in report.findings):
        told = Progress(progress)
        try:
            _Runs(settings, config, report, told).run(directory)
        finally:
            told.stop()
    return report


def _import_errors(folder: Path, report: Report) -> Iterator[Finding]:
    unreadable = {finding.file for finding in report.findings if finding.rule == "syntax"}
    for file in report.files:
        if file not in unreadable:
            try:
                load_python_file(folder, file)
            except Exception as error:  # noqa: BLE001  (importing a revision runs whatever is in it)
                yield Finding(file, "loads", f"it cannot be imported: {_first_line(error)}", "Mend it.")


class _Runs:
    """The checks that run the revisions, one after the other, on two scratch databases: online, and by `--sql`."""

    def __init__(self, settings: Settings, config: Config, report: Report, progress: Progress) -> None:
        self.settings = settings
        self.config = config
        self.report = report
        self.progress = progress
        self.lineage = Lineage()
        self.previous = "base"
        self.branched = False
        self.accepted: dict[str, set[str]] = {}
        self.files: dict[str, str] = {}
        self.made: dict[str, Catalogue] = {}
        self.without_rows: set[str] = set()
        self.watch: Watch

    def run(self, directory: ScriptDirectory) -> None:
        scripts = list(reversed(list(directory.walk_revisions())))
        self.files = {script.revision: Path(script.path).name for script in scripts}
        self.accepted = {Path(script.path).name: set(accepted_rules(script.module.__doc__ or "")) for script in scripts}
        self.follow_columns()
        with (
            scratch_database(self.settings) as online,
            scratch_database(self.settings) as scripted,
            _run_connection(online) as connection,
        ):
            self.watch = Watch(connection)
            for scratch in (online, scripted):
                with open_cursor(scratch) as cursor:
                    cursor.execute(CREATE_HISTORY)  # it stays, so it is there before the first revision, too
            self.config.attributes.update(settings=online, connection=connection)
            for number, script in enumerate(scripts, 1):
                self.progress.begin(f"[{number}/{len(scripts)}] {Path(script.path).stem}")
                if not self.check(script, online, scripted):
                    return
                self.progress.done()
            self.check_head(online)

    def follow_columns(self) -> None:
        """Run all revisions once, to know what rows have to keep to so that those still to come take them."""
        with scratch_database(self.settings) as scratch, _run_connection(scratch) as connection:

            def note(connection: Connection) -> None:
                driver: Any = connection.connection.dbapi_connection
                with closing(driver.cursor()) as cursor:
                    self.lineage.note(cursor)

            event.listen(connection, "commit", note)
            self.config.attributes.update(settings=scratch, connection=connection)
            # A revision that does not run is found, and told, when its turn comes.
            with suppress(Exception):
                run_command(command.upgrade, self.config, "heads")

    def check(self, script: Script, online: Settings, scripted: Settings) -> bool:
        """Check one revision; False if it does not run, so that none after it can."""
        file, revision = Path(script.path).name, script.revision
        parents = to_tuple(script.down_revision, default=("base",))
        # Beside another branch, "0005" would take that one back, too; a merge goes back to either of its branches.
        self.branched = self.branched or parents != (self.previous,)
        back = f"{revision}@-1" if self.branched and len(parents) == 1 else parents[0]
        before, self.previous = self.previous, revision
        try:
            start, up, down, again = self.there_and_back(script, online, before, back)
        except Exception as error:  # noqa: BLE001  (a revision can raise whatever its author did not think of)
            self.find(self.why_not(file, (before, revision), error))
            return False
        if not is_one_way(RevisionFile.read(Path(script.path))):
            for difference in differences(start, down):
                message = f"downgrade does not bring back {_told(difference)}"
                self.find(Finding(file, "round-trip", message, "Mend its downgrade."))
        for difference in differences(up, again):
            message = f"a second upgrade makes {_told(difference)}"
            self.find(Finding(file, "round-trip", message, "Mend its downgrade."))
        self.made[file] = again
        self.ran(file, "round trip", "locks")
        if len(parents) == 1:  # --sql has no way to say that it starts from two
            self.check_script(file, (parents[0], revision), scripted, (up, down, again))
        if revision > BASELINE:
            self.ran(file, "rows", "names")
            self.lint(file, script)
        return True

    def there_and_back(
        self, script: Script, online: Settings, before: str, back: str
    ) -> tuple[Catalogue, Catalogue, Catalogue, Catalogue]:
        """Take a revision up, down and up again; the catalogues before it and after each."""
        file, revision = Path(script.path).name, script.revision
        judged = revision > BASELINE
        sections = describe(script.module.__doc__ or "").sections
        declared = strongest_lock(sections.get("Locks", ""))
        coming = self.lineage.coming(before)
        with open_cursor(online) as cursor:
            self.fill(cursor, coming)
            start, names_before, written = _catalogue(cursor), names.read_names(cursor), _writers(cursor)
        worked = running_code.what_works(online, coming) if judged else {}

        upgrade = self.migrate(command.upgrade, revision, online, file, declared)
        with open_cursor(online) as cursor:
            up, names_after, rewritten = _catalogue(cursor), names.read_names(cursor), _writers(cursor)
        if judged:
            self.find(*names.check(upgrade, names_before, names_after))
            self.find(*two_tables.check(upgrade))
            self.find(*losses.check(upgrade))
            self.find(*running_code.check(file, online, worked))

        with open_cursor(online) as cursor:
            self.fill(cursor, self.lineage.coming(revision))
        downgrade = self.migrate(command.downgrade, back, online, file, declared)
        with open_cursor(online) as cursor:
            down = _catalogue(cursor)
        if judged:
            self.find(*two_tables.check(downgrade))
            if sections.get("Loss on downgrade", "").lower().startswith("nothing"):
                self.find(*losses.check(downgrade, of=upgrade.before.tables))

        suspects = whole_tables.changed_whole(upgrade, written, rewritten) if judged else []
        with self.many_rows(online, coming, suspects) as filled:
            self.migrate(command.upgrade, revision, online, file, declared)
            with open_cursor(online) as cursor:
                again, rewritten = _catalogue(cursor), _writers(cursor) if filled else {}
            for table, count in filled.items():
                self.find(*whole_tables.check(file, upgrade.before.tables[table], count, rewritten[table]))
        return start, up, down, again

    def fill(self, cursor: Cursor, coming: Coming) -> None:
        for table, error in insert_rows(cursor, coming).items():
            if table not in self.without_rows:
                self.without_rows.add(table)
                self.progress.note(f"no rows for {table}, so nothing is told of it: {_first_line(error)}")

    @contextmanager
    def many_rows(self, online: Settings, coming: Coming, tables: list[int]) -> Iterator[dict[int, Counter[str]]]:
        """For the time of the block, have more rows in these tables than a batch has; who has written theirs."""
        if not tables:
            yield {}
            return
        with open_cursor(online) as cursor:
            insert_rows(cursor, coming, rows=whole_tables.BATCH + 1)
            filled = _writers(cursor)
        yield {table: filled[table] for table in tables if table in filled}
        with open_cursor(online) as cursor:
            found = [table.sql for table in look(cursor, rows=False).tables.values()]
            cursor.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(sql.SQL(", ").join(found)))

    def why_not(self, file: str, revisions: tuple[str, str], error: Exception) -> Finding:
        """Why a revision does not run: of the rows of before, perhaps, because of a constraint of an earlier one."""
        said = running_code.server_error(error)
        constraint = said.diag.constraint_name if said is not None else None
        # Otherwise it is what the revision itself writes that breaks the constraint.
        if said is not None and constraint is not None and said.diag.source_function != "ExecConstraints":
            maker = self.files.get(self.lineage.made_by(constraint, *revisions) or "", file)
            if maker != file:
                return Finding(
                    maker, "round-trip", f"rows that may be there break its {constraint}, so {file} does not run:"
                    f" {_first_line(error)}", "Look for such rows first, and stop with what they are.",
                )  # fmt: skip
        return Finding(file, "round-trip", f"it does not run with rows there: {_first_line(error)}", "Mend it.")

    def migrate(
        self, function: Callable[..., object], target: str, scratch: Settings, file: str, declared: int
    ) -> Step:
        """Go up or down, and see what that does."""
        with open_cursor(scratch) as cursor:
            step = Step(file, function.__name__, look(cursor))
        with self.watch.watching(step):
            run_command(function, self.config, target)
        with open_cursor(scratch) as cursor:
            step.after = look(cursor)
        self.find(*locks.check(step, declared))
        return step

    def check_head(self, online: Settings) -> None:
        """What all revisions make together: the schema of the code, and the same in a copy."""
        # What another project's revisions make is nothing that this package's schema describes.
        if set(self.report.files) == {
            path.name for path in revision_paths(alembic_ini().parent / "migrations/versions")
        }:
            self.find(*schema_edits.check(self.config))
        with scratch_database(self.settings) as copy:
            copy_schema(online, copy)
            with open_cursor(copy) as cursor:
                copied = _catalogue(cursor)
        frozen = {file for revision, file in self.files.items() if revision <= BASELINE}
        self.find(*(finding for finding in copies.check(self.made, copied) if finding.file not in frozen))
        for file in self.made:
            self.ran(file, *(["copies"] if file not in frozen else []))

    def check_script(
        self, file: str, ends: tuple[str, str], scripted: Settings, online: tuple[Catalogue, Catalogue, Catalogue]
    ) -> None:
        """Run the revision as `--sql` writes it, up, down and up again, beside what the online run made each time."""
        before, revision = ends
        try:
            # A script that begins at base creates Alembic's table, and one that ends there leaves it.
            clear = f"DROP TABLE IF EXISTS {_VERSION_TABLE};\n" if before == "base" else ""
            up_sql = clear + self.script(command.upgrade, f"{before}:{revision}")
            down_sql = self.script(command.downgrade, f"{revision}:{before}")
        except Exception as error:  # noqa: BLE001  (as above)
            self.find(
                Finding(
                    file, "sql-mode", f"--sql fails: {_first_line(error)}", "Write it so that it needs no database."
                )
            )
            return
        self.start_at(before, scripted)
        for name, written, expected in zip(
            ("upgrade", "downgrade", "upgrade"), (up_sql, down_sql, up_sql), online, strict=True
        ):
            failure = run_script(scripted, written, "-v", "ON_ERROR_STOP=1")
            if failure:
                self.find(
                    Finding(file, "sql-mode", f"the script of its {name} fails: {failure}", "Mend what --sql writes.")
                )
                return
            for difference in differences(expected, _catalogue_of(scripted)):
                message = f"the script of its {name} makes {_told(difference)}"
                self.find(Finding(file, "sql-mode", message, "Let --sql write what the online run does."))
        self.ran(file, "--sql")

    @staticmethod
    def start_at(revision: str, scripted: Settings) -> None:
        """Let a script find what it goes on from, also where the one before failed, or is of another branch."""
        with open_cursor(scripted) as cursor:
            cursor.execute("SELECT to_regclass(%s)", (_VERSION_TABLE,))
            if revision == "base" or cursor.fetchone() == (None,):
                return
            cursor.execute(f"DELETE FROM {_VERSION_TABLE}")
            cursor.execute(f"INSERT INTO {_VERSION_TABLE} VALUES (%s)", (revision,))

    def script(self, function: Callable[..., object], target: str) -> str:
        buffer = io.StringIO()
        self.config.output_buffer = buffer
        try:
            run_command(function, self.config, target, sql=True)
        finally:
            self.config.output_buffer = None
        return buffer.getvalue()

    def lint(self, file: str, script: Script) -> None:
        """Have squawk read the upgrade, on its own: together with others, one revision can hide another's faults."""
        written = written_sql(script.module.upgrade)
        if written is None:
            self.find(Finding(file, squawk.RULE, "it writes no SQL without a database", "Make it work in --sql mode."))
            return
        self.find(*squawk.check(file, written))
        self.ran(file, "squawk")

    def find(self, *findings: Finding) -> None:
        for finding in findings:
            accepted = finding.rule in self.accepted.get(finding.file, ())
            if not accepted and finding not in self.report.findings:  # up and up again say the same
                self.report.findings.append(finding)

    def ran(self, file: str, *checks: str) -> None:
        self.report.ran.update((file, check) for check in checks)


def _run_connection(settings: Settings) -> AbstractContextManager[Connection]:
    return migration_connection(
        settings, lock_timeout=settings.lock_timeout, statement_timeout=settings.statement_timeout
    )


def _catalogue_of(scratch: Settings) -> Catalogue:
    with open_cursor(scratch) as cursor:
        return _catalogue(cursor)


def _catalogue(cursor: Cursor) -> Catalogue:
    """What the revisions make there; Alembic's own table is none of them."""
    found = read_catalogue(cursor)
    return {name: found[name] for name in found if _VERSION_TABLE not in (name.name, name.within)}


def _writers(cursor: Cursor) -> dict[int, Counter[str]]:
    return {oid: writers(cursor, table) for oid, table in look(cursor, rows=False).tables.items()}


def _told(difference: Difference) -> str:
    return f"a difference, {difference}"


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
