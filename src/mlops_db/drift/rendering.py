"""Compares the texts of two definitions as the server writes them: versions of PostgreSQL write them differently.

Both texts become temporary views, which are rolled back: the server parses them, and returns each in its own form.
Parsing a constant runs code of its type, such as the CHECK of a domain. So texts of a guest's objects are not parsed.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg2

from mlops_db.drift.catalogue import VIEWS, restored
from mlops_db.project import SCHEMAS
from mlops_db.revisions.tables import OWNS_OURS
from mlops_db.server.connection import open_cursor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.drift.catalogue import Catalogue, Name
    from mlops_db.settings import Settings

_CHECK = re.compile(r"CHECK \((.*)\)((?: NO INHERIT| NOT VALID| NOT ENFORCED)*)", re.DOTALL)
_VIEW = "mlops_db_rendered"
_OF_GUESTS = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE n.nspname = ANY (%s) AND NOT {OWNS_OURS}
"""


def as_written_here(cursor: Cursor, expected: Catalogue, found: Catalogue) -> Catalogue:
    """`expected` as this server writes it, where it differs from `found`.

    Texts stay as they are on a server that makes no temporary views (a standby, or TEMPORARY is revoked), and for
    objects of a guest that have one of our names.

    Args:
        cursor: in a transaction.
        expected: what the revisions make, as another server wrote it.
        found: what the database has.
    """
    cursor.execute(_OF_GUESTS, (list(SCHEMAS),))
    of_guests = {name for (name,) in cursor.fetchall()}
    result = dict(expected)
    for name, wanted in expected.items():
        there = found.get(name, {}) if (name.within or name.name) not in of_guests else {}
        for property_ in wanted.keys() & there.keys():
            if wanted[property_] != there[property_]:
                text = _as_written(cursor, name, property_, wanted[property_], there[property_])
                result[name] = {**result[name], property_: text}
    return result


def _as_written(cursor: Cursor, name: Name, property_: str, wanted: str, there: str) -> str:
    (query, rest), (query_there, rest_there) = (_query(name, property_, text) for text in (wanted, there))
    written = _written(cursor, query) if query else None
    if written is None:
        return wanted
    if query_there and rest == rest_there and _written(cursor, query_there) == written:
        return there
    return restored(written) if query == wanted else wanted


def _query(name: Name, property_: str, text: str) -> tuple[str, str]:
    """A query with the text, and what follows the text; empty if no query can have it."""
    if name.kind in VIEWS and property_ == "definition":
        return text, ""
    if property_ in ("default", "generated"):
        return f"SELECT {text} AS it FROM {name.within}", ""
    check = _CHECK.fullmatch(text) if (name.kind, property_) == ("constraint", "definition") else None
    return (f"SELECT {check[1]} AS it FROM {name.within}", check[2]) if check else ("", "")


def _written(cursor: Cursor, query: str) -> str | None:
    """The query as this server writes it; None if the server cannot make a view of it."""
    with rolled_back(cursor):
        try:
            cursor.execute(f"CREATE TEMPORARY VIEW {_VIEW} AS {query}")
        # The text is invalid; or this is a standby, or an event trigger of somebody else refuses.
        except (psycopg2.ProgrammingError, psycopg2.DataError, psycopg2.NotSupportedError, psycopg2.InternalError):
            return None
        cursor.execute(f"SELECT pg_get_viewdef('pg_temp.{_VIEW}'::regclass, true)")
        ((text,),) = cursor.fetchall()
        return str(text)


@contextmanager
def trying(settings: Settings) -> Iterator[Cursor]:
    """A cursor in a transaction that is rolled back.

    Raises:
        ConnectionFailedError: no connection.
        MlopsDbError: the server refused a statement of the block.
    """
    with open_cursor(settings) as cursor:
        cursor.execute("SET LOCAL lock_timeout = %s", (settings.lock_timeout,))
        yield cursor
        cursor.connection.rollback()


@contextmanager
def rolled_back(cursor: Cursor) -> Iterator[None]:
    """Undo what the block does to the database, and a failure in it, so that the transaction can continue."""
    cursor.execute("SAVEPOINT rolled_back")
    yield
    cursor.execute("ROLLBACK TO SAVEPOINT rolled_back")
