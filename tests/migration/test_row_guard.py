"""What a downgrade does to rows, whatever its SQL: production guards its rows in its own transaction."""

import re
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import DataLossError
from mlops_db.migration import commands
from mlops_db.revisions.graph import revisions
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.database import Database, revision_of
from support.process import assert_failed
from support.projects import Checkout, sql
from support.roles import owner
from support.sessions import another_session, wait_until
from support.stopped import contents

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HEAD = revisions()[-1].id

# Five rows in `kept`, which were there before, and none in `other`.
UPGRADE = """
CREATE TABLE kept (id int PRIMARY KEY, note text, kind text NOT NULL DEFAULT 'a', details jsonb);
CREATE TABLE other (id int PRIMARY KEY, note text, kind text NOT NULL DEFAULT 'a', details jsonb);
CREATE TABLE log (id int GENERATED ALWAYS AS IDENTITY, what text);
CREATE TABLE child (kept_id int REFERENCES kept ON DELETE CASCADE);
CREATE TABLE months (id int, month int) PARTITION BY LIST (month);
CREATE TABLE month_1 PARTITION OF months FOR VALUES IN (1);
CREATE TABLE month_2 PARTITION OF months FOR VALUES IN (2);
CREATE TABLE "Odd ""name" ("Two words" text);
CREATE VIEW shown AS SELECT * FROM kept WHERE id > 3;
CREATE VIEW ruled AS SELECT * FROM kept;
CREATE RULE forget AS ON DELETE TO ruled DO INSTEAD DELETE FROM kept WHERE id = old.id;
CREATE FUNCTION empty_it() RETURNS void LANGUAGE plpgsql AS 'BEGIN TRUNCATE kept CASCADE; END';
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE moody (id int, mood mood);
CREATE TABLE typed (large bigint, cost numeric(10,2), seen timestamptz, done boolean, doc json, day date,
    price numeric(10,2) NOT NULL DEFAULT 0, share double precision DEFAULT 1e20, tags integer[] DEFAULT '{}');
"""
ROWS = """
INSERT INTO kept (id, note, details) SELECT n, 'note ' || n, jsonb_build_object('n', n) FROM generate_series(1, 5) AS n;
INSERT INTO child SELECT 1 FROM generate_series(1, 3);
INSERT INTO months SELECT n, 1 + n % 2 FROM generate_series(1, 6) AS n;
INSERT INTO "Odd ""name" VALUES ('x'), ('y');
INSERT INTO moody VALUES (1, 'good'), (2, NULL);
INSERT INTO typed VALUES
    (9007199254740993, 1.50, '2026-01-01 12:34:56.789+00', true, '{"a":  1}', '2026-01-01'),
    (1, 'NaN', 'infinity', false, NULL, '-infinity');
"""


def hidden(verb: str, rest: str) -> str:
    """A statement that is not to be read in the text."""
    return f"DO $$ BEGIN EXECUTE '{verb} ' || '{rest}'; END $$"


