"""The functions of revision 0020: months ahead, rows into their months, and nothing dropped that is to be kept."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from threading import Event
from typing import Any

import psycopg
import pytest

from support.database import Database
from support.partitions import months, partitions
from support.process import assert_failed
from support.roles import role, run_as, session
from support.sessions import another_session, wait_until
from support.table_rows import rows

EARLIER, LATER = "monitoring_metrics_earlier", "monitoring_metrics_later"
MONTH = "date_trunc('month', now(), 'UTC')"
WRITERS = 10
INSERTS = 25


def add(database: Database, *months_away: int, days: int = 14) -> None:
    """A row in the middle of each of these months, counted from this one."""
    database.query(
        "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)"
        f" SELECT {MONTH} + n * interval '1 month' + %s * interval '1 day', 'drift', 'share', n"
        " FROM unnest(%s::int[]) AS n",
        [days, list(months_away)],
    )


def values(database: Database) -> list[int]:
    """How far away the months of the rows that are there are."""
    return [int(value) for (value,) in database.query("SELECT metric_value FROM monitoring_metrics ORDER BY 1")]


def filled(database: Database) -> dict[str, int]:
    """The partitions that have rows."""
    return {name: rows for name, (_, rows) in partitions(database).items() if rows}


def month(database: Database, away: int) -> str:
    return months(database, away, away)[0]


def create(database: Database, ahead: int = 3) -> str | None:
    name: str | None = database.value("SELECT mlops_internal.create_next_partition(%s)", [ahead])
    return name


def move(database: Database) -> str | None:
    name: str | None = database.value("SELECT mlops_internal.move_earlier_month()")
    return name


def drop(database: Database, keep: str | None) -> list[str] | None:
    names: list[str] | None = database.value("SELECT mlops_internal.drop_partitions(%s::interval)", [keep])
    return names


def without_gaps(database: Database) -> None:
    """Each partition begins where the one before it ends, and nothing is left over at either end."""
    bounds = database.query("SELECT lower::text, upper::text FROM mlops_internal.metric_partitions()")
    assert (bounds[0][0], bounds[-1][1]) == ("-infinity", "infinity")
    assert [upper for _, upper in bounds[:-1]] == [lower for lower, _ in bounds[1:]]


@pytest.fixture
def neglected(head: Database) -> Database:
    """A database whose maintenance did not run for half a year: what came since is in the partition of later rows."""
    head.query(
        "DROP TABLE IF EXISTS mlops_internal.monitoring_metrics_earlier, mlops_internal.monitoring_metrics_later"
    )
    for name in months(head, 0, 3):
        head.query(f"DROP TABLE mlops_internal.{name}")
    border = head.value(f"SELECT {MONTH} - interval '6 months'")
    head.query(f"CREATE TABLE mlops_internal.{EARLIER} PARTITION OF monitoring_metrics"
               f" FOR VALUES FROM (MINVALUE) TO ('{border}')")  # fmt: skip
    head.query(f"CREATE TABLE mlops_internal.{LATER} PARTITION OF monitoring_metrics"
               f" FOR VALUES FROM ('{border}') TO (MAXVALUE)")  # fmt: skip
    return head


# Ahead


def test_at_head_three_months_ahead_are_there_and_nothing_is_to_do(head: Database) -> None:
    before = partitions(head)

    assert (create(head), move(head), drop(head, "1 day")) == (None, None, None)
    head.query("CALL mlops_internal.maintain('1 day')")

    assert partitions(head) == before


def test_months_are_created_one_a_call_up_to_so_many_ahead(head: Database) -> None:
    assert [create(head, 5) for _ in range(3)] == [*months(head, 4, 5), None]
    assert create(head, 0) is None
    assert create(head, -7) is None
    assert set(partitions(head)) == {EARLIER, LATER, *months(head, 0, 5)}
    without_gaps(head)


def test_rows_that_came_early_are_in_their_months_once_there_are_months(head: Database) -> None:
    add(head, 4, 5, 5, 7, 900)
    assert filled(head) == {LATER: 5}

    assert create(head, 5) == month(head, 4)
    assert filled(head) == {month(head, 4): 1, LATER: 4}
    assert create(head, 5) == month(head, 5)
    assert filled(head) == {month(head, 4): 1, month(head, 5): 2, LATER: 2}
    assert create(head, 5) is None
    assert values(head) == [4, 5, 5, 7, 900]


def test_after_half_a_year_without_maintenance_every_month_is_made_good(neglected: Database) -> None:
    add(neglected, *range(-8, 6))
    assert filled(neglected) == {EARLIER: 2, LATER: 12}

    neglected.query("CALL mlops_internal.maintain()")

    assert filled(neglected) == dict.fromkeys(months(neglected, -8, 3), 1) | {LATER: 2}
    assert values(neglected) == list(range(-8, 6))
    without_gaps(neglected)


@pytest.mark.parametrize("ahead", ["NULL", "NULL::integer"])
def test_no_number_of_months_creates_none(head: Database, ahead: str) -> None:
    before = partitions(head)
    assert head.value(f"SELECT mlops_internal.create_next_partition({ahead})") is None
    assert partitions(head) == before


# Into months


def test_rows_that_came_late_move_a_month_a_call_the_newest_first(head: Database) -> None:
    add(head, -1, -3, -3)
    assert filled(head) == {EARLIER: 3}

    moved = [move(head) for _ in range(3)]

    # The month between the two, which no row is of, comes along.
    assert moved == [month(head, -1), month(head, -3), None]
    assert set(months(head, -3, -1)) <= partitions(head).keys()
    assert filled(head) == {month(head, -1): 1, month(head, -3): 2}
    assert values(head) == [-3, -3, -1]
    without_gaps(head)


def test_what_is_older_than_ten_years_stays_in_the_partition_of_earlier_rows(head: Database) -> None:
    add(head, -121, -2000, -1)

    head.query("CALL mlops_internal.maintain()")

    assert filled(head) == {EARLIER: 2, month(head, -1): 1}
    assert values(head) == [-2000, -121, -1]


def test_the_first_moment_of_a_month_is_in_it_and_the_last_one_too(head: Database) -> None:
    head.query(f"""
        INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name)
        SELECT {MONTH} - n * interval '1 month' - m * interval '1 microsecond', 'drift', 'share'
          FROM generate_series(0, 2) AS n, generate_series(0, 1) AS m
    """)

    head.query("CALL mlops_internal.maintain()")

    assert filled(head) == {month(head, 0): 1, month(head, -1): 2, month(head, -2): 2, month(head, -3): 1}


def test_a_month_is_in_utc_for_every_caller(head: Database) -> None:
    head.query("SET timezone = 'America/New_York'")
    head.query("SET datestyle = 'SQL, DMY'")
    add(head, -13, 6)

    head.query("CALL mlops_internal.maintain(NULL, 12)")

    head.query("SET datestyle = 'ISO'")
    assert {name: bounds for name, (bounds, _) in partitions(head).items() if name not in (EARLIER, LATER)} == {
        f"monitoring_metrics_{name}": f"FOR VALUES FROM ('{lower}') TO ('{upper}')"
        for name, lower, upper in head.query("""
            SELECT to_char(m, 'YYYY_MM'), m::text || '+00', (m + interval '1 month')::text || '+00'
              FROM generate_series(-13, 12) AS n,
                   LATERAL (SELECT date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month') AS of (m)
        """)
    }


# No longer than wanted


@pytest.fixture
def a_year(head: Database) -> Database:
    add(head, *range(-12, 2))
    head.query("CALL mlops_internal.maintain()")
    return head


def days_since(database: Database, away: int, *, and_seconds: int = 0) -> str:
    """The time since that month began, as an interval of seconds."""
    since = database.value(f"SELECT extract(epoch FROM now() - ({MONTH} + %s * interval '1 month'))", [away])
    return f"{since + and_seconds} s"


def test_only_months_that_are_wholly_older_go(a_year: Database) -> None:
    with a_year.connection.transaction():
        keep = days_since(a_year, -5)
        assert rows(a_year, f"SELECT mlops_internal.partitions_older_than('{keep}') AS name") == [
            {"name": name} for name in months(a_year, -12, -6)
        ]
        a_year.query("SAVEPOINT exactly")
        assert drop(a_year, keep) == months(a_year, -12, -6)
        assert values(a_year) == list(range(-5, 2))
        a_year.query("ROLLBACK TO exactly")

        assert drop(a_year, days_since(a_year, -5, and_seconds=1)) == months(a_year, -12, -7)

    assert values(a_year) == list(range(-6, 2))
    assert drop(a_year, days_since(a_year, -5, and_seconds=86400)) is None
    without_gaps(a_year)


def test_this_month_and_those_to_come_stay_however_short_metrics_are_kept(a_year: Database) -> None:
    assert drop(a_year, "1 microsecond") == months(a_year, -12, -1)
    assert values(a_year) == [0, 1]


@pytest.mark.parametrize("keep", ["0", "-1 day", "1 month -31 days", "0 months"])
def test_a_time_that_is_not_above_zero_is_refused_and_nothing_is_dropped(a_year: Database, keep: str) -> None:
    for call in ("SELECT mlops_internal.drop_partitions(%s::interval)", "CALL mlops_internal.maintain(%s::interval)"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="metrics cannot be kept for") as refused:
            a_year.query(call, [keep])
        assert refused.value.diag.message_hint == "Give a time above 0, such as 90 days."
    assert values(a_year) == list(range(-12, 2))


def test_without_a_time_everything_is_kept(a_year: Database) -> None:
    assert drop(a_year, None) is None
    a_year.query("CALL mlops_internal.maintain(NULL)")
    assert values(a_year) == list(range(-12, 2))


def test_a_late_row_of_a_month_that_is_gone_is_taken_moved_and_dropped_again(a_year: Database) -> None:
    drop(a_year, days_since(a_year, -5))

    add(a_year, -9, -9)
    assert filled(a_year)[EARLIER] == 2
    assert values(a_year)[:2] == [-9, -9]
    a_year.query("CALL mlops_internal.maintain()")
    assert filled(a_year)[month(a_year, -9)] == 2
    assert drop(a_year, days_since(a_year, -5)) == months(a_year, -9, -6)
    assert values(a_year) == list(range(-5, 2))
    without_gaps(a_year)


def test_rows_before_all_months_go_with_them_and_ones_that_may_still_be_wanted_do_not(head: Database) -> None:
    add(head, -400, -2)

    assert drop(head, "10 years") is None, "the partition of earlier rows reaches up to this month"
    head.query("CALL mlops_internal.maintain()")
    assert drop(head, "10 years") is None
    assert values(head) == [-400, -2]
    assert drop(head, "62 days") == [EARLIER]
    assert values(head) == [-2]
    without_gaps(head)


def test_decisions_versions_and_the_catalogue_are_never_touched(a_year: Database) -> None:
    a_year.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, created_at) VALUES ('a', '1', '1990-01-01');
        INSERT INTO retraining_decisions (action, decision_timestamp, created_at)
        VALUES ('reject', '1990-01-01', '1990-01-01')
    """)
    tables = ("model_versions", "retraining_decisions", "mlops_internal.metric_series")
    before = {table: a_year.query(f"SELECT ctid, xmin, * FROM {table}") for table in tables}

    a_year.query("CALL mlops_internal.maintain('1 second')")

    assert {table: a_year.query(f"SELECT ctid, xmin, * FROM {table}") for table in tables} == before


