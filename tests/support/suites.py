"""Suites of a team, as files, and pytest on them as a process."""

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mlops_db.settings import Settings
from support.database import LONG_TIMEOUT_S, Database, clean_environment

PLAIN_PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
LEFT = "SELECT datname FROM pg_database WHERE starts_with(datname, 'mlops_pytest_')"


def on_server(settings: Settings) -> tuple[str, ...]:
    """The options of pytest-postgresql that name a server."""
    options = {"host": settings.host, "port": settings.port, "user": settings.user}
    if settings.password:
        options["password"] = settings.password
    return tuple(f"--postgresql-{name}={value}" for name, value in options.items())


def run_suite(
    folder: Path, source: str, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Write a file of tests into a folder, and run it."""
    (folder / "test_team.py").write_text(source, encoding="utf-8")
    return subprocess.run(
        [*PLAIN_PYTEST, *options],
        cwd=folder,
        env=suite_environment() | (environment or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=LONG_TIMEOUT_S,
        check=False,
    )


def suite_environment() -> dict[str, str]:
    """The environment of a suite that knows nothing of this one."""
    return {name: value for name, value in clean_environment().items() if not name.startswith("PYTEST_")}


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The numbers of pytest's last line, such as {"passed": 2}."""
    lines = done.stdout.strip().splitlines() or [""]
    found = re.findall(r"(\d+) (\w+)", lines[-1].partition(" in ")[0])
    return {name: int(number) for number, name in found}


def left_databases(database: Database) -> list[str]:
    """The databases that sessions of pytest have left on the server."""
    return [name for (name,) in database.query(LEFT)]


def processes_in(folder: Path) -> list[int]:
    """The processes that work in a folder or below it, as a server does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(int(process.name))
    return found
