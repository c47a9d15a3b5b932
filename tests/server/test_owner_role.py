"""The role that owns everything, and the login that becomes it: through all commands, and whatever is wrong with it."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import create_engine

from mlops_db.errors import NotPermittedError, ServerUnreachableError, SettingsError
from mlops_db.migration.commands import alembic_config
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from support.cluster import embedded_programs, throwaway_cluster
from support.database import ROOT, Database, clean_environment, run_command
from support.handmade import SPECIFICATION
from support.process import assert_failed
from support.projects import Checkout
from support.projects import sql as statements
from support.roles import PASSWORD, role
from support.sessions import another_session

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

# With everything in it that an option, a file or SQL takes for syntax.
OWNER = 'mlops test "Owner" \\ é'
LOGIN = "mlops_test_login"
READER = "mlops_test_reader"
PAGE = ROOT / "docs" / "operating.md"
SET_OPTION_SINCE = 160000
IDLE_SESSION_TIMEOUT_SINCE = 140000


@dataclass
class Place:
    """A server with the owner, who cannot log in, and the login, which is its member and has no rights by that."""

    database: Database
    name: str

    @property
    def login(self) -> Database:
        """The place's database as the login sees it; the connection stays the superuser's, to another database."""
        settings = replace(self.database.settings, user=LOGIN, password=PASSWORD, database=self.name)
        return replace(self.database, settings=settings)

    def sql(self, statement: str, *names: str) -> None:
        self.database.connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def owners(self) -> set[str]:
        """Who owns the place's database, or anything in it."""
        with closing(connect(replace(self.database.settings, database=self.name))) as connection:
            cursor = connection.cursor()
            cursor.execute("""
                SELECT pg_get_userbyid(refobjid) FROM pg_shdepend JOIN pg_database AS d ON datname = current_database()
                 WHERE deptype = 'o' AND (dbid = d.oid OR classid = 'pg_database'::regclass AND objid = d.oid)
            """)
            return {name for (name,) in cursor.fetchall()}


@pytest.fixture
def place(empty: Database) -> Iterator[Place]:
    place = Place(empty, "mlops_test_owned")
    with (
        role(empty, OWNER, "NOLOGIN CREATEDB"),
        role(empty, LOGIN, "LOGIN NOINHERIT"),
        role(empty, READER, "NOLOGIN"),
    ):
        place.sql("GRANT {} TO {}", OWNER, LOGIN)
        yield place
        place.sql("DROP DATABASE IF EXISTS {} WITH (FORCE)", place.name)


def as_option() -> str:
    return "-c role=" + re.sub(r"([\\\s])", r"\\\1", OWNER)


def by_variable(_: Place, __: Path) -> dict[str, str]:
    return {"MLOPS_OWNER_ROLE": OWNER}


def by_pgoptions(_: Place, __: Path) -> dict[str, str]:
    return {"PGOPTIONS": as_option()}


def by_url(place: Place, _: Path) -> dict[str, str]:
    at = place.login.settings
    where = f"host={quote(at.host, safe='')}&port={at.port}&options={quote(as_option())}"
    return {"MLOPS_DATABASE_URL": f"postgresql://{LOGIN}:{quote(PASSWORD)}@/{place.name}?{where}"}


def by_service_file(_: Place, folder: Path) -> dict[str, str]:
    file = folder / "services"
    file.write_text(f"[another]\noptions=-c role=nobody\n\n[ours]\n  options={as_option()}  \n", encoding="utf-8")
    return {"PGSERVICEFILE": str(file), "PGSERVICE": "ours", "PGOPTIONS": "-c role=nobody"}


def by_setting(place: Place, _: Path) -> dict[str, str]:
    place.sql("ALTER ROLE {} SET role = {}", LOGIN, OWNER)
    return {}


def by_setting_in_the_database(place: Place, _: Path) -> dict[str, str]:
    place.sql("CREATE DATABASE {} OWNER {} TEMPLATE template0", place.name, OWNER)
    place.sql("ALTER ROLE {} IN DATABASE {} SET role = {}", LOGIN, place.name, OWNER)
    place.sql("ALTER ROLE {} CREATEDB", LOGIN)  # for a scratch database, which the setting does not hold for
    return {}