DYNAMIC = hidden("DROP", "TABLE kept CASCADE")
FORGET = """
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN DELETE FROM public.other; DELETE FROM public.moody; RETURN NULL; END'
"""
AT_THE_COMMIT = "forgets AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED"
LOSSES = {
    "renamed first": (["ALTER TABLE kept RENAME TO gone", "DROP TABLE public.gone CASCADE"], "5 rows of kept"),
    "in another schema first": (
        [
            "CREATE SCHEMA attic",
            "ALTER TABLE kept SET SCHEMA attic",
            hidden("DROP", "SCHEMA attic CASCADE"),
        ],
        "5 rows of kept",
    ),
    "dynamic SQL": ([DYNAMIC], "5 rows of kept"),
    "a function that truncates": (["SELECT empty_it()"], "5 rows of kept"),
    "a view with a rule": ([hidden("DELETE", "FROM ruled WHERE id < 3")], "2 rows of kept"),
    "a view that can be written to": ([hidden("DELETE", "FROM shown")], "2 rows of kept"),
    "a foreign key that cascades": ([hidden("DELETE", "FROM kept WHERE id = 1")], "3 rows of child"),
    "a trigger of its own": (
        [
            FORGET,
            "CREATE TRIGGER forgets AFTER INSERT ON log EXECUTE FUNCTION forget()",
            "INSERT INTO log (what) VALUES ('x')",
        ],
        "2 rows of moody",
    ),
    "a deferred trigger, at the commit": (
        [
            FORGET,
            f"CREATE CONSTRAINT TRIGGER {AT_THE_COMMIT} FOR EACH ROW EXECUTE FUNCTION forget()",
            "INSERT INTO log (what) VALUES ('x')",
        ],
        "2 rows of moody",
    ),
    "one partition": ([hidden("DROP", "TABLE month_1")], "3 rows of months"),
    "one partition, detached first": (
        ["ALTER TABLE months DETACH PARTITION month_2", hidden("DROP", "TABLE month_2")],
        "3 rows of month_2",
    ),
    "one partition, emptied": ([hidden("TRUNCATE", "ONLY month_2")], "3 rows of months"),
    "rows through the partitioned table": ([hidden("DELETE", "FROM months WHERE id > 4")], "2 rows of months"),
    "a name that needs quotes": (['DO $$ BEGIN DROP TABLE "Odd ""name"; END $$'], '2 rows of "Odd ""name"'),
    "a MERGE or its like": (
        ["WITH gone AS (DELETE FROM kept WHERE id > 1 RETURNING id) INSERT INTO log (what) SELECT id::text FROM gone"],
        "4 rows of kept",
    ),
    "all its rows replaced": (
        ["DO $$ BEGIN DELETE FROM moody; INSERT INTO moody VALUES (8, 'bad'), (9, 'bad'); END $$"], "2 rows of moody",
    ),
    "emptied, and filled with others": (
        ["DO $$ BEGIN TRUNCATE moody; INSERT INTO moody VALUES (8, 'bad'), (9, 'bad'); END $$"], "2 rows of moody",
    ),
    "carried over in part": (
        ["INSERT INTO other SELECT * FROM kept WHERE id < 4", DYNAMIC], "2 rows of kept",
    ),
    "as many others elsewhere": (
        ["INSERT INTO other (id, note) SELECT id, 'none' FROM kept", DYNAMIC], "5 rows of kept",
    ),
    "carried over, and then dropped": (
        ["CREATE TABLE third AS TABLE kept", DYNAMIC, "DO $$ BEGIN DROP TABLE third; END $$"], "5 rows of third",
    ),
    "carried over without a column": (
        ["CREATE TABLE third AS SELECT id, note, kind FROM kept", DYNAMIC], "5 rows of kept",
    ),
    "only into a temporary table": (["CREATE TEMPORARY TABLE third AS TABLE kept", DYNAMIC], "5 rows of kept"),
    "values overwritten": (["UPDATE kept SET note = NULL WHERE id > 2"], "3 rows of kept.note"),
    "values by a rewrite": (
        ["DROP VIEW shown, ruled", "ALTER TABLE kept ALTER COLUMN note TYPE text USING NULL"], "5 rows of kept.note",
    ),
    "a column, by dynamic SQL": (
        [hidden("ALTER TABLE kept DROP", "COLUMN details CASCADE")], "5 rows of kept.details",
    ),
    "a column, with its type": (["DROP TYPE mood CASCADE"], "1 row of moody.mood"),
    "a column carried over in part": (
        [
            "ALTER TABLE kept ADD COLUMN remark text",
            "UPDATE kept SET remark = note WHERE id <> 2",
            "DO $$ BEGIN ALTER TABLE kept DROP COLUMN note CASCADE; END $$",
        ],
        "1 row of kept.note",
    ),
    "a column carried over, and then dropped": (
        [
            "ALTER TABLE kept ADD COLUMN remark text",
            "UPDATE kept SET remark = note",
            "ALTER TABLE kept DROP COLUMN note CASCADE",
            hidden("ALTER TABLE kept DROP", "COLUMN remark"),
        ],
        "5 rows of kept.remark",
    ),
    "a column whose values the downgrade makes the default": (
        [
            "UPDATE kept SET note = 'mine'",
            "ALTER TABLE kept ALTER COLUMN note SET DEFAULT 'mine'",
            hidden("ALTER TABLE kept DROP", "COLUMN note CASCADE"),
        ],
        "5 rows of kept.note",
    ),
    "a column, through a partitioned table made for that": (
        [
            "CREATE TABLE parent (LIKE moody) PARTITION BY LIST (id)",
            "ALTER TABLE parent ATTACH PARTITION moody DEFAULT",
            hidden("ALTER TABLE parent DROP", "COLUMN mood"),
        ],
        "1 row of parent.mood",
    ),
    "carried over to a partition, which is detached and dropped": (
        [
            "CREATE TABLE parent (LIKE kept) PARTITION BY LIST (id)",
            "CREATE TABLE part PARTITION OF parent DEFAULT",
            "INSERT INTO parent TABLE kept",
            DYNAMIC,
            "ALTER TABLE parent DETACH PARTITION part",
            hidden("DROP", "TABLE part"),
        ],
        "5 rows of part",
    ),
    "rows of partitions replaced": (
        [
            "DO $$ BEGIN DELETE FROM months WHERE id < 4; INSERT INTO months SELECT generate_series(91, 93), 1; END $$"
        ],
        "3 rows of months",
    ),
    "long numbers carried over as floats": (
        ["CREATE TABLE third AS SELECT * FROM typed", "ALTER TABLE third ALTER COLUMN large TYPE double precision",
         "DO $$ BEGIN DROP TABLE typed; END $$"],
        "1 row of typed",
    ),
    "timestamps carried over as dates": (
        ["CREATE TABLE third AS SELECT * FROM typed", "ALTER TABLE third ALTER COLUMN seen TYPE date",
         "DO $$ BEGIN DROP TABLE typed; END $$"],
        "1 row of typed",
    ),
    "in one string with savepoints": (
        [f"SAVEPOINT a; {hidden('TRUNCATE', 'moody')}; RELEASE SAVEPOINT a", "INSERT INTO log (what) VALUES ('x')"],
        "2 rows of moody",
    ),
    "dropped again after a savepoint brought it back": (
        [
            "SAVEPOINT mine",
            "CREATE TABLE third AS TABLE moody",
            "DO $$ BEGIN DROP TABLE moody; END $$",
            "ROLLBACK TO SAVEPOINT mine",
            "DO $$ BEGIN DROP TABLE moody; END $$",
        ],
        "2 rows of moody",
    ),
    "after a TRUNCATE has set the counters back": (
        [
            "ALTER TABLE child DROP CONSTRAINT child_kept_id_fkey",
            "WITH moved AS (DELETE FROM kept WHERE id < 3 RETURNING *) INSERT INTO other TABLE moved",
            "DO $$ BEGIN CREATE TEMPORARY TABLE t AS TABLE kept; TRUNCATE kept; INSERT INTO kept TABLE t; END $$",
            hidden("DELETE", "FROM kept WHERE id > 3"),
        ],
        "2 rows of kept",
    ),
}  # fmt: skip
HARMLESS = {
    "carried over, then dropped": ["CREATE TABLE third AS TABLE kept", DYNAMIC],
    "carried over, then dropped by its name": ["CREATE TABLE third AS TABLE kept", "DROP TABLE kept CASCADE"],
    "carried over to one that had rows": [
        "INSERT INTO log (what) SELECT 'x'",
        "INSERT INTO other SELECT id + 100, note FROM kept",
        "INSERT INTO other TABLE kept",
        "DROP TABLE kept CASCADE",
    ],
    "moved by one statement": [
        "ALTER TABLE child DROP CONSTRAINT child_kept_id_fkey",
        "WITH moved AS (DELETE FROM kept RETURNING *) INSERT INTO other TABLE moved",
    ],
    "moved by a block": [
        "DO $$ BEGIN CREATE TABLE third AS TABLE moody; DROP TABLE moody; ALTER TABLE third RENAME TO moody; END $$"
    ],
    "moved with other types": [
        "CREATE TABLE third (id bigint, note varchar(40), kind varchar, details jsonb)",
        "INSERT INTO third TABLE kept",
        DYNAMIC,
    ],
    "in two parts": [
        "CREATE TABLE third AS SELECT * FROM kept WHERE id < 3",
        "INSERT INTO other SELECT * FROM kept WHERE id >= 3",
        DYNAMIC,
    ],
    "a partition's rows to another table": [
        "CREATE TABLE third AS SELECT * FROM months WHERE month = 1",
        hidden("DROP", "TABLE month_1"),
    ],
    "rows that change partition": ["UPDATE months SET month = 2 WHERE id = 2"],
    "a partition detached": ["ALTER TABLE months DETACH PARTITION month_2"],
    "renamed and moved": ["CREATE SCHEMA attic", "ALTER TABLE other SET SCHEMA attic", "ALTER TABLE moody RENAME TO m"],
    "empty tables": ["DO $$ BEGIN TRUNCATE other; DROP TABLE other, log; END $$"],
    "a table of its own": ["CREATE TABLE scratch AS TABLE kept", "DROP TABLE scratch"],
    "rewritten": [
        "DROP VIEW shown, ruled",
        "ALTER TABLE kept ALTER COLUMN id TYPE bigint",
        "CLUSTER kept USING kept_pkey",
    ],
    "a column carried over": [
        "ALTER TABLE kept ADD COLUMN remark text",
        "UPDATE kept SET remark = note",
        "ALTER TABLE kept DROP COLUMN note CASCADE",
    ],
    "a column without values of its own": ["DO $$ BEGIN ALTER TABLE kept DROP COLUMN kind CASCADE; END $$"],
    "values changed": ["UPDATE kept SET note = 'another', details = '{}'"],
    "views, functions, constraints": [
        "DROP VIEW shown, ruled",
        "DROP FUNCTION empty_it()",
        "ALTER TABLE child DROP CONSTRAINT child_kept_id_fkey",
    ],
    "a scratch column": [
        "ALTER TABLE kept ADD COLUMN done boolean",
        "UPDATE kept SET done = true",
        "ALTER TABLE kept DROP COLUMN done",
    ],
    "carried over without a scratch column": [
        "ALTER TABLE kept ADD COLUMN done boolean",
        "UPDATE kept SET done = true",
        "INSERT INTO other SELECT id, note, kind, details FROM kept",
        DYNAMIC,
    ],
    "what constant defaults bring back": [
        "DO $$ BEGIN ALTER TABLE typed DROP COLUMN price, DROP COLUMN share, DROP COLUMN tags; END $$"
    ],
    "columns carried over to other types": [
        "ALTER TABLE typed ADD big numeric, ADD rough double precision, ADD at timestamp, ADD yes int, ADD js jsonb",
        "UPDATE typed SET big = large, rough = cost, at = seen AT TIME ZONE 'UTC', yes = done::int, js = doc",
        "ALTER TABLE typed DROP large, DROP cost, DROP seen, DROP done, DROP doc",
    ],
    "rows carried over to other types": [
        "CREATE TABLE third AS TABLE typed",
        "ALTER TABLE third ALTER large TYPE numeric, ALTER cost TYPE double precision, ALTER doc TYPE jsonb",
        "ALTER TABLE third ALTER done TYPE int USING done::int, ALTER day TYPE timestamp",
        "DROP TABLE typed",
    ],
    "a type changed": ["ALTER TABLE typed ALTER COLUMN price TYPE integer"],
    "a DELETE that finds nothing": ["DELETE FROM kept WHERE kind = 'none'"],
    "the body of a function": [
        "CREATE FUNCTION purge() RETURNS void LANGUAGE sql AS 'DELETE FROM public.kept'",
    ],
    "a savepoint of its own": ["SAVEPOINT mine", "UPDATE kept SET note = 'x'", "ROLLBACK TO SAVEPOINT mine"],
}


