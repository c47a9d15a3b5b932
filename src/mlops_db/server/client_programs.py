"""Runs psql and pg_dump as their users do."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from psycopg2.extensions import make_dsn

from mlops_db.errors import StatementFailedError
from mlops_db.server.connection import read_password, resolve_embedded
from mlops_db.server.embedded import client_program

if TYPE_CHECKING:
    from mlops_db.settings import Settings


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
