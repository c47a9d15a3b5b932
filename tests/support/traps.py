"""Operators and functions in public that fit better than PostgreSQL's own, and fail if a statement uses them."""

import re
from itertools import product
from pathlib import Path

import psycopg

from support.database import ROOT

TAKEN = "a trap was taken"
TYPES = (
    "varchar", "text", "name", '"char"', "oid", "regclass", "smallint", "integer", "bigint", "double precision",
    "numeric", "timestamptz", "timestamp", "interval", "jsonb", "boolean", "text[]", "varchar[]",
)  # fmt: skip
FEW = ("varchar", "text", "integer", "bigint", "oid", "timestamptz", "interval")
FEWER = ("varchar", "text", "integer", "timestamptz")
COMPARISONS = ("=", "<>", "<", ">", "<=", ">=", "~", "!~", "~~")
OTHERS = ("||", "+", "-", "*", "/", "&", ">>", "->", "->>")
CALL = re.compile(r"\b([a-z][a-z0-9_]+)\(")


def set_traps(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Create a trap for every operator and function that the package and the revisions name, for all types."""
    body = f"LANGUAGE plpgsql AS $$ BEGIN RAISE '{TAKEN} by %', current_user; END $$"
    statements = ["SET check_function_bodies = off"]
    for kind, returned in (("compare", "boolean"), ("combine", "text")):
        statements += [
            f"CREATE FUNCTION public.trap_{kind}({left}, {right}) RETURNS {returned} {body}"
            for left, right in product(TYPES, TYPES)
        ]
    statements += [
        f"CREATE OPERATOR public.{name} (FUNCTION = public.trap_{kind}, LEFTARG = {left}, RIGHTARG = {right})"
        for kind, names in (("compare", COMPARISONS), ("combine", OTHERS))
        for name, left, right in product(names, TYPES, TYPES)
    ]
    arguments = [(), *product(TYPES), *product(FEW, FEW), *product(FEWER, FEWER, FEWER)]
    statements += [
        f"CREATE FUNCTION public.{name}({', '.join(types)}) RETURNS text {body}"
        for name in _called(connection)
        for types in arguments
    ]
    with connection.transaction():
        for start in range(0, len(statements), 500):
            connection.execute(";\n".join(statements[start : start + 500]))


def _called(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """PostgreSQL's functions that our sources may call: their names precede a parenthesis somewhere."""
    folders = (ROOT / "src" / "mlops_db", ROOT / "migrations" / "versions")
    paths = [path for folder in folders for kind in ("*.py", "*.sql") for path in sorted(folder.rglob(kind))]
    text = "\n".join(_text(path) for path in paths)
    found = connection.execute(
        "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace"
        " AND proname = ANY(%s) ORDER BY 1",
        [sorted(set(CALL.findall(text)))],
    )
    return [str(name) for (name,) in found]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
