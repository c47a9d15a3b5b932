"""What the database or a role has set, of all that a user may set, changes nothing of what the project does."""

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from difflib import unified_diff
from typing import Any

import psycopg2
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql

from mlops_db import DatabaseManager
from mlops_db.admin import retention as maintenance
from mlops_db.drift.compare import read_drift
from mlops_db.errors import StatementFailedError
from mlops_db.migration import commands
from mlops_db.project import VIEWS
from mlops_db.settings import Settings
from support.database import Database
from support.roles import session

pytestmark = pytest.mark.slow

OTHER_TABLESPACE = "mlops_test_other"
# Rows that are read and written otherwise under some of the settings: quotes, backslashes, floats, ends of months.
BASELINE_ROWS = r"""
INSERT INTO model_versions (mlflow_run_id, model_version, status, f1_score, brier_score, created_at, promoted_at)
VALUES ('run-1', '1', 'archived', 0.8, 0.2, '2026-01-01 08:00', '2026-01-02 08:00'),
       ('run-2', '2', 'production', 0.1 + 1e-17, 0.1, '2026-02-01 08:00', '2026-02-02 08:00');
INSERT INTO retraining_decisions (decision_timestamp, action, candidate_mlflow_run_id, gate_results, reasoning)
VALUES ('2026-01-02 08:00', 'promote', 'run-1', '{"sufficient_samples": {"passed": true}, "a\\b": null}', 'back\slash');
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata)
SELECT moment, 'drift', 'it''s a\b', extract(day FROM moment) / 3, '{"of": ["\"x\""]}'
  FROM date_trunc('month', now() AT TIME ZONE 'UTC') AS month,
       unnest(ARRAY[month - interval '30 minutes', month, month + interval '1 month']::timestamp[]) AS moment;
"""
# For both partitions without an end, and at the ends of months.
HEAD_ROWS = """
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
SELECT month + part, 'coverage', 'rate', 0.5
  FROM unnest(ARRAY['0', '1 month -1 microsecond']::interval[]) AS part,
       generate_series(date_trunc('month', now(), 'UTC') - interval '5 months',
                       date_trunc('month', now(), 'UTC') + interval '8 months', '1 month') AS month;
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name) VALUES ('1970-01-01 00:00+00', 'old', 'old');
"""
# Of some settings every other value would end any session, or take all memory; of others the words have to be known.
VALUES: dict[str, tuple[str, ...]] = {
    "DateStyle": ("German", "SQL, DMY", "Postgres, MDY", "ISO, YMD"),
    "TimeZone": ("America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"),
    "application_name": ("somebody's",),
    "client_encoding": ("LATIN1", "SQL_ASCII"),
    "client_min_messages": ("error", "debug1"),
    "createrole_self_grant": ("set, inherit",),
    # Without these, every join is a loop over whole tables, which takes minutes.
    "enable_bitmapscan": ("on",),
    "enable_hashjoin": ("on",),
    "enable_indexscan": ("on",),
    "enable_mergejoin": ("on",),
    "default_tablespace": ("pg_default", OTHER_TABLESPACE),
    "default_text_search_config": ("pg_catalog.simple",),
    "idle_in_transaction_session_timeout": ("40s",),
    "idle_session_timeout": ("40s",),
    "jit_above_cost": ("-1",),  # everything compiled takes minutes
    "lc_monetary": ("POSIX",),
    "lc_numeric": ("POSIX",),
    "lc_time": ("POSIX",),
    "lock_timeout": ("1s",),
    "plpgsql.extra_errors": ("all",),
    "plpgsql.extra_warnings": ("all",),
    "restrict_nonsystem_relation_kind": ("foreign-table",),
    "search_path": ("pg_catalog", "", "mlops_internal, public"),
    "statement_timeout": ("50s",),
    "temp_buffers": ("100",),
    "temp_tablespaces": (OTHER_TABLESPACE, "pg_default"),
    "timezone_abbreviations": ("India",),
    "transaction_timeout": ("50s",),
}
# A session's own, or nothing can be written: the last test has that.
NOT_FOR_A_DATABASE = {
    "default_transaction_read_only",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
}
ROUNDS = 4
MIDNIGHT = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
Life = dict[str, Any]


