"""Who uses the server: each process that does holds a shared lock on `.users` in the data.

The last one that gives it up stops the server. The kernel gives up the lock of a killed process, so there is no list
that could be wrong. Whoever starts or stops the server has the data's folder itself locked meanwhile.
"""

import atexit
import os
import sys
from contextlib import suppress
from pathlib import Path

from mlops_db.server.embedded.account import give
from mlops_db.server.embedded.initdb import initialise
from mlops_db.server.embedded.locks import locked
from mlops_db.server.embedded.place import Place
from mlops_db.server.embedded.postmaster import Server, awaited, start, stop

if sys.platform != "win32":
    import fcntl

_users: dict[Path, int] = {}


def join(place: Place) -> Server:
    """Count this process among the users of the server, and start it unless it runs."""
    data, account = place
    data.mkdir(mode=0o700, exist_ok=True)
    with locked(data) as lock:
        initialise(place, lock)
        if not _is_user(data):
            users = os.open(data / ".users", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            give(data / ".users", account)
            fcntl.flock(users, fcntl.LOCK_SH)
            if data not in _users:
                atexit.register(_leave, data)
            _users[data] = users
        return awaited(data) or start(place)


def _is_user(data: Path) -> bool:
    """Whether this process holds its lock, on the file that is there now: somebody may have removed the data."""
    with suppress(KeyError, OSError):
        return os.path.samestat(os.fstat(_users[data]), (data / ".users").stat())
    return False


def _leave(data: Path) -> None:
    """Give up the lock, and stop the server if nobody else holds one.

    A forked child has its parent's lock, which therefore is not undone here but closed: it ends with the last of them.
    """
    if _is_user(data):  # or the number may be another file's by now: programs that become daemons close everything
        os.close(_users[data])
    # The second lock is a BlockingIOError where others use the server. Where the data is gone it ends by itself. And
    # Control-C is for what was asked for, which is done.
    with suppress(OSError, KeyboardInterrupt), locked(data), locked(data / ".users", wait=False):
        stop(data)
