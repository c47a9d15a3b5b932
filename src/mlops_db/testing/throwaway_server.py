"""Runs an embedded server in a temporary folder until standard input has a line or ends.

`python throwaway_server.py USER` prints one line of JSON: where the server is, or why there is none.
The one that reads it holds the other end of standard input, so the server stops even if the reader was killed.
"""

import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from psycopg2 import sql

from mlops_db.errors import MissingExtraError, MlopsDbError
from mlops_db.server.connection import open_cursor, resolve_embedded
from mlops_db.server.embedded import data_folder
from mlops_db.server.embedded.initdb import SUPERUSER
from mlops_db.settings import EMBEDDED_SERVER, Settings

# No data has to survive a power failure.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
IN_MEMORY = Path("/dev/shm")  # noqa: S108  (mkdtemp chooses the name)
NEEDED_BYTES = 2 << 30


def main(user: str) -> None:
    """Start the server, print where it is, and wait."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the server stops then, too
    # A database is copied in memory in half the time.
    has_memory = os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free >= NEEDED_BYTES
    folder = Path(tempfile.mkdtemp(prefix="mlops-db-pytest-", dir=IN_MEMORY if has_memory else None))
    # What is registered first runs last, after the server has stopped.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if os.geteuid() == 0:
        folder.chmod(0o711)  # another user runs root's server
    os.chdir(folder)
    try:
        server = _start(user)
    except MlopsDbError as error:
        answer = {"error": error.message, "hint": error.hint, "needs_extra": isinstance(error, MissingExtraError)}
    else:
        answer = {"host": server.host, "port": server.port}
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def _start(user: str) -> Settings:
    superuser = replace(EMBEDDED_SERVER, user=SUPERUSER)
    atexit.register(shutil.rmtree, data_folder(), ignore_errors=True)
    with open_cursor(superuser, autocommit=True) as cursor:
        for name, value in SETTINGS.items():
            cursor.execute_alone(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        cursor.execute("SELECT pg_reload_conf()")
    return resolve_embedded(replace(superuser, user=user))


if __name__ == "__main__":
    main(*sys.argv[1:])
