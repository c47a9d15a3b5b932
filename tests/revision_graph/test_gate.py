"""The revision that a database says it is at, while a run goes on."""

from contextlib import closing
from typing import Any

import pytest

from mlops_db.migration.commands import upgrade
from mlops_db.revisions.gate import find_heads
from mlops_db.server.connection import open_connection
from mlops_db.server.cursor import SafeCursor
from support.database import Database

pytestmark = pytest.mark.full_postgresql


def test_a_first_run_between_the_two_questions_is_no_database_made_by_hand(empty: Database) -> None:
    class Slow(SafeCursor):
        """One whose second question waits until a run is done."""

        asked = 0

        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
            self.asked += 1
            if self.asked == 2:
                upgrade(empty.settings, "0003")
            super().execute(query, vars)

    with closing(open_connection(empty.settings)) as connection, connection.cursor(cursor_factory=Slow) as cursor:
        assert find_heads(cursor, "here") == ("0003",)
