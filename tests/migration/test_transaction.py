"""Only the run may end a revision's transaction: a statement that would end it is refused before it is sent."""

import textwrap
from pathlib import Path

import psycopg2.extensions
import pytest
from alembic import command
from alembic.util import CommandError
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import RefusedError
from mlops_db.migration.statements import ends_transaction
from mlops_db.server.connection import connect
from support.database import Database, revision_of
from support.projects import Checkout, sql
from support.stopped import contents

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HALF = 'op.execute("CREATE TABLE half (id int)")'
REST = 'op.execute("CREATE TABLE rest (id int)")'
# How a revision can say it, and the words that it is told.
ENDS = {
    "COMMIT": ('op.execute("COMMIT")', "COMMIT"),
    "in small letters, after a comment": ('op.execute("-- done\\n/* a /* b */ */ commit work")', "COMMIT"),
    "behind another statement": ('op.execute("CREATE TABLE more (); COMMIT; CREATE TABLE last ()")', "COMMIT"),
    "END": ('op.execute("END")', "END"),
    "ROLLBACK": ('op.execute("ROLLBACK")', "ROLLBACK"),
    "ABORT": ('op.execute("ABORT")', "ABORT"),
    "COMMIT AND CHAIN": ('op.execute("COMMIT AND CHAIN")', "COMMIT"),
    "PREPARE TRANSACTION": ("""op.execute("PREPARE TRANSACTION 'mine'")""", "PREPARE TRANSACTION"),
    "by text()": ('op.get_bind().execute(sa.text("COMMIT"))', "COMMIT"),
    "by exec_driver_sql()": ('op.get_bind().exec_driver_sql("COMMIT")', "COMMIT"),
    "by commit()": ("op.get_bind().commit()", "commit()"),
    "by rollback()": ("op.get_bind().rollback()", "rollback()"),
    "by its transaction": ("op.get_bind().get_transaction().commit()", "commit()"),
    "by the driver's commit()": ("op.get_bind().connection.commit()", "commit()"),
    "by the driver's rollback()": ("op.get_bind().connection.dbapi_connection.rollback()", "rollback()"),
    "by a cursor of the driver's": ('op.get_bind().connection.cursor().execute("COMMIT")', "COMMIT"),
    "by another class of cursor": (
        """
        import psycopg2.extras
        op.get_bind().connection.cursor(cursor_factory=psycopg2.extras.DictCursor).execute("COMMIT")
        """,
        "COMMIT",
    ),
    "by closing the connection": ("op.get_bind().close()", "close()"),
    "by a block that closes it": ("with op.get_bind() as connection: pass", "close()"),
    "by giving it up": ("op.get_bind().invalidate()", "invalidate()"),
    "by many": ('op.get_bind().connection.cursor().executemany("COMMIT", [()])', "COMMIT"),
    "and goes on after the refusal": (
        """
        try:
            op.get_bind().commit()
        except Exception:
            pass
        """,
        "commit()",
    ),
    "and goes on after the refusal of the statement": (
        """
        try:
            op.execute("ROLLBACK")
        except Exception:
            pass
        """,
        "ROLLBACK",
    ),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def body(*lines: str) -> str:
    return "\n".join(textwrap.dedent(line).strip() for line in lines)


@pytest.mark.parametrize(("end", "words"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_revision_does_not_end_its_transaction(
    head: Database, checkout: Checkout, direction: str, end: str, words: str
) -> None:
    halves = body(HALF, end, REST)
    if direction == "upgrade":
        at = checkout.head
        revision = checkout.add(halves)
    else:
        at = revision = checkout.add("pass", halves)
        command.upgrade(checkout.config(head.settings), "head")
    target = {"upgrade": "head", "downgrade": "-1"}[direction]

    with pytest.raises(CommandError, match=f"revision {revision} executes ") as refused:
        getattr(command, direction)(checkout.config(head.settings), target)

    assert isinstance(refused.value.__cause__, RefusedError)
    assert f"executes {words}" in str(refused.value)
    assert "autocommit_block" in str(refused.value)
    assert head.query("SELECT to_regclass('half'), to_regclass('rest'), to_regclass('more')") == [(None, None, None)]
    assert revision_of(head) == at
    assert (
        head.query("SELECT outcome, error FROM mlops_internal.migration_history ORDER BY id DESC LIMIT 1")[0][0]
        == "failed"
    )


@pytest.mark.parametrize("end", ["ROLLBACK", "commit()", "COMMIT"], ids=str)
def test_not_on_a_connection_that_a_program_brought_either(head: Database, checkout: Checkout, end: str) -> None:
    message = f"op.get_bind().{end}" if end.endswith("()") else f"op.execute({end!r})"
    checkout.add(body(HALF, message, REST))
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(head.settings), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET search_path = pg_catalog")
        connection.commit()
        config = checkout.config(head.settings)
        config.attributes["connection"] = connection
        with pytest.raises(CommandError, match="executes"):
            command.upgrade(config, "head")
        assert not connection.in_transaction()
        # And it comes back as it was.
        assert connection.exec_driver_sql("SHOW search_path").scalar_one() == "pg_catalog"
        assert connection.exec_driver_sql("SHOW row_security").scalar_one() == "on"
        driver = connection.connection.dbapi_connection
        assert driver is not None
        assert driver.cursor_factory in (None, psycopg2.extensions.cursor)

    assert head.value("SELECT to_regclass('half')") is None


def test_what_was_sent_behind_the_runs_back_is_noticed_before_it_is_recorded(
    head: Database, checkout: Checkout
) -> None:
    """A cursor of another class, on a connection that a program brought: nobody reads what it sends."""
    sent = """
        import psycopg2.extras
        cursor = op.get_bind().connection.cursor(cursor_factory=psycopg2.extras.DictCursor)
        cursor.execute("COMMIT")
    """
    revision = checkout.add(body(HALF, sent, REST))
    config = checkout.config(head.settings)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(head.settings), poolclass=NullPool)
    message = f"revision {revision} executes COMMIT or ROLLBACK.*what came before that may stay"
    with engine.connect() as config.attributes["connection"], pytest.raises(CommandError, match=message):
        command.upgrade(config, "head")

    assert revision_of(head) < revision
    assert head.value("SELECT to_regclass('rest')") is None


REFUSED_BY_PSYCOPG2 = {
    "a comment": ('op.execute("-- nothing to do")', "can't execute an empty query"),
    "nothing": ('op.get_bind().connection.cursor().execute("")', "can't execute an empty query"),
    "autocommit": ("op.get_bind().connection.dbapi_connection.autocommit = True", "inside a transaction"),
}


@pytest.mark.parametrize(("line", "reason"), REFUSED_BY_PSYCOPG2.values(), ids=REFUSED_BY_PSYCOPG2)
def test_what_psycopg2_refuses_is_explained(head: Database, checkout: Checkout, line: str, reason: str) -> None:
    revision = checkout.add(body(HALF, line, REST))

    with pytest.raises(CommandError, match=f"psycopg2 refuses a statement of revision {revision}: .*{reason}"):
        command.upgrade(checkout.config(head.settings), "head")

    assert head.value("SELECT to_regclass('half')") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("op.get_bind().connection.close()", "executes rollback().*nothing of it was applied"),
        ("op.get_bind().connection.dbapi_connection.reset()", "executes COMMIT or ROLLBACK.*may stay"),
        ("op.get_bind().connection.dbapi_connection.set_isolation_level(0)", "executes COMMIT or ROLLBACK.*may stay"),
        ("op.get_bind().connection.cursor().execute(b\"SELECT '\\xe9'\")", "invalid byte sequence"),
    ],
    ids=["closed", "reset", "another isolation", "bytes that are no UTF-8"],
)
def test_other_failures_are_explained_too(head: Database, checkout: Checkout, line: str, message: str) -> None:
    checkout.add(body(HALF, line, REST))

    with pytest.raises(CommandError, match=message):
        command.upgrade(checkout.config(head.settings), "head")

    assert head.query("SELECT to_regclass('half'), to_regclass('rest')") == [(None, None)]


