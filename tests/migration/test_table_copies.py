"""Tables that are copied while others use them: what a guarded downgrade may do to them, and what it may not."""

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import DataLossError
from mlops_db.migration.guard.sql_losses import find_losses
from mlops_db.server.connection import connect
from support.database import Database
from support.projects import Checkout, sql
from support.roles import owner, role, session
from support.stopped import contents

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

# `t` has five rows, as its copy `t_copy`; one of them has two partitions. The log `t_changes` is empty.
TABLES = {
    "plain": "CREATE TABLE t (id int, note text);"
    "CREATE TABLE t_copy (id bigint, note text) PARTITION BY RANGE (id);"
    "CREATE TABLE t_part1 PARTITION OF t_copy FOR VALUES FROM (MINVALUE) TO (3);"
    "CREATE TABLE t_part2 PARTITION OF t_copy FOR VALUES FROM (3) TO (MAXVALUE)",
    "partitioned": "CREATE TABLE t (id bigint, note text) PARTITION BY RANGE (id);"
    "CREATE TABLE t_part1 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (3);"
    "CREATE TABLE t_part2 PARTITION OF t FOR VALUES FROM (3) TO (MAXVALUE);"
    "CREATE TABLE t_copy (id int, note text)",
}
REGISTER = """
CREATE TABLE mlops_internal.table_copies (
    source oid PRIMARY KEY, copy oid, changes oid, source_rows bigint, copy_rows bigint)
"""
REGISTERED = """
INSERT INTO mlops_internal.table_copies
VALUES ('public.t'::regclass, 'public.t_copy'::regclass, 'public.t_changes'::regclass, 5, 5)
"""
ROWS = "INSERT INTO t SELECT n, 'note ' || n FROM generate_series(1, 5) AS n; INSERT INTO t_copy TABLE t"
HALF_FILLED = """
DELETE FROM t_copy WHERE id > 2;
INSERT INTO t_changes SELECT generate_series(2, 5);
UPDATE mlops_internal.table_copies SET source_rows = NULL, copy_rows = NULL
"""
NOT_COUNTED = "UPDATE mlops_internal.table_copies SET {} = NULL"
SWAP = [
    "LOCK TABLE public.t IN ACCESS EXCLUSIVE MODE",
    "DROP TABLE public.t",
    "ALTER TABLE public.t_copy RENAME TO t",
    "DROP TABLE public.t_changes",
    "DELETE FROM mlops_internal.table_copies",
]
CANCEL = ["DROP TABLE public.t_copy", "DROP TABLE public.t_changes", "DROP TABLE mlops_internal.table_copies"]
REPLAY = [
    "DELETE FROM public.t_copy WHERE id IN (SELECT id FROM public.t_changes)",
    "INSERT INTO public.t_copy SELECT * FROM public.t WHERE id IN (SELECT id FROM public.t_changes)",
    "UPDATE public.t_copy SET note = NULL WHERE id = 4",
    "UPDATE mlops_internal.table_copies SET source_rows = 5, copy_rows = 5",
    "DELETE FROM public.t_changes",
]


def unseen(*statements: str) -> str:
    """Statements in one block, which is not to be read in the text."""
    return f"DO $do$ BEGIN {' '.join(f'EXECUTE $${statement}$$;' for statement in statements)} END $do$"


