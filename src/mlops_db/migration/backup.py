"""`-x backup=FOLDER`: writes the tables that a downgrade loses rows of to a file, before the downgrade runs.

The step's own transaction locks the tables against writers and exports its snapshot; pg_dump reads that snapshot. So
the file has exactly the rows that the step finds, and the lock lasts until the step is committed. The file gets its
name only after it has been read whole, and its rows have been counted.
"""

from __future__ import annotations

import datetime as dt
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from psycopg2.errors import LockNotAvailable

from mlops_db.errors import RefusedError, StatementFailedError
from mlops_db.migration.history import client
from mlops_db.server.client_programs import connection_arguments, find_pg_dump

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from mlops_db.migration.options import Options
    from mlops_db.settings import Settings

_CHUNK = 1 << 20
_NOTHING_CHANGED = "the step was rolled back, and nothing of it was applied"
_UNFINISHED = ".partial"
# Tables and all their partitions, in an order in which two runs cannot block each other.
_TREES = """
    WITH RECURSIVE tree AS (
        SELECT unnest(%(oids)s::oid[]) AS oid
        UNION
        SELECT i.inhrelid FROM tree JOIN pg_inherits AS i ON i.inhparent = tree.oid
          JOIN pg_class AS p ON p.oid = i.inhrelid WHERE p.relispartition
    )
    SELECT c.oid::bigint, n.nspname, c.relname, c.relkind,
           quote_ident(n.nspname) || '.' || quote_ident(c.relname),
           c.oid = ANY (%(oids)s::oid[])
      FROM tree JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p')
     ORDER BY c.oid
"""


@dataclass(frozen=True)
class Table:
    """A table of a backup.

    Attributes:
        oid: its oid.
        schema: its schema, as PostgreSQL stores the name.
        name: its name, in the same way.
        kind: `r` for a table with rows of its own, `p` for a partitioned one.
        sql: its name with its schema, as SQL has it.
        asked: whether the table itself was asked for; otherwise it is a partition of one.
    """

    oid: int
    schema: str
    name: str
    kind: str
    sql: str
    asked: bool

    @property
    def pattern(self) -> str:
        """The name as a pattern that only this table matches (manual, psql, "Patterns")."""
        schema, name = (part.replace('"', '""') for part in (self.schema, self.name))
        return f'"{schema}"."{name}"'

    @property
    def shown(self) -> str:
        """The name for people."""
        return self.sql.removeprefix("public.")


def find_tables(connection: Connection, oids: Collection[int]) -> list[Table]:
    """Find tables and all their partitions."""
    return [Table(*row) for row in connection.exec_driver_sql(_TREES, {"oids": list(oids)})]


