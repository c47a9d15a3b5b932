"""pytest-alembic's standard tests, as docs/writing-a-revision.md has a team run them, in an environment of their own.

`uv run pytest tests/matrix -m matrix -k pytest_alembic -rfEP -n 0 --postgresql-host=none`; it starts a server itself.
"""

import re
import subprocess
from pathlib import Path

import pytest

from support.cluster import embedded_programs, throwaway_cluster
from support.database import ROOT, clean_environment
from support.examples import example

PAGE = "docs/writing-a-revision.md"
COMMAND = re.compile(r"^uv run (--with .*) pytest (.*)$", re.MULTILINE)
UV = ("uv", "run", "--isolated", "--no-project")

pytestmark = pytest.mark.matrix


def test_the_four_standard_tests_pass(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text(example(PAGE, "conftest"), encoding="utf-8")
    found = COMMAND.search((ROOT / PAGE).read_text(encoding="utf-8"))
    assert found is not None
    packages, options = (part.replace("'", "").split() for part in found.groups())
    outer = re.compile("PYTEST_|PYTHONPATH|VIRTUAL_ENV")  # this process's own
    command = (*UV, f"--with-editable={ROOT}", *packages, "pytest", *options, "-rA")
    with throwaway_cluster(embedded_programs()) as host:
        environment = clean_environment(TEST_DATABASE_URL=f"postgresql+psycopg2://postgres@/postgres?host={host}")
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={name: value for name, value in environment.items() if not outer.match(name)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = set(re.findall(r"^PASSED .*::(test_\w+)", done.stdout, re.MULTILINE))
    assert passed == {
        "test_model_definitions_match_ddl",
        "test_single_head_revision",
        "test_up_down_consistency",
        "test_upgrade",
    }
