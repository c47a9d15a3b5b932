"""Rows as dictionaries, into a table and out of a query."""

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from support.database import Database
from support.views_model import Row


def rows(database: Database, query: str) -> list[Row]:
    return database.connection.cursor(row_factory=dict_row).execute(query).fetchall()


def insert(database: Database, table: str, *given: Row) -> None:
    """One INSERT a row. The table may be qualified, and has a name that needs no quotes."""
    for row in given:
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(*table.split(".")),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join([sql.Placeholder()] * len(row)),
        )
        database.connection.execute(statement, list(row.values()))


def storable(decision: Row) -> Row:
    """A decision with its gate results as JSON; None stays NULL."""
    results = decision["gate_results"]
    return decision | {"gate_results": None if results is None else Jsonb(results)}
