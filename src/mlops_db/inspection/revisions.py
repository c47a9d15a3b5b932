"""The checks of the revisions themselves, for the author of the next one and for CI.

What needs a server runs on scratch databases of the one that the settings name: each revision goes up, down and up
again with rows in every table, once more as a `--sql` script, and tells which locks it took.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError, load_python_file, to_tuple
from psycopg2.extensions import make_dsn
from sqlalchemy import event

from mlops_db.errors import MissingExtraError, SettingsError
from mlops_db.inspection.catalogue import Catalogue, read_catalogue
from mlops_db.inspection.drift import Difference, differences
from mlops_db.inspection.revision_files import (
    LOCK_MODES,
    Finding,
    RevisionFile,
    file_findings,
    is_one_way,
    strongest_lock,
)
from mlops_db.inspection.rows import insert_rows, read_checks
from mlops_db.inspection.scratch import scratch_database
from mlops_db.migration.commands import alembic_config, run_command
from mlops_db.migration.history import CREATE as CREATE_HISTORY
from mlops_db.migration.preview import describe, written_sql
from mlops_db.migration.progress import Progress
from mlops_db.migration.revision_graph import graph_of
from mlops_db.migration.session import migration_connection
from mlops_db.revisions.files import revision_paths
from mlops_db.revisions.graph import BASELINE
from mlops_db.server.connection import SafeCursor, connect, located
from mlops_db.server.embedded import client_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.config import Config
    from alembic.script import Script
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

    from mlops_db.settings import Settings

OLDEST_SERVER = "13"
KEEP_FROM_RUNNING = ("syntax", "loads", "upgrade", "one-id", "one-head", "linear", "name")
CHECKS = ("files", "round trip", "--sql", "squawk", "locks")
_RULES = {"round-trip": "round trip", "sql-mode": "--sql", "squawk": "squawk", "locks": "locks"}

_RELATIONS = """
    SELECT c.oid, c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p', 'v', 'm')
       AND c.relname NOT IN ('alembic_version', 'migration_history')
