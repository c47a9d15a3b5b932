"""Each public call of the storage layer, for tests that make all of them as some role."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import cached_property

from mlops_db import DatabaseManager
from mlops_db.settings import Settings
from mlops_db.storage.metrics.bounds import Bounds
from mlops_db.storage.version_imports import KnownVersion, import_versions

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
_ROWS = [{"metric_type": "drift", "metric_name": "psi", "metric_value": 1.0}]
_BOUNDS = [Bounds("drift", "psi", upper=0.2)]
NO_CALLS = {"DatabaseManager.close", "DatabaseManager.closed"}  # they open no connection

Call = Callable[[DatabaseManager], object]


def public_calls() -> set[str]:
    """The names of all public calls, such as `Monitoring.log`, as the classes have them now."""
    with DatabaseManager(Settings()) as db:
        parts = {name: getattr(db, name) for name, part in vars(DatabaseManager).items() if is_part(part)}
    found = {
        f"{type(each).__name__}.{name}"
        for each in (db, *parts.values())
        for name in dir(type(each))
        if not name.startswith("_") and name not in parts
    }
    return (found | {import_versions.__name__}) - NO_CALLS


def is_part(attribute: object) -> bool:
    """Whether an attribute of DatabaseManager is a part of it, such as `models`."""
    return isinstance(attribute, cached_property)


def make_calls(db: DatabaseManager) -> dict[str, Exception]:
    """Make each call, in an order in which all of them work; returns the calls that failed, with their errors."""
    failed: dict[str, Exception] = {}
    for name, call in calls():
        try:
            call(db)
        except Exception as error:  # noqa: BLE001, PERF203  (whatever the call raises)
            failed.setdefault(name, error)
    return failed


def calls() -> Iterator[tuple[str, Call]]:
    """The calls with their names. A name may come several times, for arguments that use other statements."""
    yield "DatabaseManager.ping", lambda db: db.ping()
    yield "DatabaseManager.wait_until_ready", lambda db: db.wait_until_ready(0)
    yield "DatabaseManager.engine", lambda db: _use(db.engine.connect())
    for block in ("connection", "session", "cursor", "safe_cursor", "get_connection"):
        yield f"DatabaseManager.{block}", lambda db, block=block: _use(getattr(db, block)())  # type: ignore[misc]
    yield "DatabaseManager.execute_query", lambda db: db.execute_query("SELECT * FROM v_model_timeline")
    yield from _calls_of_models()
    yield from _calls_of_decisions()
    yield from _calls_of_monitoring()


def _use(block: object) -> None:
    with block:  # type: ignore[attr-defined]
        pass


def _calls_of_models() -> Iterator[tuple[str, Call]]:
    for run in ("run-0", "run-1", "run-2"):
        yield "ModelVersions.register", lambda db, run=run: db.models.register(run, run)  # type: ignore[misc]
    yield "ModelVersions.register", lambda db: db.models.register("run-0", "run-0", f1_score=0.5, brier_score=0.5)
    yield "ModelVersions.promote", lambda db: db.models.promote("run-0")
    yield "ModelVersions.promote", lambda db: db.models.promote("run-1", gates={"coverage": True}, reasoning="better")
    yield "ModelVersions.rollback", lambda db: db.models.rollback(of="run-1")
    yield "ModelVersions.promote", lambda db: db.models.promote("run-1", even_rolled_back=True)
    yield "ModelVersions.reject", lambda db: db.models.reject("run-2", decided_at=NOON)
    yield "ModelVersions.archive", lambda db: db.models.archive("run-1", even_production=True)
    yield "ModelVersions.get", lambda db: db.models.get("run-0")
    yield "ModelVersions.production", lambda db: db.models.production()
    yield "ModelVersions.list", lambda db: db.models.list()
    known = [
        KnownVersion("run-3", "3", "archived", None, None, NOON, NOON),
        KnownVersion("run-4", "4", "production", 0.5, 0.5, NOON, NOON),
    ]
    yield (
        import_versions.__name__,
        lambda db: import_versions(db, "imported", known, source="a registry", reasoning="it is in production"),
    )


def _calls_of_decisions() -> Iterator[tuple[str, Call]]:
    yield "Decisions.record", lambda db: db.decisions.record("reject", candidate=None)
    yield "Decisions.record", lambda db: db.decisions.record("reject", candidate="run-9", decided_at=NOON)
    yield "Decisions.history", lambda db: db.decisions.history()
    yield "Decisions.summary", lambda db: db.decisions.summary()


def _calls_of_monitoring() -> Iterator[tuple[str, Call]]:
    yield "Monitoring.log", lambda db: db.monitoring.log("drift", "psi", 0.5)
    yield "Monitoring.log", lambda db: db.monitoring.log("drift", "long ago", 0.5, timestamp=NOON)
    yield "Monitoring.log_failure", lambda db: db.monitoring.log_failure("drift", "ks", "no data")
    yield "Monitoring.log_many", lambda db: db.monitoring.log_many(_ROWS)
    yield "Monitoring.log_many", lambda db: db.monitoring.log_many(_ROWS, replace=NOON)
    yield "Monitoring.log_many", lambda db: db.monitoring.log_many(_ROWS, replace=NOON, bounds=_BOUNDS)
    yield "Monitoring.expect", lambda db: db.monitoring.expect("drift", "psi", interval=timedelta(days=1))
    yield "Monitoring.series", lambda db: db.monitoring.series()
    yield "Monitoring.latest", lambda db: db.monitoring.latest()
    yield "Monitoring.latest", lambda db: db.monitoring.latest("default")
    yield "Monitoring.history", lambda db: list(db.monitoring.history("drift", "psi"))
    yield "Monitoring.history_frame", lambda db: db.monitoring.history_frame("drift", "psi")
    yield "Monitoring.history_frame", lambda db: db.monitoring.history_frame("drift", "psi", every="1d")
    yield "Monitoring.frame", lambda db: db.monitoring.frame()
    yield "Monitoring.gaps", lambda db: db.monitoring.gaps(since=NOON)
    yield "Monitoring.forget", lambda db: db.monitoring.forget("drift", "ks", with_rows=True)
