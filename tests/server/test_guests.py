"""What a role that may only create in public, or only use what it was granted, can make others run. It is nothing."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import create_engine, event
from sqlalchemy.pool import NullPool

from mlops_db import DatabaseManager
from mlops_db.errors import NotPermittedError, RefusedError
from mlops_db.migration import commands
from mlops_db.project import BASELINE
from mlops_db.server.connection import connect
from mlops_db.server.guests import REVOKE_CREATE
from support.database import Database, revision_of
from support.handmade import SPECIFICATION
from support.process import assert_failed
from support.projects import Checkout
from support.roles import may_create_in_public, owner, role, run_as, session
from support.sessions import wait_until
from support.snapshot import Progress
from support.stopped import contents
from support.traps import TAKEN, set_traps

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

GUEST = "mlops_test_guest"
NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
FUNCTION = "CREATE FUNCTION public.same(l varchar, r varchar) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
# What a guest may leave in public for others to step into, and how it is told.
LEFT_BEHIND = {
    "a function": ([FUNCTION], "function public.same(character varying,character varying)"),
    "an operator": (
        [FUNCTION, "CREATE OPERATOR public.= (FUNCTION = same, LEFTARG = varchar, RIGHTARG = varchar)"],
        "operator public.=(character varying,character varying)",
    ),
    "an aggregate": (
        [
            "CREATE FUNCTION public.add_up(l int, r int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE AGGREGATE public.count(int) (SFUNC = add_up, STYPE = int)",
        ],
        "aggregate public.count(integer)",
    ),
    "a procedure": (["CREATE PROCEDURE public.do_it() LANGUAGE sql AS 'SELECT 1'"], "procedure public.do_it()"),
    "a cast": (
        [
            "CREATE TYPE public.odd AS (a int)",
            "CREATE FUNCTION public.even(public.odd) RETURNS text LANGUAGE sql AS 'SELECT current_user::text'",
            "CREATE CAST (public.odd AS text) WITH FUNCTION public.even(public.odd) AS IMPLICIT",
        ],
        "cast (public.odd AS pg_catalog.text)",
    ),
}
# A view runs as whoever reads it.
TRAP = f"CREATE FUNCTION public.spring() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE '{TAKEN}'; END $$"
FALSE_VERSION = "CREATE VIEW public.alembic_version AS SELECT public.spring() AS version_num"
# So does the planner for an index: it computes constants with what the index calls.
HIDDEN_TRAP = f"""
    CREATE FUNCTION public.spring(version varchar) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN IF current_user <> '{GUEST}' THEN RAISE '{TAKEN}'; END IF; RETURN version; END $$
"""
FALSE_TABLE = """
    CREATE TABLE public.alembic_version (version_num varchar(32));
    GRANT ALL ON public.alembic_version TO PUBLIC;
    INSERT INTO public.alembic_version VALUES ('{revision}');
    CREATE INDEX ON public.alembic_version (version_num) WHERE version_num < public.spring('x')
