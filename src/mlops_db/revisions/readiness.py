"""Asks whether a database is ready for work, once or until it is.

`mlops-db wait`, `DatabaseManager.wait_until_ready()` and `ping()` ask here, with the login and the privileges of a job.
SQLAlchemy and Alembic are not loaded, so that a start-up script has its answer at once.
"""

import shlex
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Literal, get_args

import psycopg2

from mlops_db.errors import (
    BehindHeadError,
    ConnectionLostError,
    DatabaseMissingError,
    MlopsDbError,
    NotPermittedError,
)
from mlops_db.revisions.gate import require_usable
from mlops_db.server.bounded import BoundedConnection, no_answer, open_bounded
from mlops_db.server.failures import first_line, translate_statement_failure
from mlops_db.settings import Settings

Stage = Literal["server", "database", "head"]
STAGES: tuple[Stage, ...] = get_args(Stage)

FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 1.0
# How long one attempt may take.
LEAST_PROBE_S, MOST_PROBE_S = 2.0, 10.0
# A migration may still create the database, run, and grant privileges.
_MAY_COME = (DatabaseMissingError, BehindHeadError, NotPermittedError)


def wait_until_ready(settings: Settings, *, timeout: float, stage: Stage = "head") -> Iterator[MlopsDbError]:
    """Ask until the answer is yes. After each attempt in vain, yield its reason and pause.

    The pauses grow to one second. There is always one attempt, and one at the end of the time.

    Args:
        settings: the database.
        timeout: how many seconds to wait; 0 asks once. A frozen server gets at least two seconds.
        stage: what must be there, as for `probe`.

    Raises:
        MlopsDbError: the reason of the last attempt; or one that waiting cannot change, at once.
    """
    deadline = time.monotonic() + timeout
    pause_s = FIRST_PAUSE_S
    while True:
        left_s = deadline - time.monotonic()
        try:
            probe(settings, timeout=min(MOST_PROBE_S, max(LEAST_PROBE_S, left_s)), stage=stage)
        except MlopsDbError as error:
            if time.monotonic() >= deadline or not (error.retryable or isinstance(error, _MAY_COME)):
                raise
            reason = error
        else:
            return
        yield reason
        time.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
        pause_s = min(2 * pause_s, LAST_PAUSE_S)


def probe(settings: Settings, *, timeout: float, stage: Stage) -> None:
    """Ask once, on a connection of its own.

    Args:
        settings: the database.
        timeout: how many seconds it may take in all.
        stage: what must be there: the `server`, the `database`, or a revision that this code works with: `head`, or a
            newer one.

    Raises:
        NoAnswerError: there is no answer in that time.
        ConnectionFailedError: there is no connection for another reason (subclasses say which), or it broke.
        BehindHeadError: the database is at an earlier revision, or empty.
        NotPermittedError: this role may not read the revision.
        MlopsDbError: as `gate.require_usable`.
    """
    try:
        connection = open_bounded(settings, timeout)
    except DatabaseMissingError:
        if stage == "server":
            return
        raise
    with closing(connection):
        try:
            if stage == "head":
                connection.begin()
                with connection.cursor() as cursor:
                    require_usable(cursor, settings.target)
                connection.rollback()
            else:
                with connection.cursor() as cursor:
                    cursor.execute_alone("SELECT 1")
        except TimeoutError:
            raise no_answer(settings, timeout) from None
        except psycopg2.Error as error:
            raise _translate(error, connection, settings) from error


def _translate(error: psycopg2.Error, connection: BoundedConnection, settings: Settings) -> MlopsDbError:
    if connection.closed or error.pgcode is None or isinstance(error, psycopg2.errors.AdminShutdown):
        return ConnectionLostError(
            f"the connection to {settings.target} broke: {first_line(error.pgerror or str(error))}",
            committed=False,
            hint="Repeat the call: the next one gets a new connection.",
        )
    if isinstance(error, psycopg2.errors.InsufficientPrivilege):
        return NotPermittedError(
            f"{settings.target}: {first_line(error.pgerror or str(error))}",
            hint="Each call of the storage layer reads the revision. For a role of jobs, the owner runs `mlops-db "
            f"grant-writer {shlex.quote(settings.user)}`. A reader does not need it: `mlops-db wait --for database`.",
        )
    return translate_statement_failure(error, settings)
