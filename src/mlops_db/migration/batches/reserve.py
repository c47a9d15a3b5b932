"""Holds disk space while batches run, and gives it back when they end, also when they end because the disk is full.

A batch that finds no space is rolled back, but the pages that it added to a table stay there (manual, "Routine
Vacuuming"). Without a reserve, writers would find no space either, nor would the downgrade that drops a copy.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.extensions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

KEYS_A_PAGE = 1_000
LEAST_PAGES = 64  # for the catalogue entries of what drops a copy
MOST_PAGES = 8_192  # 64 MB, with pages of 8 kB
_NAME = "pg_temp.mlops_db_disk_reserve"

# A temporary table goes with its session, so a run that is killed leaves none, and it writes no WAL. It lies where the
# tables of the database lie, and each row, which is not compressed, fills a page of 8 kB.
_HOLD = f"""
DO $reserve$ BEGIN
    IF pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY') THEN
        PERFORM pg_catalog.set_config('temp_tablespaces', '', true);
        CREATE TEMPORARY TABLE mlops_db_disk_reserve (filler pg_catalog.text);
        ALTER TABLE {_NAME} ALTER COLUMN filler SET STORAGE PLAIN;
        INSERT INTO {_NAME} SELECT pg_catalog.repeat('x', 8000) FROM pg_catalog.generate_series(1, {{pages}});
    END IF;
END $reserve$"""
_GIVE_BACK = f"""
DO $reserve$ BEGIN
    IF pg_catalog.to_regclass('{_NAME}') IS NOT NULL THEN
        DROP TABLE {_NAME};
    END IF;
END $reserve$"""


@contextmanager
def disk_reserve(connection: Connection, keys: int) -> Iterator[None]:
    """Hold a reserve of disk space during the block; a role that may create no temporary table holds none.

    Args:
        connection: in autocommit mode.
        keys: how many keys the batches have; the reserve is in proportion to them.

    Raises:
        psycopg2.errors.DiskFull: there is not even space for the reserve.
    """
    driver: Any = connection.connection.dbapi_connection
    pages = min(max(keys // KEYS_A_PAGE, LEAST_PAGES), MOST_PAGES)
    with psycopg2.extensions.cursor(driver) as cursor:  # psycopg2's own class: the guard of rows need not look at it
        cursor.execute(_HOLD.format(pages=pages))
        try:
            yield
        finally:
            with suppress(psycopg2.Error):  # the connection broke, and the table went with it
                cursor.execute(_GIVE_BACK)
