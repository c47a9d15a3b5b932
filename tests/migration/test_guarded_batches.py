"""Downgrades in batches, in production: the guard sees each batch, and measures only its rows."""

from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.util import CommandError

from support.batches import ADD_ONE, batches, changes, make_table, positions
from support.database import Database, revision_of
from support.projects import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

BOUND = "id > :after AND id <= :upto"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def downgrade(database: Database, checkout: Checkout, statement: str, **options: str) -> None:
    """Take back a revision whose downgrade runs a statement in batches, in production."""
    checkout.add("pass", batches(statement, **options))
    command.upgrade(checkout.config(database.settings), "head")
    config = checkout.config(replace(database.settings, environment="production"))
    command.downgrade(config, checkout.ids[-2])


def refusal(database: Database, checkout: Checkout, statement: str, **options: str) -> str:
    with pytest.raises(CommandError) as caught:
        downgrade(database, checkout, statement, **options)
    assert revision_of(database) == checkout.head
    return str(caught.value)


@pytest.fixture
def table(head: Database) -> Database:
    """With 5000 rows in t, an empty table of the same columns, and one of months."""
    make_table(head)
    head.query("""
        ALTER TABLE t ADD note text;
        UPDATE t SET note = 'note ' || id WHERE id > 4000;
        CREATE TABLE other (LIKE t INCLUDING ALL);
        CREATE TABLE months (id bigint NOT NULL, n int DEFAULT 0, month int NOT NULL) PARTITION BY LIST (month);
        CREATE INDEX ON months (id);
        CREATE TABLE month_1 PARTITION OF months FOR VALUES IN (1);
        CREATE TABLE month_2 PARTITION OF months FOR VALUES IN (2);
        INSERT INTO months SELECT n, 0, 1 FROM generate_series(1, 5000) AS n
    """)
    return head


def test_a_copy_is_no_loss(table: Database, checkout: Checkout) -> None:
    downgrade(table, checkout, f"INSERT INTO other SELECT * FROM t WHERE {BOUND}")
    assert table.value("SELECT count(*) FROM other") == 5000
    assert positions(table) == []


def test_values_that_stay_values_are_no_loss(table: Database, checkout: Checkout) -> None:
    downgrade(table, checkout, ADD_ONE)
    assert changes(table) == [(1, 5000)]


def test_a_batch_that_empties_values_is_refused_and_those_before_it_stay(table: Database, checkout: Checkout) -> None:
    message = refusal(table, checkout, f"UPDATE t SET n = n + 1, note = NULL WHERE {BOUND}")
    assert "this downgrade would lose" in message
    assert "of t.note" in message
    ((_, direction, done, _),) = positions(table)
    assert direction == "downgrade"
    assert 1000 <= done < 4001
    assert changes(table) == [(0, 5000 - done), (1, done)]
    assert table.value("SELECT count(note) FROM t") == 1000


def test_rows_that_are_deleted_are_a_loss(table: Database, checkout: Checkout) -> None:
    assert "would lose" in refusal(table, checkout, f"DELETE FROM t WHERE {BOUND}")
    assert changes(table) == [(0, 5000)]


def test_rows_that_move_by_a_trigger_are_no_loss(table: Database, checkout: Checkout) -> None:
    table.query("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO public.other VALUES (OLD.*); RETURN OLD; END';
        CREATE TRIGGER keep BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep()
    """)
    downgrade(table, checkout, f"DELETE FROM t WHERE {BOUND}")
    assert table.query("SELECT count(*) FROM t") == [(0,)]
    assert table.query("SELECT count(*), count(note) FROM other") == [(5000, 1000)]


@pytest.mark.parametrize(
    "condition", ["id <= :upto AND id > :after OR id = 5000", "id <= :upto AND (:after < 1500 OR true)"]
)
def test_a_batch_that_changes_more_than_its_rows_is_refused(
    table: Database, checkout: Checkout, condition: str
) -> None:
    message = refusal(table, checkout, f"UPDATE t SET n = n + 1 WHERE {condition}")
    assert "changes rows of t outside of the bounds of its batch in its downgrade" in message
    assert table.value("SELECT max(n) FROM t") <= 1


@pytest.mark.parametrize("change", ["n = n + 1", "month = 2", "n = n + 1, month = 2 - id % 2"])
def test_rows_that_move_to_another_partition(table: Database, checkout: Checkout, change: str) -> None:
    downgrade(table, checkout, f"UPDATE months SET {change} WHERE {BOUND}", table="months")
    assert table.value("SELECT count(*) FROM months") == 5000
    assert positions(table) == []


def test_a_batch_may_not_empty_another_table(table: Database, checkout: Checkout) -> None:
    table.query("INSERT INTO other SELECT * FROM t")
    message = refusal(
        table,
        checkout,
        f"UPDATE other SET note = NULL FROM t WHERE other.id = t.id AND t.{BOUND.replace('AND ', 'AND t.')}",
    )
    assert "of other.note" in message
    assert table.value("SELECT count(note) FROM other") == 1000


def test_a_batch_of_a_view(table: Database, checkout: Checkout) -> None:
    table.query("CREATE VIEW v AS SELECT id FROM t")
    downgrade(table, checkout, ADD_ONE, table="v")
    assert changes(table) == [(1, 5000)]
