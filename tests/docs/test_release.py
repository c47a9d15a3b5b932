"""What a release is checked by, and what the forge reads: workflows, templates, classifiers."""

import re
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import mlops_db
from support.database import ROOT

pytestmark = pytest.mark.one_postgresql

FORGE = ROOT / ".github"
WORKFLOWS = sorted((FORGE / "workflows").glob("*.yml"))
RELEASED = """\
# Changelog

## Unreleased

## 1.2.0 - 2026-12-01

### Added

- A thing.

## 1.1.0 - 2026-11-01

- One.
"""


REVISIONS = {"0001_first.py": "revision = '0001'\n", "sql/0001_view.sql": "SELECT 1;\n"}
FROZEN = "".join(f"{sha256(text.encode()).hexdigest()}  {name}\n" for name, text in REVISIONS.items())


def check(
    folder: Path, tag: str, *, version: str = "1.2.0", changelog: str = RELEASED, frozen: str = FROZEN
) -> list[str]:
    """Run the script in a project with that version and changelog; returns what it says is wrong."""
    versions = folder / "migrations" / "versions"
    (versions / "sql").mkdir(parents=True)
    for name, text in {**REVISIONS, "frozen.sha256": frozen}.items():
        (versions / name).write_text(text, encoding="utf-8")
    (folder / ".github").mkdir()
    (folder / "src" / "mlops_db").mkdir(parents=True)
    script = Path(shutil.copy(FORGE / "check_release.py", folder / ".github"))
    (folder / "src" / "mlops_db" / "__init__.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    done = run(script, tag)
    assert (done.stdout, done.returncode) == ("", int(bool(done.stderr)))
    return done.stderr.splitlines()


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, encoding="utf-8", check=False)


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FORGE / "workflows" / name).read_text(encoding="utf-8"))
    return found


def test_a_release_that_is_described_passes(tmp_path: Path) -> None:
    assert check(tmp_path, "v1.2.0") == []


@pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.1", "v1.2.0rc1"])
def test_a_tag_of_another_version_is_refused(tag: str, tmp_path: Path) -> None:
    (problem,) = check(tmp_path, tag)
    assert problem.startswith(f"error: the tag is {tag}, and src/mlops_db/__init__.py has version 1.2.0.")


@pytest.mark.parametrize(
    "changelog",
    [
        RELEASED.replace("## 1.2.0 - 2026-12-01", "## 1.2.1 - 2026-12-01"),
        RELEASED.replace("### Added\n\n- A thing.\n", ""),
    ],
)
def test_a_version_that_the_changelog_lacks_is_refused(changelog: str, tmp_path: Path) -> None:
    (problem,) = check(tmp_path, "v1.2.0", changelog=changelog)
    assert "no entries for 1.2.0" in problem


def test_a_version_without_a_date_is_refused(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, "v1.2.0", changelog=RELEASED.replace(" - 2026-12-01", ""))
    assert "no date for 1.2.0" in problem


def test_entries_that_were_left_under_unreleased_are_refused(tmp_path: Path) -> None:
    changelog = RELEASED.replace("## Unreleased\n", "## Unreleased\n\n- Forgotten.\n")
    (problem,) = check(tmp_path, "v1.2.0", changelog=changelog)
    assert "still has entries under Unreleased" in problem


@pytest.mark.parametrize(
    ("frozen", "missing"),
    [
        ("", "0001_first.py and 1 more"),
        (FROZEN.splitlines()[0], "sql/0001_view.sql"),
        ("<<<<<<< HEAD\n", "0001_first.py and 1 more"),
    ],
)
def test_revisions_that_are_not_frozen_are_refused(frozen: str, missing: str, tmp_path: Path) -> None:
    (problem,) = check(tmp_path, "v1.2.0", frozen=frozen)
    assert f"frozen.sha256 does not have the checksum of {missing}. Write it: (cd " in problem


def test_a_released_revision_that_was_changed_is_not_to_be_frozen_again(tmp_path: Path) -> None:
    (problem,) = check(tmp_path, "v1.2.0", frozen=FROZEN.replace("  sql", "x  sql"))
    assert problem.endswith("has another checksum of sql/0001_view.sql. Restore what was released.")


def test_a_released_revision_that_was_frozen_again_is_refused(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is missing")
    assert check(tmp_path, "v1.2.0") == []
    git = ("git", "-c", "user.name=x", "-c", "user.email=x", "-c", "commit.gpgSign=false", "-c", "tag.gpgSign=false")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "1.1.0"), ("tag", "v1.1.0")):
        subprocess.run(git + command, cwd=tmp_path, check=True)
    script = tmp_path / ".github" / "check_release.py"
    assert run(script, "v1.2.0").returncode == 0

    versions = tmp_path / "migrations" / "versions"
    revision, frozen = versions / "0001_first.py", versions / "frozen.sha256"
    before = sha256(revision.read_bytes()).hexdigest()
    revision.write_text("revision = '0001'  # another\n", encoding="utf-8")
    now = sha256(revision.read_bytes()).hexdigest()
    frozen.write_text(frozen.read_text(encoding="utf-8").replace(before, now), encoding="utf-8")

    assert "frozen.sha256 of v1.1.0 has another checksum of 0001_first.py. Restore" in run(script, "v1.2.0").stderr
    subprocess.run((*git, "commit", "-qam", "1.2.0"), cwd=tmp_path, check=True)
    subprocess.run((*git, "tag", "v1.2.0"), cwd=tmp_path, check=True)  # as release.yml sees it
    assert "frozen.sha256 of v1.1.0 has another checksum of 0001_first.py. Restore" in run(script, "v1.2.0").stderr


def test_the_changelog_has_this_version_or_entries_to_come() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert mlops_db.__version__ in first[:2]
    assert first[0] == "Unreleased"


def test_the_script_reads_this_project_and_takes_one_tag() -> None:
    script = FORGE / "check_release.py"
    assert f"has version {mlops_db.__version__}." in run(script, "v0").stderr
    assert run(script).returncode == 64


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit_and_named_by_their_version(path: Path) -> None:
    uses = re.findall(r"uses: (.+)", path.read_text(encoding="utf-8"))
    assert uses
    for each in uses:
        assert each.startswith("./") or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each), each


def test_only_the_job_that_publishes_may_and_after_all_checks() -> None:
    release = workflow("release.yml")
    jobs = release["jobs"]
    may = [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})]
    assert release["permissions"] == {"contents": "read"}
    assert may == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"]
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"}
    assert jobs["checks"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in workflow("ci.yml")[True]  # YAML reads `on` as true


def test_the_classifiers_are_the_pythons_that_are_tested_and_allowed() -> None:
    package = metadata("mlops-db")
    named = {
        each.rpartition(" ")[2]
        for each in package.get_all("Classifier", [])
        if re.search(r":: Python :: 3\.\d+$", each)
    }
    tested = {each["python"] for each in workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]}
    assert named == tested
    assert set(SpecifierSet(package["Requires-Python"]).filter(sorted(named))) == named


@pytest.mark.parametrize("name", ["bug.yml", "change.yml"])
def test_an_issue_form_has_what_the_forge_asks_for(name: str) -> None:
    form = yaml.safe_load((FORGE / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert form["name"]
    assert form["description"]
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)
