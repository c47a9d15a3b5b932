"""`op.create_index_concurrently`, `op.validate_constraint` and `op.stop_if_broken`, as revisions use them."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError
from psycopg.errors import UniqueViolation
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import RefusedError, StatementFailedError
from mlops_db.server.connection import connect
from support.database import Database, history_of, revision_of
from support.process import assert_run_failed
from support.projects import Checkout, sql
from support.sessions import CHECKS_ITS_CLIENT_SINCE, another_session, wait_until

pytestmark = pytest.mark.libraries

INDEX = 'op.create_index_concurrently("orders_amount", "orders", ["amount"])'
UNIQUE = 'op.create_index_concurrently("orders_amount", "orders", ["amount"], unique=True)'
# Waits for every transaction that is older than it.
WAITS_IN_CONCURRENTLY = "CREATE%INDEX CONCURRENTLY%"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def orders(head: Database) -> Database:
    """A database at head with a table of its own, which test revisions index."""
    head.query("""
        CREATE TABLE orders (id int, amount int, customer text, at timestamptz);
        INSERT INTO orders SELECT n, n, 'customer ' || n % 7, '2026-01-01' FROM generate_series(1, 100) AS n
    """)
    return head


def index(database: Database, name: str = "orders_amount") -> tuple[int, bool, str] | None:
    """The index's oid, whether it is valid, and its definition."""
    rows = database.query(
        "SELECT indexrelid::int, indisvalid AND indisready, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indexrelid = to_regclass(%s)",
        [name],
    )
    return rows[0] if rows else None


def duplicate(database: Database) -> None:
    database.query("INSERT INTO orders (id, amount) VALUES (0, 1)")


def leave_invalid(database: Database, table: str = "orders") -> int:
    """Make the invalid index that CREATE INDEX CONCURRENTLY leaves behind when it fails; returns its oid."""
    database.query(f"INSERT INTO {table} (id, amount) VALUES (0, 1), (0, 1)")
    with pytest.raises(UniqueViolation):
        database.query(f"CREATE UNIQUE INDEX CONCURRENTLY orders_amount ON {table} (amount)")
    database.query(f"DELETE FROM {table} WHERE id = 0")
    oid, valid, _ = index(database) or (0, True, "")
    assert not valid
    return oid


# create_index_concurrently: what is there before and after


# name: (the arguments of the operation, how PostgreSQL describes the index)
INDEXES = {
    "plain": ('["amount"]', "CREATE INDEX plain ON public.orders USING btree (amount)"),
    "two_columns": (
        '["customer", "amount"]',
        "CREATE INDEX two_columns ON public.orders USING btree (customer, amount)",
    ),
    "descending": (
        '[sa.text("at DESC NULLS LAST"), "id"]',
        "CREATE INDEX descending ON public.orders USING btree (at DESC NULLS LAST, id)",
    ),
    "only_one": ('["id"], unique=True', "CREATE UNIQUE INDEX only_one ON public.orders USING btree (id)"),
    "partial": (
        '["amount"], where="customer LIKE \'%1\' AND id > 5"',
        "CREATE INDEX partial ON public.orders USING btree (amount) WHERE ((customer ~~ '%1'::text) AND (id > 5))",
    ),
    "expression": (
        '[sa.text("lower(customer)")]',
        "CREATE INDEX expression ON public.orders USING btree (lower(customer))",
    ),
    "method": (
        '["at"], postgresql_using="brin", postgresql_with={"pages_per_range": 32}',
        "CREATE INDEX method ON public.orders USING brin (at) WITH (pages_per_range='32')",
    ),
    "including": (
        '["id"], unique=True, postgresql_include=["amount"]',
        "CREATE UNIQUE INDEX including ON public.orders USING btree (id) INCLUDE (amount)",
    ),
}


@pytest.fixture
def all_kinds(orders: Database, checkout: Checkout) -> Callable[[], dict[str, tuple[int, bool, str] | None]]:
    """A revision that creates every kind of index; returns what looks at them."""
    checkout.add("\n".join(f'op.create_index_concurrently("{name}", "orders", {INDEXES[name][0]})' for name in INDEXES))
    return lambda: {name: index(orders, name) for name in INDEXES}


EXPECTED = {name: (True, definition) for name, (_, definition) in INDEXES.items()}


