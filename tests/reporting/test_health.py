"""The health of each series: its state, since when, and why, as the reader role sees it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from alembic import command

from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER
from mlops_db.errors import BehindHeadError, MlopsDbError, NotPermittedError, RefusedError, StatementFailedError
from mlops_db.migration.commands import alembic_config
from mlops_db.reporting.health import LOOK_BACK, SeriesHealth, read_health
from mlops_db.reporting.snapshot import open_snapshot
from mlops_db.reporting.states import STATES
from mlops_db.reporting.words import compared, length_in_words
from mlops_db.settings import Settings
from mlops_db.storage.monitoring import Monitoring
from support.database import Database
from support.roles import role

NOW = datetime.now(timezone.utc).replace(microsecond=0)
HOUR = timedelta(hours=1)
PSI = {"threshold": 0.1, "drift_detected": True}


@pytest.fixture
def reader(head: Database) -> Iterator[Settings]:
    """Settings of a role with the grants of `mlops-db grant-reader` alone."""
    with role(head, "mlops_test_health") as settings:
        grant(head.settings, READER, settings.user)
        yield settings


def log(monitoring: Monitoring, metric_name: str, *values: float | tuple[float | None, Any] | None) -> None:
    """Store values, the newest one an hour old, each an hour after the one before it."""
    rows = [value if isinstance(value, tuple) else (value, None) for value in values]
    monitoring.log_many(
        {
            "metric_type": "drift",
            "metric_name": metric_name,
            "metric_value": value,
            "metadata": metadata,
            "timestamp": NOW - (len(rows) - place) * HOUR,
            "model_name": "churn",
        }
        for place, (value, metadata) in enumerate(rows)
    )


def expect(monitoring: Monitoring, metric_name: str, **expected: Any) -> None:
    monitoring.expect("drift", metric_name, model_name="churn", **expected)


def health_of(settings: Settings, *models: str) -> dict[str, SeriesHealth]:
    with open_snapshot(settings) as cursor:
        return {one.metric_name: one for one in read_health(cursor, models)}


def test_each_state_has_its_beginning_its_bound_and_its_reason(reader: Settings, monitoring: Monitoring) -> None:
    expect(monitoring, "low", lower=0.5)
    log(monitoring, "low", 0.4, 0.6, 0.45, 0.4)
    expect(monitoring, "high", upper=0.5)
    log(monitoring, "high", 0.7, 0.8)
    log(monitoring, "failed", 0.1, (None, {"error": "ValueError: an\nempty   column"}), (None, {"error": "x" * 500}))
    log(monitoring, "failed silently", 0.1, None)
    expect(monitoring, "stale", interval=4 * HOUR)
    monitoring.log("drift", "stale", 0.1, timestamp=NOW - timedelta(days=22), model_name="churn")
    expect(monitoring, "missing", interval=timedelta(hours=36))
    log(monitoring, "drifted", (0.05, {"threshold": 0.1, "drift_detected": False}), (0.31, PSI))
    log(monitoring, "drifted p", (0.9, None), (0.004, {"threshold": 0.05, "drift_detected": True}))
    log(monitoring, "drifted, nobody knows how far", (1.0, {"drift_detected": True}))
    log(monitoring, "ok", 0.1)

    found = health_of(reader)

    def told(name: str) -> tuple[Any, ...]:
        one = found[name]
        hours = None if one.since is None else (NOW - one.since) / HOUR
        return one.state, hours, one.since_is_exact, one.bound, one.reason

    assert told("low") == ("low", 2, True, 0.5, "0.4 < 0.5")
    assert told("high") == ("high", 2, True, 0.5, "0.8 > 0.5")
    assert told("failed") == ("failed", 2, True, None, f"no value: {'x' * 200}…")
    assert told("failed silently") == ("failed", 1, True, None, "no value")
    assert told("stale") == ("stale", 22 * 24 - 4, True, None, "no value for 22 days, expected every 4 hours")
    assert told("missing")[0] == "missing"
    assert (found["missing"].since, found["missing"].reason) == (None, "no value, expected every 1 day 12 hours")
    assert told("drifted") == ("drifted", 1, True, 0.1, "0.31 > 0.1")
    assert told("drifted p") == ("drifted", 1, True, 0.05, "0.004 < 0.05 (low means drift)")
    assert told("drifted, nobody knows how far")[3:] == (None, "its metadata says so")
    assert (found["ok"].state, found["ok"].since, found["ok"].reason) == ("ok", None, "")
    # Worst first, then by name.
    ranks = [state.name for state in STATES]
    order = [(ranks.index(one.state), one.metric_name) for one in found.values()]
    assert order == sorted(order)
    # The newest row of `failed` has another error than the one before it, whose line breaks are gone.
    monitoring.log_failure("drift", "failed", "ValueError: an\nempty   column", model_name="churn")
    assert health_of(reader)["failed"].reason == "no value: ValueError: an empty column"


def test_it_looks_back_only_so_far(reader: Settings, monitoring: Monitoring) -> None:
    expect(monitoring, "long", upper=0.5)
    log(monitoring, "long", 0.1, *[0.9] * LOOK_BACK)
    expect(monitoring, "just seen", upper=0.5)
    log(monitoring, "just seen", 0.1, *[0.9] * (LOOK_BACK - 1))
    expect(monitoring, "all of it", upper=0.5)
    log(monitoring, "all of it", *[0.9] * (LOOK_BACK - 1))

    found = health_of(reader)

    oldest_seen = NOW - LOOK_BACK * HOUR
    assert (found["long"].since, found["long"].since_is_exact) == (oldest_seen, False)
    assert (found["just seen"].since, found["just seen"].since_is_exact) == (oldest_seen + HOUR, True)
    assert (found["all of it"].since, found["all of it"].since_is_exact) == (oldest_seen + HOUR, True)


def test_rows_of_one_moment_are_told_apart_by_their_ids(reader: Settings, monitoring: Monitoring) -> None:
    expect(monitoring, "twice", upper=0.5)
    for value in (0.9, 0.1, 0.8):
        monitoring.log("drift", "twice", value, timestamp=NOW - HOUR, model_name="churn")
    assert health_of(reader)["twice"].since == NOW - HOUR
    assert health_of(reader)["twice"].reason == "0.8 > 0.5"


def test_only_the_models_that_are_asked_for(reader: Settings, monitoring: Monitoring) -> None:
    for model_name in ("churn", "fraud", "it's; --"):
        monitoring.log("drift", f"of {model_name}", 1, model_name=model_name)
    assert list(health_of(reader, "fraud", "it's; --")) == ["of fraud", "of it's; --"]
    assert health_of(reader, "nobody") == {}


def test_a_state_that_began_lately_is_found_in_few_rows(head: Database, monitoring: Monitoring) -> None:
    expect(monitoring, "short", upper=0.5)
    log(monitoring, "short", *[0.1] * (2 * LOOK_BACK), 0.9)
    with open_snapshot(head.settings) as cursor:
        # As PostgreSQL does by itself where a series is a small part of its month.
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        assert read_health(cursor)[0].state == "high"
        assert cursor.value("SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
                            " WHERE relname LIKE 'monitoring_metrics%%'", ()) < 20  # fmt: skip


# The snapshot


def test_the_snapshot_sees_one_moment_and_changes_nothing(head: Database, monitoring: Monitoring) -> None:
    with open_snapshot(head.settings) as cursor:
        assert read_health(cursor) == []
        monitoring.log("drift", "psi", 1)
        assert read_health(cursor) == []
        assert cursor.value("SHOW transaction_read_only") == "on"
        assert cursor.value("SHOW jit") == "off"  # where the server can compile, that took ten times as long as reading
    with pytest.raises(StatementFailedError, match="read-only"), open_snapshot(head.settings) as cursor:
        cursor.execute("DELETE FROM public.monitoring_metrics")


@pytest.mark.parametrize("revision", ["base", "0024"])
def test_a_database_at_an_earlier_revision_is_refused(undistributed_head: Database, revision: str) -> None:
    command.downgrade(alembic_config(undistributed_head.settings), revision)
    with pytest.raises(BehindHeadError) as refused, open_snapshot(undistributed_head.settings):
        pass
    assert "alembic upgrade head" in refused.value.hint


def test_a_reader_of_an_earlier_revision_is_told_that(head: Database, reader: Settings) -> None:
    head.query("DROP SCHEMA reporting CASCADE")
    with pytest.raises(RefusedError, match=r"has no reporting\.metric_history: it is at an earlier") as refused:
        health_of(reader)
    # `mlops-db status` looks at schema public only.
    assert "`mlops-db check --sql`" in refused.value.hint


def test_a_role_without_the_grants_is_told_who_gives_them(head: Database) -> None:
    with role(head, "mlops test nobody") as settings:
        head.query('GRANT USAGE ON SCHEMA public TO "mlops test nobody"')
        with pytest.raises(NotPermittedError, match=r'"mlops test nobody" may not read public\.v_') as refused:
            health_of(settings)
    assert "`mlops-db grant-reader 'mlops test nobody'`" in refused.value.hint


@pytest.mark.parametrize("change", ["VIEW reporting.metric_history", "FUNCTION reporting.metric_daily"])
def test_what_belongs_to_somebody_else_is_not_run(head: Database, reader: Settings, change: str) -> None:
    with role(head, "mlops_test_other", "NOLOGIN"):
        head.query(f"GRANT ALL ON SCHEMA reporting TO mlops_test_other; ALTER {change} OWNER TO mlops_test_other")
        with pytest.raises(RefusedError, match="belongs to mlops_test_other"):
            health_of(reader)


def test_a_statement_that_takes_too_long_ends(head: Database) -> None:
    with pytest.raises(MlopsDbError, match="canceling statement") as ended, open_snapshot(head.settings) as cursor:
        cursor.execute("SET LOCAL statement_timeout = '1ms'; SELECT pg_sleep(600)")
    assert "--model" in ended.value.hint


def test_without_a_server_there_is_no_snapshot(head: Database) -> None:
    with pytest.raises(MlopsDbError) as failed, open_snapshot(replace(head.settings, host="/no/such/folder")):
        pass
    assert failed.value.exit_code == 2


# Words


@pytest.mark.one_postgresql
@pytest.mark.parametrize(
    ("value", "bound", "text"),
    [
        (0.31, 0.1, "0.31 > 0.1"),
        (0.004, 0.05, "0.004 < 0.05"),
        (0.1000001, 0.1, "0.1000001 > 0.1"),
        (1234567.0, 1e6, "1.235e+06 > 1e+06"),
        (0.5, 0.5, "0.5 = 0.5"),
    ],
)
def test_a_value_is_told_from_its_bound(value: float, bound: float, text: str) -> None:
    assert compared(value, bound) == text


@pytest.mark.one_postgresql
@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(), "0 seconds"),
        (timedelta(seconds=1.9), "1 second"),
        (timedelta(minutes=90), "1 hour 30 minutes"),
        (timedelta(days=1, minutes=59), "1 day"),
        (timedelta(days=22, hours=5), "22 days"),
        (timedelta(days=360_000), "360,000 days"),
        (-timedelta(hours=3), "3 hours"),
    ],
)
def test_a_length_of_time_is_told_in_words(length: timedelta, text: str) -> None:
    assert length_in_words(length) == text