# (what happened before, the downgrade)
HARMLESS = {
    "a half-filled copy goes": (HALF_FILLED, CANCEL),
    "a half-filled copy goes, unseen": (HALF_FILLED, [unseen(*CANCEL)]),
    "a copy and its log are emptied": (HALF_FILLED, ["TRUNCATE public.t_copy", "TRUNCATE public.t_changes"]),
    "a partition or a column of the copy": (HALF_FILLED, ["ALTER TABLE public.t_copy DROP COLUMN note"]),
    "the log is replayed": (HALF_FILLED, REPLAY),
    "the register is emptied, and filled": (
        "",
        ["TRUNCATE mlops_internal.table_copies", REGISTERED, "UPDATE mlops_internal.table_copies SET copy_rows = 0"],
    ),
    "the names are swapped": ("", SWAP),
    "the names are swapped, unseen": ("", [unseen(*SWAP), unseen("DROP TABLE mlops_internal.table_copies")]),
    "the names are swapped after a last replay": (HALF_FILLED, [*REPLAY, *SWAP]),
    "a savepoint brings the register back": (
        HALF_FILLED, ["SAVEPOINT a", "DELETE FROM mlops_internal.table_copies", "ROLLBACK TO SAVEPOINT a", *CANCEL],
    ),
    "the names of empty tables are swapped": (
        "TRUNCATE t; TRUNCATE t_copy; UPDATE mlops_internal.table_copies SET source_rows = 0, copy_rows = 0", SWAP,
    ),
}  # fmt: skip
DROP = unseen("DROP TABLE public.t")
# (what happened before, the downgrade, what it would lose)
LOSSES = {
    "the numbers differ": (
        "UPDATE mlops_internal.table_copies SET copy_rows = 4",
        SWAP,
        "rows of t, of which 5 were counted, and 4 in its copy",
    ),
    "the copy is not counted": (NOT_COUNTED.format("copy_rows"), SWAP, "rows of t, which were not counted"),
    "the source is not counted": (NOT_COUNTED.format("source_rows"), SWAP, "rows of t, which were not counted"),
    "the numbers are those of empty tables": (
        "UPDATE mlops_internal.table_copies SET source_rows = 0, copy_rows = 0",
        SWAP,
        "rows of t, of which 0 were counted",
    ),
    "the copy is empty": ("TRUNCATE t_copy", SWAP, "rows of t, whose copy has none"),
    "a change is not replayed": ("INSERT INTO t_changes VALUES (1)", SWAP, "rows of t, whose copy lacks changes"),
    "the log went first": ("", ["DROP TABLE public.t_changes", DROP], "rows of t, whose copy has no log"),
    "the copy lacks a column": (
        "ALTER TABLE t_copy DROP COLUMN note", SWAP, "rows of t, whose copy lacks column note",
    ),
    "the source goes with its copy": ("", [unseen("DROP TABLE public.t, public.t_copy")], "5 rows of t"),
    "the source goes, and all rows of its copy": (
        "", [unseen("DROP TABLE public.t", "DELETE FROM public.t_copy")], "5 rows of t_copy",
    ),
    "the source goes before its copy": ("", [unseen(*SWAP[:3]), DROP], "5 rows of t_copy"),
    "the source is emptied": ("", [unseen("TRUNCATE public.t")], "5 rows of t"),
    "source and log lose rows": (
        "INSERT INTO t_changes VALUES (1)",
        [unseen("DELETE FROM public.t WHERE id = 1", "DELETE FROM public.t_changes")],
        "1 row of t",
    ),
    "the source's rows move to the copy, and go from there": (
        "TRUNCATE t_copy",
        [unseen("WITH moved AS (DELETE FROM public.t RETURNING *) INSERT INTO public.t_copy TABLE moved"),
         unseen("TRUNCATE public.t_copy")],
        "5 rows of t_copy",
    ),
    "a column of the source": ("", [unseen("ALTER TABLE public.t DROP COLUMN note")], "5 rows of t.note"),
    "the copy is not registered any more": (
        "", ["DELETE FROM mlops_internal.table_copies", unseen("DROP TABLE public.t_copy")], "5 rows of t_copy",
    ),
    "the copy is registered by the downgrade": (
        "DELETE FROM mlops_internal.table_copies", [REGISTERED, *SWAP[:2]], "5 rows of t",
    ),
    "another table is called the register": (
        "DROP TABLE mlops_internal.table_copies",
        [
            "ALTER TABLE public.t RENAME TO table_copies",
            "ALTER TABLE public.table_copies SET SCHEMA mlops_internal",
            unseen("DROP TABLE mlops_internal.table_copies"),
        ],
        "5 rows of t",
    ),
    "the copy is a part of the source": (
        "UPDATE mlops_internal.table_copies SET copy = source",
        [DROP],
        "5 rows of t",
    ),
    "the registered tables are gone": (
        "UPDATE mlops_internal.table_copies SET source = 1, copy = 2, changes = 'public.t_copy'::regclass",
        [unseen("DROP TABLE public.t_copy")],
        "5 rows of t_copy",
    ),
}  # fmt: skip


@pytest.fixture(params=["plain", "partitioned"])
def copied(request: pytest.FixtureRequest) -> str:
    """SQL for the tables."""
    return TABLES[request.param]


@pytest.fixture
def owned(head: Database) -> Iterator[Database]:
    """Of an owner that is no superuser, who can create in it."""
    with owner(head) as database:
        head.query(f"GRANT ALL ON SCHEMA mlops_internal, public TO {database.settings.user}")
        head.query(f"GRANT ALL ON ALL TABLES IN SCHEMA mlops_internal, public TO {database.settings.user}")
        yield database


