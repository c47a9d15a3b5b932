"""`op.run_in_batches`, as revisions use it."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.migration import progress
from mlops_db.migration.batches import online
from mlops_db.server.connection import connect
from support.batches import (
    ADD_ONE,
    GO_ON,
    HOLD,
    POSITIONS,
    TABLE,
    batches,
    changes,
    half_done,
    make_table,
    positions,
    wait_until_held,
)  # fmt: skip
from support.database import Database, revision_of
from support.process import assert_run_failed
from support.projects import Checkout, source, sql
from support.roles import owner, role, session
from support.sessions import another_session, wait_until

pytestmark = [pytest.mark.libraries, pytest.mark.full_postgresql]

WAITS_FOR_OTHERS = "%virtualtransaction%"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def upgrade(database: Database, checkout: Checkout, *, to: str = "head", **options: object) -> str:
    """Upgrade in this process; returns what a log would get."""
    log = io.StringIO()
    config = checkout.config(replace(database.settings, **options))  # type: ignore[arg-type]  # of the dataclass
    config.attributes["progress"] = log
    command.upgrade(config, to)
    return log.getvalue()


def refusal(database: Database, checkout: Checkout, **options: object) -> str:
    """Upgrade to head, which is refused; returns the message and the hint."""
    before = revision_of(database)
    with pytest.raises(CommandError) as caught:
        upgrade(database, checkout, **options)
    assert revision_of(database) == before
    return str(caught.value)


# What is changed


def test_each_row_is_changed_once_and_nothing_is_left_behind(head: Database, checkout: Checkout) -> None:
    make_table(head)
    revision = checkout.add(batches())

    upgrade(head, checkout)

    assert changes(head) == [(1, 5000)]
    assert (revision_of(head), positions(head)) == (revision, [])


@pytest.mark.slow
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-30, 30), unique=True, max_size=40),
    size=st.integers(1, 12),
)
def test_keys_can_be_any_and_have_gaps(
    head: Database, adds_one: Checkout, monkeypatch: pytest.MonkeyPatch, keys: list[int], size: int
) -> None:
    monkeypatch.setattr(online, "FIRST_SIZE", size)
    head.query("TRUNCATE t")
    for key in keys:
        head.query("INSERT INTO t (id) VALUES (%s)", [key])
    command.stamp(adds_one.config(head.settings), adds_one.ids[-2])

    upgrade(head, adds_one)

    assert changes(head) == ([(1, len(keys))] if keys else [])
    assert positions(head) == []


@pytest.fixture
def adds_one(head: Database, checkout: Checkout) -> Checkout:
    """With a revision that adds one in every row of t, which is empty."""
    head.query(TABLE)
    checkout.add(batches())
    return checkout


# name: (statement, what it leaves; n of the rows is 0 before)
STATEMENTS = {
    "UPDATE": ("UPDATE t SET n = 7 WHERE id > :after AND id <= :upto AND id % 2 = 0", "SELECT sum(n) = 17500 FROM t"),
    "DELETE": ("DELETE FROM ONLY t WHERE id > :after AND id <= :upto AND id % 5 = 0;", "SELECT count(*) = 4000 FROM t"),
    "INSERT": (
        'INSERT INTO public."T % :x" SELECT id FROM t WHERE id > :after AND id <= :upto ON CONFLICT DO NOTHING',
        'SELECT count(*) = 5000 FROM "T % :x"',
    ),
    "texts": (
        """UPDATE t SET n = length('50 % :after %s '':upto') + 1::int /* :no */ -- :no
            WHERE t.id >:after AND id<=:upto AND '{1,2}'::int[] @> (ARRAY[1, 2])[1: 1]""",
        "SELECT min(n) = 22 FROM t",
    ),
    "twice": ("UPDATE t SET n = :upto - :after WHERE id > :after AND id <= :upto", "SELECT min(n) > 0 FROM t"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("way", ["online", "--sql"])
def test_a_statement_is_sent_as_it_is_written(head: Database, checkout: Checkout, name: str, way: str) -> None:
    statement, check = STATEMENTS[name]
    make_table(head)
    head.query('CREATE TABLE "T % :x" (id bigint PRIMARY KEY)')
    checkout.add(batches(statement))

    if way == "online":
        upgrade(head, checkout)
    else:
        head.psql(script(checkout, head))

    assert head.value(check)
    assert revision_of(head) == checkout.head


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["partitioned", "view", "smallint", "downgrade", "quoted"])
def test_rows_of_any_kind_of_table(head: Database, checkout: Checkout, kind: str) -> None:
    table, key, statement, down = "t", "id", ADD_ONE, "pass"
    if kind == "partitioned":
        head.query("""
            CREATE TABLE t (id bigint NOT NULL, n int DEFAULT 0, p int) PARTITION BY LIST (p);
            CREATE INDEX ON t (id, p);
            CREATE TABLE t_0 PARTITION OF t FOR VALUES IN (0);
            CREATE TABLE t_1 PARTITION OF t FOR VALUES IN (1) PARTITION BY RANGE (id);
            CREATE TABLE t_1_1 PARTITION OF t_1 DEFAULT;
            INSERT INTO t SELECT n, 0, abs(n % 2) FROM generate_series(-2000, 2999) AS n
        """)
    elif kind == "smallint":
        head.query("CREATE TABLE t (id smallint PRIMARY KEY, n int DEFAULT 0)")
        head.query("INSERT INTO t SELECT n FROM generate_series(-32768, 32767) AS n LIMIT 5000")
        head.query("UPDATE t SET id = 32767 WHERE id = -30000")
    else:
        make_table(head)
    if kind == "view":
        head.query("CREATE SCHEMA apart; CREATE VIEW apart.v AS SELECT id AS k FROM t WHERE id > 0")
        statement = "UPDATE public.t SET n = n + 1 FROM apart.v WHERE k = id AND k > :after AND k <= :upto"
        revision = checkout.add(batches(statement, table="v", key="k", schema="apart"))
    elif kind == "quoted":
        head.query("""ALTER TABLE t RENAME TO "T "".%'"; ALTER TABLE "T "".%'" RENAME id TO "$1 ' id" """)
        table, key = """T ".%'""", "$1 ' id"
        statement = """UPDATE "T "".%'" SET n = n + 1 WHERE "$1 ' id" > :after AND "$1 ' id" <= :upto"""
        revision = checkout.add(batches(statement, table=table, key=key))
    elif kind == "downgrade":
        revision = checkout.add("pass", batches())
    else:
        revision = checkout.add(batches(), down)

    upgrade(head, checkout)
    if kind == "downgrade":
        command.downgrade(checkout.config(head.settings), checkout.ids[-2])
    if kind == "quoted":
        head.query("""ALTER TABLE "T "".%'" RENAME TO t""")

    assert changes(head) == [(1, 5000)]
    assert positions(head) == []
    assert (revision_of(head) == revision) is (kind != "downgrade")


