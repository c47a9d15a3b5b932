import threading

import psycopg
import pytest

from support.database import Database
from support.process import assert_failed
from support.sessions import another_session, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

PARTITIONS = "SELECT partition FROM mlops_internal.metric_partitions() ORDER BY lower"
SESSIONS = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'mlops-db %'"
A_YEAR = """
    INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
    SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - month * interval '1 month' + interval '3 d')
               AT TIME ZONE 'UTC', 'drift', 'psi', month / 99.0
      FROM generate_series(0, 11) AS month
"""
# As if nobody had been here for three months.
NOTHING_AHEAD = """
    DO $$ DECLARE month text; BEGIN
        ALTER TABLE monitoring_metrics DETACH PARTITION mlops_internal.monitoring_metrics_later;
        FOR month IN SELECT partition FROM mlops_internal.metric_partitions() WHERE lower > now() LOOP
            EXECUTE format('DROP TABLE mlops_internal.%I', month);
        END LOOP;
        EXECUTE format('ALTER TABLE monitoring_metrics ATTACH PARTITION mlops_internal.monitoring_metrics_later'
                       ' FOR VALUES FROM (%L) TO (MAXVALUE)',
                       (date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month') AT TIME ZONE 'UTC');
    END $$
"""


def months(database: Database, first: int, last: int) -> list[str]:
    """The names of the partitions from one month to another, counted from this one."""
    return [
        name
        for (name,) in database.query(
            "SELECT 'monitoring_metrics_' || to_char(now() AT TIME ZONE 'UTC' + n * interval '1 month', 'YYYY_MM')"
            " FROM generate_series(%s::int, %s::int) AS n",
            [first, last],
        )
    ]


def steps(stderr: str) -> list[str]:
    """The lines about steps, without those about a step that takes longer than a second."""
    return [line for line in stderr.splitlines() if line.split()[0] in {"create", "move", "drop"}]


def test_a_fresh_database_has_nothing_to_do(head: Database) -> None:
    done = head.run("mlops-db", "maintain", "--keep", "90d")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{head.settings.target}: nothing to do.\n"


def test_it_creates_moves_and_drops_and_says_so(head: Database) -> None:
    head.query(NOTHING_AHEAD)
    head.query(A_YEAR)
    head.query(
        "INSERT INTO model_versions (mlflow_run_id, model_version, created_at) VALUES ('old', '1', '2001-01-01')"
    )
    head.query("INSERT INTO retraining_decisions (action, decision_timestamp) VALUES ('pending', '2001-01-01')")

    done = head.run("mlops-db", "maintain", "--keep", "6mo")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{head.settings.target}: 3 partitions created, 11 partitions filled with moved rows, 5 partitions dropped.\n"
    )
    assert steps(done.stderr) == [
        *(f"create {name}" for name in months(head, 1, 3)),
        *(f"move {name}" for name in reversed(months(head, -11, -1))),
        *(f"drop {name}" for name in months(head, -11, -7)),
    ]
    assert head.query(PARTITIONS) == [
        (name,) for name in ["monitoring_metrics_earlier", *months(head, -6, 3), "monitoring_metrics_later"]
    ]
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 7
    assert head.value("SELECT count(*) FROM model_versions") == 1
    assert head.value("SELECT count(*) FROM retraining_decisions") == 1
    again = head.run("mlops-db", "maintain", "--keep", "6mo")
    assert again.stdout == f"{head.settings.target}: nothing to do.\n"


def test_a_dry_run_lists_the_steps_of_the_next_run_and_changes_nothing(head: Database) -> None:
    head.query(NOTHING_AHEAD)
    head.query(A_YEAR)
    before = head.query(PARTITIONS)

    dry = head.run("mlops-db", "maintain", "--dry-run")

    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines()[-1].endswith(": 3 to create, 11 to move. Nothing was changed (--dry-run).")
    assert head.query(PARTITIONS) == before
    planned = [line.split()[:2] for line in dry.stdout.splitlines()[1:-1]]
    done = head.run("mlops-db", "maintain")
    assert [line.split() for line in steps(done.stderr)] == planned


def test_a_dry_run_counts_the_rows_of_a_partition_to_drop(head: Database) -> None:
    head.query(A_YEAR)
    head.run("mlops-db", "maintain")
    wait_until(lambda: not head.query(SESSIONS), "the sessions of the command to end")
    head.query("ANALYZE")

    dry = head.run("mlops-db", "maintain", "--dry-run", "--keep", "10mo")

    names = months(head, -11, -11)
    assert [line.split()[:3] for line in dry.stdout.splitlines()[1:-1]] == [["drop", name, "1"] for name in names]


def test_a_session_that_holds_the_table_is_named_and_nothing_is_half_done(head: Database) -> None:
    head.query(A_YEAR)
    with another_session(head, "a long report", "SELECT count(*) FROM monitoring_metrics"):
        done = head.run("mlops-db", "maintain", "--keep", "6mo", MLOPS_RETRY_FOR="5s")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: no lock after")
    assert "a long report" in error
    assert hint.startswith("hint: ")
    assert head.query(PARTITIONS)[0] == ("monitoring_metrics_earlier",)
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 12
    assert head.run("mlops-db", "maintain", "--keep", "6mo").returncode == 0


