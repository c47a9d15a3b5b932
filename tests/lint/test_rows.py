"""`insert_rows` fills any table that a revision may make, again and again."""

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)
from psycopg2.extensions import cursor as Cursor  # noqa: N812  (the same)

from mlops_db.lint.rows import ROWS, insert_rows, matching_text
from mlops_db.server.connection import open_connection
from mlops_db.settings import Settings
from support.database import Database

pytestmark = pytest.mark.full_postgresql

TIMES = 4


@pytest.fixture(scope="module")
def connection(_empty_template: Any) -> Iterator[Connection]:
    """To a database without tables of ours; whatever a test makes there is rolled back."""
    where = _empty_template
    settings = Settings(
        host=where.host, port=int(where.port), user=where.user, password=where.password or None, database="postgres"
    )
    with closing(open_connection(settings)) as connection:
        yield connection


@pytest.fixture
def cursor(connection: Connection) -> Iterator[Cursor]:
    with connection.cursor() as cursor:
        yield cursor
    connection.rollback()


def fill(cursor: Cursor, statements: str) -> None:
    """Make tables, and insert rows several times."""
    cursor.execute(statements)
    for _ in range(TIMES):
        insert_rows(cursor)


def values(cursor: Cursor, query: str) -> list[tuple[object, ...]]:
    cursor.execute(query)
    return cursor.fetchall()


def count(cursor: Cursor, table: str) -> object:
    return values(cursor, f"SELECT count(*) FROM {table}")[0][0]


TYPES = [
    *("smallint", "integer", "bigint", "numeric", "numeric(6, 3)", "real", "double precision", "money"),
    *("text", "varchar", "varchar(255)", "varchar(3)", "varchar(1)", "char(8)", "char", "name", "bytea"),
    *("timestamp", "timestamptz", "timestamp(0)", "date", "time", "timetz", "interval"),
    *("boolean", "uuid", "json", "jsonb", "text[]", "integer[][]", "timestamptz[]", "jsonb[]"),
    *("point", "int4range", "tstzrange", "tsvector", "xml"),
    *("mood", '"Own types".mood', "small", "code", "pair"),
]
OWN_TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE SCHEMA "Own types";
    CREATE TYPE "Own types".mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN small AS integer;
    CREATE DOMAIN code AS text;
    CREATE TYPE pair AS (a integer, b text);