@pytest.fixture(scope="module")
def server(_empty_template: Any) -> Iterator[Settings]:
    """The server's database `postgres`; beside its own the server has another tablespace meanwhile."""
    found = _empty_template
    settings = Settings(
        host=found.host, port=int(found.port), user=found.user, password=found.password or None, database="postgres"
    )
    with session(settings) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(f"CREATE TABLESPACE {OTHER_TABLESPACE} LOCATION ''")
    yield settings
    with session(settings) as connection:
        connection.execute(f"DROP TABLESPACE {OTHER_TABLESPACE}")


@contextmanager
def database(server: Settings) -> Iterator[Database]:
    """A database of its own, and a connection to it from before anything was set."""
    name = "mlops_test_settings"
    with session(server) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        with session(replace(server, database=name)) as connection:
            connection.execute("SET timezone = 'UTC'")
            yield Database.of(connection)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def alter(database: Database, given: Mapping[str, str]) -> None:
    name = sql.Identifier(database.settings.database)
    database.connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))
    for setting, value in given.items():
        words = sql.SQL(value or "''") if setting.endswith(("_path", "_tablespaces")) else sql.Literal(value)
        database.connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.SQL(setting), words)  # type: ignore[arg-type]
        )


def seen(database: Database) -> list[str]:
    """Its catalogue and rows, but for what the clock put there."""
    tables = database.query(
        "SELECT c.oid::regclass::text, string_agg(quote_ident(attname), ', ' ORDER BY attnum)"
        "  FROM pg_class AS c JOIN pg_attribute AS a ON attrelid = c.oid"
        " WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, to_regnamespace('mlops_internal'))"
        "   AND relname <> 'migration_history' AND attnum > 0 AND NOT attisdropped"
        "   AND attname NOT IN ('created_at', 'registered_at', 'promoted_at', 'decision_timestamp')"
        " GROUP BY c.oid ORDER BY 1"
    )
    rows = [f"{table}: {row}" for table, columns in tables for row in database.query(f"SELECT {columns} FROM {table}")]
    return [*database.dump("--no-tablespaces").splitlines(), *sorted(rows)]


def counted(settings: Settings) -> list[Any]:
    """What anybody reads from the views, in a session that pins nothing."""
    with (
        closing(psycopg2.connect(host=settings.host, port=settings.port, user=settings.user,
                                 password=settings.password, dbname=settings.database)) as connection,
        connection.cursor() as cursor,
    ):  # fmt: skip
        answers = []
        for view in VIEWS:
            cursor.execute(f"SELECT count(*) FROM public.{view}")
            answers.append(cursor.fetchone())
        return answers


def stored(settings: Settings) -> None:
    with DatabaseManager(settings) as manager:
        manager.models.register("run-3", r"3\3", f1_score=0.1 + 1e-17)
        manager.models.promote("run-3", gates={"metric_improvement": {"passed": True, r"it's\a": "\\"}})
        rows = [{"metric_type": "a\\b", "metric_name": "it's", "metric_value": 0.1, "timestamp": MIDNIGHT}]
        manager.monitoring.log_many(rows)


def script(database: Database, direction: str, revisions: str) -> None:
    config = commands.alembic_config(database.settings)
    config.output_buffer = io.StringIO()
    getattr(command, direction)(config, revisions, sql=True)
    database.psql(config.output_buffer.getvalue())