@pytest.mark.slow
def test_a_revision_may_set_its_search_path_first(head: Database, checkout: Checkout) -> None:
    make_table(head)
    checkout.add(sql("SET search_path = pg_catalog, pg_temp") + "\n" + batches(schema="public"))
    upgrade(head, checkout)
    assert changes(head) == [(1, 5000)]


@pytest.mark.slow
@pytest.mark.usefixtures("stopped")
def test_positions_are_no_drift(head: Database) -> None:
    head.query("DROP TRIGGER hold ON t; DROP FUNCTION hold; DROP TABLE t")
    assert positions(head)
    done = head.run("mlops-db", "check")
    assert done.returncode == 0, done.stdout + done.stderr


# Which rows


def test_rows_of_open_transactions_are_changed_and_later_rows_are_left_alone(
    head: Database, checkout: Checkout
) -> None:
    make_table(head)
    head.query(HOLD)
    checkout.add(batches())
    with (
        another_session(head, "commits", "INSERT INTO t (id) VALUES (6000)") as commits,
        another_session(head, "rolls back", "INSERT INTO t (id) VALUES (6001)") as rolls_back,
        another_session(head, "only begins", "SELECT 1") as begins,
    ):
        running = checkout.start(head, "upgrade", "head")
        running.backend(head, WAITS_FOR_OTHERS)
        commits.commit()
        rolls_back.rollback()
        assert changes(head) == [(0, 5001)]
        begins.execute("INSERT INTO t (id) VALUES (6002)")  # not before the run began to wait
        begins.commit()
    wait_until_held(head)
    head.query("INSERT INTO t (id) VALUES (7000)")
    head.query(GO_ON)

    assert running.ended().returncode == 0
    assert head.query("SELECT id FROM t WHERE n <> 1") == [(7000,)]
    assert changes(head) == [(0, 1), (1, 5002)]


