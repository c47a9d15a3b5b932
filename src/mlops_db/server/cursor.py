"""The cursor of our own statements."""

from typing import Any

import psycopg2.extensions
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.server.driver_types import CASTERS, adapt
from mlops_db.server.guests import SAFE_PATH


class SafeCursor(Cursor):
    """A cursor for statements of our own: each runs with the safe search path instead of the session's path.

    The statement's own message sets the path, for its transaction: that costs no round trip, and behind a transaction
    pooler the next client's session does not get it. Values are written and read by psycopg2's own adapters, not by
    adapters that other libraries have registered.

    Attributes:
        first: statements that the next message begins with, each followed by a semicolon and a blank; `copy_expert`
            alone does not send them.
    """

    def __init__(self, *args: Any, **parameters: Any) -> None:
        """Make the cursor."""
        super().__init__(*args, **parameters)
        self.string_types = CASTERS
        self.first = ""

    def execute(self, query: str | bytes | sql.Composable, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
        """Run a statement. `execute_alone` is for those that cannot share a message, such as CREATE DATABASE."""
        if self.connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_INERROR:
            text = query.as_string(self) if isinstance(query, sql.Composable) else query
            query = self._beginning() + (text if isinstance(text, str) else text.decode())
        super().execute(query, adapt(vars))

    def value(self, query: str | bytes | sql.Composable, vars: Any = None) -> Any:  # noqa: A002  (the same)
        """Run a query; returns the first column of its first row, or None if it has no row."""
        self.execute(query, vars)
        row = self.fetchone()
        return row and row[0]

    def mogrify(self, query: str | bytes | sql.Composable, vars: Any = None) -> bytes:  # noqa: A002  (the same)
        """The statement with its parameters filled in."""
        return super().mogrify(query, adapt(vars))

    def copy_out(self, query: str, vars: Any, file: Any) -> None:  # noqa: A002  (psycopg2's name)
        """COPY the rows of a query into a file, in the binary format."""
        beginning = f"{self._beginning()}COPY (".encode()
        self.copy_expert(beginning + self.mogrify(query, vars) + b") TO STDOUT (FORMAT binary)", file)

    def execute_alone(self, query: sql.Composable) -> None:
        """Run a statement without the safe path; it must name no operator and no function."""
        super().execute(query)

    def _beginning(self) -> str:
        first, self.first = self.first, ""
        return f"SET LOCAL search_path = {SAFE_PATH}; {first}"