def test_what_moves_keeps_its_columns_and_the_months_have_what_the_table_has(head: Database) -> None:
    head.query(f"""
        INSERT INTO monitoring_metrics (id, timestamp, metric_type, metric_name, metric_value, metadata, created_at,
                                        model_name)
        VALUES (9000000000, {MONTH} - interval '40 days', 'drift', '', NULL, '{{"a": 1.10}}', '1999-01-01', 'fraud'),
               (1, {MONTH} + interval '140 days', 'drift', 'x', 5e-324, NULL, '0001-01-01 00:00+00', 'm')
    """)
    every = "SELECT m::text FROM monitoring_metrics AS m ORDER BY id"
    before = head.query(every)

    head.query("CALL mlops_internal.maintain(NULL, 6)")

    assert head.query(every) == before
    made = [name for name in partitions(head) if name not in (EARLIER, LATER)]
    properties = {
        name: (
            head.query(
                "SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass"
                " AND contype <> 'n' ORDER BY 1, 2",
                [f"mlops_internal.{name}"],
            ),
            head.query("SELECT relpersistence::text, reloptions FROM pg_class WHERE oid = %s::regclass",
                       [f"mlops_internal.{name}"]),
        )
        for name in made
    }  # fmt: skip
    assert len({str(found) for found in properties.values()}) == 1, properties


