"""What the other modules need of the system: programs that run as another user, locks, and patience."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

if sys.platform != "win32":
    import fcntl


class Account(NamedTuple):
    """A user of the system, whom a server of root's runs as."""

    name: str
    uid: int
    gid: int


def as_account(account: Account | None) -> dict[str, Any]:
    """The options that run a program as that user, or as the caller.

    Its files are private. Its environment lacks passwords, and what means something else to a server.
    """
    others = ("PG", "POSTGRES_", "MLOPS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    user = {"user": account.uid, "group": account.gid, "extra_groups": ()} if account else {}
    return {"cwd": "/", "env": environment | {"LC_ALL": "C"}, "stdin": subprocess.DEVNULL, "umask": 0o077} | user


def tried(account: Account, script: str, *arguments: Path) -> "subprocess.CompletedProcess[bytes]":
    """Let that user try: modes alone do not tell, there are access lists and file systems with rules of their own."""
    return subprocess.run(  # noqa: S603  (constants, with paths as arguments)
        ["/bin/sh", "-c", script, "sh", *arguments], capture_output=True, check=False, **as_account(account)
    )


def give(path: Path, account: Account | None) -> None:
    """Make that user the owner."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def reason(said: bytes) -> str:
    """Why a program failed: what its last line with a severity says, or else its last line."""
    text = os.fsdecode(said)
    lines = re.findall(r"(?:error|FATAL|PANIC): +(.+)", text) or text.strip().splitlines() or ["it gives no reason"]
    return str(lines[-1])


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Lock a file or a folder for the time of the block; BlockingIOError if others have it and we do not wait."""
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    finally:
        # Closing is not enough: a child that was forked meanwhile has the lock, too.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def attempts(seconds: float) -> Iterator[None]:
    """One attempt after the other, for that time."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        yield
        time.sleep(0.01)
