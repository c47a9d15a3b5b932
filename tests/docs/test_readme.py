"""The README's first commands, letter for letter, in a checkout where nobody has run anything yet."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.database import ROOT, SCRIPTS, clean_environment
from support.projects import copy_checkout

BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUTER = re.compile("PYTEST_|PYTHONPATH|VIRTUAL_ENV")  # this process's own

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy that whoever root's server runs as can enter; pytest's own folder lets nobody else in."""
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-readme-"))
    folder.chmod(0o755)
    copy_checkout(folder / "checkout")
    yield folder / "checkout"
    shutil.rmtree(folder)


def test_the_two_commands_do_what_the_readme_says(checkout: Path) -> None:
    if shell("python3 -m pip --version", checkout).returncode:
        pytest.skip("python3 has no pip, which the first command starts from")
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Two commands\n")
    commands, shown, *_ = BLOCK.findall(section)
    first, second = commands.splitlines()

    init = shell(first, checkout)
    tests = shell(f"{second} --collect-only --quiet -n 0 --postgresql-host=none", checkout)

    assert init.returncode == 0, init.stdout
    lines = iter(without_times(init.stdout).splitlines())
    missing = [line for line in without_times(shown).splitlines() if line != "..." and line not in lines]
    assert not missing, init.stdout  # each after the one before it
    assert tests.returncode == 0, tests.stdout


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in clean_environment().items() if not OUTER.match(name)}
    path = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry) != SCRIPTS]  # its Python has no pip
    return subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=folder,
        env=inherited | {"PATH": os.pathsep.join(path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\d s$", "0.0 s", text, flags=re.MULTILINE)
