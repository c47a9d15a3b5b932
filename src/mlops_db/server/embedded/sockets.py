"""Creates and removes the folders of sockets, which no other user can enter at any moment.

Each server gets a new folder. After its data was removed, a server still runs for a while and then removes its socket,
which must not be the socket of the next server.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from mlops_db.server.embedded.account import give
from mlops_db.server.embedded.place import Place

PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
LONGEST = 103  # bytes of a socket's path; Linux takes 107, macOS no more than this
PREFIX = ".s-"
SHORT = Path("/tmp")  # noqa: S108  (mkdtemp names what is made there)


def new_socket_folder(place: Place) -> Path:
    """Create a folder in the data, where other containers find it, or in /tmp if the path does not fit a socket."""
    data, account = place
    path = f"{data}/{PREFIX}12345678/{SOCKET}"
    # libpq ends a host at a comma, and psycopg2 accepts only UTF-8.
    fits = "," not in path and path.isprintable() and len(path.encode()) <= LONGEST
    within, prefix = (data, PREFIX) if fits else (SHORT, _short_prefix(data))
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
    give(folder, account)
    return folder


def remove_socket_folders(data: Path) -> None:
    """Remove the folders of servers that have ended, and of processes that were killed before their server ran."""
    for folder in (*data.glob(f"{PREFIX}*"), *SHORT.glob(f"{_short_prefix(data)}*")):
        with suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid in (data.stat().st_uid, os.geteuid()):
                for name in (SOCKET, f"{SOCKET}.lock"):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()


def _short_prefix(data: Path) -> str:
    found = data.stat()
    return f"mlops-db-{found.st_dev:x}-{found.st_ino:x}-"  # also where the data has moved to
