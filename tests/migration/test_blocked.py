"""A revision that cannot have its lock, or fails: how often it is tried, what is said, and what stays."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from support.database import Database, history_of, revision_of
from support.process import assert_run_failed
from support.projects import Checkout, sql
from support.sessions import another_session

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

LOCK_TIMEOUT_S = 0.3
HELD = ("SELECT 'a query with data in it' FROM orders",)
# What a blocked try says; the order is: pid, application, state, age of its transaction, relation.
BLOCKED = (
    r"blocked by pid {pid} \(the nightly report, idle in transaction, in a transaction for [\d.]+ s\) on orders{query}"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def orders(head: Database) -> Database:
    """A database at head with a table of its own, which test revisions alter."""
    head.query("CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, amount int)")
    head.query("INSERT INTO orders (amount) VALUES (1)")
    return head


def columns_of_orders(database: Database) -> list[str]:
    return [
        name
        for (name,) in database.query(
            "SELECT attname FROM pg_attribute"
            " WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
    ]


def errors_of(database: Database, revision: str) -> list[tuple[str | None, str | None]]:
    """(outcome, first line of the error) of every try of a revision."""
    return database.query(
        "SELECT outcome, split_part(error, E'\\n', 1) FROM mlops_internal.migration_history"
        " WHERE revision = %s ORDER BY id",
        [revision],
    )


# Blocked for a while


def test_a_revision_that_is_blocked_for_a_while_is_tried_again_and_those_before_it_are_not(
    orders: Database, checkout: Checkout
) -> None:
    first = checkout.add(sql("CREATE TABLE before_it (id int)"))
    blocked = checkout.add(sql("CREATE TABLE with_it (id int)", "ALTER TABLE orders ADD COLUMN note text"))
    last = checkout.add(sql("CREATE TABLE after_it (id int)"))

    with another_session(orders, "the nightly report", *HELD) as other:
        run = checkout.start(
            orders, "-x", f"lock-timeout={LOCK_TIMEOUT_S * 1000:g}ms", "-x", "retry-for=1min", "upgrade", "head"
        )
        run.wait_for_output("no lock, blocked by pid")
        pid = other.info.backend_pid
        other.rollback()
    done = run.ended()

    assert done.returncode == 0, done
    assert re.search(f"^no lock, {BLOCKED.format(pid=pid, query='')}; next try in ", done.stderr, re.MULTILINE), done
    assert revision_of(orders) == last
    assert columns_of_orders(orders) == ["id", "amount", "note"]
    entries = history_of(orders, *checkout.ids[-3:])
    tries = entries.count((blocked, "failed"))
    assert tries >= 1
    assert entries == [(first, "applied"), *[(blocked, "failed")] * tries, (blocked, "applied"), (last, "applied")]


def test_a_blocker_s_query_is_shown_on_request(orders: Database, checkout: Checkout) -> None:
    checkout.add(sql("ALTER TABLE orders ADD COLUMN note text"))

    with another_session(orders, "the nightly report", *HELD) as other:
        with_query = BLOCKED.format(pid=other.info.backend_pid, query=f": {HELD[0]}")
        done = checkout.alembic(
            orders, "-x", "show-queries=true", "-x", "retry-for=5s", "-x", "lock-timeout=1s", "upgrade", "head"
        )

    assert re.search(f"no lock, {with_query}; next try", done.stderr), done
    assert re.search(with_query, done.stdout), done


@pytest.mark.parametrize("command", ["upgrade", "downgrade"])
def test_a_relative_target_stays_where_it_was_when_a_later_step_is_tried_again(
    orders: Database, checkout: Checkout, command: str
) -> None:
    alter = sql("ALTER TABLE orders ALTER COLUMN amount SET DEFAULT 0")
    start = checkout.head
    first, second, third = (checkout.add(*bodies) for bodies in (("pass", "pass"), (alter, alter), ("pass", "pass")))
    steps, path = "+2", (start, first, second)
    if command == "downgrade":
        assert checkout.alembic(orders, "upgrade", "head").returncode == 0
        steps, path = "-2", (third, second, first)

    with another_session(orders, "the nightly report", *HELD) as other:
        run = checkout.start(orders, "-x", "lock-timeout=100ms", command, steps)
        run.wait_for_output("no lock, blocked by")
        assert revision_of(orders) == path[1], "the second step is the one that is blocked"
        other.rollback()

    assert run.ended().returncode == 0
    assert revision_of(orders) == path[2]


# Blocked for too long


def test_a_revision_that_is_blocked_for_too_long_fails_with_the_name_of_its_blocker(
    orders: Database, checkout: Checkout
) -> None:
    kept = checkout.add(sql("CREATE TABLE before_it (id int)"))
    blocked = checkout.add(sql("CREATE TABLE with_it (id int)", "ALTER TABLE orders ADD COLUMN note text"))

    with another_session(orders, "the nightly report", *HELD) as other:
        pid = other.info.backend_pid
        done = checkout.alembic(orders, "-x", "retry-for=3s", "-x", "lock-timeout=1s", "upgrade", "head")

    assert_run_failed(done, "no lock after", "the step was rolled back, those before it are done", "retry-for")
    assert re.search(BLOCKED.format(pid=pid, query=""), done.stdout), done
    assert "data in it" not in done.stdout + done.stderr, "a query is shown on request only"
    assert revision_of(orders) == kept
    assert columns_of_orders(orders) == ["id", "amount"]
    assert orders.value("SELECT to_regclass('with_it')") is None
    tries = errors_of(orders, blocked)
    assert len(tries) >= 2
    assert tries == [("failed", "canceling statement due to lock timeout")] * len(tries)
    assert f"no lock after {len(tries)} tries" in done.stdout

    assert checkout.alembic(orders, "upgrade", "head").returncode == 0
    assert history_of(orders, kept, blocked) == [
        (kept, "applied"),
        *[(blocked, "failed")] * len(tries),
        (blocked, "applied"),
    ]


def test_others_wait_no_longer_than_lock_timeout_for_a_revision_that_is_blocked(
    orders: Database, checkout: Checkout, capsys: pytest.CaptureFixture[str]
) -> None:
    """A promise of the run's; up to five measurements, because a busy machine can add to one."""
    checkout.add(sql("ALTER TABLE orders ADD COLUMN note text"))
    stalls = []
    for _ in range(10):
        with (
            another_session(orders, "the nightly report", *HELD),
            longest_wait(orders, "SELECT count(*) FROM orders") as reading,
            longest_wait(orders, "INSERT INTO orders (amount) VALUES (2)") as writing,
        ):
            done = checkout.alembic(
                orders, "-x", "retry-for=2s", "-x", f"lock-timeout={LOCK_TIMEOUT_S * 1000:g}ms", "upgrade", "head"
            )
        assert_run_failed(done, "no lock after")
        if min(reading[0], writing[0]) <= LOCK_TIMEOUT_S / 2:
            continue
        stalls.append(max(reading[0], writing[0]))
        with capsys.disabled():
            print(f"\nlongest stall of a read {reading[0] * 1000:.0f} ms, of a write {writing[0] * 1000:.0f} ms")  # noqa: T201  (the figure is wanted)
        if stalls[-1] <= LOCK_TIMEOUT_S + 0.2 or len(stalls) == 5:
            break
    assert stalls, "nobody queued behind the revision: nothing measured"
    assert min(stalls) <= LOCK_TIMEOUT_S + 0.2


