"""The system user that runs root's servers, and how to run programs as that user."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mlops_db.errors import EmbeddedServerError
from mlops_db.server.embedded.locks import hold_lock

if sys.platform != "win32":
    import pwd

SERVER_USER = "embedded_postgres"


class Account(NamedTuple):
    """A system user that runs a server of root's."""

    name: str
    uid: int
    gid: int


def as_account(account: Account | None) -> dict[str, Any]:
    """The options that run a program as that user, or as the caller.

    The program's files are private. Its environment has no passwords, and no variables that a server understands
    differently.
    """
    others = ("PG", "POSTGRES_", "MLOPS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    user = {"user": account.uid, "group": account.gid, "extra_groups": ()} if account else {}
    return {"cwd": "/", "env": environment | {"LC_ALL": "C"}, "stdin": subprocess.DEVNULL, "umask": 0o077} | user


def run_as(account: Account, script: str, *arguments: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run a shell script as that user. File modes alone do not show what it may do, because of access lists."""
    return subprocess.run(  # noqa: S603  (constants, with paths as arguments)
        ["/bin/sh", "-c", script, "sh", *arguments], capture_output=True, check=False, **as_account(account)
    )


def give(path: Path, account: Account | None) -> None:
    """Make that user the owner."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def reason(output: bytes) -> str:
    """Why a program failed: its last line with a severity, or else its last line."""
    text = os.fsdecode(output)
    lines = re.findall(r"(?:error|FATAL|PANIC): +(.+)", text) or text.strip().splitlines() or ["it gives no reason"]
    return str(lines[-1])


def ensure_server_account() -> Account:
    """Find the user that runs a new server of root's; create it if it is missing.

    Raises:
        EmbeddedServerError: it cannot be created.
    """
    with hold_lock(Path("/")):  # one of several processes creates the user
        try:
            found = pwd.getpwnam(SERVER_USER)
        except KeyError:
            _create_server_user()
            found = pwd.getpwnam(SERVER_USER)
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def _create_server_user() -> None:
    """Create the user, with no password, shell or home."""
    failure = "there is no useradd"
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")  # PATH may name a folder of another user
    if useradd is not None:
        options = ("--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent")
        command = [useradd, *options, "--shell=/usr/sbin/nologin", SERVER_USER]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603  (constants)
        if done.returncode == 0:
            return
        failure = reason(done.stderr)
    raise EmbeddedServerError(
        f"root's embedded server runs as the user {SERVER_USER}, who cannot be created: {failure}",
        hint="Create that user, or work as a user other than root, or set POSTGRES_HOST to a server.",
    )