def production(database: Database) -> Settings:
    return replace(database.settings, environment="production", lock_timeout=500)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def upgraded(head: Database, checkout: Checkout, downgrade: str) -> Config:
    """A database with rows at a revision that has this downgrade; the configuration for production."""
    checkout.add(sql(*UPGRADE.strip().split(";\n")), downgrade)
    command.upgrade(checkout.config(head.settings), "head")
    head.query(ROWS)
    return checkout.config(production(head))


def refused(config: Config) -> str:
    """Run the downgrade, which is refused; returns the message."""
    with pytest.raises(CommandError) as failed:
        command.downgrade(config, "-1")
    assert isinstance(failed.value.__cause__, DataLossError), failed.value
    return str(failed.value)


@pytest.fixture(params=["a superuser", pytest.param("an owner that is no superuser", marks=pytest.mark.slow)])
def at_head(request: pytest.FixtureRequest) -> Database:
    """At head, of an owner of either kind."""
    database: Database = request.getfixturevalue("owned" if "no superuser" in request.param else "head")
    return database


@pytest.mark.parametrize(("statements", "lost"), LOSSES.values(), ids=LOSSES)
def test_a_loss_is_refused_and_named_however_it_comes_about(
    at_head: Database, checkout: Checkout, statements: list[str], lost: str
) -> None:
    config = upgraded(at_head, checkout, sql(*statements))
    before = contents(at_head)

    message = refused(config)

    assert f"lose {lost}" in message or f", {lost}" in message
    assert "allow-data-loss=true" in message
    assert contents(at_head) == before


