"""The interface between the parts of the storage layer and its manager: cursors for one transaction, and the settings.

The parts know this interface and not the manager, which makes them. Helpers for queries are here, too.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, Protocol, TypeVar

from mlops_db.server.cursor import SafeCursor
from mlops_db.settings import Settings

_Record = TypeVar("_Record")


class Transactions(Protocol):
    """Lends cursors for statements of this package. `DatabaseManager` is one."""

    @property
    def settings(self) -> Settings:
        """The settings of the database."""

    def safe_cursor(self) -> AbstractContextManager[SafeCursor]:
        """Lend a cursor for one transaction."""


def columns_of(record: type[Any]) -> str:
    """The columns of a record's fields, as SELECT lists them."""
    return ", ".join(field.name for field in fields(record))


def equal(columns: Iterable[str]) -> str:
    """A condition of SQL: each column is equal to the parameter of its name."""
    return " AND ".join(f"{column} = %({column})s" for column in columns) or "true"


def read_records(
    transactions: Transactions, record: type[_Record], query: str, parameters: Mapping[str, Any]
) -> list[_Record]:
    """Run a query in a transaction of its own; returns a record for each row."""
    with transactions.safe_cursor() as cursor:
        cursor.execute(query, parameters)
        return [record(*row) for row in cursor]