"""
COMMANDS = (
    ("mlops-db", "status"),
    ("mlops-db", "wait"),
    ("mlops-db", "init"),
    ("mlops-db", "check"),
    ("mlops-db", "adopt"),
    ("mlops-db", "maintain"),
    ("mlops-db", "grant-reader", GUEST),
    ("mlops-db", "grant-writer", GUEST),
    ("mlops-db", "demo"),
    ("alembic", "current"),
    ("alembic", "check"),
    ("alembic", "-x", "plan=true", "upgrade", "head"),
    ("alembic", "upgrade", "head"),
    ("alembic", "stamp", "head"),
    ("alembic", "downgrade", "base"),
)


@pytest.fixture(params=["an owner that is no superuser", "a superuser"])
def open_to_all(request: pytest.FixtureRequest, empty: Database) -> Iterator[Database]:
    """An empty database in which everybody may create in public, and a role that does nothing else: GUEST."""
    with ExitStack() as stack:
        database = stack.enter_context(owner(empty)) if "no superuser" in request.param else empty
        may_create_in_public(database)
        stack.enter_context(role(database, GUEST))
        yield database


def as_guest(database: Database, *statements: str) -> None:
    guest = replace(database.settings, user=GUEST, password="of this test")  # noqa: S106  (not a secret)
    run_as(guest, *statements)


# The owner's rights


def test_a_jobs_role_does_not_become_the_owner_by_the_trigger_of_the_series(open_to_all: Database) -> None:
    """Its own type has an implicit cast to text, whose function would run with the rights of the trigger's."""
    commands.upgrade(open_to_all.settings)
    open_to_all.query(f"GRANT USAGE ON SCHEMA mlops_internal TO {GUEST}")
    gain = "BEGIN EXECUTE 'CREATE TABLE mlops_internal.gained ()'; RETURN 'x'; END"
    attack = (
        "CREATE TYPE mine AS (a int)",
        f"CREATE FUNCTION gain(mine) RETURNS text LANGUAGE plpgsql AS $${gain}$$",
        "CREATE CAST (mine AS text) WITH FUNCTION gain(mine) AS IMPLICIT",
        "CREATE TEMPORARY TABLE bait (model_name mine, metric_type mine, metric_name mine)",
    )
    trigger = (
        "CREATE TRIGGER springs AFTER INSERT ON bait REFERENCING NEW TABLE AS new_rows"
        " FOR EACH STATEMENT EXECUTE FUNCTION mlops_internal.register_new_series()"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="register_new_series"):
        as_guest(open_to_all, *attack, trigger)

    # Not even where somebody has granted it.
    as_guest(open_to_all, "DROP FUNCTION gain(mine) CASCADE", "DROP TYPE mine CASCADE")
    open_to_all.query(f"GRANT EXECUTE ON FUNCTION mlops_internal.register_new_series() TO {GUEST}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not monitoring_metrics"):
        as_guest(open_to_all, *attack, trigger, "INSERT INTO bait VALUES (ROW(1), ROW(1), ROW(1))")
    # Not even while the table has another name.
    as_guest(open_to_all, "DROP FUNCTION gain(mine) CASCADE", "DROP TYPE mine CASCADE")
    open_to_all.query("ALTER TABLE monitoring_metrics RENAME TO metrics")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not monitoring_metrics"):
        as_guest(open_to_all, *attack, trigger, "INSERT INTO bait VALUES (ROW(1), ROW(1), ROW(1))")
    assert open_to_all.value("SELECT to_regclass('mlops_internal.gained')") is None


