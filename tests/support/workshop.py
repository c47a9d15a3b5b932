"""A database with one object of every kind, in which tests make and repair drift."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg2
import psycopg2.extensions

from mlops_db.drift.catalogue import Catalogue, read_catalogue
from mlops_db.drift.compare import Drift, compare, read_database
from mlops_db.drift.repair import LOSES_ROWS, repair_statements
from mlops_db.project import BASELINE


@dataclass
class Workshop:
    """A database whose drift is made and repaired in transactions, which are rolled back."""

    cursor: psycopg2.extensions.cursor
    expected: Catalogue = field(repr=False)

    @contextmanager
    def drifted(self, *statements: str, given: str = "") -> Iterator[None]:
        """Make a drift by hand, after the statements that belong to the revisions (`given`); undo both at the end."""
        expected = self.expected
        try:
            if given:
                self.run(given)
                self.expected = read_catalogue(self.cursor)
            for statement in statements:
                self.run(statement)
            yield
        finally:
            self.cursor.connection.rollback()
            self.expected = expected

    def run(self, script: str) -> None:
        """Run statements with the default search path."""
        self.cursor.execute("SET LOCAL search_path = public")
        self.cursor.execute(script)

    def runs(self, script: str) -> bool:
        """Try to run statements; returns whether they succeeded."""
        self.cursor.execute("SAVEPOINT before")
        with suppress(psycopg2.Error):
            self.run(script)
            return True
        self.cursor.execute("ROLLBACK TO SAVEPOINT before")
        return False

    def drift(self) -> Drift:
        return compare(BASELINE, self.expected, *read_database(self.cursor))

    def lines(self) -> list[str]:
        return [str(difference) for difference in self.drift().differences]

    def script(self, *, losing: bool) -> str:
        """The repair as it is printed. `losing` uncomments the statements that lose data."""
        lines = repair_statements(self.drift())
        return "\n".join(line.removeprefix(LOSES_ROWS) if losing else line for line in lines) + "\nSELECT"
