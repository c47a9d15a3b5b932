"""Rows as dictionaries: insert them into a table, read them from a query."""

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from support.database import Database
from support.views_model import Row


def rows(database: Database, query: str) -> list[Row]:
    return database.connection.cursor(row_factory=dict_row).execute(query).fetchall()


def insert(database: Database, table: str, *given: Row) -> None:
    """Insert rows, one statement each. The table may have a schema; its name needs no quotes."""
    for row in given:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(*table.split(".")),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join([sql.Placeholder()] * len(row)),
        )
        database.connection.execute(statement, list(row.values()))


def storable(decision: Row) -> Row:
    """A decision whose gate results are JSON; None stays NULL."""
    results = decision["gate_results"]
    return decision | {"gate_results": None if results is None else Jsonb(results)}
