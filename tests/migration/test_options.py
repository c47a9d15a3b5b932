"""`-x key=value`, the MLOPS_ variables behind it, and the timeouts that a run really has."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic import command
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_db.errors import RefusedError, SettingsError
from mlops_db.migration import commands
from mlops_db.migration.options import Options
from mlops_db.server.advisory import RUN_LOCK
from mlops_db.settings import Settings
from support.database import Database
from support.process import assert_failed
from support.projects import Checkout, sql
from support.snapshot import Progress, everything

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

DEFAULTS = Settings()
UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
LONGEST_MS = 2**31 - 1
KEYS = [
    "allow-data-loss",
    "backup",
    "legacy-timezone",
    "lock-timeout",
    "lock-wait",
    "plan",
    "retry-for",
    "show-queries",
    "statement-timeout",
]


def parsed(*arguments: str, settings: Settings = DEFAULTS) -> Options:
    return Options.parse(arguments, settings)


# Reading


def test_without_x_the_settings_count() -> None:
    settings = Settings(lock_wait=1, lock_timeout=2, statement_timeout=3, retry_for=4)
    assert parsed(settings=settings) == Options(
        1, 2, 3, 4, plan=False, allow_data_loss=False, show_queries=False, legacy_timezone="UTC"
    )  # fmt: skip


@settings(derandomize=True)
@given(unit=st.sampled_from(sorted(UNITS)), data=st.data())
def test_every_duration_is_read_to_the_millisecond(unit: str, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, LONGEST_MS // UNITS[unit]))
    assert parsed(f"retry-for={number}{unit}").retry_for == number * UNITS[unit]


DURATION = re.compile(r"\s*[0-9]+\s*(ms|s|min|h)")
junk = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.from_regex(r"[-+]?[0-9]*[.,_e][0-9]*(ms|s|min|h)", fullmatch=True),
    st.builds("{}{}".format, st.integers(0), st.sampled_from(["", "S", "sec", "m", "d", "us", "Min", "s s", "ss"])),
    st.builds("-{}{}".format, st.integers(0), st.sampled_from(sorted(UNITS))),
    st.builds("{}{}".format, st.sampled_from(["٣", "²", "½", "0x1", "1e3", "inf", "nan"]), st.just("s")),
).filter(lambda text: not DURATION.fullmatch(text))


@settings(derandomize=True)
@given(value=junk)
def test_what_is_no_duration_is_refused_in_one_line_that_names_the_key(value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parsed(f"lock-wait={value}")
    assert str(refused.value).startswith("-x lock-wait: ")
    assert len(str(refused.value).splitlines()) == 1
    assert "500ms" in refused.value.hint


@pytest.mark.parametrize("value", [f"{LONGEST_MS + 1}ms", "597h", "9" * 5000 + "s"], ids=["ms", "h", "5000 digits"])
def test_a_duration_that_postgresql_cannot_hold_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"(?m)is (too long|not a duration)$"):
        parsed(f"statement-timeout={value}")


@pytest.mark.parametrize("key", ["plan", "allow-data-loss", "show-queries"])
def test_booleans_are_read_in_every_usual_spelling_and_nothing_else(key: str) -> None:
    name = key.replace("-", "_")
    for text in ("true", "True", "yes", "on", "1"):
        assert getattr(parsed(f"{key}={text}"), name) is True
    for text in ("false", "FALSE", "no", "off", "0"):
        assert getattr(parsed(f"{key}={text}"), name) is False
    for text in ("", "maybe", "2", " true", "5s"):
        with pytest.raises(SettingsError, match=f"-x {key}.*is not a boolean"):
            parsed(f"{key}={text}")
    with pytest.raises(SettingsError, match="is not a boolean"):
        parsed(key)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5"])
def test_a_time_zone_is_read_by_its_name(zone: str) -> None:
    assert parsed(f"legacy-timezone={zone}").legacy_timezone == zone


@pytest.mark.parametrize(
    "value",
    ["", "Europe/Berln", "Europe", "Berlin", "+02:00", "../Berlin", "/etc/localtime", "UTC -c role=x", "UTC'; x", "\0"],
)
def test_what_is_no_time_zone_is_refused_in_one_line_that_names_the_key(value: str) -> None:
    with pytest.raises(SettingsError, match=r"(?m)^-x legacy-timezone: .* is not a time zone$") as refused:
        parsed(f"legacy-timezone={value}")
    assert "legacy-timezone=Europe/Berlin" in refused.value.hint


def test_a_folder_is_an_absolute_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert parsed("backup=dumps of today").backup == tmp_path / "dumps of today"
    assert parsed("backup=/var/backups").backup == Path("/var/backups")


@pytest.mark.parametrize("value", ["", "a\nb", "\udcff", "\0"])
def test_what_is_no_folder_is_refused_in_one_line_that_names_the_key(value: str) -> None:
    with pytest.raises(SettingsError, match=r"(?m)^-x backup: .* is not a folder$"):
        parsed(f"backup={value}")


def test_to_keep_and_to_lose_rows_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="lets it go"):
        parsed("backup=/tmp", "allow-data-loss=true")
    assert parsed("backup=/tmp", "allow-data-loss=false").backup is not None


@pytest.mark.parametrize("key", ["", "lock_wait", "LOCK-WAIT", "lock-waits", "revision", "from_environment"])
def test_an_unknown_key_is_refused_with_the_known_ones(key: str) -> None:
    with pytest.raises(SettingsError, match=f"(?m)^-x {key} is not known$") as refused:
        parsed(f"{key}=5s")
    assert refused.value.hint == f"Known are: {', '.join(KEYS)}."


@pytest.mark.parametrize(
    "arguments",
    [
        ["lock-timeout=30s"],
        ["lock-timeout=31s"],
        ["statement-timeout=1s"],
        ["lock-timeout=5s", "statement-timeout=4999ms"],
        ["lock-timeout=0s"],
        ["statement-timeout=0s"],
    ],
)
def test_lock_timeout_stays_between_zero_and_statement_timeout(arguments: list[str]) -> None:
    with pytest.raises(SettingsError, match="lock-timeout has to be above 0 and below statement-timeout"):
        parsed(*arguments)


def test_zero_is_a_time_to_wait_and_to_retry() -> None:
    options = parsed("lock-wait=0s", "retry-for=0ms")
    assert (options.lock_wait, options.retry_for) == (0, 0)


def test_the_last_of_two_values_counts() -> None:
    assert parsed("lock-wait=1s", "lock-wait=2s").lock_wait == 2000


# Through alembic


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("lock-wiat=5s", ("-x lock-wiat is not known", *KEYS)),
        ("retry-for=soon", ("-x retry-for", "'soon' is not a duration", "500ms, 5s, 2min or 1h")),
    ],
)
def test_alembic_refuses_bad_input_before_it_connects(head: Database, argument: str, parts: tuple[str, ...]) -> None:
    done = head.run("alembic", "-x", argument, "upgrade", "head", POSTGRES_HOST="nowhere.invalid")
    assert_failed(done, *parts)


RECORD = "CREATE TABLE seen AS SELECT name, setting FROM pg_settings"


def recording(folder: Path, *first: str) -> Checkout:
    """A revision that records the settings that its SQL runs under."""
    checkout = Checkout(folder)
    checkout.add(sql(*first, RECORD))
    return checkout


def seen(database: Database, name: str) -> str | None:
    """What a revision saw as the value of a setting; times are milliseconds."""
    rows = database.query("SELECT setting FROM seen WHERE name = %s", [name])
    return rows[0][0] if rows else None


def test_x_wins_over_the_environment_and_both_reach_the_sql_of_a_revision(head: Database, tmp_path: Path) -> None:
    recording(tmp_path)
    done = head.run(
        "alembic", "-x", "lock-timeout=1234ms", "upgrade", "head",
        cwd=tmp_path, MLOPS_LOCK_TIMEOUT="2s", MLOPS_STATEMENT_TIMEOUT="2min",
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert (seen(head, "lock_timeout"), seen(head, "statement_timeout")) == ("1234", "120000")


def test_the_timeouts_are_still_there_after_a_rollback(head: Database, tmp_path: Path) -> None:
    # What the database says is not what the run has, neither before nor after.
    head.query(f'ALTER DATABASE "{head.settings.database}" SET statement_timeout = 2000')
    settings = replace(head.settings, lock_timeout=70, statement_timeout=8000)
    config = recording(tmp_path, "LOCK TABLE model_versions").config(settings)
    head.query("BEGIN")
    head.query("LOCK TABLE model_versions")
    config.attributes["progress"] = progress = Progress("no lock", lambda: head.query("ROLLBACK"))

    command.upgrade(config, "head")

    assert progress.acted, "the first try was to fail"
    assert (seen(head, "lock_timeout"), seen(head, "statement_timeout")) == ("70", "8000")


def test_the_server_checks_whether_the_client_is_alive(head: Database, tmp_path: Path) -> None:
    command.upgrade(recording(tmp_path).config(head.settings), "head")
    since_14 = head.connection.info.server_version >= 140000
    assert seen(head, "client_connection_check_interval") == ("500" if since_14 else None)


def test_a_session_is_in_utc_at_read_committed_whatever_the_database_says(head: Database, tmp_path: Path) -> None:
    for setting in ("timezone = 'Asia/Kolkata'", "default_transaction_isolation = 'serializable'"):
        head.query(f'ALTER DATABASE "{head.settings.database}" SET {setting}')

    command.upgrade(recording(tmp_path).config(head.settings), "head")

    assert (seen(head, "TimeZone"), seen(head, "transaction_isolation")) == ("UTC", "read committed")


FromEnvironment = Callable[..., Settings]


@pytest.fixture
def from_environment(empty: Database, tmp_path: Path) -> FromEnvironment:
    """Settings for the database of `empty`, from its environment and more variables."""
    return lambda **variables: Settings.from_environment(empty.environment | variables, env_file=tmp_path / ".env")


@pytest.fixture
def held(empty: Database) -> psycopg.Connection[tuple[object, ...]]:
    """The connection of `empty`, in a transaction."""
    empty.query("BEGIN")
    return empty.connection


def test_mlops_lock_wait_bounds_the_wait_for_another_run(
    empty: Database, held: psycopg.Connection[tuple[object, ...]], from_environment: FromEnvironment
) -> None:
    held.execute("SELECT pg_advisory_lock(%s)", [RUN_LOCK])
    with pytest.raises(RefusedError, match=r"after 0\.02 s: pid"):
        commands.upgrade(from_environment(MLOPS_LOCK_WAIT="20ms"))
    held.execute("ROLLBACK")
    assert "alembic_version" not in everything(empty)[0]


def test_mlops_retry_for_bounds_the_tries(
    empty: Database, held: psycopg.Connection[tuple[object, ...]], from_environment: FromEnvironment
) -> None:
    held.execute("COMMIT")
    commands.upgrade(empty.settings, "0001")
    held.execute("BEGIN")
    held.execute("LOCK TABLE model_versions IN SHARE MODE")
    with pytest.raises(RefusedError, match="no lock after 1 try,"):
        commands.downgrade(from_environment(MLOPS_RETRY_FOR="0s", MLOPS_LOCK_TIMEOUT="50ms"), "base")
    held.execute("ROLLBACK")


def test_a_pair_of_timeouts_that_does_not_fit_is_refused_from_the_environment_too(
    empty: Database, from_environment: FromEnvironment
) -> None:
    with pytest.raises(SettingsError, match="below statement-timeout"):
        commands.upgrade(from_environment(MLOPS_STATEMENT_TIMEOUT="1s"))
    assert "alembic_version" not in everything(empty)[0]
