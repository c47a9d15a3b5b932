"""Timestamps get a time zone: in revisions 0005 and 0006 in place for a server in UTC, rewritten for others; metrics in
their copy, revisions 0016 to 0019."""

from datetime import datetime, timezone
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import SettingsError
from mlops_db.migration import commands
from mlops_db.migration.commands import alembic_config
from mlops_db.migration.options import Options
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.database import Database, clean_environment, revision_of, run_command
from support.projects import Checkout

pytestmark = pytest.mark.slow  # their revisions are frozen, and test_round_trip.py runs each of them

COLUMNS = {
    "model_versions": ("created_at", "promoted_at"),
    "retraining_decisions": ("decision_timestamp", "created_at"),
}
# What Berlin's clocks showed, the moment that it is taken for, and what comes back where that is not the same. On 30
# March 2025 there was no 02:30, and on 26 October there were two.
BERLIN = {
    "2025-01-01 12:00:00": "2025-01-01 11:00:00",
    "2025-03-30 01:59:59.999999": "2025-03-30 00:59:59.999999",
    "2025-03-30 02:00:00": "2025-03-30 01:00:00",
    "2025-03-30 02:30:00": "2025-03-30 01:30:00",
    "2025-03-30 03:00:00": "2025-03-30 01:00:00",
    "2025-07-01 12:00:00": "2025-07-01 10:00:00",
    "2025-10-26 01:59:59": "2025-10-25 23:59:59",
    "2025-10-26 02:00:00": "2025-10-26 01:00:00",
    "2025-10-26 02:30:00": "2025-10-26 01:30:00",
    "2025-10-26 03:00:00": "2025-10-26 02:00:00",
    "infinity": "infinity",
    "-infinity": "-infinity",
}
SKIPPED = {"2025-03-30 02:00:00": "2025-03-30 03:00:00", "2025-03-30 02:30:00": "2025-03-30 03:30:00"}