ALLOWED = {
    "savepoints": sql("SAVEPOINT a", "CREATE TABLE gone ()", "ROLLBACK TO SAVEPOINT a", "RELEASE SAVEPOINT a"),
    "savepoints of SQLAlchemy's": """
        with op.get_bind().begin_nested() as nested:
            op.execute("CREATE TABLE gone ()")
            nested.rollback()
    """,
    "words in a text": """op.execute("COMMENT ON TABLE model_versions IS 'first; COMMIT; then'")""",
    "words in a function": sql(
        "CREATE PROCEDURE batches() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
        "DO $do$ BEGIN PERFORM 1; END $do$",
        'CREATE TABLE "COMMIT; ROLLBACK" ()',
    ),
    "an autocommit block": """
        op.execute("CREATE TABLE more (id int)")
        with op.get_context().autocommit_block():
            op.execute("CREATE INDEX CONCURRENTLY more_id ON more (id)")
            op.execute("DO $$ BEGIN INSERT INTO more VALUES (1); COMMIT; INSERT INTO more VALUES (2); COMMIT; END $$")
        op.execute("INSERT INTO more VALUES (3)")
    """,
    "transactions of its own in an autocommit block": """
        with op.get_context().autocommit_block():
            op.execute("BEGIN")
            op.execute("CREATE TABLE more (id int)")
            op.execute("COMMIT")
    """,
    "an index built concurrently": """
        op.create_index_concurrently("by_version", "model_versions", ["model_version"])
    """,
}


