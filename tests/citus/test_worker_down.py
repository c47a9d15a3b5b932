"""A worker that is down: calls about its models fail as retryable with its name, all others go on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlops_db.errors import (
    ConnectionLostError,
    ContentionError,
    StatementFailedError,
    StatementTimeoutError,
    TooManyConnectionsError,
    WorkerUnreachableError,
)
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.metrics.bounds import Bounds
from support.citus import CitusCluster
from support.cluster import connect_superuser, start, stop
from support.database import Database
from support.sessions import wait_until

NOON = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
BY_NODE = """
SELECT s.nodename, min(model) FROM unnest(%s::text[]) AS model
  JOIN citus_shards AS s ON s.shardid = get_shard_id_for_distribution_column('monitoring_metrics', model)
 WHERE s.table_name = 'monitoring_metrics'::regclass GROUP BY 1 ORDER BY 1
"""
INSERT = "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, model_name) VALUES ('d', 'a', %s, %s)"
OF_COORDINATOR = "application_name LIKE 'citus_internal%'"


class Place(NamedTuple):
    """A model whose worker goes down, that worker, and a model of the other worker."""

    model: str
    worker: Path
    other: str

    @property
    def address(self) -> str:
        return f"{self.worker}:5432"


@pytest.fixture
def place(over_two: Database) -> Place:
    (node, model), (_, other) = over_two.query(BY_NODE, [[f"model {number}" for number in range(20)]])
    return Place(model, Path(node), other)


@pytest.fixture
def db(over_two: Database) -> Iterator[DatabaseManager]:
    with DatabaseManager(over_two.settings) as manager:
        yield manager


@contextmanager
def down(cluster: CitusCluster, worker: Path) -> Iterator[None]:
    stop(cluster.programs, worker)
    try:
        yield
    finally:
        start(cluster.programs, worker)


def rows(*models: str, value: float = 1) -> list[dict[str, Any]]:
    return [
        {"metric_type": "drift", "metric_name": "age", "metric_value": value, "model_name": model} for model in models
    ]


def session(db: DatabaseManager) -> list[tuple[Any, ...]] | int:
    return db.execute_query("SELECT pg_backend_pid()")


def calls(db: DatabaseManager, model: str) -> dict[str, Callable[[], Any]]:
    m = db.monitoring
    return {
        "log": lambda: m.log("drift", "age", 1.0, model_name=model),
        "log_many": lambda: m.log_many(rows(model)),
        "replace": lambda: m.log_many(
            rows(model), replace=NOON, bounds=[Bounds("drift", "age", upper=2, model_name=model)]
        ),
        "expect": lambda: m.expect("drift", "age", model_name=model),
        "latest": lambda: m.latest(model),
        "series": lambda: m.series(model),
        "gaps": lambda: m.gaps(model, since=NOON),
        "history": lambda: list(m.history("drift", "age", model_name=model)),
        "history_frame": lambda: m.history_frame("drift", "age", model_name=model),
        "frame": lambda: m.frame(model_name=model),
    }


def test_calls_about_its_models_fail_and_others_go_on(
    two_workers: CitusCluster, db: DatabaseManager, place: Place
) -> None:
    for model in (place.model, place.other):
        for call in calls(db, model).values():
            call()
    before = session(db)
    with down(two_workers, place.worker):
        for name, call in calls(db, place.model).items():
            with pytest.raises(WorkerUnreachableError) as failed:
                call()
            assert failed.value.retryable, name
            assert str(failed.value).startswith(f"worker {place.address} of "), name
            assert str(failed.value).endswith("; nothing of it was stored"), name
            assert "\n" not in str(failed.value)
        for call in calls(db, place.other).values():
            call()
        with pytest.raises(WorkerUnreachableError):
            db.monitoring.latest()
        with pytest.raises(WorkerUnreachableError):
            db.monitoring.log_many(rows(place.other, place.model), replace=NOON)
        db.models.register("run", "1")
    for model in (place.model, place.other):
        for call in calls(db, model).values():
            call()
    assert session(db) == before


def test_it_goes_down_while_rows_are_sent(two_workers: CitusCluster, db: DatabaseManager, place: Place) -> None:
    db.monitoring.log_many(rows(place.model, place.other), replace=NOON)
    before = session(db)

    def stopping() -> Iterator[dict[str, Any]]:
        yield from rows(place.model, place.other, value=2) * 2000
        stop(two_workers.programs, place.worker)
        yield from rows(place.model, place.other, value=2) * 20_000

    try:
        with pytest.raises(WorkerUnreachableError) as failed:
            db.monitoring.log_many(stopping(), replace=NOON)
    finally:
        start(two_workers.programs, place.worker)
    assert place.address in str(failed.value)
    assert failed.value.retryable
    for model in (place.model, place.other):
        assert [row.metric_value for row in db.monitoring.history("drift", "age", model_name=model)] == [1]
    assert session(db) == before


@pytest.mark.parametrize("phases", [1, 2])
def test_it_goes_down_before_the_commit(
    two_workers: CitusCluster, db: DatabaseManager, over_two: Database, place: Place, phases: int
) -> None:
    def insert() -> None:
        with db.cursor() as cursor:
            for model in (place.model, place.other)[:phases]:
                cursor.execute(INSERT, [1, model])
            stop(two_workers.programs, place.worker)

    expected: Any = WorkerUnreachableError if phases == 2 else ConnectionLostError
    try:
        with pytest.raises(expected) as failed:
            insert()
    finally:
        start(two_workers.programs, place.worker)
    assert place.address in str(failed.value)
    assert failed.value.retryable is (phases == 2)
    if phases == 2:
        assert "nothing of it was stored" in str(failed.value)
    else:
        assert failed.value.committed is None
        assert "may be stored" in str(failed.value)
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 0


def test_its_sessions_are_ended(db: DatabaseManager, over_two: Database, place: Place) -> None:
    read = "SELECT count(pg_sleep(30)) FROM (SELECT 1 FROM monitoring_metrics WHERE model_name = %s LIMIT 1) AS one"
    db.monitoring.log("drift", "age", 1, model_name=place.model)
    with connect_superuser(place.worker, over_two.settings.database) as worker:

        def end() -> None:
            worker.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OF_COORDINATOR}")

        def end_the_read() -> None:
            reading = f"SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND {OF_COORDINATOR}"
            wait_until(lambda: worker.execute(reading).fetchall(), "the read to be on the worker")
            end()

        ending = threading.Thread(target=end_the_read)
        ending.start()
        with pytest.raises(WorkerUnreachableError, match="does not answer") as failed:
            db.execute_query(read, [place.model])
        ending.join()
        assert place.address in str(failed.value)
        # A connection of the coordinator's that it finds dead may fail the next call, but not the one after it.
        errors: list[WorkerUnreachableError] = []
        for call in calls(db, place.model).values():
            end()
            try:
                call()
            except WorkerUnreachableError as error:
                errors.append(error)
                call()
        assert errors
        assert all(error.retryable and place.address in str(error) for error in errors)


def test_it_takes_no_more_connections(db: DatabaseManager, over_two: Database, place: Place) -> None:
    limit = f"ALTER ROLE {over_two.settings.user} CONNECTION LIMIT"
    with connect_superuser(place.worker, over_two.settings.database) as worker:
        worker.execute("SET citus.enable_ddl_propagation = off")
        worker.execute(f"{limit} 0")
        try:
            for call in calls(db, place.model).values():
                with pytest.raises(TooManyConnectionsError, match="refuses the coordinator: too many connec") as failed:
                    call()
                assert failed.value.retryable
                assert str(failed.value).startswith(f"worker {place.address} of ")
        finally:
            worker.execute(f"{limit} -1")
    for call in calls(db, place.model).values():
        call()


def test_its_statement_is_cancelled(db: DatabaseManager, over_two: Database, place: Place) -> None:
    copying = f"query LIKE 'COPY%' AND state = 'active' AND {OF_COORDINATOR}"  # not one that has ended
    cancel = f"SELECT 1 FROM pg_stat_activity WHERE {copying} AND pg_cancel_backend(pid)"

    def cancelling() -> Iterator[dict[str, Any]]:
        yield from rows(place.model) * 5000
        wait_until(lambda: worker.execute(cancel).fetchall(), "COPY on the worker")
        yield from rows(place.model) * 50_000

    with connect_superuser(place.worker, over_two.settings.database) as worker:
        for _ in range(3):
            with pytest.raises(StatementTimeoutError, match="canceling statement due to user request") as cancelled:
                db.monitoring.log_many(cancelling())
            assert not cancelled.value.retryable
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == 0


def test_a_constraint_of_a_shard_is_as_on_one_node(db: DatabaseManager, place: Place) -> None:
    def insert() -> None:
        with db.cursor() as cursor:
            cursor.execute(INSERT, ["NaN", place.model])

    with pytest.raises(StatementFailedError, match="violates check constraint") as refused:
        insert()
    assert not refused.value.retryable


def test_a_deadlock_over_two_workers_is_retryable(db: DatabaseManager, place: Place, over_two: Database) -> None:
    db.monitoring.log("drift", "age", 1, model_name=place.model)
    db.monitoring.log("drift", "age", 1, model_name=place.other)
    meet = threading.Barrier(2, timeout=30)
    errors: list[ContentionError] = []

    def change(first: str, second: str) -> None:
        update = "UPDATE monitoring_metrics SET metric_value = 2 WHERE model_name = %s"
        try:
            with db.cursor() as cursor:
                cursor.execute(update, [first])
                meet.wait()
                cursor.execute(update, [second])
        except ContentionError as error:
            errors.append(error)

    threads = [
        threading.Thread(target=change, args=pair) for pair in ((place.model, place.other), (place.other, place.model))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [error.retryable for error in errors] == [True]
    assert "distributed deadlock" in str(errors[0])
    assert over_two.value("SELECT count(*) FROM monitoring_metrics WHERE metric_value = 2") == 2
