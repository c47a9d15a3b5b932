"""Connecting, and above all passwords: the test server may ask for none, so these tests bring a server that does."""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql

from mlops_db import DatabaseManager
from mlops_db.errors import (
    AuthenticationFailedError,
    ConnectionFailedError,
    NotPermittedError,
    ServerUnreachableError,
    StatementFailedError,
)
from mlops_db.migration.commands import alembic_config
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.cluster import connect_superuser, embedded_programs, throwaway_cluster
from support.database import ROOT, Database, clean_environment, run_command
from support.process import SECRET, assert_failed

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

ASKS_FOR_PASSWORDS = "local all postgres trust\nlocal all all scram-sha-256\n"
ROLE = "mlops_test_scram"
# Everything that a URL, a shell, an ini file, a connection string or SQL takes for syntax, and three scripts.
AWKWARD = "p@s:s/w%o%%r%(d)s#1?2'3\"4 5\\6&7=8+${HOME} é ß пароль"
COMMANDS = [
    ("mlops-db", "status"),
    ("mlops-db", "create"),
    ("alembic", "-c", str(ROOT / "alembic.ini"), "current"),
]


@pytest.fixture(scope="module")
def superuser() -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to a server of our own, which asks every other role for its password."""
    with throwaway_cluster(embedded_programs()) as folder:
        (folder / "data" / "pg_hba.conf").write_text(ASKS_FOR_PASSWORDS, encoding="utf-8")
        with connect_superuser(folder) as connection:
            connection.execute("SELECT pg_reload_conf()")
            yield connection


@pytest.fixture(scope="module")
def account(superuser: psycopg.Connection[Any]) -> dict[str, str]:
    """The variables that say where a database and its owner are, without the owner's password."""
    superuser.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
    superuser.execute(f"CREATE DATABASE mlops OWNER {ROLE}")
    return {
        "POSTGRES_HOST": superuser.info.host,
        "POSTGRES_PORT": str(superuser.info.port),
        "POSTGRES_USER": ROLE,
    }


def set_password(superuser: psycopg.Connection[Any], password: str) -> None:
    superuser.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(password)))


def three_ways(account: dict[str, str], password: str, folder: Path) -> dict[str, dict[str, str]]:
    """The three ways to give a password, as the variables of each."""
    file = folder / "password"
    file.write_text(f"{password}\n", encoding="utf-8")
    url = f"postgresql://{ROLE}:{quote(password, safe='')}@/mlops?host={quote(account['POSTGRES_HOST'], safe='')}"
    return {
        "variable": account | {"POSTGRES_PASSWORD": password},
        "file": account | {"POSTGRES_PASSWORD_FILE": str(file)},
        "url": {"MLOPS_DATABASE_URL": f"{url}&port={account['POSTGRES_PORT']}"},
    }


# Passwords


