"""The folder of a server's socket, which nobody else can enter from the moment it exists.

Each server has a new one. When data was removed its server ends a while later, and then removes its socket: that must
not be the next one's.
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
    """A folder in the data, where other containers find it, or in /tmp if no socket can be in that path."""
    data, account = place
    path = f"{data}/{PREFIX}12345678/{SOCKET}"
    # libpq takes a comma for the end of a host, and psycopg2 no bytes that are not UTF-8.
    fits = "," not in path and path.isprintable() and len(path.encode()) <= LONGEST
    within, prefix = (data, PREFIX) if fits else (SHORT, _short_prefix(data))
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=within))
    give(folder, account)
    return folder


def remove_socket_folders(data: Path) -> None:
    """Remove those of servers that have ended, and of processes that were killed before their server ran."""
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