@contextmanager
def longest_wait(database: Database, statement: str) -> Iterator[list[float]]:
    """Run a small statement over and over; yields a list that holds the longest one's seconds after the block."""
    longest = [0.0]
    failures: list[psycopg.Error] = []
    over = threading.Event()

    def work() -> None:
        with another_session(database, "the application") as session:
            session.rollback()
            session.autocommit = True
            while not over.is_set():
                begun = time.perf_counter()
                try:
                    session.execute(statement)
                except psycopg.Error as error:
                    failures.append(error)
                    return
                longest[0] = max(longest[0], time.perf_counter() - begun)
                time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield longest
    finally:
        over.set()
        thread.join()
    assert failures == []


# Deadlock


def test_a_deadlock_is_tried_again(orders: Database, checkout: Checkout) -> None:
    orders.query("CREATE TABLE parts (id int); CREATE SCHEMA test; CREATE TABLE test.rival (done bool)")
    # Goes on when the rival waits for orders, which makes the deadlock, or when the rival is through.
    revision = checkout.add(
        sql(
            "LOCK TABLE orders",
            """DO $$ BEGIN
                WHILE NOT EXISTS (SELECT FROM test.rival)
                  AND NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'public.orders'::regclass)
                LOOP PERFORM pg_sleep(0.02); END LOOP;
            END $$""",
            "ALTER TABLE parts ADD COLUMN note text",
        )
    )

    # Both would see the deadlock after a second; with this, the revision is the one that sees it.
    with another_session(orders, "the rival", "SET LOCAL deadlock_timeout = '1min'", "LOCK TABLE parts") as rival:
        run = checkout.start(orders, "-x", "lock-timeout=20s", "upgrade", "head")
        run.backend(orders, "DO %test.rival%")
        rival.execute("LOCK TABLE orders")
        rival.execute("INSERT INTO test.rival VALUES (true)")
    done = run.ended()

    assert done.returncode == 0, done
    assert revision_of(orders) == revision
    assert errors_of(orders, revision) == [("failed", "deadlock detected"), ("applied", None)]


