"""A role of the jobs' own has what docs/operating.md grants it: every call works, and no more is needed."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import MlopsDbError, NotPermittedError
from mlops_db.settings import Settings
from mlops_db.storage.metrics.bounds import Bounds
from support import roles
from support.database import Database
from support.documented import grants_of_jobs

pytestmark = pytest.mark.libraries

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
ROWS = [{"metric_type": "drift", "metric_name": "psi", "metric_value": 1.0}]
BOUNDS = Bounds("drift", "psi", upper=0.2)


@pytest.fixture
def jobs(head: Database) -> Iterator[Settings]:
    with roles.role(head, "jobs") as settings:
        head.query(grants_of_jobs())
        yield settings


def test_a_jobs_role_can_make_every_call(jobs: Settings) -> None:
    with DatabaseManager(jobs) as db:
        for run in ("run-0", "run-1"):
            db.models.register(run, run)
            db.models.promote(run)
        assert db.models.rollback(of="run-1").mlflow_run_id == "run-0"
        db.models.reject("run-1")
        db.models.archive("run-1")
        assert [version.mlflow_run_id for version in db.models.list()] == ["run-1", "run-0"]
        db.decisions.record("reject", candidate=None, decided_at=NOON)
        assert db.decisions.summary()
        assert db.decisions.history()
        db.monitoring.log("drift", "psi", 0.5)
        db.monitoring.log_failure("drift", "ks", "no data")
        db.monitoring.log_many(ROWS, replace=NOON)
        db.monitoring.log_many(ROWS, replace=NOON)
        db.monitoring.expect("drift", "psi", interval=timedelta(days=1))
        db.monitoring.log_many(ROWS, bounds=[BOUNDS])
        assert [series.metric_name for series in db.monitoring.series()] == ["ks", "psi"]
        assert len(db.monitoring.latest()) == len(db.monitoring.series())
        assert [row.metric_value for row in db.monitoring.history("drift", "psi")]
        assert db.monitoring.gaps(since=NOON)
        assert db.monitoring.forget("drift", "ks", with_rows=True) == 1


@pytest.mark.plain_postgresql(
    reason="the shards below a view are read with the rights of who asks, so latest() needs more"
)
def test_what_is_granted_for_single_calls_is_needed_by_these_alone(head: Database) -> None:
    with roles.role(head, "jobs") as settings, DatabaseManager(settings) as db:
        head.query(grants_of_jobs().partition("GRANT DELETE")[0])
        db.monitoring.log_many(ROWS)
        assert len(db.monitoring.latest()) == 1
        for call in (
            lambda: db.monitoring.log_many(ROWS, replace=NOON),
            db.monitoring.series,
            lambda: db.monitoring.expect("drift", "psi"),
            lambda: db.monitoring.log_many(ROWS, bounds=[BOUNDS]),
            lambda: db.monitoring.gaps(since=NOON),
            lambda: db.monitoring.forget("drift", "psi", with_rows=True),
        ):
            with pytest.raises(NotPermittedError):
                call()
        assert len(list(db.monitoring.history("drift", "psi"))) == 1


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("TRUNCATE monitoring_metrics", "table monitoring_metrics"),
        ("DELETE FROM model_versions", "table model_versions"),
        ("ALTER TABLE model_versions ADD COLUMN note text", "table model_versions"),
        ("DROP VIEW v_recent_monitoring", "view v_recent_monitoring"),
        ("TRUNCATE mlops_internal.metric_series", "table metric_series"),
        ("UPDATE alembic_version SET version_num = '0001'", "table alembic_version"),
        ("SELECT mlops_internal.register_series('m', 't', 'n')", "function register_series"),
        ("CALL mlops_internal.maintain()", "procedure maintain"),
    ],
)
def test_a_jobs_role_may_not_do_more(jobs: Settings, statement: str, refused: str) -> None:
    with DatabaseManager(jobs) as db, pytest.raises(MlopsDbError, match=f"(permission denied for|owner of) {refused}"):
        db.execute_query(statement)