@pytest.mark.slow
def test_it_names_who_keeps_it_waiting_and_gives_up(head: Database, checkout: Checkout) -> None:
    make_table(head)
    checkout.add(batches())
    prepares = head.value("SHOW max_prepared_transactions") != "0"
    with another_session(head, "a report", "SELECT 1"):
        message = refusal(head, checkout, retry_for=300)
    assert "waits for transactions that were open when it began" in message
    assert re.search(r"pid \d+ \(a report, idle in transaction, in a transaction for [\d.]+ s\); nothing", message)
    assert "MLOPS_RETRY_FOR" in message
    assert changes(head) == [(0, 5000)]
    if prepares:
        with another_session(head, "two phases", "SELECT 1", "PREPARE TRANSACTION 'left over'"):
            message = refusal(head, checkout, retry_for=300)
        head.query("ROLLBACK PREPARED 'left over'")
        assert "the prepared transaction 'left over'" in message
    upgrade(head, checkout)
    assert changes(head) == [(1, 5000)]


# Stopped and run again


def stop_in_the_middle(head: Database, checkout: Checkout) -> None:
    """Kill an upgrade in its second batch."""
    head.query(HOLD)
    running = checkout.start(head, "upgrade", "head")
    pid = wait_until_held(head)
    running.process.kill()
    running.process.join()
    head.query("SELECT pg_terminate_backend(%s)", [pid])
    head.query(GO_ON)
    wait_until(lambda: not head.query("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]), "the backend's end")


@pytest.fixture
def stopped(head: Database, checkout: Checkout) -> Checkout:
    """With a revision that was stopped after its first batch, in a database of 5000 rows."""
    make_table(head)
    checkout.add(batches())
    stop_in_the_middle(head, checkout)
    half_done(head, checkout.head)
    return checkout


def test_a_killed_run_goes_on_where_it_was(head: Database, stopped: Checkout) -> None:
    done = half_done(head, stopped.head)
    with another_session(head, "a report", "SELECT 1"):  # it does not wait again
        log = upgrade(head, stopped)
    assert f"goes on after id {done}: {done:,} rows are changed, {done // 50} %" in log
    assert changes(head) == [(1, 5000)]
    assert positions(head) == []


def edit(checkout: Checkout, old: str, new: str) -> None:
    (file,) = checkout.ini.parent.glob(f"migrations/versions/{checkout.head}_*.py")
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["online", "--sql"])
def test_a_changed_statement_is_refused_until_it_is_restored(head: Database, stopped: Checkout, way: str) -> None:
    edit(stopped, "n = n + 1", "n = n + 2")
    message = refusal(head, stopped) if way == "online" else head.psql(script(stopped, head), stops=False)
    assert "its statement, key, table or a column is another one than when it began; it has changed" in message
    assert f"DELETE FROM mlops_internal.batch_positions WHERE revision = '{stopped.head}'" in message
    half_done(head, stopped.head)
    edit(stopped, "n = n + 2", "n = n + 1")
    upgrade(head, stopped)
    assert changes(head) == [(1, 5000)]


def test_a_table_that_was_made_anew_begins_anew(head: Database, stopped: Checkout) -> None:
    head.query("DROP TABLE t")
    make_table(head, 3000)
    upgrade(head, stopped)
    assert changes(head) == [(1, 3000)]


@pytest.mark.slow
def test_a_table_that_was_renamed_is_not_taken_for_another(head: Database, stopped: Checkout) -> None:
    head.query("ALTER TABLE t RENAME TO old_t")
    make_table(head, 3000)
    assert "its statement, key, table or a column is another one" in refusal(head, stopped)
    assert changes(head) == [(0, 3000)]


@pytest.mark.slow
def test_a_statement_that_has_changed_nothing_may_be_corrected(head: Database, checkout: Checkout) -> None:
    make_table(head)
    checkout.add(batches("UPDATE public.t SET nothing = 1 WHERE id > :after AND id <= :upto"))
    assert "nothing" in refusal(head, checkout)
    edit(checkout, "nothing = 1", "n = n + 1")
    upgrade(head, checkout)
    assert changes(head) == [(1, 5000)]


def test_a_column_that_was_made_anew_is_not_half_filled(head: Database, stopped: Checkout) -> None:
    head.query("ALTER TABLE t DROP COLUMN n, ADD COLUMN n int NOT NULL DEFAULT 0")
    assert "its statement, key, table or a column is another one" in refusal(head, stopped)
    assert changes(head) == [(0, 5000)]
    head.query(f"DELETE FROM {POSITIONS} WHERE revision = '{stopped.head}'")
    upgrade(head, stopped)
    assert changes(head) == [(1, 5000)]


def test_a_run_that_does_not_finish_it_says_so(head: Database, stopped: Checkout) -> None:
    done = half_done(head, stopped.head)
    log = upgrade(head, stopped, to=stopped.ids[-2])
    warning = (
        f"warning: revision {stopped.head} (upgrade) was stopped when it had changed {done:,} rows; the same upgrade"
    )
    assert "nothing to do" in log
    assert warning in log
    assert "warning" not in upgrade(head, stopped)


@pytest.mark.slow
def test_a_position_goes_with_its_table(head: Database, stopped: Checkout) -> None:
    head.query("DROP TABLE t")
    command.downgrade(stopped.config(head.settings), stopped.ids[-3])
    assert positions(head) == []


@pytest.mark.slow
def test_columns_may_come_meanwhile(head: Database, stopped: Checkout) -> None:
    head.query('ALTER TABLE t ADD COLUMN other int, ADD COLUMN "UPDATE" int')
    upgrade(head, stopped)
    assert changes(head) == [(1, 5000)]


@pytest.mark.slow
def test_a_half_done_upgrade_outlives_a_downgrade_of_others(head: Database, stopped: Checkout) -> None:
    command.downgrade(stopped.config(head.settings), stopped.ids[-3])
    half_done(head, stopped.head)
    upgrade(head, stopped)
    assert changes(head) == [(1, 5000)]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["online", "purge", "--sql"])
