"""Processes that stand still, as on a machine that is out of memory, or under a debugger."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Let processes stand still for the time of the block."""
    processes = [psutil.Process(pid) for pid in pids]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def processes_of(folder: Path) -> list[int]:
    """All processes of a server; the one that starts the others comes first."""
    postmaster = int((folder / "data" / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    return [postmaster, *(child.pid for child in psutil.Process(postmaster).children(recursive=True))]
