"""Whoever has the wheel alone: the README's "Every day", row by row, in an empty folder with the embedded server."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_db.revisions.graph import revisions
from support.cluster import server_folder
from support.database import LONG_TIMEOUT_S, ROOT, clean_environment, run_command
from support.process import assert_failed
from support.projects import add_revision, copy_checkout, empty_project, sql

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

HEAD = revisions()[-1].id
UNDER_ALEMBIC = "is under Alembic already"
# In the order in which they are typed here: the exit code, and something of what is said.
EVERY_DAY: dict[str, tuple[int, str]] = {
    "mlops-db create": (0, "✅ Database 'mlops' created successfully"),
    "alembic -x plan=true upgrade head": (0, f"{HEAD} "),
    "alembic upgrade head": (0, f"] {HEAD} "),
    "mlops-db init": (0, "✅ Database initialized successfully\nNothing to do"),
    "alembic check": (0, "No new upgrade operations detected."),
    'alembic revision --autogenerate -m "Say what changes"': (1, "belongs to the installed package"),
    "mlops-db alembic ...": (0, "usage: mlops-db alembic"),
    "mlops-db wait": (0, "/mlops is ready"),
    "mlops-db status": (0, f"{HEAD} (head)"),
    "mlops-db history": (0, "applied"),
    "mlops-db check": (0, "no difference"),
    "mlops-db lint": (0, "nothing found"),
    "mlops-db adopt": (1, UNDER_ALEMBIC),
    "mlops-db maintain --keep 90d": (0, "nothing to do"),
    "mlops-db psql": (0, "dashboards"),
    "mlops-db grant-reader ROLE": (0, "may read"),
    "mlops-db grant-writer ROLE": (0, "may make every call"),
    "mlops-db roles": (0, "writer"),
    "mlops-db demo": (0, "versions"),
    "mlops-db health": (1, "series are not ok"),
    "mlops-db report": (1, "pip install 'mlops-db[report]'"),
    "mlops-db distribute": (1, "the server has no Citus"),
    "mlops-db undistribute": (0, "nothing to do"),
    "mlops-db completion bash": (1, "pip install 'mlops-db[completion]'"),
    "mlops-db docs": (0, "written: docs/schema.md"),
    "alembic -x backup=FOLDER downgrade base": (0, "backup of model_versions: "),
    "alembic downgrade base": (0, "downgrade 0001 model_versions"),
}
INI = """
[alembic]
script_location = mlops_db:_alembic/migrations
path_separator = newline
version_locations =
    mlops_db:_alembic/migrations/versions
    %(here)s/mine
revision_environment = true
"""

SUITE = """
from mlops_db import get_db_manager


def test_register(mlops_db):
    get_db_manager().models.register("7c0f3a", "12")
    assert [version.model_version for version in mlops_db.models.list()] == ["12"]
