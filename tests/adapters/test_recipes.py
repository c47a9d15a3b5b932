"""What docs/storing.md does with matplotlib, done.

uv run --isolated --with matplotlib pytest -n 0 -m adapters tests/adapters/test_recipes.py
"""

import sys
from pathlib import Path

import pytest

from support.database import Database, run_command
from support.examples import PLAIN, example

pytestmark = pytest.mark.adapters
PAGE = "docs/storing.md"


def test_the_plot_is_drawn(head: Database, tmp_path: Path) -> None:
    file = tmp_path / "storing.py"
    file.write_text(example(PAGE, PLAIN, "matplotlib"), encoding="utf-8")
    environment = head.environment | {"MPLBACKEND": "agg"}
    done = run_command(sys.executable, str(file), environment=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f1_score.png").read_bytes().startswith(b"\x89PNG")