Way = Callable[[Place, Path], dict[str, str]]
WAYS: list[Way] = [by_variable, by_pgoptions, by_url, by_service_file, by_setting, by_setting_in_the_database]


COMMANDS = (
    "mlops-db init",
    "mlops-db check",
    "mlops-db maintain --keep 90d",
    "mlops-db create",
    "alembic downgrade base",
    "alembic upgrade head",
    "alembic check",
    "mlops-db status",
    f"mlops-db grant-reader {READER}",
    "mlops-db history",
)


@pytest.mark.parametrize("way", WAYS)
def test_everything_that_the_commands_make_is_the_owner_s(place: Place, tmp_path: Path, way: Way) -> None:
    variables = way(place, tmp_path)

    for words in COMMANDS if way is by_variable else COMMANDS[:3]:
        done = place.login.run(*words.split(), **variables)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert place.owners() == {OWNER}, words
    assert not place.database.query("SELECT FROM pg_database WHERE datname LIKE 'mlops_scratch%'")
    assert f"  {LOGIN}  " in place.login.run("mlops-db", "history", **variables).stdout


def test_a_database_that_the_owner_made_by_hand_is_adopted(place: Place) -> None:
    place.sql("CREATE DATABASE {} OWNER {} TEMPLATE template0", place.name, OWNER)
    place.login.psql(sql.SQL("SET ROLE {};").format(sql.Identifier(OWNER)).as_string() + SPECIFICATION)

    for words in ("mlops-db adopt", "alembic upgrade head", "mlops-db check"):
        done = place.login.run(*words.split(), MLOPS_OWNER_ROLE=OWNER)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert place.owners() == {OWNER}, words


# What a revision says, and what it makes then. DISCARD ALL lets go of the run lock, too, and is refused for that.
RESETS = (
    ("RESET ROLE", "CREATE TABLE public.after_role ()"),
    ("RESET ALL", "CREATE TABLE public.after_all ()"),
    ("RESET SESSION AUTHORIZATION", "CREATE TABLE public.after_authorization ()"),
    ("SET SESSION AUTHORIZATION DEFAULT", "CREATE TABLE public.after_default ()"),
    ("SET ROLE NONE",),  # that was said on purpose, and holds until the revision ends
)


def test_the_role_holds_after_every_reset(place: Place, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    for number, message in enumerate(RESETS):
        checkout.add(statements(*message))
        checkout.add(statements(f"CREATE TABLE made_by_the_next_{number} ()"))
    assert place.login.run("mlops-db", "create", MLOPS_OWNER_ROLE=OWNER).returncode == 0
    as_owner = replace(place.login, settings=replace(place.login.settings, owner_role=OWNER))

    done = checkout.alembic(as_owner, "upgrade", "head")

    assert done.returncode == 0, done.stdout + done.stderr
    assert place.owners() == {OWNER}


def test_psql_becomes_the_owner_and_keeps_what_pgoptions_says(place: Place) -> None:
    as_owner = {"MLOPS_OWNER_ROLE": OWNER, "PGOPTIONS": "-c work_mem=5MB"}
    assert place.login.run("mlops-db", "create", **as_owner).returncode == 0
    asked = ("-At", "-c", "SELECT session_user, current_user, current_setting('work_mem')")
    done = place.login.run("mlops-db", "psql", *asked, **as_owner)
    assert done.stdout == f"{LOGIN}|{OWNER}|5MB\n", done.stderr


def test_a_connection_that_a_program_hands_in_becomes_the_owner_and_comes_back_as_it_was(place: Place) -> None:
    assert place.login.run("mlops-db", "create", MLOPS_OWNER_ROLE=OWNER).returncode == 0
    settings = place.login.settings
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(settings))
    with engine.connect() as connection:
        config = alembic_config(replace(settings, owner_role=OWNER), connection=connection)
        command.upgrade(config, "head")
        assert connection.exec_driver_sql("SELECT current_user").scalar() == LOGIN
    engine.dispose()

    assert place.owners() == {OWNER}


