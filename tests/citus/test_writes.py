"""Writes of jobs on a coordinator with two workers: mapped runs at once, several models in a call, and their role."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import psycopg
import pytest

from mlops_db.admin.cluster.distribute import distribute
from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import WRITER
from mlops_db.errors import AuthenticationFailedError, ContentionError
from mlops_db.migration.commands import upgrade
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.mapped_moment import MappedMoment
from mlops_db.storage.metrics.bounds import Bounds
from support.citus import CitusCluster, prepare_database
from support.cluster import connect_superuser
from support.database import TIMEOUT_S, Database

NOON = datetime(2026, 11, 1, 12, tzinfo=timezone.utc)
MODELS = [f"model {number}" for number in range(6)]
# One of several mapped runs about one moment, repeated as an orchestrator does after an error that is retryable.
RUN = """
import random, sys, time
from datetime import datetime
from mlops_db import DatabaseManager, MlopsDbError
from mlops_db.storage.mapped_moment import MappedMoment

map_index, moment, models = int(sys.argv[1]), datetime.fromisoformat(sys.argv[2]), sys.argv[3:]
rows = [
    {"metric_type": "drift", "metric_name": f"m{i}", "metric_value": map_index, "model_name": model}
    for model in models for i in range(20)
]
with DatabaseManager() as db:
    print("ready", flush=True)
    sys.stdin.readline()
    for attempt in range(4):
        for _ in range(10):
            try:
                db.monitoring.log_many(rows, replace=MappedMoment.of(moment, map_index))
                break
            except MlopsDbError as error:
                if not error.retryable:
                    raise
                time.sleep(random.uniform(0, 0.5))  # or they would meet again
        else:
            raise SystemExit("never")