def test_two_at_once_do_the_work_once(head: Database) -> None:
    head.query(NOTHING_AHEAD)
    head.query(A_YEAR)
    ended = []

    def run() -> None:
        ended.append(head.run("mlops-db", "maintain", "--keep", "6mo"))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]
    # A note that the other one holds the table for the moment may stand between.
    steps = [
        line for done in ended for line in done.stderr.splitlines() if line.split()[0] in {"create", "move", "drop"}
    ]
    assert len(steps) == len(set(steps)) == 3 + 11 + 5
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 7


@pytest.mark.parametrize("keep", ["90", "0d", "-1d", "d", "90 d", "90D", "1.5d", "99999d", "all", ""])
def test_a_time_that_is_none_is_refused(head: Database, keep: str) -> None:
    done = head.run("mlops-db", "maintain", f"--keep={keep}")

    assert_failed(done, "--keep", "90d")
    assert done.returncode == 64


def test_a_database_behind_head_is_refused(empty: Database) -> None:
    assert_failed(empty.run("mlops-db", "maintain"), "has no tables yet", "alembic upgrade head")
    empty.run("alembic", "upgrade", "0019")
    assert_failed(empty.run("mlops-db", "maintain"), "is at revision 0019", "alembic upgrade head")


def test_a_role_that_does_not_own_the_table_is_refused(head: Database) -> None:
    head.query(NOTHING_AHEAD)
    head.query("CREATE ROLE mlops_test_writer LOGIN PASSWORD 'writer'")
    try:
        head.query("GRANT USAGE ON SCHEMA mlops_internal TO mlops_test_writer")
        head.query("GRANT SELECT, INSERT ON monitoring_metrics, alembic_version TO mlops_test_writer")

        writer = {"POSTGRES_USER": "mlops_test_writer", "POSTGRES_PASSWORD": "writer"}

        assert_failed(
            head.run("mlops-db", "maintain", **writer), "permission denied for function", "Connect as the owner"
        )
        head.query("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mlops_internal TO mlops_test_writer")
        assert_failed(head.run("mlops-db", "maintain", **writer), "monitoring_metrics belongs to", "owner")
    finally:
        head.query("DROP OWNED BY mlops_test_writer")
        head.query("DROP ROLE mlops_test_writer")


def test_pg_cron_and_airflow_call_the_same(head: Database) -> None:
    head.query(NOTHING_AHEAD)
    head.query(A_YEAR)

    head.query("CALL mlops_internal.maintain('6 months')")

    assert head.run("mlops-db", "maintain", "--keep", "6mo").stdout.endswith(": nothing to do.\n")
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 7
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot be kept"):
        head.query("CALL mlops_internal.maintain('-1 day')")


def test_a_dry_run_lists_a_month_that_is_moved_and_then_dropped(head: Database) -> None:
    head.query(A_YEAR)

    dry = head.run("mlops-db", "maintain", "--dry-run", "--keep", "6mo")

    assert dry.stdout.splitlines()[-1].endswith(": 11 to move, 5 to drop. Nothing was changed (--dry-run).")
    assert head.run("mlops-db", "maintain", "--keep", "6mo").stdout.endswith(
        ": 11 partitions filled with moved rows, 5 partitions dropped.\n"
    )


def test_the_longest_time_keeps_everything(head: Database) -> None:
    head.query(A_YEAR)

    assert "to drop" not in head.run("mlops-db", "maintain", "--dry-run", "--keep", "9999y").stdout
    assert "dropped" not in head.run("mlops-db", "maintain", "--keep", "9999y").stdout


def test_what_came_past_the_triggers_is_made_good(head: Database) -> None:
    head.query("SET session_replication_role = replica")
    head.query(
        "INSERT INTO monitoring_metrics (id, metric_type, metric_name) VALUES (9, 'drift', 'a'), (8, 'drift', 'b')"
    )

    dry = head.run("mlops-db", "maintain", "--dry-run")
    done = head.run("mlops-db", "maintain")
    again = head.run("mlops-db", "maintain", "--dry-run")

    assert [line.split() for line in dry.stdout.splitlines()[:-1]] == [
        ["action", "name", "rows", "size"],
        ["register", "metric_series", "2"],
        ["advance", "monitoring_metrics_id_seq"],
    ]
    assert dry.stdout.endswith(": 2 series to register, 1 to advance. Nothing was changed (--dry-run).\n")
    assert done.stderr.splitlines() == ["register metric_series", "advance monitoring_metrics_id_seq"]
    assert done.stdout == f"{head.settings.target}: 2 series registered, 1 sequence advanced.\n"
    assert again.stdout == f"{head.settings.target}: nothing to do. Nothing was changed (--dry-run).\n"
    assert head.value("SELECT count(*) FROM v_recent_monitoring") == 2