@pytest.mark.parametrize("fault", ["no such role", "not granted"])
def test_a_connection_that_a_program_hands_in_and_that_may_not_become_the_owner(place: Place, fault: str) -> None:
    if fault == "not granted":
        place.sql("REVOKE {} FROM {}", OWNER, LOGIN)
    settings = replace(place.login.settings, database=place.database.settings.database)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(settings))
    with engine.connect() as connection:
        wanted = "mlops_test_nobody" if fault == "no such role" else OWNER
        config = alembic_config(replace(settings, owner_role=wanted), connection=connection)
        with pytest.raises(CommandError, match=r"^MLOPS_OWNER_ROLE: .* cannot become .*\nHint: .*GRANT "):
            command.upgrade(config, "head")
        assert not connection.in_transaction()
        assert connection.exec_driver_sql("SELECT current_user, current_setting('lock_timeout')").one() == (LOGIN, "0")
    engine.dispose()


def test_a_server_that_is_not_there_is_asked_once() -> None:
    """A second attempt, without the role, would double the wait, and the wrong passwords that lock an account."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked = []

        def refuse() -> None:
            with suppress(OSError):  # the end of the test
                while True:
                    visitor, _ = server.accept()
                    visitor.recv(8)  # with that unread, the end would be a reset
                    asked.append(1)
                    visitor.close()

        thread = Thread(target=refuse, daemon=True)
        thread.start()
        attempts = []
        for role_ in (None, OWNER):
            settings = Settings(host="127.0.0.1", port=server.getsockname()[1], owner_role=role_)
            with pytest.raises(ServerUnreachableError):
                connect(settings)
            attempts.append(len(asked))

    assert attempts[1] == 2 * attempts[0]


def test_a_script_makes_everything_the_owner_s(place: Place) -> None:
    as_owner = {"MLOPS_OWNER_ROLE": OWNER}
    assert place.login.run("mlops-db", "create", **as_owner).returncode == 0

    place.login.psql(place.login.run("alembic", "upgrade", "head", "--sql", **as_owner).stdout)

    assert place.owners() == {OWNER}


def test_a_run_as_the_owner_sees_who_blocks_it_and_outlives_its_pauses(place: Place, tmp_path: Path) -> None:
    """What a session does is shown to its login, not to the owner; and the login may not idle for long."""
    checkout = Checkout(tmp_path)
    checkout.add(statements("ALTER TABLE orders ADD COLUMN price int"))
    as_owner = replace(place.login, settings=replace(place.login.settings, owner_role=OWNER))
    assert as_owner.run("mlops-db", "init").returncode == 0
    become = sql.SQL("SET ROLE {}").format(sql.Identifier(OWNER)).as_string()
    with another_session(place.login, "set-up", become, "CREATE TABLE orders ()") as session:
        session.commit()
    with another_session(place.login, "the nightly report", become, "LOCK TABLE orders") as blocker:
        if place.database.connection.info.server_version >= IDLE_SESSION_TIMEOUT_SINCE:
            place.sql("ALTER ROLE {} SET idle_session_timeout = '200ms'", LOGIN)
        run = checkout.start(as_owner, "upgrade", "head")
        pid = blocker.info.backend_pid
        run.wait_for_output(f"blocked by pid {pid} (the nightly report, idle in transaction, in a transaction for ")
        blocker.rollback()
        done = run.ended()

    assert done.returncode == 0, done.stdout + done.stderr


def test_jobs_stay_who_they_are(head: Database) -> None:
    """Also where they could not become the owner."""
    with (
        role(head, OWNER, "NOLOGIN"),
        role(head, LOGIN) as login,
        DatabaseManager(replace(login, owner_role=OWNER)) as db,
    ):
        head.query(sql.SQL("GRANT SELECT ON alembic_version TO {}").format(sql.Identifier(LOGIN)).as_string())
        db.wait_until_ready(5)
        assert db.execute_query("SELECT current_user") == [(LOGIN,)]
        with pytest.raises(NotPermittedError, match="may not become"):
            connect(replace(login, owner_role=OWNER))


def test_the_page_s_statements_make_an_owner_and_hand_a_database_over_to_it() -> None:
    with throwaway_cluster(embedded_programs()) as socket:
        at = Settings(host=str(socket), user="airflow", password=None)
        with psycopg.connect(host=at.host, user="postgres", dbname="postgres", autocommit=True) as superuser:
            superuser.execute(block("owner").encode())
            superuser.execute("ALTER ROLE airflow CREATEDB")
            database = Database(superuser, at)
            assert database.run("mlops-db", "init").returncode == 0
            superuser.execute("ALTER ROLE airflow NOCREATEDB")

            with psycopg.connect(host=at.host, user="postgres", dbname="mlops") as connection:
                connection.execute(block("handover").encode())

            as_owner = {"MLOPS_OWNER_ROLE": "mlops_owner"}
            for words in ("mlops-db status", "alembic downgrade base", "mlops-db init"):
                done = database.run(*words.split(), **as_owner)
                assert done.returncode == 0, (words, done.stdout, done.stderr)
            assert Place(Database(superuser, replace(at, user="postgres")), "mlops").owners() == {"mlops_owner"}
            assert database.run("mlops-db", "create", MLOPS_DB_NAME="another", **as_owner).returncode == 0


def block(name: str) -> str:
    found = re.search(rf"^```sql {name}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


# What is wrong with the role: what a superuser has done, and what is said.
WRONG = {
    "there is none": ("DROP ROLE {owner}", "MLOPS_OWNER_ROLE: there is no role {owner} on "),
    "it is not granted": ("REVOKE {owner} FROM {login}", "MLOPS_OWNER_ROLE: role {login} may not become {owner}"),
    "it is granted and cannot be set": (
        "GRANT {owner} TO {login} WITH INHERIT TRUE, SET FALSE",
        "MLOPS_OWNER_ROLE: role {login} may not become {owner}",
    ),
    "it may not create databases": (
        "ALTER ROLE {owner} NOCREATEDB",
        "role {owner} may not create databases on this server",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_the_error_about_the_role_has_the_statement_that_fixes_it(place: Place, fault: str) -> None:
    if "SET FALSE" in WRONG[fault][0] and place.database.connection.info.server_version < SET_OPTION_SINCE:
        pytest.skip("a membership is one or none before PostgreSQL 16")
    names = {"owner": sql.Identifier(OWNER), "login": sql.Identifier(LOGIN)}
    done_to_it, message = (sql.SQL(text).format(**names).as_string() for text in WRONG[fault])
    place.database.connection.execute(done_to_it)

    done = place.login.run("mlops-db", "create", MLOPS_OWNER_ROLE=OWNER)

    assert done.returncode == 1
    assert_failed(done, message)
    assert not place.database.query("SELECT FROM pg_database WHERE datname = %s", [place.name])
    mending = re.search(r"run ((?:CREATE|GRANT|ALTER) .*?)(?:;$|, or)", done.stderr, re.MULTILINE)
    assert mending is not None
    place.database.connection.execute(mending[1])
    assert place.login.run("mlops-db", "create", MLOPS_OWNER_ROLE=OWNER).returncode == 0
    assert place.owners() == {OWNER}


@pytest.mark.parametrize(
    "words", ["alembic current", "mlops-db status", "mlops-db check", "mlops-db maintain", "mlops-db history"]
)
def test_every_command_fails_if_the_role_is_not_granted(head: Database, words: str) -> None:
    with role(head, OWNER, "NOLOGIN"), role(head, LOGIN) as login:
        done = replace(head, settings=login).run(*words.split(), MLOPS_OWNER_ROLE=OWNER)
        assert_failed(done, "MLOPS_OWNER_ROLE: role ", " may not become ", "Let a superuser run GRANT ")


def test_the_error_says_that_pgoptions_names_the_role(place: Place) -> None:
    for name, message in (("postgres", "permission denied to set role"), ("nobody", 'role "nobody" does not exist')):
        assert_failed(place.login.run("mlops-db", "create", PGOPTIONS=f"-c role={name}"), message, "PGOPTIONS")


def test_hints_about_other_servers_are_not_given_for_the_embedded_one() -> None:
    """PGOPTIONS with a role that it does not have, and an address that would win over its socket."""
    elsewhere = clean_environment(PGOPTIONS="-c role=nobody", PGHOSTADDR="127.0.0.9", MLOPS_OWNER_ROLE="nobody")
    done = run_command("mlops-db", "docs", "--check", environment=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["none", "public", "pg_monitor", "x" * 64, "я" * 32, "a\tb", "a\x7fb"])
def test_a_name_that_no_role_can_have_is_refused_before_anything_happens(name: str) -> None:
    with pytest.raises(SettingsError, match=r"^MLOPS_OWNER_ROLE ") as refusal:
        Settings.from_environment({"MLOPS_OWNER_ROLE": name})
    assert refusal.value.hint