# Failures that trying again does not mend


def test_a_statement_that_takes_too_long_fails_and_a_later_run_with_more_time_succeeds(
    head: Database, checkout: Checkout
) -> None:
    revision = checkout.add(sql("CREATE TABLE half_done (id int)", "SELECT pg_sleep(1.2)"))

    done = checkout.alembic(head, "-x", "statement-timeout=1s", "-x", "lock-timeout=500ms", "upgrade", "head")

    assert_run_failed(done, "canceling statement due to statement timeout", "-x statement-timeout=")
    assert head.value("SELECT to_regclass('half_done')") is None
    assert errors_of(head, revision) == [("failed", "canceling statement due to statement timeout")]

    assert checkout.alembic(head, "-x", "statement-timeout=10s", "upgrade", "head").returncode == 0
    assert revision_of(head) == revision


def test_a_revision_that_fails_half_way_is_reported_in_two_lines_and_reverts_only_itself(
    head: Database, checkout: Checkout
) -> None:
    kept = checkout.add(sql("CREATE TABLE kept (id int)"))
    bad = checkout.add(sql("CREATE TABLE half_done (id int)", "INSERT INTO half_done VALUES (1)", "SELECT 1/0"))
    never = checkout.add(sql("CREATE TABLE never (id int)"))

    assert_run_failed(checkout.alembic(head, "upgrade", "head"), "division by zero", "22012")

    assert revision_of(head) == kept
    assert head.query("SELECT to_regclass('kept')::text, to_regclass('half_done'), to_regclass('never')") == [
        ("kept", None, None)
    ]
    assert errors_of(head, bad) == [("failed", "division by zero")]
    assert history_of(head, kept, never) == [(kept, "applied")]


def test_a_revision_that_refuses_by_itself_is_recorded_as_failed(head: Database, checkout: Checkout) -> None:
    """A revision imports nothing of ours: what it raises is Alembic's CommandError."""
    bad = checkout.add("from alembic.util import CommandError\nraise CommandError('3 rows have no score')")

    done = checkout.alembic(head, "upgrade", "head")

    assert done.returncode != 0
    assert "FAILED: 3 rows have no score" in done.stdout
    assert errors_of(head, bad) == [("failed", "3 rows have no score")]