def prepared(database: Database, folder: Path, copied: str, before: str, downgrade: list[str]) -> Config:
    """A database with a copy that is complete, and then `before`; the configuration for production."""
    checkout = Checkout(folder)
    tables = [*copied.split(";"), "CREATE TABLE t_changes (id int)", REGISTER, REGISTERED]
    checkout.add(sql(*tables), sql(*downgrade))
    command.upgrade(checkout.config(database.settings), "head")
    database.query(f"{ROWS}; {before}")
    config = checkout.config(replace(database.settings, environment="production", lock_timeout=500))
    config.attributes["progress"] = StringIO()
    return config


def refused(config: Config) -> str:
    with pytest.raises(CommandError) as failed:
        command.downgrade(config, "-1")
    assert isinstance(failed.value.__cause__, DataLossError), failed.value
    return str(failed.value)


def losses_of(database: Database, statement: str) -> list[tuple[str, bool]]:
    """What a downgrade would lose, as its SQL reads."""
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(database.settings), poolclass=NullPool)
    with engine.connect() as connection:
        return [(loss.what, loss.certain) for loss in find_losses(connection, {"0001": statement})]


@pytest.mark.parametrize(("before", "downgrade"), HARMLESS.values(), ids=HARMLESS)
def test_what_a_table_holds_in_its_copy_or_the_other_way_round_is_not_lost(
    head: Database, tmp_path: Path, copied: str, before: str, downgrade: list[str]
) -> None:
    config = prepared(head, tmp_path, copied, before, downgrade)

    command.downgrade(config, "-1")

    assert head.value("SELECT count(*) FROM t") == (0 if "TRUNCATE t;" in before else 5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_registered_copy_hides_no_loss(head: Database, tmp_path: Path, name: str) -> None:
    before, downgrade, lost = LOSSES[name]
    config = prepared(head, tmp_path, TABLES["partitioned"], before, downgrade)
    state = contents(head)

    message = refused(config)

    assert f"lose {lost}" in message or f", {lost}" in message
    assert contents(head) == state


@pytest.mark.parametrize(
    ("statement", "losses"),
    [
        ("; ".join(CANCEL), []),
        ("DELETE FROM t_copy; TRUNCATE t_changes; DELETE FROM mlops_internal.table_copies", []),
        ("ALTER TABLE t_copy DROP COLUMN note; DROP TABLE t_part1", []),
        ("DROP TABLE t", [("5 rows of t", True)]),
        ("; ".join(SWAP), [("5 rows of t", False)]),
    ],
    ids=["copy, log and register", "their rows", "parts of the copy", "source", "swap"],
)  # fmt: skip
def test_its_sql_tells_a_copy_from_its_source(
    head: Database, tmp_path: Path, statement: str, losses: list[tuple[str, bool]]
) -> None:
    prepared(head, tmp_path, TABLES["plain"], "INSERT INTO t_changes VALUES (1)", ["SELECT 1"])

    assert losses_of(head, statement) == losses


def test_the_rows_are_not_read_when_the_names_are_swapped(head: Database, tmp_path: Path, copied: str) -> None:
    """However many they are: others wait meanwhile."""
    head.query("CREATE TABLE rows_read (n bigint)")
    count = (
        "INSERT INTO public.rows_read SELECT sum(pg_stat_get_xact_tuples_returned(oid))"
        " FROM pg_class WHERE relname ~ '^t(_part.)?$'"
    )
    config = prepared(head, tmp_path, copied, "", [*SWAP[:3], count])

    command.downgrade(config, "-1")

    assert head.value("SELECT n FROM rows_read") <= 1


def test_an_owner_that_is_no_superuser_swaps_the_names(owned: Database, tmp_path: Path, copied: str) -> None:
    config = prepared(owned, tmp_path, copied, HALF_FILLED, [*REPLAY, *SWAP])
    command.downgrade(config, "-1")
    assert owned.value("SELECT count(*) FROM t") == 5


def test_a_guest_s_register_hides_no_loss(head: Database, tmp_path: Path) -> None:
    """Not even if the guest could create it."""
    config = prepared(head, tmp_path, TABLES["plain"], "DROP TABLE mlops_internal.table_copies", CANCEL)
    with role(head, "mlops_test_guest") as guest:
        head.query(f"GRANT ALL ON SCHEMA mlops_internal TO {guest.user}")
        with session(guest) as connection:
            connection.execute(f"{REGISTER}; {REGISTERED}; GRANT SELECT ON mlops_internal.table_copies TO PUBLIC")
        losses = losses_of(head, "DROP TABLE public.t_copy")
        with pytest.raises(CommandError, match=r"table mlops_internal\.table_copies of mlops_test_guest"):
            command.downgrade(config, "-1")

    assert losses == [("5 rows of t_copy", True)]
    assert head.value("SELECT count(*) FROM t_copy") == 5
