"""An upgrade that a revision stops because of rows that it found."""

from dataclasses import dataclass
from typing import Any

import pytest

from mlops_db.errors import RefusedError
from mlops_db.migration import commands
from support.database import Database, revision_of

Contents = tuple[str, dict[str, list[tuple[Any, ...]]]]


@dataclass(frozen=True)
class Stopped:
    """How the revision stopped the upgrade.

    Attributes:
        message: the message of the error.
        hint: its hint.
        ids: the ids of the rows that the statement in the hint finds, in its order; empty without a statement.
    """

    message: str
    hint: str
    ids: list[int]


def contents(database: Database) -> Contents:
    """The catalogue and all rows except the history of runs, as text: Python has no infinite timestamps."""
    tables = database.query("""
        SELECT oid::regclass::text FROM pg_class
         WHERE relkind = 'r' AND oid >= 16384 AND oid <> 'mlops_internal.migration_history'::regclass
    """)
    return database.dump(), {
        name: database.query(f"SELECT t::text FROM {name} AS t ORDER BY ctid") for (name,) in tables
    }


def stopped(database: Database, target: str = "head", *, at: str) -> Stopped:
    """Upgrade a database from the revision `at`; checks that the next revision refuses and nothing changes."""
    assert revision_of(database) == at
    before = contents(database)

    with pytest.raises(RefusedError) as refused:
        commands.upgrade(database.settings, target)

    assert revision_of(database) == at
    assert contents(database) == before
    assert "\n" not in f"{refused.value}{refused.value.hint}"
    _, select, rest = refused.value.hint.partition("SELECT ")
    found = database.query(f"SELECT id FROM ({select}{rest}) AS found") if select else []
    return Stopped(str(refused.value), refused.value.hint, [id_ for (id_,) in found])
