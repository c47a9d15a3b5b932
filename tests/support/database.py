"""A database of the test server. Tests use it in SQL, and run commands on it as processes."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from mlops_db.server.embedded import client_program
from mlops_db.settings import Settings
from support.forked_commands import run_forked

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent
TIMEOUT_S = 120
LONG_TIMEOUT_S = 600  # of other people's programs and of a whole lint, which take a minute on a quiet machine


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the variables that say where a database is, plus `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_", "PG"))}
    return kept | {"PYTHONUTF8": "1"} | variables


def run_command(
    *command: str,
    environment: Mapping[str, str],
    cwd: Path = ROOT,
    stdin: str | None = None,
    timeout: int = TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """Run a console script of ours (`alembic`, `mlops-db`) or another program to its end, within `timeout` seconds."""
    if cwd == ROOT and stdin is None and (done := run_forked(*command, environment=environment)) is not None:
        return done
    script = SCRIPTS / command[0]
    program = str(script) if script.exists() else command[0]
    return subprocess.run(
        [program, *command[1:]],
        env=dict(environment),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class Database:
    """A database and a connection to it (psycopg 3, autocommit)."""

    connection: psycopg.Connection[tuple[Any, ...]] = field(repr=False)
    settings: Settings

    @classmethod
    def of(cls, connection: psycopg.Connection[tuple[Any, ...]]) -> "Database":
        connection.autocommit = True
        info = connection.info
        return cls(
            connection,
            Settings(
                host=info.host, port=info.port, user=info.user, password=info.password or None, database=info.dbname
            ),
        )

    @property
    def environment(self) -> dict[str, str]:
        settings = self.settings
        return clean_environment(
            POSTGRES_HOST=settings.host,
            POSTGRES_PORT=str(settings.port),
            POSTGRES_USER=settings.user,
            POSTGRES_PASSWORD=settings.password or "",
            MLOPS_DB_NAME=settings.database,
            **({"MLOPS_OWNER_ROLE": settings.owner_role} if settings.owner_role else {}),
        )

    def query(
        self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run SQL; returns the rows. The list is empty if the statement returns none."""
        cursor = self.connection.execute(statement, parameters)
        return [] if cursor.description is None else cursor.fetchall()

    def value(self, statement: str, parameters: Sequence[Any] | None = None) -> Any:
        """The first column of the first row."""
        return self.query(statement, parameters)[0][0]

    def run(self, *command: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `alembic ...` or `mlops-db ...` as a process against this database."""
        return run_command(*command, environment=self.environment | variables, cwd=cwd)

    def dump(self, *options: str) -> str:
        """`pg_dump --schema-only`, without the lines that differ from call to call."""
        done = run_command(
            client("pg_dump"), "--schema-only", "--no-owner", *options,
            "-h", self.settings.host, "-p", str(self.settings.port), "-U", self.settings.user,
            "-d", self.settings.database,
            environment=clean_environment(PGPASSWORD=self.settings.password or ""),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        # PostgreSQL 15.20 counts changes of a column in it.
        lines = (line for line in done.stdout.splitlines() if "SET (pg_attver=" not in line)
        return "\n".join(line for line in lines if not line.startswith(("--", "\\")))

    def psql(self, script: str, *, stops: bool = True) -> str:
        """Run a script in psql; returns its error output. With `stops`, psql stops at the first error."""
        done = run_command(
            client("psql"), "-X", "-q", "-v", f"ON_ERROR_STOP={int(stops)}",
            "-h", self.settings.host, "-p", str(self.settings.port), "-U", self.settings.user,
            "-d", self.settings.database,
            environment=clean_environment(PGPASSWORD=self.settings.password or "", PGCLIENTENCODING="UTF8"),
            stdin=script,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stderr


def client(program: str) -> str:
    """A client program of the embedded server's package, which is at least as new as any test server."""
    return str(client_program(program))


def revision_of(database: Database) -> str | None:
    """The revision in alembic_version; None if the table is empty or missing."""
    if database.value("SELECT to_regclass('public.alembic_version')") is None:
        return None
    rows = database.query("SELECT version_num FROM alembic_version")
    assert len(rows) <= 1, rows
    return rows[0][0] if rows else None


def history_of(database: Database, *revisions: str) -> list[tuple[str, str]]:
    """(revision, outcome) of the history's entries in their order; of all revisions if none is given."""
    return database.query(
        "SELECT revision, outcome FROM mlops_internal.migration_history"
        " WHERE %(all)s OR revision = ANY(%(some)s) ORDER BY id",
        {"all": not revisions, "some": list(revisions)},
    )