def test_who_may_insert_metrics_registers_series_and_may_do_nothing_else(open_to_all: Database) -> None:
    commands.upgrade(open_to_all.settings)
    open_to_all.query(f"GRANT INSERT ON monitoring_metrics TO {GUEST}")
    open_to_all.query(f"GRANT USAGE ON SEQUENCE monitoring_metrics_id_seq TO {GUEST}")

    as_guest(open_to_all, "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'psi')")

    assert open_to_all.value("SELECT metric_name FROM mlops_internal.metric_series") == "psi"
    for statement in (
        "INSERT INTO mlops_internal.metric_series VALUES ('m', 't', 'n')",
        "SELECT mlops_internal.register_series('m', 't', 'n')",
        "CALL mlops_internal.maintain()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_guest(open_to_all, statement)


FUNCTIONS = """
    SELECT p.proname, p.prokind::text, pg_get_userbyid(p.proowner), p.prosecdef, p.proconfig, pg_get_functiondef(p.oid),
           EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl WHERE acl.grantee = 0)
      FROM pg_proc AS p WHERE p.pronamespace = 'mlops_internal'::regnamespace ORDER BY 1
"""
# They run as the owner, so that a writer of metrics needs no rights on the catalogue of series: see revision 0015.
RUN_AS_OWNER = {"register_series", "register_new_series"}
# It commits, which no procedure with a search path of its own may.
WITHOUT_PATH = {"maintain"}
CALL = re.compile(r"([\w.]+)\(")


def test_every_function_is_the_owners_and_for_nobody_else_and_has_its_own_path(open_to_all: Database) -> None:
    commands.upgrade(open_to_all.settings)
    found = open_to_all.query(FUNCTIONS)
    assert len(found) >= 10

    assert {of for _, _, of, *_ in found} == {open_to_all.settings.user}
    assert {name for name, *_, everybody in found if everybody} == set()
    assert {name for name, _, _, as_owner, *_ in found if as_owner} == RUN_AS_OWNER
    for name, kind, _, _, settings, *_ in found:
        assert name in WITHOUT_PATH or "search_path=pg_catalog, pg_temp" in settings, name
        assert name not in WITHOUT_PATH or (kind, settings) == ("p", None), name
    for name, *_, definition, _ in found:
        if name in WITHOUT_PATH:
            body = definition.partition("AS $procedure$")[2]
            called = [word for word in CALL.findall(body) if not word.startswith("mlops_internal.")]
            assert called == [], name


# Public


@pytest.mark.parametrize(("statements", "name"), LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_a_run_refuses_what_a_guest_has_put_into_public_by_its_name(
    open_to_all: Database, statements: list[str], name: str
) -> None:
    commands.upgrade(open_to_all.settings, "0003")
    as_guest(open_to_all, *statements)
    before = contents(open_to_all)

    for arguments in (("upgrade", "head"), ("downgrade", "base"), ("stamp", "head"), ("check",)):
        assert_failed(open_to_all.run("alembic", *arguments), f"{name} of {GUEST}", REVOKE_CREATE)

    assert contents(open_to_all) == before
    assert revision_of(open_to_all) == "0003"


def test_what_a_guest_has_in_reporting_is_refused_only_where_it_can_be_taken_for_ours(head: Database) -> None:
    with role(head, GUEST):
        head.query(f"GRANT USAGE, CREATE ON SCHEMA reporting TO {GUEST}")
        as_guest(head, "CREATE VIEW reporting.his AS SELECT 1 AS id")
        assert head.run("alembic", "upgrade", "head").returncode == 0

        as_guest(head, "CREATE FUNCTION reporting.metric_daily(text, text) RETURNS int LANGUAGE sql AS 'SELECT 1'")
        done = head.run("alembic", "upgrade", "head")
        assert_failed(done, f"function reporting.metric_daily(pg_catalog.text,pg_catalog.text) of {GUEST}")
        assert "reporting.his" not in done.stdout + done.stderr


def test_what_comes_while_a_run_is_on_its_way_stops_it_before_the_step_is_committed(open_to_all: Database) -> None:
    hook = Progress("[4/", lambda: as_guest(open_to_all, *LEFT_BEHIND["an operator"][0]))

    with pytest.raises((NotPermittedError, RefusedError), match=r"operator public\.=") as refused:
        commands.upgrade(open_to_all.settings, progress=hook)

    assert "no further step was taken" in str(refused.value)
    assert revision_of(open_to_all) == "0003"
    assert open_to_all.value("SELECT to_regclass('v_model_timeline')") is None, "it could call the operator for ever"


def test_what_belongs_to_the_owner_a_superuser_or_an_extension_is_no_guests(open_to_all: Database) -> None:
    open_to_all.query(FUNCTION)  # as the superuser
    run_as(
        open_to_all.settings,
        "CREATE FUNCTION public.mine(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text'",
        "CREATE TYPE public.odd AS (a int)",
    )
    for extension in open_to_all.query("SELECT name FROM pg_available_extensions WHERE name IN ('citext', 'pg_trgm')"):
        open_to_all.query(f"CREATE EXTENSION {extension[0]}")

    commands.upgrade(open_to_all.settings)
    commands.downgrade(open_to_all.settings, "base")


def test_a_guests_extension_does_not_hide_what_he_put_into_it(open_to_all: Database) -> None:
    name = sql.Identifier(open_to_all.settings.database).as_string()
    open_to_all.query(f"GRANT CREATE ON DATABASE {name} TO {GUEST}")
    available = open_to_all.query(
        "SELECT v.name FROM pg_available_extension_versions AS v WHERE v.trusted AND v.name IN ('citext', 'hstore')"
    )
    if not available:
        pytest.skip("this server has no extension that a user may create")
    as_guest(
        open_to_all,
        f"CREATE EXTENSION {available[0][0]}",
        FUNCTION,
        f"ALTER EXTENSION {available[0][0]} ADD FUNCTION public.same(varchar, varchar)",
    )

    with pytest.raises((NotPermittedError, RefusedError), match=r"function public\.same"):
        commands.upgrade(open_to_all.settings)


IN_ITS_PLACE = {"a view": [TRAP, FALSE_VERSION], "a table": [HIDDEN_TRAP, FALSE_TABLE.format(revision="0003")]}


@pytest.mark.parametrize("statements", IN_ITS_PLACE.values(), ids=IN_ITS_PLACE)
def test_what_is_in_the_place_of_alembics_table_is_not_read(open_to_all: Database, statements: list[str]) -> None:
    as_guest(open_to_all, *statements)
    for arguments in COMMANDS:
        done = open_to_all.run(*arguments)

        assert_failed(done, "alembic_version")
        assert TAKEN not in done.stdout + done.stderr


def test_reading_the_traps_runs_their_code(open_to_all: Database) -> None:
    for statements in IN_ITS_PLACE.values():
        as_guest(open_to_all, *statements)
        with pytest.raises(psycopg.errors.RaiseException, match=TAKEN):
            open_to_all.query("SELECT version_num FROM public.alembic_version WHERE version_num < 'x'")
        open_to_all.query("DROP FUNCTION IF EXISTS public.spring(), public.spring(varchar) CASCADE")
        open_to_all.query("DROP TABLE IF EXISTS public.alembic_version")


@pytest.mark.parametrize("statements", IN_ITS_PLACE.values(), ids=IN_ITS_PLACE)
def test_a_job_does_not_read_what_is_in_the_place_of_alembics_table(
    open_to_all: Database, statements: list[str]
) -> None:
    as_guest(open_to_all, *statements)
    with (
        DatabaseManager(open_to_all.settings) as db,
        pytest.raises(RefusedError, match=r"alembic_version (is|belongs)"),
    ):
        db.models.production()


def test_a_job_takes_the_word_of_a_role_that_may_migrate(empty: Database) -> None:
    """Who migrates need not own the database, and a job need not know him; but nobody else is believed."""
    database = sql.Identifier(empty.settings.database).as_string()
    with role(empty, "mlops_test_migrator") as migrator, role(empty, GUEST) as guest:
        empty.query("GRANT CREATE ON SCHEMA public TO mlops_test_migrator")
        empty.query(f"GRANT CREATE ON DATABASE {database} TO mlops_test_migrator")
        commands.upgrade(migrator)
        empty.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {GUEST}")
        with DatabaseManager(guest) as db:
            assert db.models.production() is None
        empty.query(f"REVOKE CREATE ON DATABASE {database} FROM mlops_test_migrator")
        with DatabaseManager(guest) as db, pytest.raises(RefusedError, match="belongs to mlops_test_migrator"):
            db.models.production()


def test_history_does_not_read_a_table_of_a_guests(open_to_all: Database) -> None:
    database = sql.Identifier(open_to_all.settings.database).as_string()
    open_to_all.query(f"GRANT CREATE ON DATABASE {database} TO {GUEST}")
    as_guest(
        open_to_all,
        "CREATE SCHEMA mlops_internal",
        "CREATE TABLE mlops_internal.migration_history (id int)",
        "GRANT ALL ON SCHEMA mlops_internal TO PUBLIC",
        "GRANT ALL ON mlops_internal.migration_history TO PUBLIC",
    )

    assert_failed(open_to_all.run("mlops-db", "history"), f"mlops_internal.migration_history belongs to {GUEST}")


# The names that the revisions will want
NAMES = [
    "TABLE model_versions (id int)",
    "TABLE monitoring_metrics (id int)",
    "TABLE retraining_decisions (id int)",
    "VIEW v_decision_history AS SELECT 1 AS id",
    "VIEW v_model_timeline AS SELECT 1 AS id",
    "VIEW v_recent_monitoring AS SELECT 1 AS id",
    "SEQUENCE monitoring_metrics_id_seq",
]


def test_a_run_and_adopt_refuse_what_a_guest_has_under_names_of_ours(open_to_all: Database) -> None:
    as_guest(open_to_all, *(f"CREATE {what.replace(' ', ' public.', 1)}" for what in NAMES))
    names = [f"public.{what.split()[1]} of {GUEST}" for what in NAMES]

    assert_failed(open_to_all.run("alembic", "upgrade", "head"), *names)
    assert_failed(open_to_all.run("mlops-db", "adopt"), *names)


def test_a_guests_view_that_calls_his_function_is_nothing_to_compare(open_to_all: Database) -> None:
    """To read a constant of a domain is to run what the domain checks."""
    commands.upgrade(open_to_all.settings)
    guest = replace(open_to_all.settings, user=GUEST, password="of this test")  # noqa: S106  (not a secret)
    with session(guest) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.spring(x text) RETURNS boolean LANGUAGE plpgsql AS"
            f" $$ BEGIN IF current_user <> '{GUEST}' THEN RAISE '{TAKEN}'; END IF; RETURN true; END $$"
        )
        connection.execute("CREATE DOMAIN public.d AS text CHECK (pg_temp.spring(VALUE))")
        connection.execute("CREATE VIEW public.guests_own AS SELECT '{x}'::public.d[] AS a")

        done = open_to_all.run("alembic", "check")

    assert (done.returncode, TAKEN in done.stdout + done.stderr) == (0, False), done.stdout + done.stderr


def test_a_guest_who_is_quicker_than_the_runs_own_table_gains_nothing(open_to_all: Database) -> None:
    """His table is not there to be refused until he commits, and then Alembic finds it."""
    guest = replace(open_to_all.settings, user=GUEST, password="of this test")  # noqa: S106  (not a secret)
    with session(guest) as connection, connection.transaction():
        connection.execute("CREATE TABLE public.alembic_version (version_num varchar(32))")
        connection.execute("GRANT ALL ON public.alembic_version TO PUBLIC")
        connection.execute(
            f"CREATE FUNCTION pg_temp.spring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE '{TAKEN}'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER springs BEFORE INSERT ON public.alembic_version"
            " FOR EACH ROW EXECUTE FUNCTION pg_temp.spring()"
        )
        with ThreadPoolExecutor() as threads:
            run = threads.submit(open_to_all.run, "alembic", "upgrade", "0003")
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            wait_until(lambda: open_to_all.value(waiting) > 0, "the run to wait for the guest")
            wait_until(lambda: open_to_all.value(waiting) == 0, "the run to give up waiting, and to try again")
            connection.execute("COMMIT")
            done = run.result()

    assert f"FAILED: roles other than the owner have objects that a run as {open_to_all.settings.user}" in done.stdout
    assert f"table public.alembic_version of {GUEST}" in done.stdout
    assert TAKEN not in done.stdout + done.stderr


def test_what_was_not_there_at_the_look_is_not_read_either(open_to_all: Database) -> None:
    """Alembic looks for its table itself: the guest makes it in between."""
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(open_to_all.settings), poolclass=NullPool)
    config = commands.alembic_config(open_to_all.settings)
    with engine.connect() as config.attributes["connection"]:
        looks = 0

        @event.listens_for(config.attributes["connection"], "after_cursor_execute")
        def be_quick(_: object, __: object, statement: str, *___: object) -> None:
            nonlocal looks
            if "row_security_active" in statement:
                looks += 1
                if looks == 1:
                    as_guest(open_to_all, *IN_ITS_PLACE["a table"])

        with pytest.raises(CommandError, match=f"alembic_version belongs to {GUEST}"):
            command.current(config)
    assert looks > 1