def live(database: Database, given: Mapping[str, str]) -> Life:
    """Do everything once in a database with these settings; what came of each."""
    settings, life = database.settings, {}

    def look(what: str) -> None:
        alter(database, {})
        life[what] = seen(database)
        alter(database, given)

    alter(database, given)
    commands.upgrade(settings, "0004")
    alter(database, {})
    database.psql(BASELINE_ROWS)
    alter(database, given)
    commands.upgrade(settings)
    look("upgrade")
    command.check(commands.alembic_config(settings))
    life["check"] = [str(difference) for difference in read_drift(settings).differences]
    stored(settings)
    database.query(HEAD_ROWS)
    look("store")
    life["views"] = counted(settings)
    life["plan"] = maintenance.plan(settings, keep="90 days")
    database.psql("CALL mlops_internal.maintain(); TABLE public.v_recent_monitoring;")
    look("CALL maintain")
    life["maintain"] = maintenance.maintain(settings, keep="90 days")
    look("maintain")
    commands.downgrade(settings, "base")
    look("downgrade")
    script(database, "upgrade", "head")
    look("script up")
    life["check after the script"] = [str(difference) for difference in read_drift(settings).differences]
    script(database, "downgrade", "head:base")
    look("script down")
    return life


def difference(server: Settings, given: Mapping[str, str], usual: Life) -> str | None:
    """How a life with these settings differs; None if it does not."""
    with database(server) as made:
        try:
            life = live(made, given)
        except Exception as error:  # noqa: BLE001  (whatever goes wrong is what is looked for)
            return f"{type(error).__name__}: {error}"
    for what, expected in usual.items():
        if life[what] != expected:
            return f"{what}:\n" + "\n".join(unified_diff(lines(expected), lines(life[what]), n=0, lineterm=""))
    return None


def lines(found: Any) -> list[str]:
    return [str(one) for one in found]


def culprits(server: Settings, given: Mapping[str, str], usual: Life) -> list[str]:
    """What of the settings makes the difference, found by halves."""
    message = difference(server, given, usual)
    if message is None:
        return []
    if len(given) == 1:
        return [f"{given}: {message}"]
    names = list(given)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    found = [one for half in halves for one in culprits(server, {name: given[name] for name in half}, usual)]
    return found or [f"only together, {given}: {message}"]


@pytest.fixture(scope="module")
def usual(server: Settings) -> Life:
    with database(server) as made:
        return live(made, {})


@pytest.fixture(scope="module")
def hostile(server: Settings) -> dict[str, tuple[str, ...]]:
    """Of each setting values that it does not have: the other one, each other one, or the least and the greatest."""
    with session(server) as connection:
        connection.execute("LOAD 'plpgsql'")  # which adds its own
        known = connection.execute(
            "SELECT name, setting, vartype, enumvals, min_val, max_val FROM pg_settings WHERE context = 'user'"
        ).fetchall()
    found: dict[str, tuple[str, ...]] = {}
    for name, setting, kind, words, least, greatest in known:
        if name in NOT_FOR_A_DATABASE:
            continue
        others = {
            "bool": ("off" if setting == "on" else "on",),
            "enum": tuple(word for word in words or () if word != setting),
            "integer": (least, greatest),
            "real": (least, str(min(float(greatest or 0), 1e9))),
            "string": (),
        }[kind]
        found[name] = VALUES.get(name, others)
    return found


@pytest.mark.parametrize("number", range(ROUNDS))
def test_no_setting_changes_anything(
    server: Settings, usual: Life, hostile: dict[str, tuple[str, ...]], number: int
) -> None:
    given = {name: values[number % len(values)] for name, values in hostile.items() if values}
    assert len(given) > 100
    assert culprits(server, given, usual) == []


def test_a_run_on_a_read_only_database_fails_with_one_line(empty: Database) -> None:
    alter(empty, {"default_transaction_read_only": "on"})
    with pytest.raises(CommandError, match="in a read-only transaction") as refused:
        command.upgrade(commands.alembic_config(empty.settings), "head")
    assert isinstance(refused.value.__cause__, StatementFailedError)
    assert empty.value("SELECT to_regnamespace('mlops_internal')") is None
