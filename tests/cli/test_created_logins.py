"""`mlops-db grant-reader ROLE --create`: the login of a dashboard, with its password."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.database import Database
from support.process import SECRET, assert_failed
from support.roles import owner, role, session

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

ROLE = 'mlops test "grafana"'
QUOTED = '"mlops test ""grafana"""'
CREATE = ("mlops-db", "grant-reader", ROLE, "--create")


@pytest.fixture
def database(head: Database) -> Iterator[Database]:
    """A database at head, where the role does not survive the test."""
    try:
        yield head
    finally:
        if exists(head):
            head.query(f"DROP OWNED BY {QUOTED}")
            head.query(f"DROP ROLE {QUOTED}")


def exists(database: Database) -> bool:
    found: bool = database.value("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [ROLE])
    return found


def accepts(database: Database, password: str) -> bool:
    """Whether the server accepts the password. (The test server asks nobody for one.)"""
    stored: str = database.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ROLE])
    method, parameters, keys = stored.split("$")
    iterations, salt = parameters.split(":")
    assert method == "SCRAM-SHA-256"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return b64encode(hashlib.sha256(client_key).digest()).decode() == keys.split(":")[0]


def test_it_makes_a_login_that_reads_and_gives_it_each_new_password(database: Database, tmp_path: Path) -> None:
    done = database.run(*CREATE, MLOPS_READER_PASSWORD=SECRET)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'✅ Role "{ROLE}" may read ')
    assert SECRET not in done.stdout + done.stderr
    assert accepts(database, SECRET)
    with session(replace(database.settings, user=ROLE, password=SECRET)) as reader:
        assert reader.execute("SELECT * FROM v_recent_monitoring").fetchall() == []

    file = tmp_path / "password"
    file.write_text("another\n", encoding="utf-8")
    assert database.run(*CREATE, "--password-file", str(file)).returncode == 0
    assert accepts(database, "another")


def test_the_password_may_be_in_env_file(database: Database, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"MLOPS_READER_PASSWORD='{SECRET}'\n", encoding="utf-8")
    assert database.run(*CREATE, cwd=tmp_path).returncode == 0
    assert accepts(database, SECRET)


def test_a_dry_run_creates_nothing(database: Database) -> None:
    done = database.run(*CREATE, "--dry-run", MLOPS_READER_PASSWORD=SECRET)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Nothing was changed (--dry-run).\n")
    assert not exists(database)


@pytest.mark.parametrize(
    ("attributes", "grant", "message"),
    [
        ("CREATEDB CREATEROLE", "SELECT 1", "can do more than read the views: CREATEROLE, CREATEDB"),
        ("LOGIN", f"GRANT INSERT ON model_versions TO {QUOTED}", "can do more than read the views"),
    ],
)
def test_a_role_that_can_do_more_keeps_its_password(
    database: Database, attributes: str, grant: str, message: str
) -> None:
    database.query(f"CREATE ROLE {QUOTED} {attributes} PASSWORD 'its own'")
    database.query(grant)
    before = database.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ROLE])

    assert_failed(database.run(*CREATE, MLOPS_READER_PASSWORD=SECRET), message)

    assert database.value("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ROLE]) == before


def test_without_createrole_it_says_who_can(database: Database) -> None:
    with owner(database) as owned:
        database.query(f"GRANT SELECT ON alembic_version TO {owned.settings.user}")
        done = owned.run(*CREATE, MLOPS_READER_PASSWORD=SECRET)
        assert_failed(done, f'may not create role "{ROLE}"', "a role with CREATEROLE")
        with role(database, ROLE):
            assert_failed(owned.run(*CREATE, MLOPS_READER_PASSWORD=SECRET), f'may not change role "{ROLE}"')


def test_with_an_owner_role_its_createrole_counts(database: Database) -> None:
    with owner(database) as owned, role(database, "mlops_test_login", "LOGIN CREATEROLE") as login:
        owner_role = owned.settings.user
        database.query(f"GRANT {owner_role} TO mlops_test_login; GRANT SELECT ON alembic_version TO {owner_role}")
        through_owner = replace(owned, settings=replace(login, owner_role=owner_role))
        assert_failed(
            through_owner.run(*CREATE, MLOPS_READER_PASSWORD=SECRET),
            f'the role in force (the owner role, where MLOPS_OWNER_ROLE is set) may not create role "{ROLE}"',
            "give CREATEROLE to the role in force",
        )
        database.query(f"ALTER ROLE {owner_role} CREATEROLE; ALTER ROLE mlops_test_login NOCREATEROLE")
        done = through_owner.run(*CREATE, MLOPS_READER_PASSWORD=SECRET)
        assert "may not create role" not in done.stderr
        assert "does not own the tables and views" in done.stderr  # it is past that


def test_it_may_connect_where_not_everybody_may(database: Database) -> None:
    database.query(f"REVOKE CONNECT ON DATABASE {database.settings.database} FROM PUBLIC")

    assert database.run(*CREATE, MLOPS_READER_PASSWORD=SECRET).returncode == 0

    with session(replace(database.settings, user=ROLE, password=SECRET)) as reader:
        assert reader.execute("SELECT * FROM v_recent_monitoring").fetchall() == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--create"], 1, "needs a password, and MLOPS_READER_PASSWORD has none"),
        (["--create", "--password-file", "/nowhere"], 1, "--password-file: '/nowhere' cannot be read"),
        (["--password-file", "/nowhere"], 64, "--password-file is for --create"),
    ],
)
def test_without_a_password_nothing_happens(database: Database, options: list[str], code: int, message: str) -> None:
    done = database.run("mlops-db", "grant-reader", ROLE, *options, MLOPS_READER_PASSWORD="")
    assert done.returncode == code
    assert_failed(done, message)
    assert not exists(database)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("public", "public is everybody"),
        ("Public", "Public is everybody"),
        ("none", 'no role "none"'),
        ("pg_monitors", 'no role "pg_monitors"'),
        ("pg_monitor", "is built in"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--create",)])
def test_a_reserved_name_is_refused(head: Database, name: str, message: str, options: tuple[str, ...]) -> None:
    done = head.run("mlops-db", "grant-reader", name, *options, MLOPS_READER_PASSWORD=SECRET)
    assert_failed(done, message, "Name a role" if name.lower() == "public" else "Built-in roles cannot be used")


@pytest.mark.parametrize("options", [(), ("--create",)])
def test_a_role_named_like_a_reserved_one_in_other_letters_is_a_role(head: Database, options: tuple[str, ...]) -> None:
    with role(head, "None"):
        done = head.run("mlops-db", "grant-reader", "None", *options, MLOPS_READER_PASSWORD=SECRET)
        assert done.returncode == 0, done.stderr