def test_indexes_are_created_as_asked_and_kept_when_they_are_there(
    orders: Database, checkout: Checkout, all_kinds: Callable[[], dict[str, tuple[int, bool, str] | None]]
) -> None:
    config = checkout.config(orders.settings)

    command.upgrade(config, "head")
    created = all_kinds()
    assert {name: found and found[1:] for name, found in created.items()} == EXPECTED

    command.downgrade(config, checkout.ids[-2])  # which leaves them there
    command.upgrade(config, "head")
    assert all_kinds() == created


def test_the_sql_script_creates_the_same_indexes(
    orders: Database, checkout: Checkout, all_kinds: Callable[[], dict[str, tuple[int, bool, str] | None]]
) -> None:
    orders.psql(script(checkout, orders, f"{checkout.ids[-2]}:head"))

    assert {name: found and found[1:] for name, found in all_kinds().items()} == EXPECTED


def test_a_table_and_an_index_that_need_quotes_are_found_again(head: Database, checkout: Checkout) -> None:
    head.query('CREATE SCHEMA "My Sales"; CREATE TABLE "My Sales"."Order" ("The Amount" int)')
    before = checkout.head
    checkout.add(
        'op.create_index_concurrently("The Index", "Order", ["The Amount"], schema="My Sales",'
        " where='\"The Amount\" > 5')"
    )
    name = '"My Sales"."The Index"'

    command.upgrade(checkout.config(head.settings), "head")
    created = index(head, name)
    command.downgrade(checkout.config(head.settings), before)
    command.upgrade(checkout.config(head.settings), "head")

    assert created is not None
    assert index(head, name) == created
    assert created[1:] == (
        True,
        'CREATE INDEX "The Index" ON "My Sales"."Order" USING btree ("The Amount") WHERE ("The Amount" > 5)',
    )


@pytest.mark.parametrize("body", [UNIQUE, INDEX], ids=["the same", "another definition"])
def test_an_invalid_index_is_dropped_and_built_again(orders: Database, checkout: Checkout, body: str) -> None:
    oid = leave_invalid(orders)
    checkout.add(body)

    command.upgrade(checkout.config(orders.settings), "head")

    built = index(orders)
    assert built is not None
    assert built[0] != oid
    assert built[1]
    assert ("UNIQUE" in built[2]) == (body == UNIQUE)


@pytest.mark.parametrize(
    "there",
    [
        "CREATE INDEX orders_amount ON orders (amount DESC)",
        "CREATE UNIQUE INDEX orders_amount ON orders (amount)",
        "CREATE INDEX orders_amount ON orders (amount) WHERE amount > 5",
        "CREATE INDEX orders_amount ON orders USING hash (amount)",
        "CREATE TABLE others (amount int); CREATE INDEX orders_amount ON others (amount)",
    ],
)
def test_another_index_under_the_name_is_refused_and_left_alone(
    orders: Database, checkout: Checkout, there: str
) -> None:
    orders.query(there)
    before, at = index(orders), checkout.head
    checkout.add(INDEX)

    with pytest.raises(
        CommandError, match=r"index orders_amount should be btree \(amount\) on orders, and is"
    ) as failed:
        command.upgrade(checkout.config(orders.settings), "head")

    assert isinstance(failed.value.__cause__, RefusedError)
    assert index(orders) == before
    assert revision_of(orders) == at
    assert history_of(orders, checkout.head) == [(checkout.head, "failed")]


def test_an_invalid_index_of_another_table_under_the_name_is_left_alone(orders: Database, checkout: Checkout) -> None:
    orders.query("CREATE TABLE others (id int, amount int)")
    leave_invalid(orders, "others")
    before = index(orders)
    checkout.add(INDEX)

    with pytest.raises(CommandError, match="INVALID on others"):
        command.upgrade(checkout.config(orders.settings), "head")

    assert index(orders) == before


def test_a_failed_unique_index_leaves_nothing_behind(orders: Database, checkout: Checkout) -> None:
    duplicate(orders)
    at = checkout.head
    checkout.add(UNIQUE)

    assert_run_failed(checkout.alembic(orders, "upgrade", "head"), 'could not create unique index "orders_amount"')

    assert index(orders) is None
    assert revision_of(orders) == at


def test_a_failure_does_not_drop_an_index_that_another_session_has_just_created(
    orders: Database, checkout: Checkout
) -> None:
    checkout.add(INDEX)
    with another_session(orders, "somebody else", "CREATE INDEX orders_amount ON orders (amount)") as other:
        # Not committed, so the revision does not see it, and then waits for it.
        run = checkout.start(orders, "upgrade", "head")
        run.backend(orders, WAITS_IN_CONCURRENTLY)
        wait_until(lambda: waits(orders), "the revision to wait for the index")
        other.commit()

    assert_run_failed(run.ended(), 'relation "orders_amount" already exists')
    assert (index(orders) or ())[1:] == (True, "CREATE INDEX orders_amount ON public.orders USING btree (amount)")