# Among others


@pytest.mark.parametrize(
    ("step", "then"),
    [("create_next_partition(9)", 5), ("move_earlier_month()", -2), ("drop_partitions('1 second')", None)],
)
def test_two_at_once_take_turns_however_short_the_patience_for_locks_is(
    head: Database, step: str, then: int | None
) -> None:
    add(head, -3, -2, -1, 5, 6)
    call = f"SELECT mlops_internal.{step}"
    with another_session(head, "one", call) as one, another_session(head, "other") as other:
        other.execute("SET LOCAL lock_timeout = '10ms'")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(lambda: other.execute(call).fetchone())
            wait_until(
                lambda: (
                    waiting.done()
                    or head.value(
                        "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted AND locktype = 'relation'",
                        [other.info.backend_pid],
                    )
                ),
                "the second one to wait for the first one",
            )
            assert not waiting.done(), waiting.exception()
            one.commit()
            second = waiting.result()
        assert other.execute("SHOW lock_timeout").fetchone() == ("10ms",)
        other.commit()

    assert second == (then and months(head, then, then)[0],)
    assert values(head) == ([5, 6] if step.startswith("drop") else [-3, -2, -1, 5, 6])
    without_gaps(head)


def test_several_at_once_leave_what_one_leaves(neglected: Database) -> None:
    add(neglected, *range(-20, 20))
    settings = neglected.settings

    def maintain(_: int) -> None:
        with psycopg.connect(
            host=settings.host, port=settings.port, user=settings.user, password=settings.password,
            dbname=settings.database, autocommit=True,
        ) as connection:  # fmt: skip
            persistently(connection, "CALL mlops_internal.maintain('1 year')")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(maintain, range(4)))

    before = partitions(neglected)
    neglected.query("CALL mlops_internal.maintain('1 year')")
    assert partitions(neglected) == before
    assert set(values(neglected)) >= set(range(-12, 20))
    without_gaps(neglected)


