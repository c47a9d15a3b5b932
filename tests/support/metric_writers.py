"""Writers of monitoring_metrics that go on while it is copied, and know what they committed."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from support.database import Database
from support.sessions import another_session

Row = tuple[Any, ...]  # timestamp in UTC as text, metric_type, metric_name, metric_value, model_name
COLUMNS = "timestamp::timestamp::text, metric_type, metric_name, metric_value, model_name"
# A statement fails if the run, or another writer's TRUNCATE, holds the table; if a month is gone; or if the table has
# another key by now. Then its transaction is rolled back.
EXPECTED = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidColumnReference,
    psycopg.errors.CheckViolation,  # a row that does not belong into the month
)
MOMENT = "date_trunc('second', now()) - (%s * interval '1 hour')"


@dataclass
class Writer:
    """A session that changes rows of its own, each in the transaction that is open or in one of its own.

    Attributes:
        name: part of the names of its metrics.
        session: its connection, in autocommit unless `BEGIN` was sent.
        committed: the rows of all writers by their ids.
        pending: what its transaction changed: rows by id, None for those that are gone.
    """

    name: str
    session: psycopg.Connection[Any]
    chance: random.Random
    committed: dict[int, Row]
    pending: dict[int, Row | None] = field(default_factory=dict)
    is_open: bool = False

    def mine(self) -> list[int]:
        """The ids of its rows, as its transaction sees them."""
        seen = self.committed | self.pending
        return [id_ for id_, row in seen.items() if row is not None and row[4] == self.name]

    def some(self, most: int = 5) -> list[int]:
        mine = self.mine()
        return self.chance.sample(mine, min(len(mine), self.chance.randint(1, most)))

    def act(self, action: Callable[["Writer"], None]) -> bool:
        """Do something; if it fails as expected, its transaction is rolled back. False if it had to wait too long."""
        try:
            action(self)
        except EXPECTED as error:
            self.rollback()
            return not isinstance(error, psycopg.errors.LockNotAvailable)
        if not self.is_open:
            self.apply()
        return True

    def apply(self) -> None:
        for id_, row in self.pending.items():
            if row is None:
                self.committed.pop(id_, None)
            else:
                self.committed[id_] = row
        self.pending.clear()

    def write(self, statement: str, *parameters: Any) -> None:
        """Run a statement whose RETURNING is appended, and note the rows."""
        for id_, *row in self.session.execute(f"{statement} RETURNING id, {COLUMNS}", parameters).fetchall():
            self.pending[id_] = tuple(row)

    def begin(self) -> None:
        if not self.is_open:
            self.session.execute("BEGIN")
            self.is_open = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Several statements together: in the open transaction, or in one of their own."""
        was_open = self.is_open
        self.begin()
        yield
        if not was_open:
            self.commit()

    def commit(self) -> None:
        if self.is_open:
            self.session.execute("COMMIT")
            self.is_open = False
            self.apply()

    def rollback(self) -> None:
        self.session.execute("ROLLBACK")
        self.is_open = False
        self.pending.clear()


def insert(writer: Writer) -> None:
    """Several rows of one statement."""
    rows = writer.chance.randint(1, 20)
    writer.write(
        "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, model_name)"
        f" SELECT {MOMENT.replace('%s', '(%s + n * 7)')}, 'drift', 'n' || n %% 3, n, %s"
        " FROM generate_series(1, %s) AS n",
        writer.chance.randint(-2000, 2000), writer.name, rows,
    )  # fmt: skip


def copy(writer: Writer) -> None:
    """Rows of COPY, with ids that it says."""
    ids = [
        writer.session.execute("SELECT nextval('monitoring_metrics_id_seq')").fetchone()[0]  # type: ignore[index]
        for _ in range(writer.chance.randint(1, 5))
    ]
    with writer.session.cursor().copy(
        "COPY monitoring_metrics (id, timestamp, metric_type, metric_name, metric_value, model_name) FROM STDIN"
    ) as rows:
        for id_ in ids:
            rows.write_row((id_, "2026-05-01 00:00:00", "drift", "copied", 0.5, writer.name))
    writer.pending |= dict.fromkeys(ids, ("2026-05-01 00:00:00", "drift", "copied", 0.5, writer.name))