def test_a_stamp_of_the_revision_forgets_the_position(head: Database, stopped: Checkout, way: str) -> None:
    command.stamp(stopped.config(head.settings), stopped.ids[-3])
    assert len(positions(head)) == 1
    if way == "--sql":
        done = stopped.alembic(head, "stamp", f"{stopped.ids[-3]}:head", "--sql")
        head.psql(done.stdout)
    else:
        command.stamp(stopped.config(head.settings), "head", purge=way == "purge")
    assert positions(head) == []


@pytest.mark.slow
def test_the_table_of_positions_stays_for_others(head: Database, stopped: Checkout) -> None:
    head.query("INSERT INTO mlops_internal.batch_positions SELECT 'other', direction, statement, key, source, target,"
               " columns, first, position, last FROM mlops_internal.batch_positions")  # fmt: skip
    upgrade(head, stopped)
    assert [revision for revision, *_ in positions(head)] == ["other"]


@pytest.mark.slow
def test_batches_that_are_done_are_not_done_again_if_only_the_end_failed(head: Database, checkout: Checkout) -> None:
    make_table(head)
    checkout.add(batches() + "\n" + sql("SELECT 1"))
    assert "has other statements beside op.run_in_batches" in refusal(head, checkout)
    edit(checkout, "op.execute('SELECT 1')", "pass")
    upgrade(head, checkout)
    assert changes(head) == [(1, 5000)]


# Locks


@pytest.mark.slow
def test_a_batch_that_gets_no_lock_is_tried_again(head: Database, checkout: Checkout) -> None:
    make_table(head)
    head.query(HOLD)
    checkout.add(batches())
    running = checkout.start(head, "-x", "lock-timeout=300ms", "upgrade", "head")
    errors = running.wait_for_output("no lock, blocked by pid")
    assert re.search(r"no lock, blocked by pid \d+ \(.*, idle\)", errors), errors
    half_done(head, checkout.head)
    head.query(GO_ON)
    assert running.ended().returncode == 0
    assert changes(head) == [(1, 5000)]


@pytest.mark.slow
def test_a_batch_that_never_gets_its_lock_names_who_has_it(head: Database, checkout: Checkout) -> None:
    make_table(head)
    head.query(HOLD)
    checkout.add(batches())
    done = checkout.alembic(head, "-x", "lock-timeout=2s", "-x", "retry-for=300ms", "upgrade", "head")
    assert_run_failed(done, "no lock after 2 tries, blocked by pid ", "the batch was rolled back, those before it are")
    half_done(head, checkout.head)
    head.query(GO_ON)
    upgrade(head, checkout)
    assert changes(head) == [(1, 5000)]


@pytest.mark.slow
def test_a_batch_that_takes_too_long_is_made_smaller(head: Database, checkout: Checkout) -> None:
    make_table(head, 1000)
    statement = "UPDATE t SET n = n + 1 + length(pg_sleep(0.002)::text) WHERE id > :after AND id <= :upto"
    checkout.add(batches(statement))
    upgrade(head, checkout, statement_timeout=1500, lock_timeout=100)
    assert changes(head) == [(1, 1000)]


