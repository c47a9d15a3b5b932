"""Counts the users of the server: each process that uses it holds a shared lock on `.users` in the data.

The last process that releases its lock stops the server. The kernel releases the lock of a killed process, so the count
is always right. A process that starts or stops the server locks the data's folder meanwhile.
"""

import atexit
import os
import sys
from contextlib import suppress
from pathlib import Path

from mlops_db.server.embedded.account import give
from mlops_db.server.embedded.initdb import initialize
from mlops_db.server.embedded.locks import hold_lock
from mlops_db.server.embedded.place import Place
from mlops_db.server.embedded.postmaster import Server, start, stop, wait_for_server

if sys.platform != "win32":
    import fcntl

_users: dict[Path, int] = {}


def join(place: Place) -> Server:
    """Register this process as a user of the server, and start the server unless it runs."""
    data, account = place
    data.mkdir(mode=0o700, exist_ok=True)
    with hold_lock(data) as lock:
        initialize(place, lock)
        if not _is_user(data):
            users = os.open(data / ".users", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            give(data / ".users", account)
            fcntl.flock(users, fcntl.LOCK_SH)
            if data not in _users:
                atexit.register(_leave, data)
            _users[data] = users
        return wait_for_server(data) or start(place)


def held_locks() -> tuple[int, ...]:
    """The descriptors of this process's locks: a child that gets them (`pass_fds`) is a user beside it."""
    return tuple(_users.values())


def _is_user(data: Path) -> bool:
    """Whether this process holds its lock on the present file: somebody may have removed the data."""
    with suppress(KeyError, OSError):
        return os.path.samestat(os.fstat(_users[data]), (data / ".users").stat())
    return False


def _leave(data: Path) -> None:
    """Release the lock, and stop the server if nobody else holds one.

    A forked child shares its parent's lock. So the file is closed, not unlocked: the lock ends with the last of them.
    """
    if _is_user(data):  # daemons close all files, so the number may belong to another file by now
        os.close(_users[data])
    # The second lock raises BlockingIOError if others use the server. Without its data the server ends by itself.
    # Control-C is ignored, because the work is done.
    with suppress(OSError, KeyboardInterrupt), hold_lock(data), hold_lock(data / ".users", wait=False):
        stop(data)
