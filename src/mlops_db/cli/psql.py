"""Run psql on the database, with psql's own options; on the embedded server, too."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from psycopg2.extensions import make_dsn

from mlops_db.server.client_programs import find_psql
from mlops_db.server.connection import read_password, resolve_embedded
from mlops_db.server.embedded import held_locks
from mlops_db.server.pins import find_options, startup_options
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONNECTION_FAILED = 2
OF_SIGNALS = 128
# Control-C is for psql: it ends the statement, and psql continues. If the terminal is closed, psql ends, and then this
# process, which the embedded server may wait for.
FOR_PSQL = ("SIGINT", "SIGHUP")


def run(arguments: Sequence[str]) -> int:
    """Run psql to its end; returns 2 if it has no connection, 1 if it fails otherwise, 128 and more after a signal.

    Args:
        arguments: psql's own, but for the database.

    Raises:
        MissingExtraError: there is no psql.
        ConnectionFailedError: the password's file cannot be read.
    """
    settings = Settings.from_environment()
    where = resolve_embedded(settings)
    # Other users see a process's arguments; without the password of the key, psql asks for it.
    parameters: dict[str, Any] = {name: value for name, value in where.parameters.items() if name != "sslpassword"}
    if where.owner_role:
        role = startup_options({"role": where.owner_role})
        parameters["options"] = f"{find_options(where.parameters)} {role}".strip()
    parameters |= {"host": where.host, "port": where.port, "user": where.user, "dbname": where.database}
    password = read_password(where)
    command = [str(find_psql(where)), f"--dbname={make_dsn(**parameters)}", *arguments]
    environment = os.environ | ({} if password is None else {"PGPASSWORD": password})
    with (
        _left_to_psql(),
        subprocess.Popen(command, env=environment, pass_fds=held_locks()) as psql,  # noqa: S603  (its user's arguments)
    ):
        try:
            code = psql.wait()
        except BaseException:  # SIGTERM; psql then leaves the terminal as it was, which it could not if it was killed
            psql.terminate()
            raise
    if code < 0:
        return OF_SIGNALS - code
    return code if code in (0, CONNECTION_FAILED) else 1


@contextmanager
def _left_to_psql() -> Iterator[None]:
    """Do nothing on the signals that are for psql. A signal that is ignored would be so in psql, too."""
    numbers = [getattr(signal, name) for name in FOR_PSQL if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