@pytest.mark.slow
def test_a_statement_that_is_cancelled_ends_the_run(head: Database, checkout: Checkout) -> None:
    make_table(head)
    head.query(HOLD)
    checkout.add(batches())
    running = checkout.start(head, "-x", "lock-timeout=20s", "upgrade", "head")
    head.query("SELECT pg_cancel_backend(%s)", [wait_until_held(head)])
    assert_run_failed(running.ended(), "canceling statement due to user request")
    half_done(head, checkout.head)


# What is refused

NO_STATEMENT = "takes one UPDATE, DELETE or INSERT ... SELECT, not: "
BOUND = "id > :after AND id <= :upto"
# Each with a part of the message.
REFUSED = {
    "another statement": (batches("SELECT 1"), NO_STATEMENT),
    "nothing": (batches(""), NO_STATEMENT),
    "a TRUNCATE": (batches("TRUNCATE t"), NO_STATEMENT),
    "several statements": (batches(f"{ADD_ONE}; {ADD_ONE}"), NO_STATEMENT),
    "values": (batches("INSERT INTO t (id) VALUES (:after), (:upto)"), NO_STATEMENT),
    "no lower bound": (batches("UPDATE t SET n = 1 WHERE id <= :upto"), "lacks :after: UPDATE t"),
    "a bound in a comment": (batches("DELETE FROM t WHERE id > :after -- :upto"), "lacks :upto"),
    "no bounds": (batches("DELETE FROM t"), "lacks :after and :upto"),
    "a parameter": (batches(f"DELETE FROM t WHERE {BOUND} AND n = :n"), "has :n beside :after and :upto"),
    "no table": (batches(table="nowhere"), "there is no table nowhere"),
    "no target": (batches(f"UPDATE nowhere SET n = 1 WHERE {BOUND}"), "there is no table nowhere"),
    "no column": (batches(key="nothing"), "nothing of t is missing, and not a column of integers"),
    "a text": (batches(key="note"), "note of t is text, and not a column of integers"),
    "a numeric": (batches(key="price"), "price of t is numeric, and not a column of integers"),
    "no index": (batches(key="n"), "no index begins with n, so each batch would read the whole of t"),
    "a partial index": (batches(key="m"), "no index begins with m"),
    "an index of one partition": (batches(table="p"), "would read the whole of p_2"),
    "NULL": (batches(key="k"), "k of t is NULL in some rows, which no batch would reach"),
    "the least bigint": (batches(key="least"), "is the least bigint"),
    "a strange duration": (batches(target="soon"), "target"),
    "a statement before": (sql("SELECT 1") + "\n" + batches(), "has other statements beside op.run_in_batches"),
    "a statement after": (batches() + "\n" + sql("UPDATE t SET n = 9"), "has other statements beside"),
    "a statement after, caught": (
        batches() + "\ntry:\n    op.execute('UPDATE t SET n = 9')\nexcept Exception:\n    pass",
        "has other statements beside",
    ),
    "twice": (batches() + "\n" + batches(), "has other statements beside"),
}
CHANGED_THEN = {"a statement after", "a statement after, caught", "twice"}  # the batches came first


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_in_batches_is_refused(head: Database, checkout: Checkout, name: str) -> None:
    make_table(head, 3)
    head.query("""
        ALTER TABLE t ADD note text, ADD price numeric, ADD k int, ADD m int NOT NULL DEFAULT 1,
            ADD least bigint NOT NULL DEFAULT -9223372036854775808;
        CREATE INDEX ON t (k, note); CREATE INDEX ON t (m) WHERE n > 0;
        CREATE INDEX ON t (price); CREATE INDEX ON t (note); CREATE INDEX ON t (least);
        CREATE TABLE p (id int NOT NULL, n int) PARTITION BY LIST (n);
        CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p_2 PARTITION OF p FOR VALUES IN (2);
        CREATE INDEX ON p_1 (id)
    """)
    revision, message = REFUSED[name]
    checkout.add(revision)
    assert message in refusal(head, checkout)
    assert changes(head) == [(int(name in CHANGED_THEN), 3)]


def test_it_is_refused_in_the_transaction_of_a_caller(head: Database, checkout: Checkout) -> None:
    make_table(head)
    checkout.add(batches())
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(head.settings), poolclass=NullPool)
    config = checkout.config(head.settings)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        with pytest.raises(CommandError, match="cannot do in the transaction of the caller"):
            command.upgrade(config, "head")
    assert changes(head) == [(0, 5000)]
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    assert changes(head) == [(1, 5000)]


