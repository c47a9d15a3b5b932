"""A run that replaces rows knows its own ones; if it cannot tell them from others, on Citus, it stores nothing."""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from mlops_db.errors import ContentionError
from mlops_db.storage.mapped_moment import MappedMoment
from mlops_db.storage.monitoring import Monitoring
from support.database import Database

pytestmark = pytest.mark.libraries

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
VALUES = "SELECT metric_value FROM monitoring_metrics WHERE metric_name = 'age' ORDER BY 1"
SET_BY_TRIGGER = """
CREATE FUNCTION public.guest() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {} END$$;
CREATE TRIGGER guest BEFORE INSERT ON monitoring_metrics FOR EACH ROW EXECUTE FUNCTION public.guest()
"""
BEGAN = """
SELECT xact_start FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE '%COPY public.monitoring_metrics%' AND pid <> pg_backend_pid()
   AND state = 'active' AND application_name NOT LIKE 'citus%'
"""
STORE = """
INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, timestamp, created_at, metadata)
VALUES ('drift', 'age', 7, %s, %s, %s)
"""


def rows(*values: float) -> list[dict[str, Any]]:
    return [{"metric_type": "drift", "metric_name": "age", "metric_value": value} for value in values]


def stored(head: Database) -> list[float]:
    return [value for (value,) in head.query(VALUES)]


def refuse_to_replace(head: Database, monitoring: Monitoring, given: Any, moment: datetime = NOON) -> None:
    before = stored(head)
    with pytest.raises(ContentionError, match="cannot be told from those of other runs; nothing was stored") as refused:
        monitoring.log_many(given, replace=moment)
    assert refused.value.retryable
    assert stored(head) == before


@pytest.mark.plain_postgresql(reason="Citus has no triggers on a distributed table but ours")
@pytest.mark.parametrize(
    ("action", "left"),
    [
        ("NEW.created_at := clock_timestamp(); RETURN NEW;", [3]),
        ("NEW.created_at := '2026-01-01'; RETURN NEW;", [3]),
        ("NEW.id := -NEW.id; RETURN NEW;", [3]),
        ("NEW.timestamp := NEW.timestamp - interval '1 second'; RETURN NEW;", [3]),
        ("NEW.metric_name := 'height'; RETURN NEW;", []),
    ],
)
def test_a_trigger_of_a_guest_changes_the_rows(
    head: Database, monitoring: Monitoring, action: str, left: list[float]
) -> None:
    monitoring.log_many(rows(1, 2), replace=NOON)
    head.query(SET_BY_TRIGGER.format(action))
    assert monitoring.log_many(rows(3), replace=NOON).replaced == 2
    assert stored(head) == left


def test_a_trigger_of_a_guest_leaves_rows_out(
    request: pytest.FixtureRequest, head: Database, monitoring: Monitoring
) -> None:
    if request.config.getoption("distributed"):
        pytest.skip("Citus has no triggers on a distributed table but ours")
    monitoring.log_many(rows(1, 2), replace=NOON)
    head.query(SET_BY_TRIGGER.format("IF NEW.metric_value = 3 THEN RETURN NULL; END IF; RETURN NEW;"))
    assert monitoring.log_many(rows(3, 4), replace=NOON).replaced == 2
    assert stored(head) == [4]


def test_the_sequence_is_set_back_meanwhile(
    request: pytest.FixtureRequest, head: Database, monitoring: Monitoring
) -> None:
    monitoring.log_many(rows(1, 2), replace=NOON)
    head.query("SELECT setval('monitoring_metrics_id_seq', 1000)")

    def setting_back() -> Iterator[dict[str, Any]]:
        yield from rows(3)
        head.query("SELECT setval('monitoring_metrics_id_seq', 500)")

    if request.config.getoption("distributed"):
        refuse_to_replace(head, monitoring, setting_back())
    else:
        assert monitoring.log_many(setting_back(), replace=NOON).replaced == 2
        monitoring.log_many(rows(5, 6), replace=NOON)
    assert monitoring.log_many(rows(4), replace=NOON).replaced == 2
    assert stored(head) == [4]


def test_a_sequence_that_sessions_take_ids_from_in_advance(
    request: pytest.FixtureRequest, head: Database, monitoring: Monitoring
) -> None:
    if request.config.getoption("distributed"):
        pytest.skip("Citus lets nobody alter a distributed sequence")
    head.query("ALTER SEQUENCE monitoring_metrics_id_seq CACHE 100")
    for value in range(3):
        assert monitoring.log_many(rows(value, value), replace=NOON).replaced == (2 if value else 0)
    assert stored(head) == [2, 2]


def meanwhile(head: Database, metadata: str | None) -> Iterator[dict[str, Any]]:
    """Rows, while another run stores one that began in the same microsecond."""
    yield from rows(3) * 2000  # more than one piece, so that COPY has begun
    head.query(STORE, [NOON, head.value(BEGAN), metadata])


def test_another_run_of_the_same_microsecond(
    request: pytest.FixtureRequest, head: Database, monitoring: Monitoring
) -> None:
    monitoring.log_many(rows(1, 2), replace=NOON)
    if request.config.getoption("distributed"):
        with pytest.raises(ContentionError, match="cannot be told"):
            monitoring.log_many(meanwhile(head, None), replace=NOON)
        assert stored(head) == [1, 2, 7]
        assert monitoring.log_many(rows(4), replace=NOON).replaced == 3
    else:
        assert monitoring.log_many(meanwhile(head, None), replace=NOON).replaced == 3
        assert monitoring.log_many(rows(4), replace=NOON).replaced == 2000
    assert stored(head) == [4]


def test_another_mapped_run_of_the_same_microsecond_is_no_harm(head: Database, monitoring: Monitoring) -> None:
    moment = MappedMoment.of(NOON, 1)
    monitoring.log_many(rows(1), replace=moment)
    assert monitoring.log_many(meanwhile(head, '{"map_index": 2}'), replace=moment).replaced == 1
    assert stored(head) == [*[3] * 2000, 7]