@pytest.fixture
def old(empty: Database) -> Database:
    """A database at 0004 with a row in two tables for each of the times, and one without times."""
    commands.upgrade(empty.settings, "0004")
    empty.query("CREATE TABLE times (n int GENERATED ALWAYS AS IDENTITY, at timestamp)")
    empty.query("INSERT INTO times (at) SELECT unnest(%s::timestamp[])", [list(BERLIN)])
    empty.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, created_at, promoted_at)
        SELECT 'run-' || n, n, at, at FROM times UNION ALL SELECT 'run', '0', NULL, NULL;
        INSERT INTO retraining_decisions (decision_timestamp, created_at)
        SELECT at, at FROM times UNION ALL SELECT NULL, NULL;
        DROP TABLE times
    """)
    return empty


def times(database: Database) -> dict[str, list[str | None]]:
    """Of each column the times in the order of the ids, in UTC if they are moments."""
    database.query("SET timezone = 'UTC'")
    return {
        f"{table}.{column}": [
            value and value.removesuffix("+00")
            for (value,) in database.query(f"SELECT {column}::text FROM {table} ORDER BY id")
        ]
        for table, columns in COLUMNS.items()
        for column in columns
    }


def every_column(values: list[str]) -> dict[str, list[str | None]]:
    return {f"{table}.{column}": [*values, None] for table, columns in COLUMNS.items() for column in columns}


def types(database: Database) -> set[str]:
    return {
        database.value(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            [table, column],
        )
        for table, columns in COLUMNS.items()
        for column in columns
    }


def files(database: Database) -> dict[str, int]:
    """The files of the tables and of their keys: a rewrite makes new ones."""
    return dict(
        database.query(
            "SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE relname = ANY(%s)",
            [[*COLUMNS, *(f"{table}_pkey" for table in COLUMNS), "model_versions_mlflow_run_id_key"]],
        )
    )


def run(folder: Path, database: Database, *arguments: str) -> None:
    done = Checkout(folder).alembic(database, *arguments)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_in_utc_no_row_is_touched_whatever_the_server_s_zone_is(old: Database, zone: str) -> None:
    before = files(old)
    assert len(before) == 2 * len(COLUMNS) + 1
    old.query(f"ALTER DATABASE {old.settings.database} SET timezone = '{zone}'")

    commands.upgrade(old.settings, "0006")

    assert types(old) == {"timestamp with time zone"}
    assert times(old) == every_column(list(BERLIN))
    assert files(old) == before

    commands.downgrade(old.settings, "0004")

    assert types(old) == {"timestamp without time zone"}
    assert times(old) == every_column(list(BERLIN))
    assert files(old) == before


@pytest.mark.parametrize("revision", ["0005", "0006"])
def test_each_revision_converts_one_table_and_leaves_the_others_alone(old: Database, revision: str) -> None:
    converted = {"0005": "model_versions", "0006": "retraining_decisions"}
    commands.upgrade(old.settings, revision)

    aware = old.query(
        "SELECT DISTINCT attrelid::regclass::text FROM pg_attribute"
        " WHERE attrelid = ANY(%s::regclass[]) AND atttypid = 'timestamptz'::regtype",
        [[*COLUMNS, "monitoring_metrics"]],
    )
    assert {table for (table,) in aware} == {table for number, table in converted.items() if number <= revision}


def test_local_times_are_rewritten_as_the_moments_that_they_were(old: Database, tmp_path: Path) -> None:
    before = files(old)

    run(tmp_path, old, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0006")

    assert times(old) == every_column(list(BERLIN.values()))
    assert files(old).keys() == before.keys()
    assert all(file != before[name] for name, file in files(old).items())


def test_local_times_come_back_but_for_those_that_never_were(old: Database, tmp_path: Path) -> None:
    run(tmp_path, old, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0006")
    run(tmp_path / "again", old, "-x", "legacy-timezone=Europe/Berlin", "downgrade", "0004")

    assert types(old) == {"timestamp without time zone"}
    assert times(old) == every_column([SKIPPED.get(time, time) for time in BERLIN])


def test_moments_come_back_as_utc_if_the_downgrade_has_no_legacy_timezone(old: Database, tmp_path: Path) -> None:
    run(tmp_path, old, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0006")
    commands.downgrade(old.settings, "0004")

    assert times(old) == every_column(list(BERLIN.values()))


def test_a_script_converts_as_the_online_run_does(old: Database) -> None:
    done = run_command(
        "alembic", "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0004:0006", "--sql",
        environment=clean_environment(POSTGRES_HOST="nowhere.invalid"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    old.query(f"ALTER DATABASE {old.settings.database} SET timezone = 'Asia/Kolkata'")

    old.psql(done.stdout)

    assert times(old) == every_column(list(BERLIN.values()))


def test_a_caller_s_session_in_another_zone_converts_in_utc(old: Database) -> None:
    before = files(old)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(old.settings), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET timezone = 'Asia/Kolkata'")
        connection.commit()
        config = alembic_config(old.settings)
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "Asia/Kolkata", "the session is the caller's"

    assert times(old) == every_column(list(BERLIN))
    assert files(old) == before


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "UTC+2"])
def test_a_zone_that_there_is_not_is_refused_before_anything_changes(old: Database, zone: str, tmp_path: Path) -> None:
    done = Checkout(tmp_path).alembic(old, "-x", f"legacy-timezone={zone}", "upgrade", "0006")

    assert done.returncode != 0
    assert f"-x legacy-timezone: {zone!r} is not a time zone" in done.stdout
    assert "legacy-timezone=Europe/Berlin" in done.stdout
    assert revision_of(old) == "0004"
    with pytest.raises(SettingsError):
        Options.parse([f"legacy-timezone={zone}"], Settings())


def test_a_zone_that_only_python_knows_stops_the_first_revision_and_nothing_changes(
    old: Database, tmp_path: Path
) -> None:
    """The two have time zone data of their own."""
    zones = tmp_path / "zones"
    (zones / "Mars").mkdir(parents=True)
    (zones / "Mars" / "Olympus").write_bytes(_tzif_of_utc())
    before = files(old)

    done = old.run("alembic", "-x", "legacy-timezone=Mars/Olympus", "upgrade", "0006", PYTHONTZPATH=str(zones))

    assert done.returncode != 0
    assert 'invalid value for parameter "TimeZone": "Mars/Olympus"' in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert revision_of(old) == "0004"
    assert files(old) == before


def _tzif_of_utc() -> bytes:
    """The smallest time zone file there is (RFC 8536)."""
    header = b"TZif" + b"\0" * 16 + b"".join(count.to_bytes(4, "big") for count in (0, 0, 0, 0, 1, 4))
    return header + b"\0" * 6 + b"OLY\0"


# Metrics

FINITE = {clock: moment for clock, moment in BERLIN.items() if "infinity" not in clock}


@pytest.fixture
def measured(empty: Database) -> Database:
    """A database at 0015 with a metric for each of the times."""
    commands.upgrade(empty.settings, "0015")
    empty.query(
        "INSERT INTO monitoring_metrics (metric_type, metric_name, timestamp, created_at)"
        " SELECT 'drift', 'share', at, at FROM unnest(%s::timestamp[]) AS at",
        [list(FINITE)],
    )
    return empty


def metric_times(database: Database, column: str = "timestamp") -> list[str]:
    """The times in the order of the ids, in UTC if they are moments; both columns have them."""
    database.query("SET timezone = 'UTC'")
    assert database.value("SELECT count(*) FROM monitoring_metrics WHERE timestamp <> created_at") == 0
    return [
        value.removesuffix("+00")
        for (value,) in database.query(f"SELECT {column}::text FROM monitoring_metrics ORDER BY id")
    ]


@pytest.mark.parametrize("server", ["UTC", "Asia/Kolkata"])
def test_metrics_in_utc_keep_their_times_whatever_the_server_s_zone_is(measured: Database, server: str) -> None:
    measured.query(f"ALTER DATABASE {measured.settings.database} SET timezone = '{server}'")

    commands.upgrade(measured.settings, "0019")
    assert metric_times(measured) == list(FINITE)
    commands.downgrade(measured.settings, "0015")

    assert metric_times(measured) == list(FINITE)


def test_local_times_of_metrics_become_moments_and_come_back_but_for_those_that_never_were(
    measured: Database, tmp_path: Path
) -> None:
    run(tmp_path, measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0019")
    assert metric_times(measured) == list(FINITE.values())

    run(tmp_path / "again", measured, "-x", "legacy-timezone=Europe/Berlin", "downgrade", "0015")

    assert metric_times(measured) == [SKIPPED.get(time, time) for time in FINITE]


def test_moments_of_metrics_come_back_as_utc_if_the_downgrade_has_no_legacy_timezone(
    measured: Database, tmp_path: Path
) -> None:
    run(tmp_path, measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0019")
    commands.downgrade(measured.settings, "0015")

    assert metric_times(measured) == list(FINITE.values())


@pytest.mark.parametrize("revision", ["0016", "0017", "0018"])
def test_a_copy_that_was_begun_goes_on_in_the_zone_of_the_run_that_began_it(
    measured: Database, tmp_path: Path, revision: str
) -> None:
    """Rows that are copied, rows that change before, and rows that change after the first run ended."""
    run(tmp_path, measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", revision)
    measured.query("UPDATE monitoring_metrics SET metric_value = 1 WHERE id % 2 = 0")

    run(tmp_path / "again", measured, "-x", "legacy-timezone=Asia/Kolkata", "upgrade", "0019")

    assert metric_times(measured) == list(FINITE.values())


@pytest.mark.parametrize("revision", ["0018", "0017", "0016"])
def test_a_way_back_that_was_begun_goes_on_in_the_zone_of_the_run_that_began_it(
    measured: Database, tmp_path: Path, revision: str
) -> None:
    run(tmp_path, measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0019")
    run(tmp_path / "down", measured, "-x", "legacy-timezone=Europe/Berlin", "downgrade", revision)
    measured.query("UPDATE monitoring_metrics SET metric_value = 1 WHERE id % 2 = 0")

    run(tmp_path / "again", measured, "-x", "legacy-timezone=Asia/Kolkata", "downgrade", "0015")

    assert metric_times(measured) == [SKIPPED.get(time, time) for time in FINITE]


def test_changes_around_a_clock_change_arrive(measured: Database, tmp_path: Path) -> None:
    """02:30 was twice on 26 October and never on 30 March: the log has the moment that the copy has."""
    run(tmp_path, measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0018")
    measured.query("""
        UPDATE monitoring_metrics
           SET timestamp = timestamp + interval '1 hour', created_at = created_at + interval '1 hour'
         WHERE timestamp IN ('2025-03-30 02:30', '2025-10-26 01:59:59');
        DELETE FROM monitoring_metrics WHERE timestamp = '2025-10-26 02:30'
    """)
    naive = metric_times(measured)

    run(tmp_path / "again", measured, "upgrade", "0019")

    moments = FINITE | {"2025-03-30 03:30:00": "2025-03-30 01:30:00", "2025-10-26 02:59:59": "2025-10-26 01:59:59"}
    assert metric_times(measured) == [moments[time] for time in naive]


def test_a_first_moment_that_is_before_the_year_1_in_utc_stops_it_before_anything_is_copied(
    measured: Database, tmp_path: Path
) -> None:
    measured.query("UPDATE monitoring_metrics SET timestamp = '0001-01-01 00:00' WHERE id = 1")

    done = Checkout(tmp_path).alembic(measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "head")

    assert done.returncode != 0
    assert "rows of monitoring_metrics are not of the years 1 to 9999 in UTC; nothing was changed" in done.stdout
    assert revision_of(measured) == "0015"
    measured.query("UPDATE monitoring_metrics SET timestamp = created_at WHERE id = 1")
    run(tmp_path / "again", measured, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "head")


def test_new_rows_hold_the_moment_whatever_zone_they_are_written_in(head: Database) -> None:
    head.query("SET timezone = 'Asia/Kolkata'")
    with head.connection.transaction():
        head.query("""
            INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name) VALUES
                ('2026-01-01 12:00', 'drift', 'session'), ('2026-01-01 12:00-05', 'drift', 'explicit');
            INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'now')
        """)
        head.query("SET timezone = 'America/New_York'")

        assert dict(head.query("SELECT metric_name, timestamp FROM monitoring_metrics")) == {
            "session": datetime(2026, 1, 1, 6, 30, tzinfo=timezone.utc),
            "explicit": datetime(2026, 1, 1, 17, tzinfo=timezone.utc),
            "now": head.value("SELECT now()"),
        }