@pytest.mark.slow
@pytest.mark.parametrize("giving_up", ["", "alembic downgrade base."])
def test_a_full_disk_says_what_stays_and_how_to_go_on(head: Database, checkout: Checkout, giving_up: str) -> None:
    make_table(head)
    head.query("""
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE disk_full USING MESSAGE = 'could not extend file "base/1": No space left on device'; END $$;
        CREATE TRIGGER full_disk BEFORE UPDATE ON t FOR EACH ROW WHEN (OLD.id = 1500) EXECUTE FUNCTION full_disk()
    """)
    revision = checkout.add(batches())
    edit(checkout, "Test: test.", f"Test: test.\n\nGiving up: {giving_up}\n")
    message = refusal(head, checkout)
    assert message.startswith(
        f'the server\'s disk is full, revision {revision} (upgrade): could not extend file "base/1": No space left on '
        "device; the batches that are done stay\n"
    )
    assert "then run the same command: it resumes where it stopped." in message
    assert message.endswith(" To give up: alembic downgrade base." if giving_up else "it stopped.")
    head.query("DROP TRIGGER full_disk ON t")
    upgrade(head, checkout)
    assert changes(head) == [(1, 5000)]


def test_a_full_disk_in_another_revision(head: Database, checkout: Checkout) -> None:
    checkout.add(sql("DO $$ BEGIN RAISE disk_full USING MESSAGE = 'no space'; END $$"))
    assert "no space; nothing of it was applied" in refusal(head, checkout)


# Who runs it


@pytest.mark.slow
@pytest.mark.parametrize("owned_by", ["the login", "MLOPS_OWNER_ROLE"])
def test_a_role_that_is_no_superuser_runs_it(empty: Database, checkout: Checkout, owned_by: str) -> None:
    with role(empty, "mlops_test_login") as login, owner(empty) as owning:
        database = owning
        if owned_by == "MLOPS_OWNER_ROLE":
            empty.query("GRANT mlops_test_owner TO mlops_test_login")
            database = replace(empty, settings=replace(login, owner_role="mlops_test_owner"))
        command.upgrade(checkout.config(database.settings), "head")
        with session(owning.settings) as connection:
            connection.execute(TABLE)
            connection.execute("INSERT INTO t (n) SELECT 0 FROM generate_series(1, 5000)")
        revision = checkout.add(batches(), batches())
        with another_session(empty, "a superuser", "SELECT 1"):
            message = refusal(database, checkout, retry_for=200)
        assert re.search(r"pid \d+ \(a superuser, state not visible\); nothing was changed", message), message
        upgrade(database, checkout)
        assert changes(empty) == [(1, 5000)]
        assert revision_of(empty) == revision
        command.downgrade(checkout.config(replace(database.settings, environment="production")), checkout.ids[-2])
        assert changes(empty) == [(2, 5000)]


@pytest.mark.slow
def test_a_revision_of_another_branch_runs_in_batches(head: Database, checkout: Checkout) -> None:
    make_table(head)
    file = checkout.ini.parent / "migrations" / "versions" / "apart_0001_batches.py"
    text = source("apart_0001", None, batches(), batches(), docstring="Test: {title}.")
    file.write_text(text.replace("\ndown_revision", '\nbranch_labels = ("apart",)\ndown_revision'), encoding="utf-8")
    place = checkout.ini.parent / "apart"
    place.mkdir()
    file.rename(place / file.name)
    ini = checkout.ini.read_text(encoding="utf-8")
    checkout.ini.write_text(
        ini.replace("[alembic]", f"[alembic]\nversion_locations = %(here)s/migrations/versions:{place}", 1),
        encoding="utf-8",
    )
    command.upgrade(checkout.config(head.settings), "apart@head")
    assert changes(head) == [(1, 5000)]
    command.downgrade(checkout.config(head.settings), "apart@base")
    assert changes(head) == [(2, 5000)]
    assert positions(head) == []


# What people see


def test_a_log_gets_a_line_now_and_then(head: Database, checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    make_table(head)
    revision = checkout.add(batches())
    log = upgrade(head, checkout)
    assert re.search(
        rf"^\[1/1\] {revision} test: 1,000 rows, [\d,]+ a second, 20 %, about \d+\.\d s left$", log, re.MULTILINE
    ), log


# --sql


def script(checkout: Checkout, database: Database) -> str:
    done = checkout.alembic(database, "upgrade", f"{checkout.ids[-2]}:{checkout.head}", "--sql")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