def update_value(writer: Writer) -> None:
    writer.write(
        "UPDATE monitoring_metrics SET metric_value = metric_value + 0.5 WHERE model_name = %s AND id = ANY(%s)",
        writer.name, writer.some(),
    )  # fmt: skip


def update_timestamp(writer: Writer) -> None:
    """Also into another month."""
    writer.write(
        "UPDATE monitoring_metrics SET timestamp = timestamp + %s * interval '1 day'"
        " WHERE model_name = %s AND id = ANY(%s)",
        writer.chance.randint(-90, 90), writer.name, writer.some(),
    )  # fmt: skip


def update_series(writer: Writer) -> None:
    writer.write(
        "UPDATE monitoring_metrics SET metric_name = 'series' || id %% 7, metric_type = 'moved'"
        " WHERE model_name = %s AND id = ANY(%s)",
        writer.name, writer.some(),
    )  # fmt: skip


def update_id(writer: Writer) -> None:
    """The new id may be before or after the place where the copy is; it is one that nobody uses."""
    with writer.transaction():
        for old in writer.some(2):
            new = writer.session.execute("SELECT nextval('monitoring_metrics_id_seq')").fetchone()[0]  # type: ignore[index]
            if writer.chance.random() < 0.5:
                new = -new
            before = set(writer.pending)
            writer.write(
                "UPDATE monitoring_metrics SET id = %s WHERE model_name = %s AND id = %s", new, writer.name, old
            )
            if set(writer.pending) - before:
                writer.pending[old] = None


def delete(writer: Writer) -> None:
    gone = writer.session.execute(
        "DELETE FROM monitoring_metrics WHERE model_name = %s AND id = ANY(%s) RETURNING id",
        [writer.name, writer.some()],
    ).fetchall()
    writer.pending |= {id_: None for (id_,) in gone}


def upsert(writer: Writer) -> None:
    """ON CONFLICT with the key that the plain table has, or with that of the monthly one."""
    if mine := writer.some(1):
        (timestamp, metric_type, metric_name, _, model) = (writer.committed | writer.pending)[mine[0]]  # type: ignore[misc]
        key = "id" if writer.chance.random() < 0.5 else "model_name, metric_type, metric_name, timestamp, id"
        writer.write(
            "INSERT INTO monitoring_metrics AS m (id, timestamp, metric_type, metric_name, metric_value, model_name)"
            f" VALUES (%s, %s, %s, %s, 1, %s) ON CONFLICT ({key}) DO UPDATE SET metric_value = 77",
            mine[0], timestamp, metric_type, metric_name, model,
        )  # fmt: skip


def give_up(writer: Writer) -> None:
    """A savepoint that is rolled back, within a transaction that goes on."""
    with writer.transaction():
        kept = dict(writer.pending)
        writer.session.execute("SAVEPOINT here")
        insert(writer)
        update_id(writer)
        delete(writer)
        writer.session.execute("ROLLBACK TO here")
        writer.pending = kept


def truncate(writer: Writer) -> None:
    """TRUNCATE and new rows in one transaction; others hold no row then, because it locks the table."""
    writer.rollback()
    writer.begin()
    writer.session.execute("SET LOCAL lock_timeout = '100ms'; TRUNCATE monitoring_metrics")
    gone = list(writer.committed)
    writer.pending = dict.fromkeys(gone)
    insert(writer)
    if writer.chance.random() < 0.7:
        writer.commit()
    else:
        writer.rollback()


def is_month(writer: Writer, table: str) -> bool:
    """Whether a table is a partition of the table that everybody uses, and not of a copy."""
    parent = (
        "SELECT inhparent = 'public.monitoring_metrics'::regclass FROM pg_inherits WHERE inhrelid = to_regclass(%s)"
    )
    return writer.session.execute(parent, [table]).fetchone() == (True,)