def test_who_holds_the_table_for_long_makes_it_give_up_and_nobody_waits(head: Database) -> None:
    add(head, -1)
    with (
        another_session(head, "a long reader", "SELECT * FROM monitoring_metrics"),
        pytest.raises(psycopg.errors.LockNotAvailable),
    ):
        head.query("CALL mlops_internal.maintain()")

    assert filled(head) == {EARLIER: 1}
    assert head.value("SHOW lock_timeout") == "0"
    head.query("CALL mlops_internal.maintain()")
    assert filled(head) == {month(head, -1): 1}


def persistently(connection: psycopg.Connection[Any], statement: str) -> None:
    """As `mlops-db maintain` does: a lock that somebody holds is asked for again."""
    for _ in range(200):
        try:
            connection.execute(statement)
        except psycopg.errors.LockNotAvailable:
            continue
        return
    raise AssertionError(f"no lock for {statement}")


@pytest.mark.parametrize("keep", [None, "60 days"])
def test_ten_writers_lose_no_row_while_maintenance_runs(neglected: Database, keep: str | None) -> None:
    now = datetime.now(timezone.utc)
    moments = [
        *(now - timedelta(days=40 * months_ago) for months_ago in range(12)),
        *(now + timedelta(days=40 * months_ahead) for months_ahead in range(1, 6)),
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(1985, 10, 26, tzinfo=timezone.utc),
        datetime(9999, 12, 31, tzinfo=timezone.utc),
    ]
    settings = neglected.settings
    stopped = Event()

    def write(writer: int) -> Iterator[tuple[int, datetime]]:
        """Insert a row for each of the moments, and again, each INSERT a transaction; yields ids and moments."""
        with psycopg.connect(
            host=settings.host, port=settings.port, user=settings.user, password=settings.password,
            dbname=settings.database, autocommit=True,
        ) as connection:  # fmt: skip
            for number in range(INSERTS):
                some = moments[(writer + number) % 3 :: 3]
                cursor = connection.execute(
                    "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)"
                    " SELECT m, 'drift', %s, 1 FROM unnest(%s::timestamptz[]) AS m RETURNING id, timestamp",
                    [f"writer {writer} {number}", some],
                )
                yield from cursor.fetchall()

    def maintain() -> int:
        runs = 0
        with psycopg.connect(
            host=settings.host, port=settings.port, user=settings.user, password=settings.password,
            dbname=settings.database, autocommit=True,
        ) as connection:  # fmt: skip
            while not stopped.is_set():
                call = "NULL" if keep is None else f"'{keep}'"
                persistently(connection, f"CALL mlops_internal.maintain({call}, {3 + runs % 3})")
                runs += 1
        return runs

    with ThreadPoolExecutor(WRITERS + 1) as pool:
        maintaining = pool.submit(maintain)
        writing = [pool.submit(lambda writer=writer: list(write(writer))) for writer in range(WRITERS)]
        try:
            written = [row for writer in writing for row in writer.result()]
        finally:
            stopped.set()
        assert maintaining.result() > 0

    found = dict(neglected.query("SELECT id, timestamp FROM monitoring_metrics"))
    assert len({id_ for id_, _ in written}) == len(written)
    whole_month = timedelta(days=31)
    wanted = {id_: moment for id_, moment in written if keep is None or moment > now - timedelta(days=60) - whole_month}
    assert wanted.items() <= found.items()
    assert found.items() <= dict(written).items()
    assert keep is not None or len(found) == len(written)
    assert neglected.value("SELECT count(*) FROM mlops_internal.metric_series") == WRITERS * INSERTS
    without_gaps(neglected)