@pytest.mark.parametrize("statements", HARMLESS.values(), ids=HARMLESS)
def test_what_loses_nothing_is_carried_out(at_head: Database, checkout: Checkout, statements: list[str]) -> None:
    config = upgraded(at_head, checkout, sql(*statements))
    config.attributes["progress"] = StringIO()

    command.downgrade(config, "-1")

    assert at_head.value("SELECT version_num FROM alembic_version") < checkout.head


def test_development_may_lose_rows(head: Database, checkout: Checkout) -> None:
    upgraded(head, checkout, sql(DYNAMIC))
    command.downgrade(checkout.config(head.settings), "-1")
    assert head.value("SELECT to_regclass('kept')") is None


def test_an_upgrade_is_not_guarded(head: Database, checkout: Checkout) -> None:
    upgraded(head, checkout, "pass")
    checkout.add(sql(DYNAMIC))
    command.upgrade(checkout.config(production(head)), "head")
    assert head.value("SELECT to_regclass('kept')") is None


def test_a_revision_that_catches_the_refusal_does_not_get_away_with_it(head: Database, checkout: Checkout) -> None:
    downgrade = f"""
        try:
            op.execute({DYNAMIC!r})
        except Exception:
            op.execute("UPDATE moody SET mood = 'bad'")
    """
    config = upgraded(head, checkout, downgrade)
    before = contents(head)

    assert "5 rows of kept" in refused(config)

    assert contents(head) == before


