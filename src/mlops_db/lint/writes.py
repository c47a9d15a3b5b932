"""Runs the writes of running code on a database: which work before an upgrade, and which fail after it.

They are this package's own calls, and INSERTs into each table: one with all of its columns, one with the required ones.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeAlias

from mlops_db.lint.rows import inserts
from mlops_db.project import SCHEMAS
from mlops_db.server.connection import connect
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import find_server_error
from mlops_db.storage.db_manager import DatabaseManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg2
    from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.settings import Settings

_SEQUENCES = """
    SELECT format('%%I.%%I', schemaname, sequencename), coalesce(last_value, start_value), last_value IS NOT NULL
      FROM pg_sequences WHERE schemaname = ANY (%s)
"""
# A write as findings name it, and its SQL; None for a call of this package's.
Writes: TypeAlias = "dict[str, str | None]"


class _OneTransaction(DatabaseManager):
    """Runs every call in a savepoint of one transaction, and does not check the revision of the database."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        super().__init__(settings)
        self._driver = connection

    @contextmanager
    def safe_cursor(self) -> Iterator[SafeCursor]:
        with self._driver.cursor(cursor_factory=SafeCursor) as cursor, _savepoint(self._driver):
            yield cursor


def find_working_writes(settings: Settings, coming: Mapping[tuple[str, str, str], str]) -> Writes:
    """The writes that the database takes now; each is rolled back.

    Args:
        settings: the scratch database.
        coming: the CHECKs that columns will have, as for `insert_rows`.
    """
    with _trial(settings) as connection, connection.cursor() as cursor:
        writes: Writes = dict.fromkeys(_calls(_OneTransaction(settings, connection)))
        writes |= {f"an INSERT into {shown}": statement for shown, statement in inserts(cursor, coming)}
        refused = _refused(settings, connection, writes)
    return {write: statement for write, statement in writes.items() if write not in refused}


def find_refused_writes(settings: Settings, writes: Writes) -> dict[str, psycopg2.Error]:
    """The writes that the database refuses now, each with the server's error."""
    with _trial(settings) as connection:
        return _refused(settings, connection, writes)


@contextmanager
def _trial(settings: Settings) -> Iterator[Connection]:
    """A connection whose changes are undone, also the values of sequences, because keys refer to them."""
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute(_SEQUENCES, (list(SCHEMAS),))
        sequences = cursor.fetchall()
        try:
            yield connection
        finally:
            connection.rollback()
            for sequence in sequences:
                cursor.execute("SELECT setval(%s::regclass, %s, %s)", sequence)
            connection.commit()


def _refused(settings: Settings, connection: Connection, writes: Writes) -> dict[str, psycopg2.Error]:
    """Carry the writes out, in order; returns the server's error for each one that it refused."""
    calls = _calls(_OneTransaction(settings, connection))
    refused = {}
    for write, statement in writes.items():
        try:
            with _savepoint(connection):
                if statement is None:
                    calls[write]()
                else:
                    with connection.cursor() as cursor:
                        cursor.execute(statement)
        except Exception as error:  # noqa: PERF203  (each write has its own)
            cause = find_server_error(error)
            # Without a server's error it was the package that refused, because an earlier call was refused.
            if cause is not None:
                refused[write] = cause
            elif isinstance(error, (AttributeError, TypeError)):
                raise
    return refused


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SAVEPOINT played")
        try:
            yield
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        except BaseException:
            cursor.execute("ROLLBACK TO SAVEPOINT played")
            raise
        finally:
            cursor.execute("RELEASE SAVEPOINT played")


def _calls(db: DatabaseManager) -> dict[str, Callable[[], object]]:
    """What jobs call, in the order of a retraining: without optional arguments, and with them."""
    gates = {"minimum_coverage": True, "metric_improvement": {"passed": False, "by": -0.5}}
    moment = datetime(2020, 2, 29, tzinfo=timezone.utc)
    series = ("played", "series")
    names = dict(zip(("metric_type", "metric_name"), series, strict=True))
    models, decisions, monitoring = db.models, db.decisions, db.monitoring
    return {
        "db.models.register() without scores": lambda: models.register("played 1", "1"),
        "db.models.register() with scores": lambda: models.register(
            "played 2", "1", model_name="played", f1_score=0, brier_score=1
        ),
        "db.models.register() of a version once more": lambda: models.register(
            "played 3", "1", model_name="played", f1_score=1, brier_score=0
        ),
        "db.models.promote()": lambda: models.promote("played 2"),
        "db.models.promote() with gates": lambda: models.promote("played 3", gates=gates, reasoning="It is better."),
        "db.models.rollback()": lambda: models.rollback("played", of="played 3", reasoning="It was not."),
        "db.models.reject()": lambda: models.reject("played 1", gates=gates, decided_at=moment, decided_by="played"),
        "db.models.archive()": lambda: models.archive("played 1"),
        "db.decisions.record() about no candidate": lambda: decisions.record("pending", candidate=None),
        "db.decisions.record() about a candidate that is not registered": lambda: decisions.record(
            "reject", candidate="played 4", gates=gates, reasoning="", model_name="played", decided_at=moment
        ),
        "db.decisions.record() of a promotion": lambda: decisions.record("promote", candidate="played 1", gates={}),
        "db.monitoring.log()": lambda: monitoring.log(*series, 0.5),
        "db.monitoring.log() with all there is": lambda: monitoring.log(
            *series, -1e300, timestamp=moment, metadata=["a", {"b": None}], model_name="played"
        ),
        "db.monitoring.log_failure()": lambda: monitoring.log_failure(*series, "no rows"),
        "db.monitoring.log_many()": lambda: monitoring.log_many(
            [{**names, "metric_value": value, "timestamp": moment} for value in (0, None, 1e300)]
        ),
        "db.monitoring.expect()": lambda: monitoring.expect(
            *series, interval=timedelta(days=1), lower=-1, upper=1, model_name="played"
        ),
        "db.monitoring.forget()": lambda: monitoring.forget(*series, model_name="played", with_rows=True),
    }
