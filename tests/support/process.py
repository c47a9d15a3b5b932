"""Checks of processes, most of them of finished ones."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

SECRET = "tr0ub4dor&3"  # noqa: S105  (the password that nothing may show)
NARRATION = re.compile(r"INFO |.*: nothing to do$|Creating database |Database '|\[\d+/\d+\] ")


def assert_failed(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that a command failed with one message and one hint, which contain `parts` and no secret.

    `alembic` prints them on standard output, `mlops-db` on standard error. Progress may precede them.
    """
    everything = done.stdout + done.stderr
    assert done.returncode > 0, everything
    assert "Traceback" not in everything, everything
    assert SECRET not in everything, everything
    lines = [line for line in everything.splitlines() if not NARRATION.match(line)]
    assert [line.partition(": ")[0] for line in lines] in (["FAILED", "Hint"], ["error", "hint"]), everything
    for part in parts:
        assert part in "\n".join(lines), everything


def assert_run_failed(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check a failure as `assert_failed` does, but ignore earlier lines on standard error."""
    assert "Traceback" not in done.stderr, done.stderr
    assert_failed(subprocess.CompletedProcess(done.args, done.returncode, done.stdout, ""), *parts)


def lives(process: psutil.Process) -> bool:
    """Whether it runs; in a container, nobody may reap what has ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def closed_pipe() -> Iterator[int]:
    """The writing end of a pipe whose reader has gone, like the standard output in `command | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)