@pytest.mark.parametrize("way", ["variable", "file", "url"])
def test_an_awkward_password_works_with_every_command(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path, way: str
) -> None:
    set_password(superuser, AWKWARD)
    environment = clean_environment(**three_ways(account, AWKWARD, tmp_path)[way])

    for arguments in COMMANDS if way != "file" else COMMANDS[:2]:
        done = run_command(*arguments, environment=environment, cwd=tmp_path)

        # status has nothing but an empty database to show, which is its exit code 1
        assert done.returncode == (1 if "status" in arguments else 0), done.stderr
        assert "FAILED" not in done.stdout
        assert "error:" not in done.stderr
        assert AWKWARD not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "password", ["@", ":/@", "100%", "%41", "#", "?sslmode=require", "'", '"', " ", "\\", "é", "日本語", "🔑", "a\nb"]
)
def test_each_awkward_password_works_in_every_way(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path, password: str
) -> None:
    set_password(superuser, password)
    for environ in three_ways(account, password, tmp_path).values():
        with closing(connect(Settings.from_environment(environ))) as connection:
            assert connection.info.user == ROLE


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_wrong_password_is_one_line_and_a_hint(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    set_password(superuser, "right")
    environment = clean_environment(POSTGRES_PASSWORD=SECRET, **account)

    done = run_command(*arguments, environment=environment, cwd=tmp_path)

    assert_failed(done, "password authentication failed", "POSTGRES_PASSWORD")
    assert done.returncode == (255 if arguments[0] == "alembic" else 2)


def test_the_error_of_a_missing_password_names_the_variable(
    superuser: psycopg.Connection[Any], account: dict[str, str]
) -> None:
    set_password(superuser, "right")
    with pytest.raises(AuthenticationFailedError, match="no password supplied") as caught:
        connect(Settings.from_environment(account | {"POSTGRES_PASSWORD": ""}))
    assert "POSTGRES_PASSWORD" in caught.value.hint


@pytest.mark.parametrize("arguments", COMMANDS[1:])
def test_libpqs_password_file_serves_where_no_password_is_given(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    set_password(superuser, "from:the\\file")
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:{ROLE}:from\\:the\\\\file\n", encoding="utf-8")
    passwords.chmod(0o600)

    done = run_command(*arguments, environment=clean_environment(PGPASSFILE=str(passwords), **account), cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_libpqs_password_variable_serves_where_no_password_is_given(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path
) -> None:
    set_password(superuser, SECRET)
    done = run_command("mlops-db", "create", environment=clean_environment(PGPASSWORD=SECRET, **account), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# A password that changes


def test_a_new_password_in_its_file_needs_no_restart(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path
) -> None:
    def change_to(password: str) -> None:
        set_password(superuser, password)
        file.write_text(f"{password}\n", encoding="utf-8")

    file = tmp_path / "secret"
    change_to("the first")
    settings = Settings.from_environment(account | {"POSTGRES_PASSWORD_FILE": str(file)})
    with DatabaseManager(settings) as db:
        db.engine.connect().close()
        change_to(SECRET)
        superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (ROLE,))
        db.engine.connect().close()
        db.ping()
        connect(settings).close()

        for content in (None, b"", b"\xff"):
            file.unlink() if content is None else file.write_bytes(content)
            for call in (db.ping, lambda: connect(settings), lambda: db.wait_until_ready(0)):
                with pytest.raises(ConnectionFailedError, match="POSTGRES_PASSWORD_FILE") as caught:
                    call()
                assert caught.value.retryable
                assert SECRET not in f"{caught.value}{caught.value.hint}{settings!r}"
        change_to("the third")
        db.ping()


# Several servers


def elsewhere_first(account: dict[str, str], password: str, attributes: str = "read-write") -> dict[str, str]:
    """Variables that name a server which is not there, and then the one that is."""
    hosts = quote(f"/nonexistent,{account['POSTGRES_HOST']}")
    ports = f"port=1,{account['POSTGRES_PORT']}"
    query = f"host={hosts}&{ports}&target_session_attrs={attributes}"
    return {"MLOPS_DATABASE_URL": f"postgresql://{ROLE}:{quote(password, safe='')}@/mlops?{query}"}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_command_goes_on_to_the_server_that_answers(
    superuser: psycopg.Connection[Any], account: dict[str, str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    set_password(superuser, SECRET)
    done = run_command(*arguments, environment=clean_environment(**elsewhere_first(account, SECRET)), cwd=tmp_path)
    assert done.returncode == (1 if "status" in arguments else 0), done.stdout + done.stderr
    assert "error:" not in done.stderr


def test_the_error_names_all_servers_that_do_not_answer(account: dict[str, str]) -> None:
    nowhere = account | {"POSTGRES_HOST": "/nonexistent,127.0.0.1", "POSTGRES_PORT": "1,2"}
    with pytest.raises(ServerUnreachableError) as caught:
        connect(Settings.from_environment(nowhere))
    target = f"{ROLE}@/nonexistent:1,127.0.0.1:2/mlops"
    assert re.fullmatch(rf"no PostgreSQL answers at {target}: .*/nonexistent.*; .*127\.0\.0\.1.*", str(caught.value))


def test_the_error_names_a_server_of_another_kind(superuser: psycopg.Connection[Any], account: dict[str, str]) -> None:
    set_password(superuser, SECRET)
    superuser.execute(f"ALTER ROLE {ROLE} SET default_transaction_read_only = on")
    try:
        with pytest.raises(ConnectionFailedError, match=r"fits target_session_attrs: .*read-only") as caught:
            connect(Settings.from_environment(elsewhere_first(account, SECRET)))
        assert caught.value.retryable
        connect(Settings.from_environment(elsewhere_first(account, SECRET, "any"))).close()
    finally:
        superuser.execute(f"ALTER ROLE {ROLE} RESET default_transaction_read_only")


def test_a_wrong_password_ends_it_for_all_servers(superuser: psycopg.Connection[Any], account: dict[str, str]) -> None:
    set_password(superuser, "right")
    with pytest.raises(AuthenticationFailedError, match="password authentication failed"):
        connect(Settings.from_environment(elsewhere_first(account, SECRET)))


# What else libpq can be told


def test_connections_name_the_program_unless_the_user_did(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(settings: Settings) -> str:
        with closing(connect(settings)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW application_name")
            (name,) = cursor.fetchone()
            return str(name)

    assert shown(empty.settings) == "mlops-db"
    assert shown(replace(empty.settings, parameters={"application_name": "mine"})) == "mine"
    monkeypatch.setenv("PGAPPNAME", "theirs")
    assert shown(empty.settings) == "theirs"


def test_a_parameter_that_libpq_refuses_is_reported_in_its_words(empty: Database) -> None:
    done = empty.run(
        "mlops-db",
        "status",
        MLOPS_DATABASE_URL=f"postgresql:///{empty.settings.database}?sslmode=maybe&sslpassword={quote(SECRET)}",
    )
    assert_failed(done, "sslmode")


@pytest.mark.parametrize(
    "variables",
    [
        {"PGSSLMODE": "maybe"},
        {"PGTARGETSESSIONATTRS": "first"},
        {"PGSERVICE": "nowhere"},
        {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "system", "PGSSLMINPROTOCOLVERSION": "TLSv9"},
        {"PGHOSTADDR": "127.0.0.1,::1"},
    ],
)
def test_a_setting_that_libpq_cannot_use_is_not_reported_as_an_unreachable_server(
    variables: dict[str, str], empty: Database
) -> None:
    assert_failed(
        empty.run("mlops-db", "status", **variables, POSTGRES_HOST="localhost"), "libpq cannot use a setting", "PG..."
    )


def test_the_urls_options_reach_the_server_through_alembic_too(empty: Database) -> None:
    read_only = replace(empty.settings, parameters={"options": "-c default_transaction_read_only=on"})
    with pytest.raises(CommandError, match=r"read-only transaction\nHint: .*primary") as caught:
        command.upgrade(alembic_config(read_only), "head")
    assert isinstance(caught.value.__cause__, StatementFailedError)


def test_a_role_that_may_not_create_tables_is_told_whom_to_ask(
    superuser: psycopg.Connection[Any], account: dict[str, str]
) -> None:
    set_password(superuser, SECRET)
    superuser.execute("CREATE DATABASE theirs")  # whose schema public takes tables of its owner alone
    settings = Settings.from_environment(account | {"POSTGRES_PASSWORD": SECRET, "MLOPS_DB_NAME": "theirs"})
    with pytest.raises(CommandError, match=rf"permission denied.*\nHint: .*{ROLE}") as caught:
        command.upgrade(alembic_config(settings), "head")
    assert isinstance(caught.value.__cause__, NotPermittedError)
    assert SECRET not in str(caught.value)