# create_index_concurrently: timeouts, interruptions


def test_an_older_transaction_only_delays_it_beyond_lock_timeout(orders: Database, checkout: Checkout) -> None:
    checkout.add(INDEX)
    settings = replace(orders.settings, lock_timeout=100)
    with (
        another_session(orders, "a long import", "INSERT INTO orders (amount) VALUES (7)") as other,
        in_thread(lambda: command.upgrade(checkout.config(settings), "head")),
    ):
        try:
            wait_until(lambda: waits(orders), "the revision to wait")
            time.sleep(0.5)
            assert waits(orders), "it has given up"
        finally:
            other.commit()

    assert (index(orders) or ())[1] is True
    assert history_of(orders, checkout.head) == [(checkout.head, "applied")]


@pytest.mark.parametrize("how", ["SIGKILL", "pg_terminate_backend"])
def test_a_run_that_is_ended_within_concurrently_is_finished_by_the_next_one(
    orders: Database, checkout: Checkout, how: str
) -> None:
    at = checkout.head
    checkout.add(INDEX)
    with another_session(orders, "a long import", "INSERT INTO orders (amount) VALUES (7)"):
        run = checkout.start(orders, "upgrade", "head")
        backend = run.backend(orders, WAITS_IN_CONCURRENTLY)
        wait_until(lambda: index(orders), "the index to be begun")
        if how == "SIGKILL":
            run.process.kill()
        else:
            orders.query("SELECT pg_terminate_backend(%s)", [backend])
            assert_run_failed(run.ended(), "terminating connection due to administrator command")
            error = orders.value("SELECT error FROM mlops_internal.migration_history ORDER BY id DESC LIMIT 1")
            assert error is None or "terminating connection" in error
        if how != "SIGKILL" or orders.connection.info.server_version >= CHECKS_ITS_CLIENT_SINCE:
            wait_until(lambda: not waits(orders), "its backend's end")
            assert (index(orders) or ())[1] is False
    # An older server goes on with the statement of a client that is gone, and ends then.
    wait_until(lambda: not orders.query("SELECT FROM pg_stat_activity WHERE pid = %s", [backend]), "its backend's end")
    assert revision_of(orders) == at

    assert checkout.alembic(orders, "upgrade", "head").returncode == 0

    assert (index(orders) or ())[1] is True
    assert revision_of(orders) == checkout.head


SEEN = "INSERT INTO seen SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"


def test_the_timeouts_of_the_run_are_back_after_each_operation(orders: Database, checkout: Checkout) -> None:
    orders.query("CREATE TABLE seen (lock text, statement text)")
    orders.query("ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount > 0) NOT VALID")
    checkout.add("\n".join([sql(SEEN), INDEX, sql(SEEN)]))
    checkout.add("\n".join(['op.validate_constraint("positive", "orders")', sql(SEEN)]))
    checkout.add(sql(SEEN))

    done = checkout.alembic(orders, "-x", "lock-timeout=700ms", "-x", "statement-timeout=7s", "upgrade", "head")

    assert done.returncode == 0, done
    assert orders.query("TABLE seen") == [("700ms", "7s")] * 4


def test_the_timeouts_of_the_run_are_back_after_a_failure(orders: Database, checkout: Checkout) -> None:
    orders.query("CREATE TABLE seen (lock text, statement text)")
    duplicate(orders)
    body = f"""
        from sqlalchemy.exc import IntegrityError
        try:
            {UNIQUE}
        except IntegrityError:
            {sql(SEEN)}
    """
    checkout.add(body)

    command.upgrade(checkout.config(replace(orders.settings, lock_timeout=700, statement_timeout=7000)), "head")

    assert orders.query("TABLE seen") == [("700ms", "7s")]
    assert index(orders) is None


def test_its_own_timeout_ends_it_and_leaves_nothing_behind(orders: Database, checkout: Checkout) -> None:
    checkout.add(INDEX.replace('["amount"]', '["amount"], timeout="300ms"'))
    with another_session(orders, "a long import", "INSERT INTO orders (amount) VALUES (7)") as other:
        with pytest.raises(CommandError, match="statement timeout") as failed:
            command.upgrade(checkout.config(orders.settings), "head")
        other.rollback()

    assert isinstance(failed.value.__cause__, StatementFailedError)
    left = index(orders)
    assert left is None or not left[1], "an index that is not finished may stay, and must not look finished"