"""


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, and a folder to work in."""

    programs: Path
    folder: Path

    @property
    def package(self) -> Path:
        (found,) = self.programs.parent.glob("lib/python*/site-packages/mlops_db")
        return found

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment(POSTGRES_HOST="embedded", EDITOR="false") | variables
        path = f"{self.programs}:/usr/bin:/bin"
        script = ("bash", "-c", f"exec {command}")
        return run_command(*script, environment=environment | {"PATH": path}, cwd=self.folder, stdin="")

    def files(self) -> dict[Path, bytes]:
        found = (path for path in self.package.rglob("*") if path.is_file() and path.suffix != ".pyc")
        return {path: path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    if shutil.which("uv") is None:
        pytest.skip("uv, which builds and installs the wheel, is missing")
    top = server_folder("wheel")
    copy_checkout(top / "checkout")
    done("uv", "build", "--quiet", "--wheel", f"--out-dir={top}", str(top / "checkout"))
    (wheel,) = top.glob("*.whl")
    done("uv", "venv", "--quiet", "--no-project", f"--python={sys.executable}", str(top / "venv"))
    versions = top / "versions"
    versions.touch()
    if (ROOT / "uv.lock").exists():  # an unpacked sdist has none
        done("uv", "export", "--quiet", "--frozen", f"--project={ROOT}", f"--output-file={versions}",
             "--extra=check", "--extra=testing", "--no-dev", "--no-hashes", "--no-emit-project")  # fmt: skip
    done(
        "uv",
        "pip",
        "install",
        "--quiet",
        f"--python={top / 'venv'}",
        f"--constraints={versions}",
        f"{wheel}[check,testing]",
    )
    shutil.rmtree(top / "checkout")
    folder = top / "an empty folder"
    folder.mkdir()
    yield Installed(top / "venv" / "bin", folder)
    shutil.rmtree(top)


def done(*command: str) -> None:
    ended = run_command(*command, environment=clean_environment(), cwd=Path("/"), timeout=LONG_TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr


def rows() -> list[str]:
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Every day\n")
    return re.findall(r"^\| `([^`]+)` \|", section.partition("\n## ")[0], re.MULTILINE)


def test_each_row_of_every_day_is_played() -> None:
    assert set(rows()) == set(EVERY_DAY)


def test_every_day_in_an_empty_folder(installed: Installed) -> None:
    before = installed.files()
    (installed.folder / "backups").mkdir()
    project = empty_project(installed.programs.parent / "project")
    add_revision(project, sql("SELECT 1"), sql("SELECT 2"))
    for row, (code, message) in EVERY_DAY.items():
        command = row if row.startswith("mlops-db") else f"mlops-db {row}"
        command = command.removesuffix(" ...").replace("ROLE", "dashboards").replace("FOLDER", "backups")
        if row == "mlops-db psql":  # whose superuser is the embedded server's
            command = "env POSTGRES_USER=postgres mlops-db psql -e -c 'CREATE ROLE dashboards NOLOGIN'"
        if row == "mlops-db lint":  # of few revisions: those of the wheel are the checkout's, which CI checks
            command = f"env ALEMBIC_CONFIG={project} mlops-db lint"
        if row == "mlops-db demo":
            command += " --days 90"
        ended = installed.run(command)
        assert ended.returncode == code, (command, ended.stdout, ended.stderr)
        assert message in ended.stdout + ended.stderr, (command, ended.stdout, ended.stderr)
        if code and row != "mlops-db health":  # its exit code is an answer
            assert_failed(ended)
        if row == "alembic -x backup=FOLDER downgrade base":  # the next downgrade has to have something to revert
            assert list((installed.folder / "backups").glob("*.dump"))
            assert installed.run("mlops-db alembic upgrade head").returncode == 0
    assert installed.files() == before
    assert {path.name for path in installed.folder.iterdir()} == {".mlops-db", "backups", "docs"}
    assert (installed.folder / "docs" / "schema.md").read_bytes() == (ROOT / "docs" / "schema.md").read_bytes()


def test_a_suite_of_a_team_in_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "test_team.py").write_text(SUITE, encoding="utf-8")
    notebook = "import sys, mlops_db, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    ended = run_command(str(installed.programs / "python"), "-c", notebook, "-p", "no:cacheprovider", "-W", "error",
                        environment=clean_environment(), cwd=tmp_path)  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"test_team.py"}


def test_what_check_compares_with_comes_along_and_holds(installed: Installed) -> None:
    ended = installed.run(
        f"python -c 'from mlops_db.drift.snapshot import recorded_catalogue as c; print(len(c(\"{HEAD}\")) > 99)'"
    )
    assert ended.stdout == "True\n", ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        "mlops-db alembic revision -m x",
        "mlops-db alembic revision -m x --version-path .",
        "mlops-db alembic merge heads -m x",
        "mlops-db alembic edit head",
        "mlops-db alembic edit current",
        "mlops-db alembic init other",
        "env ALEMBIC_CONFIG={package}/_alembic/alembic.ini alembic revision -m x",
        "env ALEMBIC_CONFIG={package}/_alembic/alembic.ini alembic merge heads -m x",
    ],
)
def test_no_revision_is_written_into_the_package(installed: Installed, command: str) -> None:
    before = installed.files(), sorted(installed.folder.rglob("*.py"))
    ended = installed.run(command.format(package=installed.package))
    assert ended.returncode == (255 if command.startswith("env") else 64 if " init " in command else 1), ended.stderr
    lines = (ended.stderr or ended.stdout).splitlines()
    assert [line.partition(": ")[0].lower() for line in lines[-2:]] in (["error", "hint"], ["failed", "hint"]), lines
    assert (installed.files(), sorted(installed.folder.rglob("*.py"))) == before


def test_a_revision_goes_to_a_version_location_of_the_users(installed: Installed) -> None:
    before = installed.files()
    (installed.folder / "mine").mkdir()
    (installed.folder / "my.ini").write_text(INI, encoding="utf-8")
    first = installed.run(
        "mlops-db alembic -c my.ini revision -m first --version-path mine"
        f" --head base --branch-label mine --depends-on {HEAD}"
    )
    second = installed.run("mlops-db alembic -c my.ini revision -m second --head mine@head")
    refused = installed.run("mlops-db alembic -c my.ini revision -m third --head {} --version-path {}".format(
        HEAD,
        installed.package / "_alembic" / "migrations" / "versions"))  # fmt: skip

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    written = sorted(path.name for path in (installed.folder / "mine").glob("*.py"))
    assert written == ["mine_0001_first.py", "mine_0002_second.py"]
    assert_failed(refused, "belongs to the installed package")
    assert installed.files() == before