@pytest.mark.parametrize(
    "send",
    [
        "connection.connection.cursor().execute({!r})",
        "connection.exec_driver_sql({!r})",
        "connection.connection.cursor().executemany({!r}, [()])",
        "import psycopg2.extras\nconnection.connection.cursor(cursor_factory=psycopg2.extras.DictCursor).execute({!r})",
    ],
)
def test_it_does_not_matter_how_the_statement_is_sent(head: Database, checkout: Checkout, send: str) -> None:
    config = upgraded(head, checkout, online(send.format(hidden("TRUNCATE", "moody"))))
    assert "2 rows of moody" in refused(config)
    assert head.value("SELECT count(*) FROM moody") == 2


def online(body: str) -> str:
    """What writes no SQL, and so cannot be read before it runs."""
    lines = ["connection = op.get_bind()", *textwrap.dedent(body).strip().splitlines()]
    return "if not op.get_context().as_sql:\n" + textwrap.indent("\n".join(lines), "    ")


LOGGED = "op.execute(\"INSERT INTO log (what) VALUES ('harmless')\")"
# Statements that nobody reads, or that cannot be sent twice: how each is sent, and the message.
UNREAD = {
    "callproc": ("cursor.callproc('empty_it')", "5 rows of kept"),
    "copy_expert": (
        "cursor.copy_expert('COPY (DELETE FROM moody RETURNING *) TO STDOUT', io.StringIO())",
        "an unknown part of moody",
    ),
    "copy_from": ("cursor.copy_from(io.StringIO('x'), 'log', columns=['what'])", "an unknown part of moody"),
    "a cursor with a name": (
        "connection.connection.cursor(name='mine').execute('SELECT empty_it()')",
        "reads from a cursor on the server",
    ),
    "stream_results": (
        "list(connection.execution_options(stream_results=True).execute(sa.text('SELECT empty_it()')))",
        "reads from a cursor on the server",
    ),
    "a cursor that the commit reads": (
        "cursor.execute('DECLARE mine CURSOR WITH HOLD FOR SELECT empty_it()')",
        "leaves a cursor WITH HOLD",
    ),
}


@pytest.mark.parametrize("block", ["if True", "with op.get_context().autocommit_block()"], ids=["inside", "outside"])
@pytest.mark.parametrize(("send", "message"), UNREAD.values(), ids=UNREAD)
def test_each_way_to_send_a_statement_is_guarded_or_refused(
    head: Database, checkout: Checkout, block: str, send: str, message: str
) -> None:
    config = upgraded(
        head,
        checkout,
        online(f"import io\n{block}:\n    cursor = connection.connection.cursor()\n    {send}\n{LOGGED}"),
    )
    head.query(FORGET)
    head.query(
        "CREATE TRIGGER forgets AFTER INSERT ON log FOR EACH ROW WHEN (new.what = 'x') EXECUTE FUNCTION forget()"
    )
    before = contents(head)

    assert message in refused(config)

    assert contents(head) == before


def test_rows_can_be_carried_by_copy(head: Database, checkout: Checkout) -> None:
    downgrade = """
        import io
        cursor, file = connection.connection.cursor(), io.StringIO()
        cursor.copy_to(file, "kept")
        file.seek(0)
        cursor.copy_from(file, "other")
        op.execute("DROP TABLE kept CASCADE")
    """
    command.downgrade(upgraded(head, checkout, online(downgrade)), "-1")
    assert head.value("SELECT count(*) FROM other") == 5