"""
_VERSION_TABLE = "public.alembic_version"
_LOCKS = "SELECT relation, mode FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid() AND granted"


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
        RevisionFilesError: it has no revisions.
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
        self.locks: dict[int, set[str]] = {}
        self.previous = "base"
        self.branched = False
        self.coming: dict[tuple[str, str, str], str] = {}

    def run(self, directory: ScriptDirectory) -> None:
        scripts = list(reversed(list(directory.walk_revisions())))
        self.coming = self.checks_at_head()
        with (
            scratch_database(self.settings) as online,
            scratch_database(self.settings) as scripted,
            migration_connection(
                online, lock_timeout=online.lock_timeout, statement_timeout=online.statement_timeout
            ) as connection,
        ):
            event.listen(connection, "commit", self.note_locks)
            for scratch in (online, scripted):
                with _cursor(scratch) as cursor:
                    cursor.execute(CREATE_HISTORY)  # it stays, so it is there before the first revision, too
            self.config.attributes.update(settings=online, connection=connection)
            for number, script in enumerate(scripts, 1):
                self.progress.begin(f"[{number}/{len(scripts)}] {Path(script.path).stem}")
                if not self.check(script, online, scripted):
                    return
                self.progress.done()

    def checks_at_head(self) -> dict[tuple[str, str, str], str]:
        """What rows have to keep to so that the revisions that are still to come take them."""
        with scratch_database(self.settings) as scratch:
            self.config.attributes["settings"] = scratch
            # A revision that does not run is found, and told, when its turn comes.
            with suppress(Exception):
                run_command(command.upgrade, self.config, "heads")
            with _cursor(scratch) as cursor:
                return read_checks(cursor)

    def check(self, script: Script, online: Settings, scripted: Settings) -> bool:
        """Check one revision; False if it does not run, so that none after it can."""
        file, revision = Path(script.path).name, script.revision
        parents = to_tuple(script.down_revision, default=("base",))
        # Beside another branch, "0005" would take that one back, too; a merge goes back to either of its branches.
        self.branched = self.branched or parents != (self.previous,)
        back = f"{revision}@-1" if self.branched and len(parents) == 1 else parents[0]
        self.previous = revision
        try:
            with _cursor(online) as cursor:
                insert_rows(cursor, self.coming)
            start = self.catalogue(online)
            declared = strongest_lock(describe(script.module.__doc__ or "").sections.get("Locks", ""))
            up = self.migrate(command.upgrade, revision, online, file, declared)
            with _cursor(online) as cursor:
                insert_rows(cursor, self.coming)
            down = self.migrate(command.downgrade, back, online, file, declared)
            again = self.migrate(command.upgrade, revision, online, file, declared)
        except Exception as error:  # noqa: BLE001  (a revision can raise whatever its author did not think of)
            self.find(file, "round-trip", f"it does not run with rows there: {_first_line(error)}", "Mend it.")
            return False
        if not is_one_way(RevisionFile.read(Path(script.path))):
            for difference in differences(start, down):
                message = f"downgrade does not bring back {_told(difference)}"
                self.find(file, "round-trip", message, "Mend its downgrade.")
        for difference in differences(up, again):
            self.find(file, "round-trip", f"a second upgrade makes {_told(difference)}", "Mend its downgrade.")
        self.ran(file, "round trip", "locks")
        if len(parents) == 1:  # --sql has no way to say that it starts from two
            self.check_script(file, (parents[0], revision), scripted, (up, down, again))
        if revision > BASELINE:
            self.lint(file, script)
        return True

    def migrate(
        self, function: Callable[..., object], target: str, scratch: Settings, file: str, declared: int
    ) -> Catalogue:
        """Go up or down, see which locks that takes, and read what it makes."""
        with _cursor(scratch) as cursor:
            cursor.execute(_RELATIONS)
            relations = dict(cursor.fetchall())
        self.locks = {}
        run_command(function, self.config, target)
        for oid, modes in self.locks.items():
            strongest = max(map(LOCK_MODES.index, modes))
            if oid in relations and strongest > declared:
                said = LOCK_MODES[declared] if declared >= 0 else "none"
                self.find(
                    file,
                    "locks",
                    f"{function.__name__} takes {LOCK_MODES[strongest]} on {relations[oid]}, declared is {said}",
                    "Declare it under Locks with the time it is held, or avoid it.",
                )
        return self.catalogue(scratch)

    def note_locks(self, connection: Connection) -> None:
        """Called before each transaction is committed, which still holds all of its locks.

        Statements outside of any transaction have let go of theirs when they end: for those a docstring is believed.
        """
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(_LOCKS)
            for relation, mode in cursor.fetchall():
                name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", mode.removesuffix("Lock")).upper()
                self.locks.setdefault(relation, set()).add(name)

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
            self.find(file, "sql-mode", f"--sql fails: {_first_line(error)}", "Write it so that it needs no database.")
            return
        self.start_at(before, scripted)
        for name, sql, expected in zip(
            ("upgrade", "downgrade", "upgrade"), (up_sql, down_sql, up_sql), online, strict=True
        ):
            failure = _psql(scripted, sql)
            if failure:
                self.find(file, "sql-mode", f"the script of its {name} fails: {failure}", "Mend what --sql writes.")
                return
            for difference in differences(expected, self.catalogue(scripted)):
                message = f"the script of its {name} makes {_told(difference)}"
                self.find(file, "sql-mode", message, "Let --sql write what the online run does.")
        self.ran(file, "--sql")

    @staticmethod
    def start_at(revision: str, scripted: Settings) -> None:
        """Let a script find what it goes on from, also where the one before failed, or is of another branch."""
        with _cursor(scripted) as cursor:
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
        sql = written_sql(script.module.upgrade)
        if sql is None:
            self.find(file, "squawk", "it writes no SQL without a database", "Make it work in --sql mode.")
            return
        for warning in _squawk(f"SET lock_timeout = '1s';\nSET statement_timeout = '30s';\nBEGIN;\n{sql}\nCOMMIT;\n"):
            message = f"{warning['rule_name']}: {warning['message'].rstrip('.')}"
            self.find(file, "squawk", message, warning.get("help") or "squawk's documentation has the remedy.")
        self.ran(file, "squawk")

    @staticmethod
    def catalogue(scratch: Settings) -> Catalogue:
        """What the revisions make there; Alembic's own table is none of them."""
        with _cursor(scratch) as cursor:
            found = read_catalogue(cursor)
        return {name: found[name] for name in found if _VERSION_TABLE not in (name.name, name.within)}

    def find(self, file: str, rule: str, message: str, remedy: str) -> None:
        finding = Finding(file, rule, message, remedy)
        if finding not in self.report.findings:  # up and up again say the same
            self.report.findings.append(finding)

    def ran(self, file: str, *checks: str) -> None:
        self.report.ran.update((file, check) for check in checks)


@contextmanager
def _cursor(settings: Settings) -> Iterator[Cursor]:
    with closing(connect(settings)) as connection, connection, connection.cursor(cursor_factory=SafeCursor) as cursor:
        yield cursor


def _psql(settings: Settings, script: str) -> str | None:
    """Run a script as a user with psql would; returns psql's error, None if there was none."""
    where = located(settings)
    dsn = make_dsn(host=where.host, port=where.port, user=where.user, dbname=where.database)
    done = subprocess.run(  # noqa: S603  (psql of the embedded server, on a script of our own revisions)
        [client_program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", dsn],
        input=script,
        env={
            **os.environ,
            "PGPASSWORD": where.password or "",
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": "-c client_min_messages=warning",
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return None if done.returncode == 0 else _first_line(done.stderr)


def _squawk(script: str) -> list[dict[str, str]]:
    """Squawk's findings in a script."""
    beside = Path(sys.executable).with_name("squawk")
    program = str(beside) if beside.exists() else shutil.which("squawk")
    if program is None:
        raise MissingExtraError(
            "the checks of the revisions need squawk, which is not installed",
            hint="Run `pip install 'mlops-db[check]'` (in a checkout: `uv sync`).",
        )
    with tempfile.NamedTemporaryFile("w", suffix=".sql", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(  # noqa: S603  (the linter)
            [
                *(program, "--reporter", "json", "--pg-version", OLDEST_SERVER, "--config", os.devnull),
                # The one asks for IF NOT EXISTS, which takes an invalid index for a good one; our operation looks. The
                # other warns of dropping a view, which holds no rows: its columns cannot change in another way.
                *("--exclude", "prefer-robust-stmts,ban-drop-view", file.name),
            ],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def _told(difference: Difference) -> str:
    return f"a difference, {difference}"


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