class Backup:
    """The backups of one run.

    Attributes:
        file: the backup of the step that runs; None if there is none.
    """

    def __init__(self, folder: Path, settings: Settings, options: Options) -> None:
        """Take the folder, where the run connects, and its timeouts."""
        self._folder = folder
        self._settings = settings
        self._options = options
        self._needed: dict[str, set[int]] = {}
        self._pg_dump: Path | None = None
        self.file: Path | None = None

    def prepare(self, connection: Connection) -> None:
        """Find what a backup needs, before anything changes.

        Raises:
            RefusedError: the folder cannot be written to, or pg_dump is older than the server.
            MissingExtraError: there is no pg_dump.
        """
        driver: Any = connection.connection.dbapi_connection
        self._pg_dump = find_pg_dump(driver.info.parameter_status("server_version"))
        # The run's own server: the settings can name several.
        self._settings = replace(self._settings, host=driver.info.host, port=driver.info.port)
        try:
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise RefusedError(
                f"-x backup: cannot write to {self._folder}: {error.strerror}; nothing was changed",
                hint="Name a folder that exists and that this user can write to.",
            ) from None

    def need(self, revision: str, tables: Collection[int]) -> bool:
        """Note tables that the downgrade of a revision must back up; returns whether any of them is new."""
        needed = self._needed.setdefault(revision, set())
        is_new = not needed.issuperset(tables)
        needed.update(tables)
        return is_new

    def lock(self, connection: Connection, revision: str) -> list[Table]:
        """Lock the tables of a downgrade against writers until the transaction ends; returns them and their partitions.

        The transaction has done nothing yet.

        Raises:
            DBAPIError: there is no lock within the run's lock_timeout.
        """
        oids = self._needed.get(revision, set())
        tables = find_tables(connection, oids)
        if not tables:
            return []
        names = ", ".join(f"{'' if table.kind == 'p' else 'ONLY '}{table.sql}" for table in tables)
        _execute(connection, f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
        return find_tables(connection, oids)  # partitions that were attached meanwhile

    def write(self, connection: Connection, revision: str, tables: Collection[Table]) -> Path:
        """Write tables that are locked to a file; returns it.

        Raises:
            NotPermittedError: row level security hides rows.
            StatementFailedError: pg_dump failed, or the file does not have all rows.
            RefusedError: the file cannot be written.
            LockNotAvailable: another session waits for a lock on a table, and pg_dump would wait behind it.
        """
        now = dt.datetime.now(dt.timezone.utc)
        name = f"{self._settings.database}-{revision}-{now:%Y%m%dT%H%M%SZ}.dump"
        file = self._folder / re.sub(r"[^\w.-]", "_", name)
        snapshot = connection.exec_driver_sql("SELECT pg_export_snapshot()").scalar_one()
        rows = self._count(connection, tables)
        with _new_file(file) as target:
            self._dump(target, snapshot, tables)
            target.flush()
            found = self._count_in_file(target)
            if found != rows:
                raise StatementFailedError(
                    f"the backup has {found:,} rows, and the tables have {rows:,}; {_NOTHING_CHANGED}",
                    hint="Look at the tables with pg_dump: an extension's table, for example, is not in a dump.",
                )
        self.file = file
        return file

    def discard(self) -> None:
        """Remove the backup of a step that was rolled back."""
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink()
            self.file = None

    def _count(self, connection: Connection, tables: Iterable[Table]) -> int:
        counts = " + ".join(f"(SELECT count(*) FROM ONLY {table.sql})" for table in tables if table.kind == "r")
        _execute(connection, f"SET LOCAL statement_timeout = {self._options.long_timeout or 0}")
        rows = _execute(connection, f"SELECT {counts or 0}").scalar_one()
        _execute(connection, f"SET LOCAL statement_timeout = {self._options.statement_timeout}")
        return int(rows)

    def _dump(self, target: IO[bytes], snapshot: str, tables: Iterable[Table]) -> None:
        dsn, environment = connection_arguments(
            self._settings, fallback_application_name=f"mlops-db {client()} pg_dump"
        )
        self._run(
            [
                str(self._pg_dump), f"--dbname={dsn}", "--format=custom", "--compress=1", "--encoding=UTF8",
                "--no-password", "--load-via-partition-root", "--strict-names", f"--snapshot={snapshot}",
                # Behind a session that waits for us it would wait for ever.
                f"--lock-wait-timeout={self._options.lock_timeout}",
                *(f"--table={table.pattern}" for table in tables),
            ],
            environment,
            lambda output: shutil.copyfileobj(output, target, _CHUNK),
        )  # fmt: skip

    def _count_in_file(self, target: IO[bytes]) -> int:
        """Read the file whole, as a restore does, and count its rows: pg_dump writes each on a line of its own."""
        assert self._pg_dump is not None
        rows = 0

        def count(output: IO[bytes]) -> None:
            nonlocal rows
            inside = False
            for line in output:
                if inside and line != b"\\.\n":
                    rows += 1
                else:
                    inside = not inside and line.endswith(b" FROM stdin;\n") and not line.startswith(b"--")

        restore = [str(self._pg_dump.with_name("pg_restore")), "--data-only", "--file=-", target.name]
        self._run(restore, dict(os.environ), count)
        return rows

    def _run(self, command: list[str], environment: dict[str, str], consume: Callable[[IO[bytes]], None]) -> None:
        """Run a program and consume what it prints."""
        name = command[0].rpartition("/")[2]
        with tempfile.TemporaryFile() as errors:
            with (
                subprocess.Popen(  # noqa: S603  (a program of PostgreSQL, without a shell)
                    [os.fsencode(command[0]), *(argument.encode() for argument in command[1:])],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment | {"LC_ALL": "C"},
                    start_new_session=True,  # Control-C is for the run, which ends the program
                ) as process
            ):
                assert process.stdout is not None
                try:
                    consume(process.stdout)
                except BaseException:
                    process.kill()
                    raise
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        if process.returncode == 0:
            return
        if "LOCK TABLE" in said and "timeout" in said:  # pg_dump waits with a statement_timeout
            raise LockNotAvailable("pg_dump got no lock")
        lines = [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]
        reason = [*lines, *said.splitlines(), "it gives no reason"][0]
        if process.returncode < 0:
            reason = f"it was killed ({signal.Signals(-process.returncode).name})"
        raise StatementFailedError(
            f"{name} failed: {reason}; {_NOTHING_CHANGED}", hint="Correct that, then run the same command again."
        )


@contextmanager
def _new_file(file: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name at the end of the block, when it is on the disk; it is removed if the block fails.

    Only its owner can read it.

    Raises:
        RefusedError: it cannot be written, or the name is taken.
    """
    partial = file.with_name(file.name + _UNFINISHED)
    try:
        with open(partial, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
            try:
                if file.exists():  # nobody else can take the name while we have the partial one
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))  # noqa: TRY301  (handled below)
                yield target
                os.fsync(target.fileno())
                partial.rename(file)
            except BaseException:
                partial.unlink()
                raise
    except OSError as error:
        raise RefusedError(
            f"the backup {file} cannot be written: {error.strerror}; {_NOTHING_CHANGED}",
            hint="Make room there, or name another folder. Then run it again.",
        ) from None
    with suppress(OSError):  # some file systems cannot
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _execute(connection: Connection, statement: str) -> Any:
    """Run a statement whose names may hold a %."""
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
