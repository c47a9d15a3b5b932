"""Install Evidently, the whole of MLflow and Airflow in one environment, and run the adapters' tests there.

docs/storing.md has a table of the versions: a row for each Python, a column for each package. For each of its Pythons
the newest versions that go together are installed, and all tests of the adapters run. If they pass, the differences to
the table are printed; `--write` writes them into the table, and `--check` fails. A Python takes some five minutes. uv
downloads a Python that this machine does not have, or fails; with `--present` such a Python is skipped.

    uv run python tests/adapters/one_environment.py
    uv run python tests/adapters/one_environment.py --python 3.14 --write
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

UV = os.environ.get("UV", "uv")  # set by `uv run`; the uv on PATH may be that of pyenv, which belongs to one Python
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "storing.md"
HEADING = "| Python |"
PACKAGES = (
    "mlflow",
    "fastapi",
    "httpx2",
    "uvicorn",
    "matplotlib",
)  # not in the extras: MLflow's server, and the recipes' needs
VERSIONS = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]), sep='\\n')"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="only this row of the table")
    parser.add_argument("--present", action="store_true", help="skip Pythons that are not on this machine")
    outcome = parser.add_mutually_exclusive_group()
    outcome.add_argument("--write", action="store_true", help="write the versions into the table")
    outcome.add_argument("--check", action="store_true", help="fail where the table has other versions")
    arguments = parser.parse_args()
    packages, *rows = table(PAGE.read_text(encoding="utf-8"))
    if arguments.python not in (None, *(row[0] for row in rows)):
        parser.error(f"the table of {PAGE.name} has no row for Python {arguments.python}")
    differ = False
    for row in rows:
        if arguments.python not in (None, row[0]):
            continue
        if arguments.present and not is_present(row[0]):
            print(f"Python {row[0]}: not on this machine, so nothing was tested with it", flush=True)
        else:
            found = [row[0], *tested_versions(row[0], packages[1:])]
            differ |= found != row
            print(f"Python {row[0]}: {differences(packages, row, found)}", flush=True)
            if arguments.write:
                page = PAGE.read_text(encoding="utf-8")
                PAGE.write_text(page.replace(line(row), line(found)), encoding="utf-8")
    if arguments.check and differ:
        sys.exit(f"the table is out of date: run this with --write, and commit {PAGE.name}")


def table(page: str) -> list[list[str]]:
    """The cells of the table, its heading first."""
    lines = page[page.index(HEADING) :].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in each.strip("| ").split("|")] for each in (lines[0], *lines[2:])]


def line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |\n"


def differences(packages: list[str], row: list[str], found: list[str]) -> str:
    """The differences between the table and what was installed."""
    changes = [
        f"{package} {new} instead of {old}"
        for package, old, new in zip(packages, row, found, strict=True)
        if old != new
    ]
    return ", ".join(changes) or "the versions of the table"


def tested_versions(python: str, packages: list[str]) -> list[str]:
    """Install everything for a Python and run the tests; return the versions of the packages if they pass."""
    with tempfile.TemporaryDirectory(prefix="mlops-db-") as folder:
        program = str(Path(folder, "bin", "python"))
        run(UV, "venv", "--quiet", "--no-project", f"--python={python}", folder, **shown_by_pyenv(python))
        run(
            *(UV, "pip", "install", "--quiet", f"--python={program}", "--group=dev"),
            *("--editable=.[evidently,mlflow,airflow]", *PACKAGES),
        )
        run(program, "-m", "pytest", "-p", "no:cacheprovider", "-m", "adapters", "tests/adapters")
        return subprocess.check_output([program, "-c", VERSIONS, *packages], encoding="utf-8").splitlines()


def is_present(python: str) -> bool:
    command = (UV, "python", "find", "--quiet", "--no-project", "--no-python-downloads", python)
    found = subprocess.run(command, env=os.environ | shown_by_pyenv(python), capture_output=True, check=False)
    return found.returncode == 0


def shown_by_pyenv(python: str) -> dict[str, str]:
    """The variable that makes pyenv show a Python that is not selected."""
    return {"PYENV_VERSION": python}


def run(*command: str, **variables: str) -> None:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | variables, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
