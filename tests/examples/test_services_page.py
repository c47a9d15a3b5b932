"""docs/services.md and docs/storing.md show parts of examples/, letter for letter."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from support.database import ROOT, Database, run_command

pytestmark = pytest.mark.one_postgresql

BLOCK = re.compile(r"^```\w+ (examples/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(file, text, id=f"{page}: {file}")
    for page in ("services.md", "storing.md")
    for file, text in BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
]
FILES = sorted(path for path in (ROOT / "examples").rglob("*") if "__pycache__" not in path.parts and path.is_file())
UNIT = ROOT / "examples" / "systemd" / "churn-service.service"


@pytest.mark.parametrize(("file", "text"), BLOCKS)
def test_a_block_is_a_part_of_its_file(file: str, text: str) -> None:
    assert f"\n{text}" in (ROOT / file).read_text(encoding="utf-8")


def test_every_folder_is_on_the_page_and_every_file_says_what_it_is() -> None:
    page = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")
    for file in FILES:
        assert f"(../examples/{file.parent.name}" in page
        assert file.read_text(encoding="utf-8").startswith(("# ", '"""')), file


def test_the_unit_of_systemd_waits_for_the_database(head: Database, tmp_path: Path) -> None:
    unit = UNIT.read_text(encoding="utf-8")
    (wait,) = re.findall(r"^ExecStartPre=/opt/mlops/bin/(.*)$", unit, re.MULTILINE)
    done = run_command(*shlex.split(wait), environment=head.environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert " is ready" in done.stdout


def test_the_unit_of_systemd_is_one(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing")
    for program in ("mlops-db", "uvicorn"):
        (tmp_path / program).symlink_to("/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/mlops/bin", str(tmp_path)), encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = run_command("systemd-analyze", "verify", "--man=no", str(unit), environment=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text(encoding="utf-8").replace("TimeoutStartSec", "TimeoutStratSec"), encoding="utf-8")
    done = run_command("systemd-analyze", "verify", "--man=no", str(unit), environment=environment, cwd=tmp_path)
    assert "TimeoutStratSec" in done.stderr