@pytest.mark.parametrize("upgrade", ALLOWED.values(), ids=ALLOWED)
def test_what_does_not_end_it_goes_through(head: Database, checkout: Checkout, upgrade: str) -> None:
    checkout.add(body(HALF, upgrade, REST))

    done = checkout.alembic(head, "upgrade", "head")

    assert done.returncode == 0, done.stdout + done.stderr
    assert revision_of(head) == checkout.head
    assert head.query("SELECT to_regclass('half') IS NULL, to_regclass('rest') IS NULL") == [(False, False)]
    assert head.value("SELECT to_regclass('gone')") is None


def test_a_body_in_sql_with_its_own_end_is_no_end(head: Database, checkout: Checkout) -> None:
    if head.connection.info.server_version < 140000:
        pytest.skip("BEGIN ATOMIC came with PostgreSQL 14")
    checkout.add(sql("CREATE FUNCTION one() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END"))
    command.upgrade(checkout.config(head.settings), "head")
    assert head.value("SELECT one()") == 2


@pytest.mark.parametrize(("end", "words"), [("COMMIT", "COMMIT"), ("SELECT 1; ROLLBACK", "ROLLBACK")])
def test_a_script_does_not_end_it_either(head: Database, checkout: Checkout, end: str, words: str) -> None:
    revision = checkout.add(body(HALF, f"op.execute({end!r})"))
    before = contents(head)

    done = checkout.alembic(head, "upgrade", f"{checkout.ids[-2]}:{revision}", "--sql")

    assert f"revision {revision} executes {words}" in done.stdout
    assert done.returncode == 255
    assert contents(head) == before


def test_where_a_revision_looks_and_creates_is_public_and_nowhere_else_is(head: Database, checkout: Checkout) -> None:
    checkout.add("""
        op.execute("CREATE TABLE lands (path text, security text)")
        op.execute("INSERT INTO lands SELECT current_setting('search_path'), current_setting('row_security')")
        with op.get_context().autocommit_block():
            op.execute("INSERT INTO lands SELECT current_setting('search_path'), current_setting('row_security')")
        op.execute("CREATE TEMPORARY TABLE model_versions (id int)")
        op.execute("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('of public', '1')")
    """)
    command.upgrade(checkout.config(head.settings), "head")

    assert head.query("TABLE public.lands") == [("public, pg_temp", "off")] * 2
    assert head.value("SELECT count(*) FROM public.model_versions") == 1


# Reading SQL

words = st.sampled_from(["COMMIT", "commit", "ROLLBACK", "Abort", "END", "PREPARE TRANSACTION 'x'", "COMMIT AND CHAIN"])
harmless = st.sampled_from(
    [
        "SELECT 1", "SELECT 'a;COMMIT;b'", 'SELECT 1 AS "COMMIT;"', "SELECT $$COMMIT;$$", "SELECT $x$;ROLLBACK;$x$",
        "SELECT E'\\'; COMMIT; '", "/* COMMIT; */ SELECT 1", "-- COMMIT;\nSELECT 1", "SELECT CASE WHEN true THEN 1 END",
        "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)", "SAVEPOINT commit", "ROLLBACK TO commit",
        "ROLLBACK WORK TO SAVEPOINT x", "RELEASE commit", "PREPARE q AS SELECT 1", "CREATE TABLE t (commit int)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT (CASE WHEN true THEN 1 END); SELECT 2; END",
    ]
)  # fmt: skip
blanks = st.sampled_from(["", " ", "\n", "/* ; */", "-- ;\n", "/* /* ; */ */"])


@given(before=st.lists(harmless, max_size=3), end=words, after=st.lists(harmless, max_size=2), between=blanks)
@example(before=["SELECT 'it''s'"], end="COMMIT", after=[], between="")
def test_an_end_is_found_among_other_statements(before: list[str], end: str, after: list[str], between: str) -> None:
    script = f";{between}".join([*before, f"{between}{end}", *after])
    found = ends_transaction(script)
    assert found is not None
    assert end.upper().startswith(found)


@given(statements=st.lists(harmless, min_size=1, max_size=5), between=blanks)
def test_no_end_is_found_where_there_is_none(statements: list[str], between: str) -> None:
    assert ends_transaction(f";{between}".join(statements)) is None
