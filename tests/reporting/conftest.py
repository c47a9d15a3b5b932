"""Databases that the tests of a module only read."""

from collections.abc import Iterator
from typing import Any

import pytest

from mlops_db.demo.fill import fill
from mlops_db.storage.db_manager import DatabaseManager
from support.copies import copy_of_head
from support.database import Database
from support.edge_cases import store_edge_cases


@pytest.fixture(scope="module")
def demo(_head_template: Any) -> Iterator[Database]:
    """A database at head with the last 90 days of the demo."""
    with copy_of_head(_head_template, "mlops_test_report_demo") as database:
        with DatabaseManager(database.settings) as db:
            fill(db, days=90, seed=1, progress=lambda *_: None)
        yield database


@pytest.fixture(scope="module")
def edges(_head_template: Any) -> Iterator[Database]:
    """A database with what a page must bear."""
    with copy_of_head(_head_template, "mlops_test_report_edges") as database:
        store_edge_cases(database)
        yield database