@pytest.mark.parametrize("statement", ["TRUNCATE moody", "DELETE FROM moody", "DROP TABLE moody"])
@pytest.mark.parametrize("rest", ["pass", LOGGED], ids=["last", "in the middle"])
def test_what_bypassed_the_guard_is_not_committed(
    head: Database, checkout: Checkout, statement: str, rest: str
) -> None:
    """A cursor of another class on a program's connection: nobody saw the statement, nor can count what is gone."""
    downgrade = f"""
        import psycopg2.extras
        cursor = connection.connection.cursor(cursor_factory=psycopg2.extras.DictCursor)
        cursor.execute("{statement}")
        {rest}
    """
    config = upgraded(head, checkout, online(downgrade))
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(head.settings), poolclass=NullPool)
    with engine.connect() as config.attributes["connection"]:
        assert "an unknown part of moody" in refused(config)

    assert head.value("SELECT count(*) FROM moody") == 2


def test_in_a_callers_transaction_nothing_of_the_statement_is_left(head: Database, checkout: Checkout) -> None:
    config = upgraded(head, checkout, sql(DYNAMIC))
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(head.settings), poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        refused(config)
        assert connection.exec_driver_sql("SELECT count(*) FROM public.kept").scalar_one() == 5


# Outside of a transaction


def outside(*statements: str) -> str:
    return "with op.get_context().autocommit_block():\n" + textwrap.indent(sql(*statements), "    ")


@pytest.mark.parametrize(
    ("downgrade", "message"),
    [
        (sql(hidden("TRUNCATE", "moody")) + "\n" + outside("SELECT 1"), "2 rows of moody"),
        (outside(hidden("TRUNCATE", "moody")), "2 rows of moody"),
        (outside("DO $$ BEGIN UPDATE moody SET mood = 'bad'; COMMIT; END $$"), "commits within a statement"),
        (outside("CREATE TABLE more ()", "BEGIN", "SELECT 1", "COMMIT"), "commits within a statement"),
        (
            outside(f"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; {hidden('TRUNCATE', 'moody')}"),
            "commits within a statement",
        ),
        (
            outside(
                "CREATE SEQUENCE turns",
                "DO $$ BEGIN IF nextval('turns') = 1 THEN EXECUTE 'VACUUM'; END IF; DELETE FROM moody; END $$",
            ),
            "commits within a statement",
        ),
    ],
    ids=[
        "before the block",
        "in the block",
        "in batches that commit",
        "in transactions of its own",
        "with what has to come first",
        "with what has to run alone, the first time",
    ],
)
def test_each_commit_of_its_own_is_guarded_or_refused(
    head: Database, checkout: Checkout, downgrade: str, message: str
) -> None:
    config = upgraded(head, checkout, downgrade)
    rows = head.query("TABLE moody")

    assert message in refused(config)

    assert head.query("TABLE moody") == rows
    assert revision_of(head) == checkout.head


@pytest.mark.parametrize("carry", [sql, outside], ids=["inside", "outside"])
def test_what_was_carried_over_before_a_commit_counts(
    head: Database, checkout: Checkout, carry: Callable[..., str]
) -> None:
    """A server process tells others its counters between transactions, and forgets them; here at once."""
    if head.connection.info.server_version < 150000:
        pytest.skip("pg_stat_force_next_flush() came with PostgreSQL 15")
    downgrade = (
        f"{carry('INSERT INTO other TABLE kept')}\n{outside('SELECT pg_stat_force_next_flush()', 'SELECT 1')}\n"
        + sql(DYNAMIC)
    )
    config = upgraded(head, checkout, downgrade)

    command.downgrade(config, "-1")

    assert head.value("SELECT count(*) FROM other") == 5


def test_what_only_runs_outside_of_a_transaction_runs(head: Database, checkout: Checkout) -> None:
    downgrade = (
        outside("CREATE INDEX CONCURRENTLY kept_note ON kept (note)", "VACUUM kept", "UPDATE kept SET note = 'x'")
        + "\nop.create_index_concurrently('kept_kind', 'kept', ['kind'])\n"
        + sql("ALTER TABLE kept ADD COLUMN more int")
    )
    config = upgraded(head, checkout, downgrade)

    command.downgrade(config, "-1")

    assert head.query("SELECT count(*) FROM pg_indexes WHERE indexname IN ('kept_note', 'kept_kind')") == [(2,)]
    assert head.value("SELECT count(more) FROM kept WHERE note = 'x'") == 0


# Others


