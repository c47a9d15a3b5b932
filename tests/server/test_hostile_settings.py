"""What PGOPTIONS, a role or a database set: what a command relies on holds all the same, and the rest is theirs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2.extensions
import pytest
from psycopg import sql

from mlops_db.migration.session import migration_connection, run_pins
from mlops_db.server.connection import connect
from mlops_db.server.pins import NEWER_PINS, PINS, startup_options
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database
from support.roles import role

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

# Each pinned setting at its worst. Of the last three a shorter time could end a session before it is pinned.
HOSTILE = {
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "timezone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
    "citus.override_table_visibility": "off",
    "citus.show_shards_for_app_name_prefixes": "*",
    "citus.enable_schema_based_sharding": "on",
    "citus.use_citus_managed_tables": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "on",
    "lock_timeout": "1",
    "statement_timeout": "1",
    "idle_in_transaction_session_timeout": "500",
    "idle_session_timeout": "500",
    "transaction_timeout": "500",
}
# What a role may also set, and what nothing of ours is to depend on.
FURTHER = {
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "check_function_bodies": "off",
    "backslash_quote": "off",
    "plpgsql.extra_errors": "all",
    "synchronous_commit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_partition_pruning": "off",
    "session_replication_role": "replica",
}
LOGIN = "mlops_test_hostile"


def known(database: Database, settings: dict[str, str]) -> dict[str, str]:
    """Those that the server has."""
    version = database.connection.info.server_version
    return {name: value for name, value in settings.items() if version >= NEWER_PINS.get(name, ("", 0))[1]}


@contextmanager
def hostile_owner(database: Database) -> Iterator[Database]:
    """The database as a role has it that owns it, and that everything is set at its worst for."""
    with role(database, LOGIN, "LOGIN CREATEDB") as settings:
        for name, value in (known(database, HOSTILE) | FURTHER).items():
            statement = sql.SQL("ALTER ROLE {} SET {} = {}").format(
                sql.Identifier(LOGIN), sql.SQL(name), sql.Literal(value)
            )
            database.connection.execute(statement)
        database.connection.execute(
            sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(settings.database), sql.Identifier(LOGIN))
        )
        yield replace(database, settings=settings)


def test_every_pinned_setting_is_tried() -> None:
    pinned = run_pins(Settings())
    ours = {name for name in pinned if name.startswith("mlops_db.")}
    assert HOSTILE.keys() == (pinned.keys() | NEWER_PINS.keys()) - ours


def test_all_commands_work_whatever_the_role_sets(empty: Database) -> None:
    with hostile_owner(empty) as database, role(empty, "mlops_test_reader", "NOLOGIN"):
        for command in (
            "mlops-db init",
            "mlops-db check",
            "alembic check",
            "alembic downgrade base",
            "alembic upgrade head",
            "mlops-db maintain --keep 90d",
            "mlops-db status",
            "mlops-db history",
            "mlops-db grant-reader mlops_test_reader",
        ):
            done = database.run(*command.split(), MLOPS_ENV="production")
            assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_the_encoding_of_a_url_does_not_keep_a_command_from_the_catalogue(head: Database) -> None:
    head.query("COMMENT ON TABLE model_versions IS 'says → what LATIN1 cannot'")
    at = head.settings
    where = f"host={at.host}&port={at.port}&client_encoding=latin1"
    done = head.run("mlops-db", "check", MLOPS_DATABASE_URL=f"postgresql://{at.user}@/{at.database}?{where}")
    assert "says → what LATIN1 cannot" in done.stdout, done.stderr


VARIABLES = {
    "none": {},
    "of the time zone and the like": {
        "PGTZ": "Asia/Kathmandu",
        "PGDATESTYLE": "German, DMY",
        "PGCLIENTENCODING": "LATIN1",
    },
    "PGOPTIONS": {"PGOPTIONS": startup_options({name: HOSTILE[name] for name in PINS})},
}


@pytest.mark.parametrize("variables", VARIABLES)
def test_a_session_is_pinned_over_its_role_and_the_variables(
    empty: Database, monkeypatch: pytest.MonkeyPatch, variables: str
) -> None:
    for name, value in VARIABLES[variables].items():
        monkeypatch.setenv(name, value)
    expected = known(empty, PINS | {name: value for name, (value, _) in NEWER_PINS.items()})

    with hostile_owner(empty) as database, closing(connect(database.settings)) as connection:
        assert connection.encoding == "UTF8"
        assert shown(connection, expected) == expected
        with connection.cursor() as cursor:
            cursor.execute("RESET ALL")  # to what came with the connection
        lasting = {name: expected[name] for name in expected.keys() - NEWER_PINS.keys() - {"timezone", "DateStyle"}}
        assert shown(connection, lasting) == lasting


def shown(connection: psycopg2.extensions.connection, names: Iterable[str]) -> dict[str, str]:
    found = {}
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute("SELECT replace(current_setting(%s), ', ', ',')", (name,))
            found[name] = value_of(cursor)
    return found


def value_of(cursor: psycopg2.extensions.cursor) -> Any:
    row = cursor.fetchone()
    assert row is not None
    return row[0]


def by_pgoptions(_: Path) -> tuple[dict[str, str], dict[str, str]]:
    return {"PGOPTIONS": "-c work_mem=7MB"}, {}


def by_url(_: Path) -> tuple[dict[str, str], dict[str, str]]:
    return {"PGOPTIONS": "-c work_mem=8MB"}, {"options": "-c work_mem=7MB"}


def by_service(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    (folder / "pg_service.conf").write_text("# ours\n[ours]\noptions=-c work_mem=7MB\n", encoding="utf-8")
    (another := folder / "another").write_text("[theirs]\noptions=-c work_mem=9MB\n", encoding="utf-8")
    files = {"PGSYSCONFDIR": str(folder), "PGSERVICEFILE": str(another)}
    return {"PGOPTIONS": "-c work_mem=8MB", **files}, {"service": "ours"}


@pytest.mark.parametrize("way", [by_pgoptions, by_url, by_service])
def test_what_is_not_pinned_is_as_it_was_given(
    head: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Path], tuple[dict[str, str], dict[str, str]]],
) -> None:
    """For runs and for jobs alike."""
    variables, parameters = way(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = replace(head.settings, parameters=parameters)

    with migration_connection(settings) as connection:
        assert connection.exec_driver_sql("SHOW work_mem").scalar() == "7MB"
    with DatabaseManager(settings) as db:
        assert db.execute_query("SHOW work_mem") == [("7MB",)]


def test_jobs_keep_utc_whatever_pgtz_says(head: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
    with DatabaseManager(head.settings) as db:
        assert db.execute_query("SHOW timezone") == [("UTC",)]