def test_the_error_names_a_table_with_the_name_of_a_month(head: Database) -> None:
    add(head, -1)
    head.query(f"CREATE TABLE mlops_internal.{month(head, -1)} ()")

    with pytest.raises(psycopg.errors.DuplicateTable, match="is not the partition of its month; nothing") as refused:
        move(head)

    assert "RENAME TO" in (refused.value.diag.message_hint or "")
    assert filled(head) == {EARLIER: 1}


def test_only_the_owner_maintains_or_new_partitions_would_be_somebody_else_s(head: Database) -> None:
    head.query("CREATE ROLE mlops_test_other SUPERUSER")
    head.query("SET ROLE mlops_test_other")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="would belong to mlops_test_other"):
            create(head, 12)
    finally:
        head.query("RESET ROLE")
        head.query("DROP ROLE mlops_test_other")


@pytest.mark.parametrize("keep", ["-100 years 36001 days", "0", "-1 day"])
def test_a_time_that_leads_ahead_drops_nothing(head: Database, keep: str) -> None:
    before = partitions(head)

    with pytest.raises(psycopg.errors.InvalidParameterValue, match="metrics cannot be kept for"):
        drop(head, keep)

    assert partitions(head) == before


def test_a_time_before_all_times_drops_nothing(head: Database) -> None:
    assert drop(head, "9999 years") is None


MAINTAINS = "LOCK TABLE ONLY monitoring_metrics IN SHARE UPDATE EXCLUSIVE MODE"


@pytest.mark.parametrize("how", ["SQL", "command"])
@pytest.mark.parametrize("wait", ["200ms", "0s"])
def test_a_wait_for_another_maintenance_ends_and_names_it(head: Database, how: str, wait: str) -> None:
    with another_session(head, "another", MAINTAINS) as other:
        holder = rf"pid {other.info.backend_pid} \(another, role "
        if how == "SQL":
            head.query(f"SET mlops_db.lock_wait = '{wait}'")
            with pytest.raises(psycopg.errors.ObjectInUse, match=rf"after \w+, by {holder}"):
                head.query("CALL mlops_internal.maintain()")
        else:
            done = head.run("mlops-db", "maintain", MLOPS_LOCK_WAIT=wait)
            assert_failed(done, f"pid {other.info.backend_pid} (another, role ", "MLOPS_LOCK_WAIT=10min")
            assert done.returncode == 1


