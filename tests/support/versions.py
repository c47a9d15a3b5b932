"""A temporary Alembic folder: this project's revisions and, after head, those that a test adds.

`alembic` runs there as a forked process, with everything imported already: what a test kills is then the run, and not
the import of libraries; and it starts in a tenth of the time.
"""

import multiprocessing
import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import patch

import alembic.config
import psycopg

from mlops_db import project
from mlops_db.revisions import graph
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings
from support.database import ROOT, Database
from support.process import told

PATIENCE_S = 60.0
CHECKS_ITS_CLIENT_SINCE = 140000  # client_connection_check_interval: PostgreSQL 14
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["pytest", "psycopg", "mlops_db.migration.run", "mlops_db.migration.commands", "alembic.ddl.postgresql"]
)


class Checkout:
    """A copy of alembic.ini and migrations/ that a test may add revisions to."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(ROOT / "migrations", folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
        self.ini = Path(shutil.copy(ROOT / "alembic.ini", folder))
        self.ids = [revision.id for revision in revisions()]
        self._output = (folder / f"output-{number}" for number in count())

    @property
    def head(self) -> str:
        return self.ids[-1]

    def add(self, upgrade: str, downgrade: str = "pass", *, title: str = "test") -> str:
        """Add a revision after head. `upgrade` and `downgrade` are Python; returns its id."""
        revision = f"9{len(self.ids):03}"
        lines = [
            f'"""Test: {title}."""',
            "import sqlalchemy as sa",
            "from alembic import op",
            f'revision, down_revision = "{revision}", "{self.head}"',
            "def upgrade():",
            textwrap.indent(textwrap.dedent(upgrade).strip(), "    "),
            "def downgrade():",
            textwrap.indent(textwrap.dedent(downgrade).strip(), "    "),
        ]
        file = self.ini.parent / "migrations" / "versions" / f"{revision}_{title}.py"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.ids.append(revision)
        return revision

    def config(self, settings: Settings) -> alembic.config.Config:
        """For Alembic's commands in this process."""
        config = alembic.config.Config(self.ini)
        config.attributes["settings"] = settings
        return config

    def start(self, database: Database, *arguments: str, when: Event | None = None) -> "Running":
        """Start `alembic -c alembic.ini ...`, at once or `when` that is set."""
        output = next(self._output)
        out, err = output.with_suffix(".out"), output.with_suffix(".err")
        process = _processes.Process(
            target=_alembic,
            args=(["-c", str(self.ini), *arguments], database.environment, out, err, when),
            daemon=True,
        )
        process.start()
        return Running(process, arguments, out, err)

    def alembic(self, database: Database, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `alembic -c alembic.ini ...` to its end."""
        return self.start(database, *arguments).ended()


@contextmanager
def installed(checkout: Checkout) -> Iterator[None]:
    """Let the package's own revisions be those of the checkout, as if it had been installed with them."""
    with patch.object(project, "_INSTALLED", checkout.ini.parent):
        graph.package_graph.cache_clear()
        try:
            yield
        finally:
            graph.package_graph.cache_clear()


def event() -> Event:
    """What several processes can wait for."""
    return _processes.Event()


def sql(*statements: str) -> str:
    """The body of a revision that executes statements."""
    return "\n".join(f"op.execute({statement!r})" for statement in statements)


@dataclass(frozen=True)
class Running:
    """A process that runs `alembic`."""

    process: multiprocessing.process.BaseProcess
    arguments: Sequence[str]
    out: Path
    err: Path

    def says(self, text: str) -> str:
        """Wait until standard error holds `text`; returns all of it."""
        wait_until(lambda: text in _read(self.err) or not self.process.is_alive(), f"{text!r} on standard error")
        said = _read(self.err)
        assert text in said, f"ended without {text!r}: {said}{_read(self.out)}"
        return said

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        self.process.join(PATIENCE_S)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise AssertionError(f"alembic {self.arguments} does not end: {_read(self.out)}{_read(self.err)}")
        return subprocess.CompletedProcess(self.arguments, code, _read(self.out), _read(self.err))

    def backend(self, database: Database, query: str = "%") -> int:
        """Wait until its backend runs something LIKE `query`; returns the backend's pid."""
        found: list[tuple[int]] = []

        def look() -> bool:
            found[:] = database.query(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE %s AND query LIKE %s",
                [f"mlops-db % pid {self.process.pid}", query],
            )
            return bool(found)

        wait_until(lambda: look() or not self.process.is_alive(), f"a backend that runs {query}")
        assert found, f"ended without {query}: {_read(self.out)}{_read(self.err)}"
        return found[0][0]


def _alembic(arguments: list[str], environment: Mapping[str, str], out: Path, err: Path, when: Event | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    if when is not None:
        when.wait()
    alembic.config.main(arguments)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Hold a failure to `told`, whatever the run narrated on standard error before."""
    assert "Traceback" not in done.stderr, done.stderr
    told(subprocess.CompletedProcess(done.args, done.returncode, done.stdout, ""), *parts)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Look every few milliseconds, for a bounded time."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"
        time.sleep(0.01)


@contextmanager
def another_session(database: Database, application: str, *statements: str) -> Iterator[psycopg.Connection]:
    """A session of somebody else's, in a transaction in which `statements` ran; ends with the block at the latest."""
    settings = database.settings
    with psycopg.connect(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password,
        dbname=settings.database,
        application_name=application,
    ) as session:
        for statement in statements:
            session.execute(statement)
        yield session


def revision_of(database: Database) -> str | None:
    """What alembic_version holds; None if it is empty or not there."""
    if database.value("SELECT to_regclass('public.alembic_version')") is None:
        return None
    rows = database.query("SELECT version_num FROM alembic_version")
    assert len(rows) <= 1, rows
    return rows[0][0] if rows else None


def history_of(database: Database, *revisions: str) -> list[tuple[str, str]]:
    """(revision, outcome) of the entries in their order; of all revisions if none is given."""
    return database.query(
        "SELECT revision, outcome FROM mlops_internal.migration_history"
        " WHERE %(all)s OR revision = ANY(%(some)s) ORDER BY id",
        {"all": not revisions, "some": list(revisions)},
    )
