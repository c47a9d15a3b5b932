"""One database with one of everything, and what its catalogue should be."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from psycopg2 import sql

from mlops_db.inspection.catalogue import Catalogue, read_catalogue
from mlops_db.inspection.drift import Drift
from mlops_db.inspection.repair import LOSES_ROWS, repair_statements
from mlops_db.migration.commands import upgrade
from mlops_db.schema.revisions import BASELINE
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.drifts import ANALYST, ODD_ROLE, SCHEMA

NAME = "mlops_test_workshop"


@dataclass
class Workshop:
    """A database whose drift is made and repaired in transactions that are rolled back."""

    cursor: psycopg2.extensions.cursor
    expected: Catalogue

    @contextmanager
    def drifted(self, *statements: str, given: str = "") -> Iterator[None]:
        """Run what somebody did by hand, after what the revisions do besides; undone at the end."""
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
        """As somebody's session would, whose search path is the default."""
        self.cursor.execute("SET LOCAL search_path = public")
        self.cursor.execute(script)

    def runs(self, script: str) -> bool:
        """Run it if it still can be run."""
        self.cursor.execute("SAVEPOINT before")
        with suppress(psycopg2.Error):
            self.run(script)
            return True
        self.cursor.execute("ROLLBACK TO SAVEPOINT before")
        return False

    def drift(self) -> Drift:
        return Drift(BASELINE, self.expected, read_catalogue(self.cursor))

    def lines(self) -> list[str]:
        return [str(difference) for difference in self.drift().differences]

    def repair(self) -> None:
        """Apply the repair, with what loses data uncommented."""
        script = "\n".join(line.removeprefix(LOSES_ROWS) for line in repair_statements(self.drift()))
        if script:
            self.run(script)


@pytest.fixture(scope="module")
def workshop(request: pytest.FixtureRequest) -> Iterator[Workshop]:
    server: Any = request.getfixturevalue("_empty_template")
    settings = Settings(
        host=server.host, port=server.port, user=server.user, password=server.password or None, database="postgres"
    )
    with closing(connect(settings)) as maintenance, maintenance.cursor() as cursor:
        maintenance.autocommit = True
        names = [sql.Identifier(name) for name in (ANALYST, ODD_ROLE)]
        for name in names:
            cursor.execute(sql.SQL("CREATE ROLE {}").format(name))
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(NAME)))
        try:
            yield from _opened(replace(settings, database=NAME))
        finally:
            cursor.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(NAME)))
            for name in names:
                cursor.execute(sql.SQL("DROP ROLE {}").format(name))


def _opened(settings: Settings) -> Iterator[Workshop]:
    upgrade(settings, BASELINE)
    with closing(connect(settings)) as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        connection.commit()
        expected = read_catalogue(cursor)
        connection.rollback()
        yield Workshop(cursor, expected)