"""


@pytest.fixture
def db(over_two: Database) -> Iterator[DatabaseManager]:
    with DatabaseManager(over_two.settings) as manager:
        yield manager


def run_at_once(database: Database, *runs: tuple[str, ...]) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments, *MODELS],
            env=database.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        for arguments in runs
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0


def test_mapped_runs_at_once_each_leave_their_rows(over_two: Database) -> None:
    run_at_once(over_two, *((str(index), NOON.isoformat()) for index in range(3)))
    left = over_two.query(
        "SELECT metric_value, metadata, count(*) FROM monitoring_metrics GROUP BY 1, 2 ORDER BY 1",
    )
    assert left == [(index, {"map_index": index}, 20 * len(MODELS)) for index in range(3)]


def rows(value: float, *models: str) -> list[dict[str, object]]:
    return [
        {"metric_type": "drift", "metric_name": "age", "metric_value": value, "model_name": model} for model in models
    ]


def test_rows_and_bounds_of_several_models_in_one_call(db: DatabaseManager) -> None:
    bounds = [Bounds("drift", "age", upper=0.5, model_name=model) for model in MODELS]
    assert db.monitoring.log_many(rows(0, *MODELS), replace=NOON, bounds=bounds).replaced == 0
    assert db.monitoring.log_many(rows(1, *MODELS[:4]), replace=NOON, bounds=bounds[:2]).replaced == 4
    assert {state.model_name: (state.metric_value, state.upper_threshold) for state in db.monitoring.latest()} == {
        model: (1 if model in MODELS[:4] else 0, 0.5) for model in MODELS
    }
    plain = db.monitoring.log_many(rows(2, MODELS[0]), replace=MappedMoment.of(NOON, 1))
    assert plain.replaced == 0
    assert db.monitoring.log_many(rows(3, MODELS[0]), replace=MappedMoment.of(NOON, 1)).replaced == 1
    assert db.monitoring.log_many(rows(4, MODELS[0]), replace=NOON).replaced == 2
    assert [row.metric_value for row in db.monitoring.history("drift", "age", model_name=MODELS[0])] == [4]


def test_a_sequence_that_was_set_back_loses_nothing(db: DatabaseManager, over_two: Database) -> None:
    db.monitoring.log_many(rows(1, *MODELS), replace=NOON)
    over_two.query("SELECT setval('monitoring_metrics_id_seq', 1000)")

    def setting_back() -> Iterator[dict[str, object]]:
        yield from rows(2, *MODELS)
        over_two.query("SELECT setval('monitoring_metrics_id_seq', 500)")

    with pytest.raises(ContentionError, match="cannot be told from those of other runs; nothing was stored"):
        db.monitoring.log_many(setting_back(), replace=NOON)
    assert over_two.query("SELECT metric_value, count(*) FROM monitoring_metrics GROUP BY 1") == [(1, len(MODELS))]


def test_a_series_is_forgotten_on_its_shard(db: DatabaseManager, over_two: Database) -> None:
    db.monitoring.log_many(rows(1, *MODELS))
    assert db.monitoring.forget("drift", "age", model_name=MODELS[1], with_rows=True) == 1
    assert [series.model_name for series in db.monitoring.series()] == [MODELS[0], *MODELS[2:]]
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == len(MODELS) - 1


def test_to_forget_waits_only_a_moment_for_a_row_on_a_worker(db: DatabaseManager, over_two: Database) -> None:
    db.monitoring.log_many(rows(1, *MODELS))
    shard, node = over_two.query(
        "SELECT shard_name, nodename FROM citus_shards WHERE table_name = 'mlops_internal.metric_series'::regclass"
        " AND shardid = get_shard_id_for_distribution_column('mlops_internal.metric_series', %s::text)",
        [MODELS[0]],
    )[0]
    settings = over_two.settings
    # A session of the worker itself, so that nothing waits on the coordinator, where the timeout holds anyhow.
    with psycopg.connect(host=node, user="postgres", dbname=settings.database) as worker:
        worker.execute(f"SELECT 1 FROM {shard} WHERE model_name = %s FOR UPDATE", [MODELS[0]])
        impatient = DatabaseManager(replace(settings, lock_wait=1))
        with impatient, pytest.raises(ContentionError, match="lock timeout"):
            impatient.monitoring.forget("drift", "age", model_name=MODELS[0], with_rows=True)
    assert over_two.value("SELECT count(*) FROM monitoring_metrics") == len(MODELS)


def test_a_call_waits_no_longer_for_a_lock_on_a_worker_than_here(db: DatabaseManager, over_two: Database) -> None:
    db.monitoring.log_many(rows(1, *MODELS), replace=NOON)
    settings = over_two.settings
    patience = replace(settings, pool_lock_timeout=300, pool_statement_timeout=20_000)
    calls = (
        lambda: impatient.monitoring.expect("drift", "age", model_name=MODELS[0]),
        lambda: impatient.monitoring.log_many(rows(2, *MODELS), replace=NOON),
        lambda: impatient.monitoring.log("drift", "age", 2, model_name=MODELS[0]),
        lambda: impatient.monitoring.history_frame("drift", "age", model_name=MODELS[0]),
    )
    with DatabaseManager(patience) as impatient:
        for table, call in zip(["metric_series"] + ["monitoring_metrics"] * 3, calls, strict=True):
            shard, node = over_two.query(
                "SELECT shard_name, nodename FROM citus_shards WHERE table_name = %s::regclass"
                " AND shardid = get_shard_id_for_distribution_column(table_name, %s::text)",
                [f"mlops_internal.{table}" if table == "metric_series" else table, MODELS[0]],
            )[0]
            with psycopg.connect(host=node, user="postgres", dbname=settings.database) as worker:
                worker.execute("SET citus.enable_manual_changes_to_shards = on")
                worker.execute(f"LOCK TABLE {shard} IN ACCESS EXCLUSIVE MODE")
                with pytest.raises(ContentionError, match=f"lock timeout; it is held on worker {node}:5432") as busy:
                    call()
            assert busy.value.retryable
            call()
    assert over_two.value("SELECT count(*) FROM monitoring_metrics WHERE metric_value = 2") == len(MODELS) + 1


def test_the_role_of_jobs_needs_no_more_than_on_one_node_but_a_login(over_two: Database) -> None:
    settings = over_two.settings
    jobs = replace(settings, user="jobs")
    become_jobs = replace(settings, user="login", parameters={"options": "-c role=jobs"})
    with psycopg.connect(
        host=settings.host, user="postgres", dbname=settings.database, autocommit=True
    ) as superuser:  # fmt: skip
        superuser.execute("CREATE ROLE jobs LOGIN")
        try:
            grant(settings, WRITER, "jobs")
            with DatabaseManager(jobs) as db:
                make_every_call(db)
            superuser.execute("CREATE ROLE login LOGIN")
            superuser.execute("GRANT jobs TO login")
            with DatabaseManager(become_jobs) as db:
                make_every_call(db)
            superuser.execute("ALTER ROLE jobs NOLOGIN")
            with DatabaseManager(become_jobs) as db:
                with pytest.raises(AuthenticationFailedError, match='"jobs" is not permitted to log in') as refused:
                    db.monitoring.latest(MODELS[0])
                assert not refused.value.retryable
        finally:
            superuser.execute("DROP OWNED BY jobs")
            superuser.execute("DROP ROLE IF EXISTS login")
            superuser.execute("DROP ROLE jobs")


def make_every_call(db: DatabaseManager) -> None:
    bounds = [Bounds("drift", "age", upper=2, model_name=model) for model in MODELS]
    db.monitoring.log_many(rows(1, *MODELS), replace=NOON, bounds=bounds)
    assert db.monitoring.log_many(rows(1, *MODELS), replace=NOON, bounds=bounds).replaced == len(MODELS)
    db.monitoring.log("drift", "psi", 1, model_name=MODELS[0])
    db.monitoring.log_failure("drift", "psi", "no data", model_name=MODELS[0])
    db.monitoring.expect("drift", "age", interval=timedelta(hours=1), model_name=MODELS[0])
    assert len(db.monitoring.latest()) == len(db.monitoring.series()) == len(MODELS) + 1
    assert len(db.monitoring.latest(MODELS[0])) == 2
    assert db.monitoring.gaps(MODELS[0], since=NOON)
    assert list(db.monitoring.history("drift", "age", model_name=MODELS[1]))
    assert len(db.monitoring.frame()) == len(MODELS) + 2  # and the failure
    assert len(db.monitoring.history_frame("drift", "age", model_name=MODELS[0])) == 1
    assert db.monitoring.forget("drift", "psi", model_name=MODELS[0], with_rows=True) == 2
    db.models.register("run", "1")
    db.models.promote("run")
    db.decisions.record("reject", candidate=None, decided_at=NOON)
    assert db.decisions.history()


def test_a_pool_from_before_the_extension_goes_on(one_node: CitusCluster) -> None:
    # A server gets Citus when it starts; the extension and the shards come while jobs keep their connections.
    name = "mlops_early_pool"
    with one_node.plain_database(name, owner="mlops_owner") as database:
        upgrade(database.settings)
        with DatabaseManager(replace(database.settings, pool_size=1)) as db:
            rows = [
                {"metric_type": "drift", "metric_name": "age", "metric_value": i, "model_name": model}
                for i, model in enumerate(MODELS)
            ]
            db.monitoring.log_many(rows, replace=NOON)
            pid = db.execute_query("SELECT pg_backend_pid()")
            with closing(connect_superuser(one_node.coordinator, name)) as server:
                prepare_database(server, shards_here=True)
            distribute(database.settings)

            assert db.monitoring.log_many(rows, replace=NOON).replaced == len(MODELS)
            assert db.monitoring.log("drift", "age", 7, model_name=MODELS[0])
            assert len(db.monitoring.latest()) == len(MODELS)
            assert [state.metric_value for state in db.monitoring.latest(MODELS[0])] == [7]
            assert len(db.monitoring.frame()) == len(MODELS) + 1
            assert len(db.monitoring.history_frame("drift", "age", model_name=MODELS[0])) == 2
            assert db.execute_query("SELECT pg_backend_pid()") == pid
