"""`db.monitoring.forget`: a series goes, and no row is left that the catalogue does not know."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import ContentionError, InvalidValueError, SeriesNotEmptyError, UnknownSeriesError
from mlops_db.settings import Settings
from mlops_db.storage.monitoring import Monitoring
from support.database import Database
from support.sessions import another_session, wait_until

pytestmark = pytest.mark.libraries

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
SERIES = ("drift", "psi")
ROW = {"metric_type": "drift", "metric_name": "psi", "metric_value": 1.0}
INSERT = "INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'psi', 1)"
WAITING = "SELECT count(*) FROM pg_locks WHERE relation = 'monitoring_metrics'::regclass AND NOT granted"
UNKNOWN = "SELECT count(*) FROM mlops_internal.missing_series()"


def names(monitoring: Monitoring) -> list[tuple[str, str]]:
    return [(series.model_name, series.metric_name) for series in monitoring.series()]


def test_a_series_without_rows_is_forgotten_with_what_was_expected_of_it(monitoring: Monitoring) -> None:
    monitoring.expect(*SERIES, interval=timedelta(hours=1), model_name="churn")
    monitoring.expect(*SERIES, lower=0)
    assert monitoring.forget(*SERIES, model_name="churn") == 0
    assert names(monitoring) == [("default", "psi")]
    monitoring.log(*SERIES, 1, model_name="churn")
    assert monitoring.series("churn")[0].expected_interval is None


def test_a_series_with_rows_is_forgotten_only_with_them(head: Database, monitoring: Monitoring) -> None:
    monitoring.log_many([{**ROW, "timestamp": NOON + timedelta(days=days)} for days in (-400, -40, 0, 0)])
    for other in ({"metric_type": "quality"}, {"metric_name": "ks"}, {"model_name": "churn"}):
        monitoring.log(**{**ROW, **other})  # type: ignore[arg-type]
    with pytest.raises(SeriesNotEmptyError) as caught:
        monitoring.forget(*SERIES)
    assert "'psi' of type 'drift' of model 'default' has rows" in str(caught.value)
    assert "with_rows=True" in caught.value.hint
    assert len(monitoring.series()) == 4

    assert monitoring.forget(*SERIES, with_rows=True) == 4

    assert head.value("SELECT count(*) FROM monitoring_metrics") == 3
    assert len(monitoring.series()) == 3
    with pytest.raises(UnknownSeriesError, match="there is no series 'psi'"):
        monitoring.forget(*SERIES, with_rows=True)


def test_rows_that_came_past_the_triggers_go_too(head: Database, monitoring: Monitoring) -> None:
    monitoring.log(*SERIES, 1)
    head.query("DELETE FROM mlops_internal.metric_series")
    with pytest.raises(SeriesNotEmptyError):
        monitoring.forget(*SERIES)
    assert monitoring.forget(*SERIES, with_rows=True) == 1


@pytest.mark.parametrize(
    ("arguments", "key"),
    [(("", "psi"), "metric_type"), (("drift", 7), "metric_name"), (("drift", "psi\0"), "metric_name")],
)
def test_what_is_no_series_is_refused_by_name(arguments: tuple[str, str], key: str) -> None:
    nowhere = Monitoring(DatabaseManager(Settings(host="/nonexistent")))
    with pytest.raises(InvalidValueError) as caught:
        nowhere.forget(*arguments)
    assert caught.value.key == key


def test_forget_removes_rows_only_with_with_rows(monitoring: Monitoring) -> None:
    monitoring.log(*SERIES, 1)
    with pytest.raises(InvalidValueError, match=r"^with_rows: is 'False'"):
        monitoring.forget(*SERIES, with_rows="False")  # type: ignore[arg-type]
    assert names(monitoring) == [("default", "psi")]


# At once


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_writer_that_has_begun_is_waited_for_while_others_go_on(
    head: Database, monitoring: Monitoring, *, with_rows: bool
) -> None:
    monitoring.expect(*SERIES, lower=0)
    with another_session(head, "a writer", INSERT) as writer, ThreadPoolExecutor(1) as threads:
        job = threads.submit(monitoring.forget, *SERIES, with_rows=with_rows)
        wait_until(lambda: job.done() or head.value(WAITING), "it to wait")
        monitoring.log("drift", "ks", 1)
        writer.commit()
        if with_rows:
            assert job.result() == 1
        else:
            with pytest.raises(SeriesNotEmptyError):
                job.result()
    assert ("default", "psi") not in names(monitoring) if with_rows else ("default", "psi") in names(monitoring)
    assert head.value(UNKNOWN) == 0


def test_a_writer_that_does_not_end_is_not_waited_for_endlessly(head: Database, monitoring: Monitoring) -> None:
    monitoring.expect(*SERIES, lower=0)
    with (
        DatabaseManager(replace(head.settings, lock_wait=100)) as db,
        another_session(head, "a writer", INSERT),
        pytest.raises(ContentionError) as caught,
    ):
        db.monitoring.forget(*SERIES)
    assert caught.value.retryable
    assert "still written to after 0.1 s" in str(caught.value)
    assert "MLOPS_LOCK_WAIT" in caught.value.hint
    assert names(monitoring) == [("default", "psi")]


def test_a_series_that_is_forgotten_and_written_by_many_at_once_is_always_known(
    head: Database, monitoring: Monitoring
) -> None:
    def write(_: int) -> None:
        for _ in range(15):
            monitoring.log(*SERIES, 1)
            monitoring.log_many([ROW])

    def forget(_: int) -> None:
        for _ in range(15):
            with suppress(UnknownSeriesError):
                monitoring.forget(*SERIES, with_rows=True)

    with ThreadPoolExecutor(5) as threads:
        jobs = [threads.submit(work, 0) for work in (write, write, write, forget, forget)]
        for job in jobs:
            job.result()
    assert head.value(UNKNOWN) == 0