def write_into_month(writer: Writer) -> None:
    """Rows of a month directly: inserted, changed and deleted."""
    month = "mlops_internal.monitoring_metrics_2026_05"
    with writer.transaction():
        if not is_month(writer, month):
            return
        writer.write(
            f"INSERT INTO {month} (timestamp, metric_type, metric_name, model_name)"
            " VALUES ('2026-05-02', 'drift', 'direct', %s)", writer.name,
        )  # fmt: skip
        writer.write(
            f"UPDATE {month} SET metric_value = 3 WHERE model_name = %s AND id = ANY(%s)", writer.name, writer.some()
        )
        gone = writer.session.execute(
            f"DELETE FROM {month} WHERE model_name = %s AND id = ANY(%s) RETURNING id", [writer.name, writer.some(1)]
        ).fetchall()
        writer.pending |= {id_: None for (id_,) in gone}


def truncate_month(writer: Writer) -> None:
    writer.rollback()
    writer.begin()
    writer.session.execute("SET LOCAL lock_timeout = '100ms'")
    month = "mlops_internal.monitoring_metrics_2026_05"
    writer.session.execute(f"LOCK TABLE {month} IN ACCESS EXCLUSIVE MODE")
    if not is_month(writer, month):
        writer.rollback()
        return
    gone = writer.session.execute(f"SELECT id FROM {month}").fetchall()
    writer.session.execute(f"TRUNCATE {month}")
    writer.pending = {id_: None for (id_,) in gone}
    writer.commit()


def replicate(writer: Writer) -> None:
    """Turn to applying rows as logical replication does, or back: ordinary triggers do not see these rows."""
    role = writer.chance.choice(["replica", "origin"])
    writer.session.execute(f"SET session_replication_role = {role}")


ACTIONS: dict[Callable[[Writer], None], int] = {
    insert: 6, copy: 2, update_value: 5, update_timestamp: 4, update_series: 3, update_id: 3, delete: 4, upsert: 3,
    give_up: 2, replicate: 1, write_into_month: 3, Writer.begin: 5, Writer.commit: 6, Writer.rollback: 1,
}  # fmt: skip
RARE = (truncate, truncate_month)


@dataclass
class Writers:
    """Writers that take turns, by chance."""

    all: list[Writer]
    chance: random.Random
    truncates: float = 0.0

    def turn(self) -> None:
        """Let one of them do something. If it waits, the run may wait for another one of them: then all commit."""
        writer = self.chance.choice(self.all)
        if self.chance.random() < self.truncates:
            action = self.chance.choice(RARE)
        else:
            action = self.chance.choices(list(ACTIONS), list(ACTIONS.values()))[0]
        if not writer.act(action):
            self.finish()

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn()

    def finish(self) -> dict[int, Row]:
        """Let all commit; returns the rows that have to be there."""
        for writer in self.all:
            writer.commit()
        return self.all[0].committed


@contextmanager
def writers(database: Database, seed: int, *, truncates: float = 0.0, count: int = 3) -> Iterator[Writers]:
    """Writers on an empty or filled table, whose rows of others they never touch."""
    chance = random.Random(seed)  # noqa: S311  (deeds, not secrets)
    committed = rows_of(database)
    with ExitStack() as sessions:
        made: list[Writer] = []
        for number in range(count):
            session = sessions.enter_context(another_session(database, f"writer {number}"))
            session.autocommit = True
            session.prepare_threshold = None  # the plan of a prepared SELECT or RETURNING does not survive new types
            session.execute("SET lock_timeout = '100ms'; SET timezone = 'UTC'")
            made.append(Writer(f"w{number}", session, chance, committed))
        yield Writers(made, chance, truncates)


def rows_of(database: Database) -> dict[int, Row]:
    """What the table has."""
    database.query("SET timezone = 'UTC'")
    # Not prepared: the plan of a prepared SELECT does not survive new types.
    found = database.connection.execute(f"SELECT id, {COLUMNS} FROM monitoring_metrics", prepare=False).fetchall()
    rows = {id_: tuple(row) for id_, *row in found}
    assert len(rows) == len(found), "ids repeat"
    return rows
