from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from psycopg2 import sql

from mlops_db.drift.catalogue import read_catalogue
from mlops_db.migration.commands import upgrade
from mlops_db.project import BASELINE
from mlops_db.server.connection import connect
from mlops_db.settings import Settings
from support.drifts import ANALYST, ODD_ROLE, SCHEMA
from support.workshop import Workshop

NAME = "mlops_test_workshop"


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
