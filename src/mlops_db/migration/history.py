"""Writes and reads `mlops_internal.migration_history`: every step that a run began, and how it ended.

The table survives `alembic downgrade base`: after an accident people ask who dropped the tables, and when. No revision
creates it, because it has to exist before the first one and after the last one is gone.

A step is inserted before it begins, in a transaction of its own, and completed in the transaction of its revision. So
an entry is completed exactly if its revision was committed. A run that was killed leaves its entry `running`; the next
run marks it `interrupted`, since it holds the run lock and so no other run is active. The insert does not wait for the
disk: a crash of the server may lose it together with a step that was not committed.
"""

from __future__ import annotations

import getpass
import os
import platform
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import alembic
import psycopg2
import sqlalchemy

from mlops_db import __version__
from mlops_db.errors import RefusedError
from mlops_db.migration import lock, running_code, view_grants
from mlops_db.migration.batches import positions
from mlops_db.migration.transaction import HALF_DONE, REVISION_OF_TRANSACTION, transaction_refusal
from mlops_db.revisions.tables import HISTORY_TABLE, is_readable
from mlops_db.server.citus import refuse_worker
from mlops_db.server.connection import open_cursor
from mlops_db.server.guests import OTHERS_HAVE_OBJECTS, REFUSE_GUESTS

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Iterable, Iterator

    from alembic.runtime.migration import MigrationInfo
    from sqlalchemy import Connection

    from mlops_db.revisions.graph import Graph
    from mlops_db.settings import Settings

CREATE = f"""
CREATE SCHEMA IF NOT EXISTS mlops_internal;
CREATE TABLE IF NOT EXISTS mlops_internal.migration_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revision text NOT NULL,
    direction text NOT NULL CHECK (direction IN ('upgrade', 'downgrade', 'stamp')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    duration interval GENERATED ALWAYS AS (finished_at - started_at) STORED,
    role text NOT NULL DEFAULT session_user,
    client text NOT NULL,
    tools text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('running', 'applied', 'failed', 'interrupted')),
    error text,
    backup text
);
COMMENT ON TABLE mlops_internal.migration_history IS
    'Every step of a migration run and how it ended; kept when the schema is downgraded to base.';
{running_code.CREATE.strip()}
"""

# One statement before and one after every revision, the first without BEGIN and COMMIT: round trips are a good part of
# the time of a run on an empty database (benchmarks/empty_upgrade.py).
_BEGIN = f"""
    INSERT INTO mlops_internal.migration_history (revision, direction, client, tools, outcome)
    SELECT %(revision)s, %(direction)s, %(client)s, %(tools)s, 'running'
      FROM set_config('synchronous_commit', coalesce(%(commit)s, current_setting('synchronous_commit')), true),
           {view_grants.SAVING} AS saved
    RETURNING id, {view_grants.SAVED} <> ''
"""
_COMPLETE = f"""
    WITH recorded AS ({running_code.RECORD}), ended AS (
        UPDATE mlops_internal.migration_history
           SET outcome = 'applied', finished_at = clock_timestamp() WHERE id = %(id)s
    )
    SELECT {lock.HELD}, {REVISION_OF_TRANSACTION}, {OTHERS_HAVE_OBJECTS}, {running_code.IS_UNSHARED},
           {positions.ARE_THERE}
"""
_RECORD_FAILURE = """
    UPDATE mlops_internal.migration_history
       SET outcome = 'failed', error = %(error)s, finished_at = clock_timestamp() WHERE id = %(id)s RETURNING backup
"""
_NAME_BACKUP = "UPDATE mlops_internal.migration_history SET backup = %(backup)s WHERE id = %(id)s"
# For `--sql`: the script inserts a step when it is done, in its transaction; who runs the script is not known.
_INSERT_FINISHED = """\
INSERT INTO mlops_internal.migration_history (revision, direction, finished_at, client, tools, outcome)
VALUES ('{revision}', '{direction}', clock_timestamp(), 'SQL script', '{tools}', 'applied');"""


@dataclass(frozen=True)
class Entry:
    """A step of a run.

    Attributes:
        id: number of the entry.
        revision: the revision that the step applied or reverted; for a stamp the target, or `base`.
        direction: `upgrade`, `downgrade` or `stamp`.
        started_at: when it began, in UTC.
        finished_at: when it ended, in UTC; None if it runs or was interrupted.
        role: who ran it: the role that connected.
        client: the user and host that ran it, and the process id there.
        tools: the versions that ran it.
        outcome: `running`, `applied`, `failed` or `interrupted`.
        error: the server's message of a failed step.
        backup: the file that `-x backup` wrote before the step, as an absolute path on the host of `client`; None if
            the step needed none.
    """

    id: int
    revision: str
    direction: str
    started_at: dt.datetime
    finished_at: dt.datetime | None
    role: str
    client: str
    tools: str
    outcome: str
    error: str | None
    backup: str | None


