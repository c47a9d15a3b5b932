"""Revisions 0005 to 0007: timestamps get a time zone, in place for a server in timezone.utc, rewritten for others."""

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
from mlops_db.project import BASELINE_TABLES
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.database import Database, clean_environment, revision_of, run_command
from support.projects import Checkout

COLUMNS = {
    "model_versions": ("created_at", "promoted_at"),
    "monitoring_metrics": ("timestamp", "created_at"),
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
    """A database at 0004 with a row in every table for each of the times, and one without times."""
    commands.upgrade(empty.settings, "0004")
    empty.query("CREATE TABLE times (n int GENERATED ALWAYS AS IDENTITY, at timestamp)")
    empty.query("INSERT INTO times (at) SELECT unnest(%s::timestamp[])", [list(BERLIN)])
    empty.query("""
        INSERT INTO model_versions (mlflow_run_id, model_version, created_at, promoted_at)
        SELECT 'run-' || n, n, at, at FROM times UNION ALL SELECT 'run', '0', NULL, NULL;
        INSERT INTO monitoring_metrics (timestamp, created_at) SELECT at, at FROM times UNION ALL SELECT NULL, NULL;
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
            [[*BASELINE_TABLES, *(f"{table}_pkey" for table in BASELINE_TABLES), "model_versions_mlflow_run_id_key"]],
        )
    )


def run(folder: Path, database: Database, *arguments: str) -> None:
    done = Checkout(folder).alembic(database, *arguments)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_in_utc_no_row_is_touched_whatever_the_server_s_zone_is(old: Database, zone: str) -> None:
    before = files(old)
    assert len(before) == 2 * len(BASELINE_TABLES) + 1
    old.query(f"ALTER DATABASE {old.settings.database} SET timezone = '{zone}'")

    commands.upgrade(old.settings, "0007")

    assert types(old) == {"timestamp with time zone"}
    assert times(old) == every_column(list(BERLIN))
    assert files(old) == before

    commands.downgrade(old.settings, "0004")

    assert types(old) == {"timestamp without time zone"}
    assert times(old) == every_column(list(BERLIN))
    assert files(old) == before


@pytest.mark.parametrize("revision", ["0005", "0006", "0007"])
def test_each_revision_converts_one_table_and_leaves_the_others_alone(old: Database, revision: str) -> None:
    converted = {"0005": "model_versions", "0006": "retraining_decisions", "0007": "monitoring_metrics"}
    commands.upgrade(old.settings, revision)

    aware = old.query(
        "SELECT DISTINCT attrelid::regclass::text FROM pg_attribute"
        " WHERE attrelid = ANY(%s::regclass[]) AND atttypid = 'timestamptz'::regtype",
        [list(BASELINE_TABLES)],
    )
    assert {table for (table,) in aware} == {table for number, table in converted.items() if number <= revision}


def test_local_times_are_rewritten_as_the_moments_that_they_were(old: Database, tmp_path: Path) -> None:
    before = files(old)

    run(tmp_path, old, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0007")

    assert times(old) == every_column(list(BERLIN.values()))
    assert files(old).keys() == before.keys()
    assert all(file != before[name] for name, file in files(old).items())


def test_local_times_come_back_but_for_those_that_never_were(old: Database, tmp_path: Path) -> None:
    run(tmp_path, old, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0007")
    run(tmp_path / "again", old, "-x", "legacy-timezone=Europe/Berlin", "downgrade", "0004")

    assert types(old) == {"timestamp without time zone"}
    assert times(old) == every_column([SKIPPED.get(time, time) for time in BERLIN])


def test_moments_come_back_as_utc_if_the_downgrade_has_no_legacy_timezone(old: Database, tmp_path: Path) -> None:
    run(tmp_path, old, "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0007")
    commands.downgrade(old.settings, "0004")

    assert times(old) == every_column(list(BERLIN.values()))


def test_a_script_converts_as_the_online_run_does(old: Database) -> None:
    done = run_command(
        "alembic", "-x", "legacy-timezone=Europe/Berlin", "upgrade", "0004:0007", "--sql",
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
        command.upgrade(config, "0007")
        assert connection.exec_driver_sql("SHOW timezone").scalar_one() == "Asia/Kolkata", "the session is the caller's"

    assert times(old) == every_column(list(BERLIN))
    assert files(old) == before


@pytest.mark.parametrize("zone", ["Europe/Berln", "", "UTC+2"])
def test_a_zone_that_there_is_not_is_refused_before_anything_changes(old: Database, zone: str, tmp_path: Path) -> None:
    done = Checkout(tmp_path).alembic(old, "-x", f"legacy-timezone={zone}", "upgrade", "0007")

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

    done = old.run("alembic", "-x", "legacy-timezone=Mars/Olympus", "upgrade", "0007", PYTHONTZPATH=str(zones))

    assert done.returncode != 0
    assert 'invalid value for parameter "TimeZone": "Mars/Olympus"' in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert revision_of(old) == "0004"
    assert files(old) == before


def _tzif_of_utc() -> bytes:
    """The smallest time zone file there is (RFC 8536)."""
    header = b"TZif" + b"\0" * 16 + b"".join(count.to_bytes(4, "big") for count in (0, 0, 0, 0, 1, 4))
    return header + b"\0" * 6 + b"OLY\0"


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