"""


def test_columns_of_every_type_take_rows_and_the_common_ones_hold_values(cursor: Cursor) -> None:
    columns = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(TYPES))
    fill(cursor, f"{OWN_TYPES} CREATE TABLE types ({columns})")

    assert count(cursor, "types") == ROWS * TIMES
    for type_ in ("bigint", "double precision", "varchar(255)", "text", "timestamptz", "boolean", "jsonb", "text[]"):
        assert count(cursor, f"types WHERE c{TYPES.index(type_)} IS NULL") == 0, type_


NULL_ONLY = ("point", "int4range", "tstzrange", "tsvector", "xml", "pair")
REQUIRED = [type_ for type_ in TYPES if type_ not in NULL_ONLY]


@pytest.mark.parametrize("type_", REQUIRED)
def test_a_column_that_takes_no_null_gets_a_value(cursor: Cursor, type_: str) -> None:
    fill(cursor, f"{OWN_TYPES} CREATE TABLE required (c {type_} NOT NULL)")

    assert count(cursor, "required") == ROWS * TIMES


@pytest.mark.parametrize(
    "type_",
    ["smallint", "bigint", "numeric", "double precision", "text", "varchar(50)", "timestamp", "timestamptz",
     "date", "time", "uuid"],
)  # fmt: skip
def test_unique_columns_get_values_that_differ(cursor: Cursor, type_: str) -> None:
    fill(cursor, f"{OWN_TYPES} CREATE TABLE alone (c {type_} UNIQUE, other {type_} PRIMARY KEY)")

    assert values(cursor, "SELECT count(DISTINCT c), count(DISTINCT other) FROM alone") == [(ROWS * TIMES,) * 2]


CHECKS = {
    "a list": "c text CHECK (c IN ('staging', 'production'))",
    "a list as an array": "c text NOT NULL CHECK (c = ANY ('{staging,production}'::text[]))",
    "a list of a varchar": "c varchar(50) NOT NULL CHECK (c IN ('staging', 'production'))",
    "a list written with OR": "c text CHECK (c = 'promote' OR c = 'reject')",
    "a list with a quote": "c text CHECK (c IN ('it''s', 'not'))",
    "a list not yet validated": "c text; ALTER TABLE checked ADD CHECK (c IN ('a', 'b')) NOT VALID",
    "a list of the table's": "c text, d text, CHECK (c = 'a' AND d = 'a')",
    "not empty": "c text NOT NULL CHECK (c <> '')",
    "not blank": "c text NOT NULL CHECK (length(trim(c)) > 0)",
    "a longest length": "c text CHECK (length(c) <= 100)",
    "a score": "c double precision CHECK (c BETWEEN 0 AND 1)",
    "a numeric score": "c numeric(4, 3) NOT NULL CHECK (c >= 0 AND c <= 1)",
    "a score that is a number": "c double precision CHECK (c >= 0 AND c <= 1 AND c <> 'NaN')",
    "finite": "c double precision CHECK (c < 'Infinity' AND c > '-Infinity')",
    "positive": "c integer CHECK (c > 0)",
    "an object": "c jsonb NOT NULL CHECK (jsonb_typeof(c) = 'object')",
    "an object, or nothing": "c jsonb CHECK (c IS NULL OR jsonb_typeof(c) = 'object')",
    "a range": "c integer NOT NULL CHECK (c BETWEEN 1 AND 5)",
    "a range that is open": "c smallint CHECK (c > -3 AND c < 0)",
    "a range far from zero": "c bigint CHECK (c >= 1000000), d int CHECK (d <= -10)",
    "a range of numbers": "c double precision CHECK (c > 40.5 AND c < 41), d real CHECK (d BETWEEN -90 AND 90)",
    "a range of a small scale": "c numeric(4, 2) CHECK (c > 0 AND c < 1), d numeric(10, 2) NOT NULL CHECK (d > 0)",
    "a range beside another's": 'c int CHECK (c >= 7), cc int CHECK (cc <= 3), "C c" int CHECK ("C c" > 20)',
    "above zero": "c double precision CHECK (c > 0), d numeric CHECK (d > 0)",
    "an interval": "c interval CHECK (c > '0'), d interval NOT NULL CHECK (d >= '1 day')",
    "thresholds": "c float8 CHECK (c < 'Infinity'), d float8 CHECK (d > '-Infinity'), CHECK (c <= d)",
    "a pattern": "c text NOT NULL UNIQUE CHECK (c ~ '^[a-z][a-z0-9_]*$')",
    "a pattern of a varchar": "c varchar(50) NOT NULL UNIQUE CHECK (c ~ '^run-[0-9a-f]{8}$')",
    "a pattern with escapes": r"c text UNIQUE CHECK (c ~ '^v\d+\.\d{1,3}\.\d+$'), d text CHECK (d ~ '^\w+ it''s$')",
    "a pattern with groups": "c text NOT NULL UNIQUE CHECK (c ~ '^(run|job)-[0-9]+(-[a-z]+)?$')",
    "a pattern of a short varchar": "c varchar(20) NOT NULL CHECK (c ~ '^[a-z]+$')",
    "a pattern without anchors": "c text CHECK (c ~ '[A-Z]{2,3}-?x')",
    "an order of two": "c timestamptz, d timestamptz, CHECK (d >= c)",
    "one needs the other": "c text CHECK (c IN ('a', 'b')), d timestamp, CHECK (c <> 'a' OR d IS NOT NULL)",
}  # fmt: skip


@pytest.mark.parametrize("columns", CHECKS.values(), ids=CHECKS)
def test_values_keep_to_the_checks(cursor: Cursor, columns: str) -> None:
    columns, _, rest = columns.partition("; ")
    fill(cursor, f"CREATE TABLE checked ({columns}); {rest}")

    assert count(cursor, "checked") == ROWS * TIMES


@pytest.mark.parametrize("pattern", ["^(a|b)$", "^[^a]{2}$", "^[a-z]*$", r"^v\d+\.\d{1,3}$"])
def test_a_text_matches_its_pattern_and_is_the_same_for_the_same_number(pattern: str) -> None:
    for number in range(20):
        text = matching_text(pattern, number, 20)
        assert text is not None
        assert re.search(pattern, text)
        assert len(text) <= 20
    assert matching_text(r"^[a-z]*$", 3, 20) == matching_text(r"^[a-z]*$", 3, 20)


@pytest.mark.slow
def test_texts_of_many_numbers_differ_where_the_pattern_allows_it() -> None:
    assert len({matching_text("^[a-z][a-z0-9_]*$", number, None) for number in range(250)}) == 250


@pytest.mark.parametrize("pattern", ["(", "a**", r"\y", "[a"])
def test_a_pattern_that_python_does_not_know_is_left(pattern: str) -> None:
    assert matching_text(pattern, 1, None) is None


WHOLE_TABLES = {
    "an identity": "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, c text)",
    "an identity by default": "CREATE TABLE t (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, c text)",
    "a serial": "CREATE TABLE t (id serial PRIMARY KEY, c text)",
    "an identity alone": "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY)",
    "a serial alone": "CREATE TABLE t (id serial PRIMARY KEY)",
    "a generated column": "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) STORED)",
    "defaults": "CREATE TABLE t (a text NOT NULL DEFAULT 'default', at timestamptz NOT NULL DEFAULT now())",
    "quoted names": 'CREATE TABLE "My ""Table"" %" ("select" int, "A b%s" text NOT NULL, "it\'s" text); '
                    'CREATE VIEW t AS TABLE "My ""Table"" %"',
    "another schema": "CREATE SCHEMA mlops_internal; CREATE TABLE mlops_internal.t (a int); "
                      "CREATE VIEW t AS TABLE mlops_internal.t",
    "a dropped column": "CREATE TABLE t (a int, b int); ALTER TABLE t DROP COLUMN a",
    "a unique pair": "CREATE TABLE t (a text CHECK (a IN ('x', 'y')), b text, UNIQUE (a, b))",
    "one production version": "CREATE TABLE t (name text, status text CHECK (status IN ('staging', 'production'))); "
                              "CREATE UNIQUE INDEX ON t (name) WHERE status = 'production'",
    "a foreign key": "CREATE TABLE parent (id serial PRIMARY KEY); ALTER TABLE parent ADD name text UNIQUE; "
                     "CREATE TABLE t (id serial, parent int REFERENCES parent, name text REFERENCES parent (name))",
    "partitions": "CREATE TABLE t (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at); "
                  "CREATE TABLE t_all PARTITION OF t DEFAULT; "
                  "CREATE TABLE t_old PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2000-01-01')",
}  # fmt: skip


@pytest.mark.parametrize("statements", WHOLE_TABLES.values(), ids=WHOLE_TABLES)
def test_tables_of_every_sort_are_filled(cursor: Cursor, statements: str) -> None:
    fill(cursor, statements)

    assert count(cursor, "t") == ROWS * TIMES


def test_every_table_gets_rows_and_views_histories_and_other_schemas_none(cursor: Cursor) -> None:
    fill(
        cursor,
        """
        CREATE SCHEMA mlops_internal; CREATE SCHEMA other;
        CREATE TABLE one (a int); CREATE TABLE mlops_internal.two (a int); CREATE TABLE other.three (a int);
        CREATE TABLE alembic_version (version_num varchar(32)); CREATE TABLE mlops_internal.migration_history (a int);
        CREATE VIEW v AS TABLE one; CREATE MATERIALIZED VIEW m AS TABLE one;
        """,
    )

    tables = ("one", "mlops_internal.two", "other.three", "alembic_version", "mlops_internal.migration_history")
    assert [count(cursor, table) for table in tables] == [ROWS * TIMES, ROWS * TIMES, 0, 0, 0]


def test_the_project_s_own_tables_are_filled(head: Database) -> None:
    with closing(open_connection(head.settings)) as connection, connection.cursor() as cursor:
        for _ in range(TIMES):
            insert_rows(cursor)
            connection.commit()

    for table in ("model_versions", "monitoring_metrics", "retraining_decisions"):
        assert head.value(f"SELECT count(*) FROM {table}") == ROWS * TIMES