class History:
    """Writes the entries of one run, on the run's connection."""

    def __init__(self, connection: Connection, graph: Graph, *, callers_transaction: bool) -> None:
        """Take the run's connection and graph; if its caller has begun a transaction, nothing is committed here."""
        self._connection = connection
        self._graph = graph
        self._callers_transaction = callers_transaction
        self._entry: int | None = None

    def create(self) -> None:
        """Create the table, and the one of the running code, if this is the first run."""
        self._entry = None  # if this fails, no step did
        if not (self._is_there() and self._run(f"SELECT {running_code.HAS_OTHERS}").scalar()):
            self._run(CREATE)

    def close_interrupted(self) -> None:
        """Mark the entries of killed runs; the caller holds the run lock, so no other run is active."""
        running = "mlops_internal.migration_history WHERE outcome = 'running'"
        # Counted first: a role without anything to migrate may lack the right to write.
        if self._is_there() and self._run(f"SELECT count(*) FROM {running}").scalar_one():
            self._run("UPDATE mlops_internal.migration_history SET outcome = 'interrupted' WHERE outcome = 'running'")
        self._commit()

    def _is_there(self) -> bool:
        return self._run(f"SELECT to_regclass('{HISTORY_TABLE}')").scalar() is not None

    def begin_step(self, revision: str, direction: str) -> bool:
        """Insert a step that is about to run, and save the grants on views; returns whether there are any."""
        self._entry = None  # if this fails, the step before it did not
        # The commit of the step waits for the disk, and so for this entry. A caller decides how it commits.
        commit = None if self._callers_transaction else "off"
        values = {"revision": revision, "direction": direction, "client": client(), "tools": tools(), "commit": commit}
        with self._own_transaction():
            self._entry, saved = self._run(_BEGIN, values).one()
        return bool(saved)

    def complete(self, revision: str | None, heads: Collection[str], *, passed: Iterable[str] | None) -> None:
        """Complete the step, record which code works after it, and forget the batches of the revisions that it passed.

        Args:
            revision: in whose transaction this is; None for a stamp, which runs no revision.
            heads: the rows of alembic_version now.
            passed: the revisions that are applied or reverted now; None for all.

        Raises:
            RefusedError: this backend has lost the run lock; the transaction must not be committed.
            RefusedError: this is not the transaction that the revision began in.
        """
        record = running_code.record_of(self._graph, heads)
        held, in_transaction_of, others, unshared, has_positions = self._run(
            _COMPLETE, {"id": self._entry, **record}
        ).one()
        if not held:
            raise RefusedError(
                "the run lock was lost while a revision ran; the revision was rolled back",
                hint="Something between here and the server changes sessions: connect to the server directly, and "
                "run it again.",
            )
        if revision not in (None, in_transaction_of):
            raise transaction_refusal(str(revision), "COMMIT or ROLLBACK", done=HALF_DONE)
        if others:
            self._connection.exec_driver_sql(REFUSE_GUESTS, execution_options={"no_parameters": True})
        if unshared:
            self._connection.exec_driver_sql(running_code.SHARE, execution_options={"no_parameters": True})
        if has_positions:
            self._run(positions.forget(passed))

    def name_backup(self, file: str) -> None:
        """Name the backup of the step, in the first transaction of its revision, so that both are committed or none."""
        self._run(_NAME_BACKUP, {"id": self._entry, "backup": file})

    def record_failure(self, error: str) -> bool:
        """Record why the step failed, after its transaction was rolled back; returns whether its backup is still named.

        It is if the revision had committed in between.
        """
        if self._entry is None:
            return False
        backup = self._run(_RECORD_FAILURE, {"id": self._entry, "error": error}).scalar()
        self._commit()
        return backup is not None

    @contextmanager
    def _own_transaction(self) -> Iterator[None]:
        """A transaction of one statement; if the server goes away, it may raise psycopg2's own error."""
        if self._callers_transaction:
            yield
            return
        self._commit()  # ends the transaction in which Alembic read
        driver: Any = self._connection.connection.dbapi_connection
        driver.autocommit = True
        try:
            yield
            self._commit()
        finally:
            if not driver.closed:  # otherwise that error is on its way
                driver.autocommit = False

    def _commit(self) -> None:
        if not self._callers_transaction:
            self._connection.commit()

    def _run(self, statement: str, parameters: dict[str, Any] | None = None) -> Any:
        return self._connection.exec_driver_sql(statement, parameters)


def insert_finished(step: MigrationInfo) -> str:
    """SQL that inserts a finished step from a `--sql` script."""
    if step.is_stamp:
        revisions, direction = step.destination_revision_ids, "stamp"
    else:
        revisions, direction = step.up_revision_ids, "upgrade" if step.is_upgrade else "downgrade"
    return _INSERT_FINISHED.format(revision=", ".join(revisions) or "base", direction=direction, tools=tools())


@cache
def client() -> str:
    """The user@host and process id of this run, for people who look at the server."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container, the user id may have no name
        user = str(os.getuid())
    return f"{user}@{platform.node()} pid {os.getpid()}"


@cache
def tools() -> str:
    """The versions of the programs that take part in a run."""
    # From the modules: psycopg2 is installed under two names, and a library in PYTHONPATH has no metadata.
    driver = psycopg2.__version__.split()[0]  # type: ignore[attr-defined]  # the stubs lack it
    return (
        f"mlops-db {__version__}, Alembic {alembic.__version__}, SQLAlchemy {sqlalchemy.__version__}, "
        f"psycopg2 {driver}, Python {platform.python_version()}"
    )


def read_history(settings: Settings, *, limit: int) -> list[Entry]:
    """Read the latest entries, newest first; empty if there was no run.

    Raises:
        ConnectionFailedError: no connection.
        NotPermittedError: the role may not read it.
        RefusedError: the table belongs to another role.
        WorkerNodeError: it is a worker of a Citus cluster.
    """
    columns = "id, revision, direction, started_at, finished_at, role, client, tools, outcome, error, backup"
    with open_cursor(settings) as cursor:
        cursor.execute("SET LOCAL timezone = 'UTC'")  # behind a pooler the session is not pinned
        if not is_readable(cursor, HISTORY_TABLE, settings.target):
            refuse_worker(cursor, settings.target)
            return []
        cursor.execute(f"SELECT {columns} FROM {HISTORY_TABLE} ORDER BY id DESC LIMIT %s", (limit,))
        return [Entry(*row) for row in cursor.fetchall()]
