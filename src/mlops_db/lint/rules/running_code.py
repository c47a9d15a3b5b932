"""What wrote to the tables before an upgrade still can: jobs go on with the code of before while it runs, and after.

Played are this package's own calls, and an INSERT into each table, with all of its columns and with those alone that
it required. Names that go are not told here: squawk has rules for what renames and drops.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import psycopg2
import psycopg2.errors

from mlops_db.lint.revision_files import Finding
from mlops_db.lint.rows import inserts
from mlops_db.server.connection import connect
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.db_manager import DatabaseManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.settings import Settings

RULE = "running-code"
_NAMES_GONE = "42"  # the class of SQLSTATEs of what does not exist, or may not be used
_IDENTITY = "428C9"  # though this one is of a value that a column does not take
_SEQUENCES = """
    SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, start_value), last_value IS NOT NULL
      FROM pg_sequences WHERE schemaname IN ('public', 'mlops_internal')
"""
# A write as findings tell of it, and its SQL; None for a call of this package's.
Writes = dict[str, str | None]


class _OneTransaction(DatabaseManager):
    """Carries every call out in a savepoint of one transaction, whatever revision the database is at."""

    def __init__(self, settings: Settings, connection: Connection) -> None:
        super().__init__(settings)
        self._driver = connection

    @contextmanager
    def safe_cursor(self) -> Iterator[SafeCursor]:
        with self._driver.cursor(cursor_factory=SafeCursor) as cursor, _savepoint(self._driver):
            yield cursor


def what_works(settings: Settings, coming: Mapping[tuple[str, str, str], str]) -> Writes:
    """The writes that the database takes now; none of them stays.

    Args:
        settings: the scratch database.
        coming: what rows have to keep to later, as for `insert_rows`.
    """
    with _trial(settings) as connection, connection.cursor() as cursor:
        writes: Writes = dict.fromkeys(_calls(_OneTransaction(settings, connection)))
        writes |= {f"an INSERT into {shown}": statement for shown, statement in inserts(cursor, coming)}
        refused = _refused(settings, connection, writes)
    return {write: statement for write, statement in writes.items() if write not in refused}


def check(file: str, settings: Settings, worked: Writes) -> Iterator[Finding]:
    """Find what worked before the upgrade and is refused now."""
    with _trial(settings) as connection:
        refused = _refused(settings, connection, worked)
    told = set()
    for write, error in refused.items():
        broken = (error.pgcode, error.diag.column_name, error.diag.constraint_name)  # a partition is another table
        if broken not in told and (not (error.pgcode or "").startswith(_NAMES_GONE) or error.pgcode == _IDENTITY):
            told.add(broken)
            said = str(error).strip().partition("\n")[0]
            yield Finding(
                file, RULE, f"{write} worked before the upgrade, and is refused after it: {said}",
                "Let the code that writes it go first, by a release; if it has, or nobody wrote that, say so:"
                f" `Accepted: {RULE}, because ...` in the docstring.",
            )  # fmt: skip


@contextmanager
def _trial(settings: Settings) -> Iterator[Connection]:
    """A connection of which nothing stays: not even what its sequences gave out, for keys refer to that."""
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute(_SEQUENCES)
        sequences = cursor.fetchall()
        try:
            yield connection
        finally:
            connection.rollback()
            for sequence in sequences:
                cursor.execute("SELECT setval(%s::regclass, %s, %s)", sequence)
            connection.commit()


def _refused(settings: Settings, connection: Connection, writes: Writes) -> dict[str, psycopg2.Error]:
    """Carry writes out, in order; returns what the server said of those that it refused."""
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
            said = server_error(error)
            # Without one, the package refused: because a call before this one was.
            if said is not None:
                refused[write] = said
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


def server_error(error: BaseException) -> psycopg2.Error | None:
    """What the server said, behind what was made of it; None if it said nothing."""
    behind: list[BaseException | None] = [error]
    for each in behind:  # which grows; an error can be behind itself
        if isinstance(each, psycopg2.Error):
            return each
        if each is not None:
            further = (getattr(each, "orig", None), each.__cause__, each.__context__)
            behind.extend(other for other in further if other not in behind)
    return None


def _calls(db: DatabaseManager) -> dict[str, Callable[[], object]]:
    """What jobs call, with what they leave out left out, and with it: in the order in which a retraining does."""
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
