"""`op.create_index_concurrently` on a partitioned table."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError

from mlops_db.errors import RefusedError
from support.database import Database, history_of, revision_of
from support.process import assert_run_failed
from support.projects import Checkout
from support.sessions import CHECKS_ITS_CLIENT_SINCE, another_session, wait_until

pytestmark = pytest.mark.libraries

INDEX = 'op.create_index_concurrently("orders_amount", "orders", ["amount"])'
UNIQUE = 'op.create_index_concurrently("orders_amount", "orders", ["amount", "month"], unique=True)'
WAITS_IN_CONCURRENTLY = "CREATE INDEX CONCURRENTLY%"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def orders(head: Database) -> Database:
    """A database at head with a partitioned table of its own, which test revisions index."""
    head.query("""
        CREATE SCHEMA "The Months";
        CREATE TABLE orders (month int, amount int, customer text) PARTITION BY LIST (month);
        CREATE TABLE month_1 PARTITION OF orders FOR VALUES IN (1);
        CREATE TABLE "The Months"."Month 2" PARTITION OF orders FOR VALUES IN (2);
        CREATE TABLE month_3 PARTITION OF orders FOR VALUES IN (3);
        INSERT INTO orders SELECT 1 + n % 3, n, 'customer ' || n % 7 FROM generate_series(1, 90) AS n
    """)
    return head


def indexes(database: Database, table: str = "orders") -> dict[str, tuple[str, int, bool]]:
    """The definition of each index of the table and its partitions: its table, oid, and whether it is valid."""
    found = database.query(
        "SELECT pg_get_indexdef(indexrelid), indrelid::regclass::text, indexrelid::int, indisvalid FROM pg_index"
        " WHERE indrelid = %(table)s::regclass"
        "    OR indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass)",
        {"table": table},
    )
    return {definition: tuple(rest) for definition, *rest in found}  # type: ignore[misc]


def attached(database: Database, name: str = "orders_amount") -> dict[str, int]:
    """The tables whose indexes are attached to the index, and these."""
    return dict(
        database.query(
            "SELECT i.indrelid::regclass::text, i.indexrelid::int FROM pg_inherits JOIN pg_index AS i ON"
            " i.indexrelid = inhrelid WHERE inhparent = to_regclass(%s)",
            [name],
        )
    )


def valid(database: Database, name: str = "orders_amount") -> bool | None:
    rows = database.query("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [name])
    return rows[0][0] if rows else None


def waits(database: Database) -> list[tuple[object, ...]]:
    """The backends of runs that wait for a lock."""
    return database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'mlops-db %' AND wait_event_type = 'Lock'"
    )


ALL = {"month_1", '"The Months"."Month 2"', "month_3"}
# name: (the arguments of the operation, CREATE INDEX without a name)
KINDS = {
    "plain": ('["amount"]', "(amount)"),
    "only one": ('["amount", "month"], unique=True', "(amount, month)"),
    "partial": (
        '[sa.text("lower(customer) DESC")], where="customer LIKE \'%1\' AND amount > 5"',
        "(lower(customer) DESC) WHERE customer LIKE '%1' AND amount > 5",
    ),
    "method": (
        '["month"], postgresql_using="brin", postgresql_with={"pages_per_range": 32}',
        "USING brin (month) WITH (pages_per_range = 32)",
    ),
    "including": ('["month"], postgresql_include=["amount"]', "(month) INCLUDE (amount)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["online", "script"])
@pytest.mark.parametrize("name", KINDS)
def test_they_are_the_indexes_that_postgresql_would_create(
    orders: Database, checkout: Checkout, name: str, how: str
) -> None:
    arguments, definition = KINDS[name]
    orders.query(f'CREATE {"UNIQUE" * (name == "only one")} INDEX "{name}" ON orders {definition}')
    expected = indexes(orders)
    orders.query(f'DROP INDEX "{name}"')
    assert indexes(orders) == {}
    checkout.add(f'op.create_index_concurrently("{name}", "orders", {arguments}, schema="public")')

    if how == "online":
        command.upgrade(checkout.config(orders.settings), "head")
    else:
        orders.psql(script(checkout, orders))

    created = indexes(orders)
    assert {name: (table, valid) for name, (table, _, valid) in created.items()} == {
        name: (table, True) for name, (table, _, _) in expected.items()
    }
    assert attached(orders, f'"{name}"').keys() == ALL


@pytest.mark.parametrize("how", ["online", "script"])
def test_running_it_again_keeps_what_is_there_and_builds_what_is_missing(
    orders: Database, checkout: Checkout, how: str
) -> None:
    """As a run leaves it that was stopped after the first partition."""
    orders.query("""
        CREATE INDEX orders_amount ON ONLY orders (amount);
        CREATE INDEX month_1_amount_idx ON month_1 (amount);
        ALTER INDEX orders_amount ATTACH PARTITION month_1_amount_idx
    """)
    kept = attached(orders)
    orders.query("CREATE INDEX by_hand ON month_3 (amount); CREATE INDEX another ON month_3 (amount DESC)")
    leave_invalid(orders)
    checkout.add(INDEX)

    if how == "online":
        command.upgrade(checkout.config(orders.settings), "head")
    else:
        orders.psql(script(checkout, orders))

    assert valid(orders) is True
    assert attached(orders).keys() == ALL
    assert attached(orders).items() > kept.items()
    assert "by_hand" in {row[0].rpartition(".")[2] for row in names(orders, attached(orders))}
    assert orders.query("SELECT FROM pg_index WHERE NOT indisvalid") == []
    before = indexes(orders)
    assert len(before) == 1 + 3 + 1

    command.downgrade(checkout.config(orders.settings), checkout.ids[-2])  # which leaves them there
    command.upgrade(checkout.config(orders.settings), "head")
    assert indexes(orders) == before


def names(database: Database, oids: dict[str, int]) -> list[tuple[str]]:
    return database.query("SELECT oid::regclass::text FROM pg_class WHERE oid = ANY (%s)", [list(oids.values())])


def leave_invalid(database: Database) -> None:
    """Leave indexes of two months as CREATE INDEX CONCURRENTLY leaves one that fails."""
    for table in ('"The Months"."Month 2"', "month_3"):
        database.query(f"CREATE INDEX left_over ON {table} (amount)")
    database.query(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid IN (SELECT oid FROM pg_class WHERE relname = 'left_over')"
    )


@pytest.mark.slow
def test_the_index_of_a_constraint_is_not_taken(orders: Database, checkout: Checkout) -> None:
    orders.query("ALTER TABLE month_1 ADD CONSTRAINT one UNIQUE (amount, month)")
    checkout.add(UNIQUE)

    command.upgrade(checkout.config(orders.settings), "head")

    assert valid(orders) is True
    assert ("one",) not in names(orders, attached(orders))
    orders.query("ALTER TABLE month_1 DROP CONSTRAINT one")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["online", "script"])
def test_the_default_tablespace_may_be_the_database_s_own(orders: Database, checkout: Checkout, how: str) -> None:
    """PostgreSQL itself refuses it for what is partitioned."""
    orders.query(f'ALTER DATABASE "{orders.settings.database}" SET default_tablespace = pg_default')
    checkout.add(INDEX)

    if how == "online":
        command.upgrade(checkout.config(orders.settings), "head")
    else:
        orders.psql(script(checkout, orders))

    assert valid(orders) is True
    assert attached(orders).keys() == ALL
    orders.query(f'ALTER DATABASE "{orders.settings.database}" RESET default_tablespace')


@pytest.mark.slow
def test_a_table_without_partitions_has_its_index_at_once(orders: Database, checkout: Checkout) -> None:
    orders.query('DROP TABLE month_1, "The Months"."Month 2", month_3')
    checkout.add(INDEX)

    command.upgrade(checkout.config(orders.settings), "head")
    orders.query("CREATE TABLE month_4 PARTITION OF orders FOR VALUES IN (4)")

    assert valid(orders) is True
    assert attached(orders).keys() == {"month_4"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "pg_terminate_backend"])
def test_a_run_that_is_ended_is_finished_by_the_next_one_and_keeps_no_writer_waiting(
    orders: Database, checkout: Checkout, how: str
) -> None:
    at = checkout.head
    checkout.add(INDEX)
    with another_session(orders, "a long import", "INSERT INTO month_1 VALUES (1, 7)"):
        run = checkout.start(orders, "upgrade", "head")
        backend = run.backend(orders, WAITS_IN_CONCURRENTLY)
        wait_until(lambda: waits(orders), "the revision to wait for the import")
        orders.query("SET lock_timeout = '1s'; INSERT INTO orders SELECT n, n FROM generate_series(1, 3) AS n")
        orders.query(
            "CREATE TABLE month_4 (LIKE orders); ALTER TABLE orders ATTACH PARTITION month_4 FOR VALUES IN (4)"
        )
        assert "month_4" in attached(orders), "a new partition has its index from the beginning"
        if how == "SIGKILL":
            run.process.kill()
        else:
            orders.query("SELECT pg_terminate_backend(%s)", [backend])
            assert_run_failed(run.ended(), "terminating connection due to administrator command")
        if how != "SIGKILL" or orders.connection.info.server_version >= CHECKS_ITS_CLIENT_SINCE:
            wait_until(lambda: not waits(orders), "its backend's end")
            assert valid(orders) is False
    # An older server goes on with the statement of a client that is gone, and ends then.
    wait_until(lambda: not orders.query("SELECT FROM pg_stat_activity WHERE pid = %s", [backend]), "its backend's end")
    kept = attached(orders)
    assert revision_of(orders) == at

    assert checkout.alembic(orders, "upgrade", "head").returncode == 0

    assert valid(orders) is True
    assert attached(orders).keys() == {*ALL, "month_4"}
    assert attached(orders).items() > kept.items()
    assert orders.query("SELECT FROM pg_index WHERE NOT indisvalid") == []
    assert revision_of(orders) == checkout.head


@pytest.mark.slow
def test_a_reader_of_a_partition_only_delays_it(orders: Database, checkout: Checkout) -> None:
    """ATTACH PARTITION needs the index for itself, for a moment."""
    orders.query("CREATE INDEX by_hand ON month_1 (amount)")
    checkout.add(INDEX)
    config = checkout.config(replace(orders.settings, lock_timeout=100))
    config.attributes["progress"] = progress = io.StringIO()
    with (
        ThreadPoolExecutor(1) as thread,
        another_session(orders, "a report", "SELECT FROM month_1 WHERE amount = 7") as report,
    ):
        run = thread.submit(command.upgrade, config, "head")
        wait_until(lambda: run.done() or "blocked by pid" in progress.getvalue(), "the revision to name the report")
        report.rollback()
        run.result()

    assert "blocked by pid" in progress.getvalue()
    assert valid(orders) is True
    assert history_of(orders, checkout.head) == [(checkout.head, "applied")]


@pytest.mark.slow
def test_a_unique_index_whose_rows_are_not_unique_is_built_after_they_are_corrected(
    orders: Database, checkout: Checkout
) -> None:
    orders.query("INSERT INTO orders VALUES (3, 0), (3, 0)")
    checkout.add(UNIQUE)

    assert_run_failed(checkout.alembic(orders, "upgrade", "head"), "could not create unique index")
    assert valid(orders) is False
    assert attached(orders).keys() == ALL - {"month_3"}
    assert len(indexes(orders)) == 3, "what is invalid on a partition is dropped"

    orders.query("DELETE FROM orders WHERE amount = 0")
    command.upgrade(checkout.config(orders.settings), "head")
    assert valid(orders) is True


@pytest.mark.slow
def test_a_unique_index_without_the_partition_key_is_postgresql_s_to_refuse(
    orders: Database, checkout: Checkout
) -> None:
    checkout.add(INDEX.replace("])", "], unique=True)"))
    with pytest.raises(CommandError, match="must include all partitioning columns"):
        command.upgrade(checkout.config(orders.settings), "head")
    assert indexes(orders) == {}


DIVIDED = """
CREATE TABLE month_4 PARTITION OF orders FOR VALUES IN (4) PARTITION BY LIST (amount);
CREATE TABLE month_5 PARTITION OF orders FOR VALUES IN (5) PARTITION BY LIST (amount)
"""


@pytest.mark.slow
def test_partitions_with_partitions_are_refused_before_anything_is_created(
    orders: Database, checkout: Checkout
) -> None:
    orders.query(DIVIDED)
    checkout.add(INDEX)

    with pytest.raises(CommandError, match="no plain tables: month_4, month_5") as failed:
        command.upgrade(checkout.config(orders.settings), "head")
    with pytest.raises(AssertionError, match="no plain tables: month_4, month_5"):
        orders.psql(script(checkout, orders))

    assert isinstance(failed.value.__cause__, RefusedError)
    assert indexes(orders) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "there",
    [
        "CREATE INDEX orders_amount ON orders (amount DESC)",
        "CREATE INDEX orders_amount ON ONLY orders (amount DESC)",
        "CREATE TABLE others (amount int); CREATE INDEX orders_amount ON others (amount)",
    ],
)
def test_another_index_under_the_name_is_refused_and_left_alone(
    orders: Database, checkout: Checkout, there: str
) -> None:
    orders.query(there)
    before, at = indexes(orders), checkout.head
    checkout.add(INDEX)

    with pytest.raises(CommandError, match=r"index orders_amount should be btree \(amount\) on orders, and is"):
        command.upgrade(checkout.config(orders.settings), "head")

    assert indexes(orders) == before
    assert revision_of(orders) == at


def test_a_guarded_downgrade_builds_it_and_its_timeouts_are_those_of_the_run(
    orders: Database, checkout: Checkout
) -> None:
    seen = "INSERT INTO seen SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    orders.query("CREATE TABLE seen (lock text, statement text)")
    checkout.add("pass", f'{INDEX}\nop.execute("{seen}")')
    settings = replace(orders.settings, environment="production", lock_timeout=700, statement_timeout=7000)
    command.upgrade(checkout.config(settings), "head")

    command.downgrade(checkout.config(settings), "-1")

    assert valid(orders) is True
    assert attached(orders).keys() == ALL
    assert orders.query("TABLE seen") == [("700ms", "7s")]


def script(checkout: Checkout, database: Database) -> str:
    config = checkout.config(database.settings)
    config.output_buffer = io.StringIO()
    command.upgrade(config, f"{checkout.ids[-2]}:head", sql=True)
    return config.output_buffer.getvalue()