TAKEN_BY = {
    "a view": "CREATE VIEW public.of_ours AS SELECT id FROM model_versions WHERE status = 'production'::varchar",
    "a trigger": "CREATE TRIGGER springs BEFORE UPDATE ON model_versions FOR EACH ROW"
    " WHEN (new.status = 'production'::varchar) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "a policy": "CREATE POLICY p ON model_versions USING (status = 'production'::varchar)",
    "statistics": "CREATE STATISTICS both_of_them ON (status = 'production'::varchar), id FROM model_versions",
    "a check": "ALTER TABLE model_versions ADD CHECK (status = 'production'::varchar)",
    "a default": "ALTER TABLE model_versions ADD COLUMN odd boolean DEFAULT ('x'::varchar = 'y'::varchar)",
    "an index": "CREATE INDEX ON model_versions (id) WHERE status = 'production'::varchar",
}


@pytest.mark.parametrize("statement", TAKEN_BY.values(), ids=TAKEN_BY)
def test_what_is_taken_of_a_guests_is_refused_wherever_it_has_gone(open_to_all: Database, statement: str) -> None:
    if "STATISTICS" in statement and open_to_all.connection.info.server_version < 140000:
        pytest.skip("statistics on expressions came with PostgreSQL 14")
    commands.upgrade(open_to_all.settings, "0003")
    database = sql.Identifier(open_to_all.settings.database).as_string()
    open_to_all.query(f"GRANT CREATE ON DATABASE {database} TO {GUEST}")
    as_guest(
        open_to_all,
        "CREATE SCHEMA elsewhere",
        FUNCTION.replace("LANGUAGE", "IMMUTABLE LANGUAGE"),
        LEFT_BEHIND["an operator"][0][1],
    )
    run_as(open_to_all.settings, "SET search_path = public", statement)
    as_guest(
        open_to_all,
        "ALTER OPERATOR public.= (varchar, varchar) SET SCHEMA elsewhere",
        "ALTER FUNCTION public.same(varchar, varchar) SET SCHEMA elsewhere",
    )

    assert_failed(open_to_all.run("alembic", "upgrade", "head"), f" of {GUEST}", "elsewhere.")
    assert revision_of(open_to_all) == "0003"


