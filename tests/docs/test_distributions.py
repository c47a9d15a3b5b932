"""The two files that a release publishes: what is in them, and that the source archive runs its own tests."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import mlops_db
from support.database import LONG_TIMEOUT_S, ROOT, clean_environment, run_command

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

NAME = f"mlops_db-{mlops_db.__version__}"
# The archive has the files of the repository, so the other tests find theirs, too. In ci.yml it runs the whole suite.
TESTS = ("tests/test_errors.py", "tests/test_imports.py", "tests/test_settings.py", "tests/docs/test_release.py",
         "tests/docs/test_links.py")  # fmt: skip


@dataclass(frozen=True)
class Built:
    """The source archive, unpacked; the wheel that was built from it; the wheel that was built from the checkout."""

    source: Path
    wheel: dict[str, bytes]
    wheel_of_checkout: dict[str, bytes]

    @property
    def metadata(self) -> Message:
        return message_from_bytes(self.wheel[f"{NAME}.dist-info/METADATA"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if shutil.which("uv") is None:
        pytest.skip("uv, which builds both, is missing")
    folder = tmp_path_factory.mktemp("dist")
    build("--sdist", folder)
    with tarfile.open(folder / f"{NAME}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    wheels = []
    for number, source in enumerate((folder / NAME, ROOT)):
        place = folder / str(number)
        build("--wheel", place, source)
        with zipfile.ZipFile(place / f"{NAME}-py3-none-any.whl") as wheel:
            wheels.append({name: wheel.read(name) for name in wheel.namelist()})
    yield Built(folder / NAME, *wheels)
    shutil.rmtree(folder)


def build(what: str, target: Path, source: Path = ROOT) -> None:
    command = ("uv", "build", "--quiet", what, f"--out-dir={target}", str(source))
    ended = run_command(*command, environment=clean_environment(), cwd=Path("/"), timeout=LONG_TIMEOUT_S)
    assert ended.returncode == 0, ended.stderr


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_source_archive_has_every_file_of_the_repository_and_no_other(built: Built) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no checkout, such as an unpacked sdist, or git is missing")
    git = ("git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout.split("\0")
    there = {name for name in listed if name and (ROOT / name).is_file()}

    assert files(built.source) == there | {"PKG-INFO"}


def test_the_wheel_is_the_same_whether_it_is_built_from_the_checkout_or_from_the_archive(built: Built) -> None:
    assert built.wheel == built.wheel_of_checkout


def test_the_wheel_has_the_package_its_revisions_and_the_license(built: Built) -> None:
    package = {f"mlops_db/{name}" for name in files(built.source / "src" / "mlops_db")}
    revisions = {f"mlops_db/_alembic/migrations/{name}" for name in files(built.source / "migrations")}
    about = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}

    assert built.wheel.keys() == (
        package | revisions | about | {"mlops_db/_alembic/alembic.ini", f"{NAME}.dist-info/licenses/LICENSE"}
    )
    assert "mlops_db/py.typed" in built.wheel


def test_an_index_can_show_what_the_package_is(built: Built) -> None:
    about = built.metadata
    for field in ("Name", "Version", "Summary", "Keywords", "License-Expression", "License-File", "Requires-Python"):
        assert about[field], field
    assert about["Version"] == mlops_db.__version__
    assert about["Description-Content-Type"] == "text/markdown"
    description = about.get_payload(decode=True)
    assert isinstance(description, bytes)
    assert description.decode().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_the_source_archive_runs_its_own_tests(built: Built) -> None:
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(built.source / "src")}
    command = (sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *TESTS)

    ended = run_command(*command, environment=environment, cwd=built.source, timeout=LONG_TIMEOUT_S)

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