def test_a_caller_s_transaction_is_refused_for_it_with_the_reason(orders: Database, checkout: Checkout) -> None:
    """CREATE INDEX CONCURRENTLY cannot run in it, and a commit is not ours to make."""
    checkout.add(INDEX)
    config = checkout.config(orders.settings)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(orders.settings), poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        with pytest.raises(CommandError, match="transaction"):
            command.upgrade(config, "head")

    assert index(orders) is None


# validate_constraint


def test_validating_a_constraint_lifts_statement_timeout_and_keeps_lock_timeout(
    orders: Database, checkout: Checkout
) -> None:
    orders.query("CREATE TABLE seen (lock text, statement text)")
    orders.query(f"""
        CREATE FUNCTION looked_at(amount int) RETURNS bool LANGUAGE plpgsql AS $$
        BEGIN
            IF amount = 1 THEN {SEEN}; END IF;
            RETURN true;
        END $$;
        ALTER TABLE orders ADD CONSTRAINT looked CHECK (looked_at(amount)) NOT VALID
    """)
    checkout.add('op.validate_constraint("looked", "orders", timeout="5min")')

    command.upgrade(checkout.config(replace(orders.settings, lock_timeout=700)), "head")

    assert orders.query("TABLE seen") == [("700ms", "5min")]
    assert orders.value("SELECT convalidated FROM pg_constraint WHERE conname = 'looked'") is True


def test_a_row_that_breaks_the_constraint_fails_its_validation_and_changes_nothing(
    orders: Database, checkout: Checkout
) -> None:
    orders.query("ALTER TABLE orders ADD CONSTRAINT small CHECK (amount < 100) NOT VALID")
    checkout.add('op.validate_constraint("small", "orders")')

    assert_run_failed(checkout.alembic(orders, "upgrade", "head"), 'check constraint "small"', "violated by some row")

    assert orders.value("SELECT convalidated FROM pg_constraint WHERE conname = 'small'") is False
    assert history_of(orders, checkout.head) == [(checkout.head, "failed")]


# --sql


def test_a_script_of_both_makes_the_catalogue_of_the_online_run_and_leaves_its_timeouts(
    empty: Database, head: Database, checkout: Checkout
) -> None:
    checkout.add(
        sql(
            "CREATE TABLE orders (amount int)",
            "ALTER TABLE orders ADD CONSTRAINT positive CHECK (amount > 0) NOT VALID",
            "CREATE TABLE seen (lock text, statement text)",
        )
    )
    checkout.add(INDEX)
    checkout.add("\n".join(['op.validate_constraint("positive", "orders", timeout="1h")', sql(SEEN)]))
    settings = replace(empty.settings, lock_timeout=700, statement_timeout=7000)

    command.upgrade(checkout.config(replace(settings, database=head.settings.database)), "head")
    config = checkout.config(settings)
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    empty.psql(config.output_buffer.getvalue())

    assert empty.dump() == head.dump()
    assert empty.query("TABLE seen") == head.query("TABLE seen") == [("700ms", "7s")]
    assert empty.value("SELECT convalidated FROM pg_constraint WHERE conname = 'positive'") is True
    assert (index(empty) or ())[1] is True


def script(checkout: Checkout, database: Database, revisions: str) -> str:
    config = checkout.config(database.settings)
    config.output_buffer = io.StringIO()
    command.upgrade(config, revisions, sql=True)
    return config.output_buffer.getvalue()


def waits(database: Database) -> list[tuple[object, ...]]:
    """The backends of runs that wait for a lock."""
    return database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'mlops-db %' AND wait_event_type = 'Lock'"
    )


@contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread that ends with the block; raises what it raised."""
    failures: list[BaseException] = []

    def target() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failures.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failures:
        raise failures[0]


def test_rows_that_keep_all_rules_are_read_once(orders: Database, checkout: Checkout) -> None:
    checkout.add("""
        broken = {"too little": "amount < 0", "too much": "amount > 1000", "nobody": "customer IS NULL"}
        op.stop_if_broken("orders", broken, revision=revision)
        scans = "SELECT pg_stat_get_xact_numscans('public.orders'::regclass)"
        assert op.get_bind().exec_driver_sql(scans).scalar_one() == 1
    """)

    command.upgrade(checkout.config(orders.settings), "head")

    assert revision_of(orders) == checkout.head