def test_what_others_delete_and_drop_meanwhile_is_not_the_downgrades(head: Database, checkout: Checkout) -> None:
    downgrade = sql("UPDATE moody SET mood = 'bad'", "SELECT pg_advisory_xact_lock(7)", "ALTER TABLE moody ADD b int")
    config = upgraded(head, checkout, downgrade)
    with ThreadPoolExecutor(1) as run, another_session(head, "gate", "SELECT pg_advisory_xact_lock(7)") as gate:
        config.attributes["settings"] = replace(production(head), lock_timeout=60_000, statement_timeout=90_000)
        downgrading = run.submit(command.downgrade, config, "-1")
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
        wait_until(lambda: downgrading.done() or head.value(waits), "the downgrade to be half-way")
        head.query("DELETE FROM kept WHERE id > 2")
        head.query('DROP TABLE "Odd ""name"')
        head.query("TRUNCATE months")
        gate.rollback()
        downgrading.result()

    assert head.value("SELECT count(*) FROM kept") == 2


def test_a_row_that_comes_before_the_drop_is_seen_and_kept(head: Database, checkout: Checkout) -> None:
    """Also by a statement that is not in the text: the table was empty when the downgrade began."""
    downgrade = sql("SELECT pg_advisory_xact_lock(7)", hidden("DROP", "TABLE other"))
    config = upgraded(head, checkout, downgrade)
    with ThreadPoolExecutor(1) as run, another_session(head, "gate", "SELECT pg_advisory_xact_lock(7)") as gate:
        config.attributes["settings"] = replace(production(head), lock_timeout=60_000, statement_timeout=90_000)
        downgrading = run.submit(refused, config)
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
        wait_until(lambda: downgrading.done() or head.value(waits), "the downgrade to be half-way")
        head.query("INSERT INTO other (id) VALUES (1)")
        gate.rollback()
        assert "1 row of other" in downgrading.result()

    assert head.value("SELECT count(*) FROM other") == 1


def test_a_statement_that_does_something_else_the_second_time_is_refused(head: Database, checkout: Checkout) -> None:
    """Sequences are not set back with a savepoint."""
    head.query("CREATE SEQUENCE turns")
    block = """
        DO $$ BEGIN
            IF nextval('turns') = 1 THEN DELETE FROM moody WHERE mood IS NULL; INSERT INTO moody VALUES (2);
            ELSE DELETE FROM months; END IF;
        END $$
    """
    config = upgraded(head, checkout, sql(block))
    assert "an unknown part of months" in refused(config)
    assert head.value("SELECT count(*) FROM months") == 6


def test_who_has_read_the_table_and_waits_to_write_it_does_not_end_in_a_deadlock(
    head: Database, checkout: Checkout
) -> None:
    """The judge looks at the values under a lock that writers wait for; the statement would wait for the reader."""
    head.query("CREATE TABLE wide AS SELECT n AS id, NULL::text AS note FROM generate_series(1, 300000) AS n")
    checkout.add("pass", sql("ALTER TABLE wide DROP COLUMN note"))
    command.upgrade(checkout.config(head.settings), "head")
    progress = StringIO()
    config = checkout.config(replace(head.settings, environment="production", lock_timeout=2000))
    config.attributes["progress"] = progress
    failed = []

    def reader_and_writer() -> None:
        while not stop.is_set():
            with another_session(head, "job", "SELECT count(*) FROM wide WHERE id < 10") as job:
                try:
                    job.execute("INSERT INTO wide (id) VALUES (0)")
                    job.commit()
                except psycopg.Error as error:
                    failed.append(error)

    stop = threading.Event()
    with ThreadPoolExecutor(2) as jobs:
        running = [jobs.submit(reader_and_writer) for _ in range(2)]
        try:
            command.downgrade(config, "-1")
        finally:
            stop.set()
        for job in running:
            job.result()

    assert failed == []


