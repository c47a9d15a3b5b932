"""Everything in a database, to check that a refused command changed nothing; and a stream that acts during a run."""

import io
from collections.abc import Callable
from typing import Any

from psycopg import sql

from support.database import Database


def everything(database: Database) -> tuple[str, dict[str, list[tuple[Any, ...]]]]:
    """The catalogue, and the rows of every table."""
    tables = database.query("""
        SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
    """)
    rows = {".".join(name): database.connection.execute(sql.SQL("TABLE {}").format(sql.Identifier(*name))).fetchall()
            for name in tables}  # fmt: skip
    return database.dump(), rows


class Progress(io.StringIO):
    """A stream for a run's progress. It acts once, when the run writes `mark`."""

    def __init__(self, mark: str, act: Callable[[], object]) -> None:
        super().__init__()
        self.mark = mark
        self.act = act
        self.acted = False

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.mark in text and not self.acted:
            self.acted = True
            self.act()
        return written