def test_who_may_not_write_metrics_cannot_keep_others_from_maintaining_them(head: Database) -> None:
    with role(head, "mlops_test_guest") as guest:
        head.query("GRANT SELECT ON monitoring_metrics TO mlops_test_guest")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run_as(guest, f"DO $$ BEGIN {MAINTAINS}; END $$")
        with session(guest) as theirs:
            # The advisory lock that such a wait could be for.
            theirs.execute("SELECT pg_advisory_lock(hashtextextended('mlops_db.maintenance', 0))")
            head.query("CALL mlops_internal.maintain()")


# What came past the triggers: a copy by logical replication, or loaded with session_replication_role = replica

SERIES = "SELECT model_name, metric_type, metric_name FROM mlops_internal.metric_series ORDER BY 1, 2, 3"


@pytest.fixture
def copied(head: Database) -> Database:
    """Rows of five series in several months, whose triggers did not fire, and whose ids no sequence gave."""
    head.query("SET session_replication_role = replica")
    head.query(f"""
        INSERT INTO monitoring_metrics (id, model_name, timestamp, metric_type, metric_name, metric_value)
        SELECT 4000000000 + n, 'm' || n % 2, {MONTH} - n * interval '10 days', 'drift', 'f' || n % 5, n
          FROM generate_series(0, 29) AS n
    """)
    head.query("INSERT INTO model_versions (id, mlflow_run_id, model_version) VALUES (77, 'run', '1')")
    head.query("INSERT INTO retraining_decisions (id, action) VALUES (5, 'reject')")
    head.query("RESET session_replication_role")
    return head


def test_series_that_no_trigger_saw_are_registered_and_what_was_expected_of_others_stays(copied: Database) -> None:
    copied.query(
        "INSERT INTO mlops_internal.metric_series (model_name, metric_type, metric_name, expected_interval)"
        " VALUES ('m0', 'drift', 'f0', '1 hour'), ('gone', 'drift', 'psi', '2 hours')"
    )
    wanted = [("gone", "drift", "psi"), *((f"m{m}", "drift", f"f{f}") for m in range(2) for f in range(5))]
    assert len(copied.query("SELECT FROM v_recent_monitoring")) < 10

    copied.query("CALL mlops_internal.maintain()")

    assert copied.query(SERIES) == wanted
    assert copied.query(
        "SELECT model_name, expected_interval FROM mlops_internal.metric_series"
        " WHERE expected_interval IS NOT NULL ORDER BY 1"
    ) == [("gone", timedelta(hours=2)), ("m0", timedelta(hours=1))]
    assert {name for (name,) in copied.query("SELECT metric_name FROM v_recent_monitoring")} >= {
        f"f{f}" for f in range(5)
    }
    assert copied.value("SELECT mlops_internal.register_missing_series()") is None


def test_series_are_found_without_reading_their_rows(copied: Database) -> None:
    assert copied.value("SELECT mlops_internal.register_missing_series()") == 10
    copied.query(f"INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name) SELECT {MONTH}, 'drift', 'f1'"
                 " FROM generate_series(1, 20000)")  # fmt: skip
    copied.query("ANALYZE monitoring_metrics")

    with copied.connection.transaction():
        copied.query("SELECT * FROM mlops_internal.missing_series()")
        rows = copied.value("SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)"
                            " FROM pg_stat_xact_user_tables WHERE relname ~ '^monitoring_metrics'")  # fmt: skip
    assert rows < 500


def test_the_next_ids_are_not_those_of_rows_that_are_there(copied: Database) -> None:
    late = "SELECT rows_of FROM mlops_internal.late_sequences() ORDER BY 1"
    assert copied.query(late) == [("model_versions",), ("monitoring_metrics",), ("retraining_decisions",)]

    copied.query("CALL mlops_internal.maintain()")

    assert copied.query(late) == []
    assert copied.value("INSERT INTO retraining_decisions (action) VALUES ('reject') RETURNING id") == 6
    assert (
        copied.value("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('b', '2') RETURNING id") == 78
    )
    add(copied, 0)
    assert copied.value("SELECT max(id) FROM monitoring_metrics") == 4000000030
    assert copied.value("SELECT mlops_internal.advance_sequences()") is None