def test_writers_wait_until_the_statement_is_done_and_readers_only_for_itself(
    head: Database, checkout: Checkout
) -> None:
    head.query("CREATE TABLE wide AS SELECT 1 AS id, NULL::text AS note")
    checkout.add("pass", sql("ALTER TABLE wide DROP COLUMN note"))
    command.upgrade(checkout.config(head.settings), "head")
    progress = StringIO()
    config = checkout.config(replace(head.settings, environment="production", lock_timeout=20_000))
    config.attributes["progress"] = progress
    locks = "SELECT count(*) FROM pg_locks WHERE relation = 'wide'::regclass AND mode = '{}' AND granted = {}"

    def wait_for(mode: str, *, granted: bool = False) -> None:
        wait_until(lambda: downgrading.done() or head.value(locks.format(mode, granted)), f"{mode}, {granted}")

    with (
        ThreadPoolExecutor(3) as jobs,
        another_session(head, "reader") as reader,
        another_session(head, "writer") as writer,
    ):
        with another_session(head, "gate", "SELECT FROM wide") as gate:
            downgrading = jobs.submit(command.downgrade, config, "-1")
            wait_for("AccessExclusiveLock")
            # The reader comes behind the statement's first try, and stays when that is taken back.
            reading = jobs.submit(reader.execute, "SELECT FROM wide")
            wait_for("AccessShareLock")
            gate.rollback()
            reading.result()
        wait_for("ShareRowExclusiveLock", granted=True)
        writing = jobs.submit(writer.execute, "INSERT INTO wide (id, note) VALUES (2, 'x')")
        wait_for("RowExclusiveLock")
        assert head.query("SELECT count(*) FROM wide") == [(1,)], "another reader need not wait"
        assert not writing.done()
        reader.rollback()
        downgrading.result()
        with pytest.raises(psycopg.errors.UndefinedColumn):
            writing.result()

    assert "next try" not in progress.getvalue()


# Row level security


@pytest.fixture
def owned(empty: Database) -> Iterator[Database]:
    """At head, of an owner that is no superuser, whom FORCE ROW LEVEL SECURITY binds."""
    with owner(empty) as database:
        commands.upgrade(database.settings)
        yield database


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["", "CREATE POLICY mine ON model_versions USING (false)"], ids=["none", "one"])
@pytest.mark.parametrize("filled", [True, False], ids=["rows", "empty"])
def test_what_a_policy_hides_counts_as_a_loss(owned: Database, policy: str, *, filled: bool) -> None:
    if filled:
        owned.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run-1', '1')")
    owned.query(f"ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; {policy}")
    named = "policy mine" if policy else "row level security, which has no policy"

    for target in ("base", "0006"):
        done = owned.run("alembic", "downgrade", target, MLOPS_ENV="production")
        assert_failed(done, "model_versions", named, "nothing was changed")
        assert revision_of(owned) == HEAD

    allowed = owned.run("alembic", "-x", "allow-data-loss=true", "downgrade", "base", MLOPS_ENV="production")
    assert allowed.returncode == 0, allowed.stdout
    assert owned.value("SELECT to_regclass('model_versions')") is None


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE SCHEMA attic", "ALTER TABLE kept SET SCHEMA attic", "DROP TABLE attic.kept"],
        [hidden("ALTER TABLE kept DROP", "COLUMN note")],
        [hidden("TRUNCATE", "kept")],
    ],
    ids=["dropped", "a column", "emptied"],
)
def test_what_a_policy_hides_is_found_by_what_happens_too(
    owned: Database, checkout: Checkout, statements: list[str]
) -> None:
    table = (
        "CREATE TABLE kept (id int, note text)",
        "ALTER TABLE kept ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON kept USING (id = 1)",
    )
    checkout.add(sql(*table), sql(*statements))
    command.upgrade(checkout.config(owned.settings), "head")

    message = refused(checkout.config(production(owned)))

    assert "rows of kept, which cannot be counted behind policy mine" in message


def test_a_table_that_the_downgrade_leaves_alone_may_have_policies(owned: Database) -> None:
    owned.query("ALTER TABLE retraining_decisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    commands.downgrade(replace(owned.settings, environment="production"), "0015")
    assert revision_of(owned) == "0015"


def test_what_reads_all_rows_of_a_table_fails_where_a_policy_hides_some(owned: Database) -> None:
    """The findings of revisions 0007 to 0013 would pass, and rows that break a rule would stay."""
    commands.downgrade(owned.settings, "0006")
    owned.query("INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('r', '1', 'nonsense')")
    owned.query("ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")

    done = owned.run("alembic", "upgrade", "head")

    assert_failed(done, 'row-level security policy for table "model_versions"', "NO FORCE ROW LEVEL SECURITY")
    assert revision_of(owned) == "0006"


def test_status_and_demo_do_not_take_hidden_rows_for_none(owned: Database) -> None:
    owned.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run-1', '1')")
    owned.query("ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")

    status = owned.run("mlops-db", "status")
    assert not re.search(r"model_versions +table +0 ", status.stdout), status.stdout
    assert_failed(owned.run("mlops-db", "demo"), "row-level security policy")


def test_a_server_that_does_not_count_refuses_a_downgrade_in_production(owned: Database) -> None:
    owned.query(f"ALTER ROLE {owned.settings.user} SET track_counts = off")
    assert_failed(owned.run("alembic", "downgrade", "-1", MLOPS_ENV="production"), "track_counts is off")
    assert revision_of(owned) == HEAD
