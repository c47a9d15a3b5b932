"""Temporary copies of this project: the whole checkout, or alembic.ini and migrations/ with revisions that a test adds.

`Checkout` runs `alembic` as a forked process that has imported everything. So a test kills the run and not the
import of libraries, and a run starts in a tenth of the time.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import patch

import alembic.config

from mlops_db import project
from mlops_db.revisions import graph
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings
from support.database import LONG_TIMEOUT_S, ROOT, Database
from support.sessions import wait_until

MADE_HERE = (".*cache", ".git", ".hypothesis", ".mlops-db", ".uv", ".venv", "__pycache__", "uv.lock")
# Bytecode comes along: it saves each process in a copy the compilation. "*.pyc.*" is being written.
BYTECODE, UNFINISHED = "__pycache__", "*.pyc.*"
DOCSTRING = """\
{title}.

Why: a test asks for it.
Locks: {locks}
Loss on downgrade: nothing.
Running code: {running_code}
"""
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["pytest", "psycopg", "mlops_db.migration.run", "mlops_db.migration.commands", "alembic.ddl.postgresql"]
)


def copy_checkout(target: Path) -> None:
    """Copy the checkout to a folder that does not exist yet, without what commands and tools created in it."""
    ignored = (name for name in (*MADE_HERE, UNFINISHED) if name != BYTECODE)
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*ignored))


def edited_package(target: Path) -> dict[str, str]:
    """Copy the checkout and edit its first revision; returns the variables with which a command runs from the copy.

    The snapshot no longer fits the revisions, so `mlops-db check` uses a scratch database.
    """
    copy_checkout(target)
    (first,) = target.glob("migrations/versions/0001_*.py")
    first.write_text(first.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    return {"PYTHONPATH": str(target / "src")}


def copy_project(folder: Path, *also: str) -> Path:
    """Copy alembic.ini and migrations/, and the files and folders `also`; returns the copy of alembic.ini."""
    _copy(folder, "migrations", *also)
    return folder / "alembic.ini"


def empty_project(folder: Path) -> Path:
    """Copy alembic.ini and migrations/ without the revisions; returns the copy of alembic.ini."""
    _copy(folder, "migrations", ignored=("0*", "frozen.sha256"))
    return folder / "alembic.ini"


def versions(ini: Path) -> Path:
    """The folder of a project's revisions."""
    return ini.parent / "migrations" / "versions"


def source(
    revision: str, before: str | tuple[str, ...] | None, upgrade: str, downgrade: str, *,
    locks: str = "ACCESS EXCLUSIVE, for a moment.", title: str = "Change something", docstring: str = DOCSTRING,
    running_code: str = "unaffected.",
) -> str:  # fmt: skip
    """Write the source of a revision in which the checks find nothing. `upgrade` and `downgrade` are Python."""
    text = docstring.format(title=title, locks=locks, running_code=running_code)
    head = (
        f'"""{text}"""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
        f'revision = "{revision}"\ndown_revision = {before!r}\n'
    )
    return head + "".join(
        f"\n\ndef {name}() -> None:\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
        for name, body in (("upgrade", upgrade), ("downgrade", downgrade))
    )


def add_revision(ini: Path, upgrade: str, downgrade: str, **parts: str) -> str:
    """Add a revision after the last one, named after its number; returns the file's name."""
    last = max((path.name[:4] for path in versions(ini).glob("[0-9]*.py")), default=None)
    number = f"{int(last or '4') + 1:04}"
    file = versions(ini) / f"{number}_change.py"
    file.write_text(source(number, last, upgrade, downgrade, **parts), encoding="utf-8")
    return file.name


def _copy(folder: Path, *names: str, ignored: Sequence[str] = ()) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("alembic.ini", *names):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(UNFINISHED, *ignored))
        else:
            shutil.copy(ROOT / name, folder)


class Checkout:
    """A copy of alembic.ini and migrations/ to which a test adds revisions."""

    def __init__(self, folder: Path) -> None:
        self.ini = copy_project(folder)
        self.ids = [revision.id for revision in revisions()]
        self._output = (folder / f"output-{number}" for number in count())

    @property
    def head(self) -> str:
        return self.ids[-1]

    def add(self, upgrade: str, downgrade: str = "pass", *, title: str = "test", running_code: str = "") -> str:
        """Add a revision after head. `upgrade` and `downgrade` are Python; returns its id."""
        revision = f"9{len(self.ids):03}"
        file = versions(self.ini) / f"{revision}_{title}.py"
        docstring = "Test: {title}.\n\nRunning code: {running_code}"
        text = source(
            revision, self.head, upgrade, downgrade, title=title, docstring=docstring, running_code=running_code
        )
        file.write_text(text, encoding="utf-8")
        self.ids.append(revision)
        return revision

    def config(self, settings: Settings) -> alembic.config.Config:
        """Alembic's configuration, for its commands in this process."""
        config = alembic.config.Config(self.ini)
        config.attributes["settings"] = settings
        return config

    def start(self, database: Database, *arguments: str, when: Event | None = None) -> "Running":
        """Start `alembic -c alembic.ini ...`: at once, or when the event `when` is set."""
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
    """Use the revisions of the checkout as those of the package, as if the package were installed with them."""
    with patch.object(project, "_INSTALLED", checkout.ini.parent):
        graph.package_graph.cache_clear()
        try:
            yield
        finally:
            graph.package_graph.cache_clear()


def event() -> Event:
    """An event that several processes can wait for."""
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

    def wait_for_output(self, text: str) -> str:
        """Wait until standard error contains `text`; returns all of standard error."""
        wait_until(lambda: text in _read(self.err) or not self.process.is_alive(), f"{text!r} on standard error")
        errors = _read(self.err)
        assert text in errors, f"ended without {text!r}: {errors}{_read(self.out)}"
        return errors

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        self.process.join(LONG_TIMEOUT_S)
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
    # A test edits a revision within a second, and Python would take the bytecode from before the edit.
    sys.dont_write_bytecode = True
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    if when is not None:
        when.wait()
    alembic.config.main(arguments)


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