SCRIPTS = {
    "of a revision": ("upgrade", "0003:0004"),
    "of revisions with blocks outside of a transaction": ("upgrade", "0003:head"),
    "of a stamp": ("stamp", "0003:0004"),
}


@pytest.mark.parametrize("arguments", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_that_runs_on_after_its_refusal_writes_nothing_of_a_guests(
    open_to_all: Database, arguments: tuple[str, ...]
) -> None:
    commands.upgrade(open_to_all.settings, "0003")
    script = open_to_all.run("alembic", *arguments, "--sql").stdout
    open_to_all.query("DROP TABLE public.alembic_version")
    as_guest(
        open_to_all,
        f"CREATE FUNCTION public.springs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE '{TAKEN}'; END $$",
        "CREATE TABLE public.alembic_version (version_num varchar(32))",
        "INSERT INTO public.alembic_version VALUES ('0003')",
        "GRANT ALL ON public.alembic_version TO PUBLIC",
        "CREATE TRIGGER springs BEFORE UPDATE ON public.alembic_version EXECUTE FUNCTION springs()",
    )

    message = open_to_all.psql(script, stops=False)

    assert "public.alembic_version of" in message
    assert TAKEN not in message


def test_the_grants_on_a_guests_view_are_not_given_on_ours(open_to_all: Database, tmp_path: Path) -> None:
    commands.upgrade(open_to_all.settings)
    as_guest(open_to_all, "CREATE VIEW public.v_costs AS SELECT 1 AS id", "GRANT SELECT ON public.v_costs TO PUBLIC")
    checkout = Checkout(tmp_path)
    checkout.add(
        """op.execute("DROP VIEW v_costs"); op.execute("CREATE VIEW v_costs AS SELECT * FROM model_versions")"""
    )

    if open_to_all.settings.user == "mlops_test_owner":
        open_to_all.query(f"GRANT {GUEST} TO mlops_test_owner")
    command.upgrade(checkout.config(open_to_all.settings), "head")

    assert open_to_all.value("SELECT relacl FROM pg_class WHERE oid = 'v_costs'::regclass") is None


def test_a_job_reads_no_view_of_a_guests_in_the_place_of_one_of_ours(open_to_all: Database) -> None:
    commands.upgrade(open_to_all.settings)
    open_to_all.query("DROP VIEW v_recent_monitoring")
    as_guest(open_to_all, TRAP, "CREATE VIEW public.v_recent_monitoring AS SELECT public.spring() AS trap")

    with (
        DatabaseManager(open_to_all.settings) as db,
        pytest.raises(RefusedError, match=f"v_recent_monitoring belongs to {GUEST}"),
    ):
        db.monitoring.latest()


@pytest.mark.parametrize("words", ["status", "maintain", "maintain --dry-run"])
def test_no_function_of_ours_reads_a_view_of_a_guests(open_to_all: Database, words: str) -> None:
    """It would run with the rights of whoever calls the function; an error in it would go unseen in `status`."""
    commands.upgrade(open_to_all.settings)
    open_to_all.query("DROP TABLE model_versions CASCADE")
    as_guest(
        open_to_all,
        "CREATE FUNCTION public.spring() RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN 1; END $$",
        "CREATE VIEW public.model_versions AS SELECT public.spring() AS id",
        "GRANT SELECT ON public.model_versions TO PUBLIC",
    )

    done = open_to_all.run("mlops-db", *words.split())

    if words == "status":
        assert "model_versions was not counted: it belongs to another role" in done.stdout, done.stderr
    else:
        assert_failed(done, f"public.model_versions belongs to {GUEST}")


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_adopt_names_the_tables_of_a_guest(open_to_all: Database, options: tuple[str, ...]) -> None:
    as_guest(open_to_all, SPECIFICATION)
    assert_failed(open_to_all.run("mlops-db", "adopt", *options), f"table public.model_versions of {GUEST}")


def test_a_role_that_may_not_read_the_record_gets_an_error(open_to_all: Database) -> None:
    """As the owner of a copy that a superuser restored with --no-owner."""
    commands.upgrade(open_to_all.settings)
    guest = replace(open_to_all.settings, user=GUEST, password="of this test")  # noqa: S106  (not a secret)
    for words in (("mlops-db", "status"), ("mlops-db", "adopt"), ("alembic", "upgrade", "head")):
        done = replace(open_to_all, settings=guest).run(*words)
        assert_failed(
            done, "permission denied for table alembic_version", "owner of what it names", "`mlops-db check --sql`"
        )


def test_a_role_with_the_rights_of_the_owner_is_no_guest(empty: Database) -> None:
    """Where a team owns the database, its members migrate as themselves, and a superuser looks at it."""
    database = sql.Identifier(empty.settings.database).as_string()
    with role(empty, "mlops_test_team"), role(empty, "mlops_test_alice") as alice:
        empty.query("GRANT mlops_test_team TO mlops_test_alice")
        empty.query(f"ALTER DATABASE {database} OWNER TO mlops_test_team")
        empty.query("GRANT CREATE ON SCHEMA public TO mlops_test_team")
        commands.upgrade(alice)

        assert empty.run("mlops-db", "status").returncode == 0
        assert empty.run("alembic", "current").returncode == 0
        empty.query(f"ALTER DATABASE {database} OWNER TO {empty.settings.user}")


def test_autogenerate_writes_nothing_of_a_guests_table(open_to_all: Database) -> None:
    commands.upgrade(open_to_all.settings)
    as_guest(open_to_all, "CREATE TABLE public.guests_own (id int)")

    assert open_to_all.run("alembic", "check").returncode == 0


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_name_does_not_end_a_comment_of_the_repair(open_to_all: Database, end: str) -> None:
    commands.upgrade(open_to_all.settings)
    name = f"x{end}DROP TABLE public.model_versions CASCADE; --"
    open_to_all.query(f"GRANT SELECT ON v_model_timeline TO {GUEST}")
    as_guest(open_to_all, f'CREATE VIEW public."{name}" AS SELECT * FROM public.v_model_timeline')
    open_to_all.query("""
        DO $$ BEGIN
            EXECUTE 'CREATE OR REPLACE VIEW v_model_timeline AS SELECT * FROM ('
                || rtrim(pg_get_viewdef('v_model_timeline'::regclass), ';') || ') AS other';
        END $$
    """)

    repair = open_to_all.run("mlops-db", "check", "--sql")
    assert "DROP TABLE public.model_versions" in repair.stdout  # the guest's view is named: it stands in the way
    open_to_all.psql(repair.stdout, stops=False)

    assert open_to_all.value("SELECT to_regclass('public.model_versions')") is not None


def test_a_name_does_not_rule_the_terminal(open_to_all: Database) -> None:
    commands.upgrade(open_to_all.settings)
    as_guest(open_to_all, 'CREATE TABLE public."x\x1b[2J\r" (a int)')

    done = open_to_all.run("mlops-db", "check")

    assert r'theirs: table public."x\x1b[2J\r"' in done.stdout


def test_a_name_does_not_rule_the_terminal_of_who_adopts(open_to_all: Database) -> None:
    commands.upgrade(open_to_all.settings, BASELINE)
    open_to_all.query("DROP TABLE alembic_version")
    open_to_all.query("DROP SCHEMA mlops_internal CASCADE")
    as_guest(open_to_all, 'CREATE TABLE public."x\x1b[2J" (a int)')

    done = open_to_all.run("mlops-db", "adopt", "--dry-run")

    assert r'left alone: table public."x\x1b[2J"' in done.stdout


@pytest.mark.parametrize("name", ["v_decision_history", "v_model_timeline", "v_recent_monitoring"])
def test_status_does_not_count_a_view_of_a_guests(open_to_all: Database, name: str) -> None:
    as_guest(open_to_all, TRAP, f"CREATE VIEW public.{name} AS SELECT public.spring() AS trap")

    done = open_to_all.run("mlops-db", "status")

    assert TAKEN not in done.stdout + done.stderr
    assert f"{name}" in done.stdout
    assert "not counted" in done.stdout


@pytest.mark.parametrize(
    ("statements", "name"),
    [
        (["CREATE SCHEMA reporting"], f"a schema reporting already, and it belongs to {GUEST}"),
        (["CREATE SCHEMA mlops_internal"], f"schema mlops_internal of {GUEST}"),
        (["CREATE TABLE public.alembic_version (version_num varchar(32))"], f"table public.alembic_version of {GUEST}"),
    ],
)
def test_a_run_does_not_write_into_what_a_guest_has_made_in_its_place(
    open_to_all: Database, statements: list[str], name: str
) -> None:
    """A trigger or a rule on it would run with the rights of whoever migrates."""
    database = sql.Identifier(open_to_all.settings.database).as_string()
    open_to_all.query(f"GRANT CREATE ON DATABASE {database} TO {GUEST}")
    as_guest(open_to_all, *statements)

    assert_failed(open_to_all.run("alembic", "upgrade", "head"), name)


# Everything, with a trap beside every operator and function that we name


def test_no_statement_of_ours_takes_an_operator_or_a_function_of_publics(empty: Database, tmp_path: Path) -> None:
    """The traps are a superuser's, so that nothing refuses them: what keeps out of them is each statement itself.

    Not the views of revision 0004, which is frozen: it is refused where a guest's operators are.
    """
    commands.upgrade(empty.settings, BASELINE)
    set_traps(empty.connection)
    public = replace(empty.settings, lock_wait=200)

    commands.upgrade(public)

    with DatabaseManager(public) as db:
        every_call(db)
    for arguments in (
        ("mlops-db", "create"),
        ("mlops-db", "init"),
        ("mlops-db", "status"),
        ("mlops-db", "check"),
        ("mlops-db", "history"),
        ("mlops-db", "maintain", "--keep", "1y"),
        ("mlops-db", "maintain", "--keep", "1y", "--dry-run"),
        ("alembic", "current"),
        ("alembic", "check"),
        ("alembic", "-x", "plan=true", "downgrade", "0015"),
    ):
        done = empty.run(*arguments)
        assert TAKEN not in done.stdout + done.stderr, done.stdout + done.stderr
        # Among the superuser's operators it cannot create the views.
        expected = {("alembic", "check"): 255}.get(arguments[:2], 0)
        assert done.returncode == expected, done.stdout + done.stderr
    commands.downgrade(replace(public, environment="production"), "0015")
    commands.downgrade(public, BASELINE)
    command.upgrade(Checkout(tmp_path).config(public), "head")
    empty.query("SET search_path = pg_catalog")
    assert (
        empty.query("""
        SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend AS d
          LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
          LEFT JOIN pg_operator AS o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
         WHERE 'public'::regnamespace IN (p.pronamespace, o.oprnamespace) AND d.classid <> 'pg_operator'::regclass
    """)
        == []
    )


def every_call(db: DatabaseManager) -> None:
    """What jobs call, each at least once, and the ways that they wait."""
    db.ping()
    db.models.register("run-1", "1", f1_score=0.5)
    db.models.register("run-1", "1", f1_score=0.5, brier_score=0.1)
    db.models.register("run-2", "2")
    db.models.promote("run-1", gates={"minimum_coverage": True})
    db.models.promote("run-1", reasoning="again")
    db.models.promote("run-2")
    assert db.models.rollback(of="run-2").mlflow_run_id == "run-1"
    db.models.reject("run-2", decided_at=NOON, decided_by="ada")
    db.models.archive("run-2")
    assert db.models.production() == db.models.get("run-1")
    assert len(db.models.list(model_name="default", status="production")) == 1
    for _ in range(2):
        db.decisions.record("reject", candidate="run-3", gates={"a": False}, decided_at=NOON, reasoning="no")
    db.decisions.record("pending", candidate=None)
    assert db.decisions.history("default", "reject", "run-3", NOON) != []
    assert db.decisions.summary("default", NOON)["reject"].count == 3
    assert len(db.decisions.history(action="rollback")) == 2
    db.monitoring.log("drift", "psi", 0.1, metadata={"a": 1})
    db.monitoring.log_failure("drift", "psi", "no data")
    for _ in range(2):
        rows = [{"metric_type": "drift", "metric_name": f"m{n}", "metric_value": n} for n in range(3)]
        db.monitoring.log_many(rows, replace=NOON)
    db.monitoring.expect("drift", "psi", interval=timedelta(days=1), lower=0, upper=1)
    assert {state.health for state in db.monitoring.latest("default", "drift")} != set()
    assert db.monitoring.series("default") != []
    assert len(list(db.monitoring.history("drift", "psi", since=NOON, limit=5))) == 2
    assert len(db.monitoring.history_frame("drift", "psi", every="1d")) == 1
    assert db.monitoring.frame("drift", ["psi", "m1"], layout="wide").shape == (3, 2)
    db.monitoring.expect("drift", "m1", interval=timedelta(days=1))
    assert [gap.since for gap in db.monitoring.gaps("default", since=NOON)] == [NOON]
    assert db.monitoring.forget("drift", "m0", with_rows=True) == 1
    db.monitoring.expect("drift", "m0")
    assert db.monitoring.forget("drift", "m0") == 0


# What is said where everybody may create


@pytest.mark.parametrize("arguments", [("init",), ("status",), ("check",)], ids=lambda given: given[0])
def test_a_note_appears_only_if_everybody_may_create_in_public(head: Database, arguments: tuple[str, ...]) -> None:
    head.query(REVOKE_CREATE)
    done = head.run("mlops-db", *arguments)
    assert "everybody may create" not in done.stdout + done.stderr

    may_create_in_public(head)

    done = head.run("mlops-db", *arguments)
    assert f"{REVOKE_CREATE};" in done.stderr
    assert done.returncode == 0, done.stderr
