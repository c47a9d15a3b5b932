"""Locks files and folders against other processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[int]:
    """Lock a file or a folder for the block; BlockingIOError if others hold it and `wait` is false."""
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield lock
    finally:
        # Closing is not enough: a child that was forked meanwhile holds the lock, too.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
