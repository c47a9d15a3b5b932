"""What a downgrade can lose of a table: its rows, and the values that a column would not have anyway."""

import re

_TYPE = r"[\w .\"]+(?:\(-?\d+(?:,-?\d+)?\))?[\w ]*(?:\[\])*"
_CONSTANT = re.compile(rf"(?:'(?:[^']|'')*'|\(?-?[\d.]+\)?|ARRAY\[\])(?:::{_TYPE})?|true|false")

# SQL for: what keeps the role from seeing all rows of a table, or NULL; `table` is its oid. It keeps the owner, too, if
# row level security is forced.
HIDDEN_BY = """
    CASE WHEN row_security_active({table}) THEN coalesce(
        (SELECT 'policy ' || string_agg(quote_ident(polname), ', ' ORDER BY polname) FROM pg_policy
          WHERE polrelid = {table}), 'row level security, which has no policy') END
"""


def text_of_default(default: str | None, type_: str) -> str | None:
    """SQL for the text of what a constant default fills in; None if there is no such default.

    Args:
        default: as PostgreSQL writes it; None for none.
        type_: the column's, with its length: the 0 that a numeric(10,2) gets reads 0.00.
    """
    # What the clock or a sequence filled in does not come back with the column.
    if default is None or not _CONSTANT.fullmatch(default):
        return None
    return f"({default})::{type_}::text"


def own_value(column: str, default: str | None) -> str:
    """SQL for: a row holds a value of its own in the column.

    Args:
        column: its name, quoted where SQL needs that.
        default: what `text_of_default` says of it.
    """
    if default is None:
        return f"{column} IS NOT NULL"
    # The text, since json, for one, has no equality; and a collation can take two values for one.
    return f'{column}::text COLLATE "C" IS DISTINCT FROM {default}'


def rows_in_words(rows: int) -> str:
    """Such as `1 row`, `1,200 rows`."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"
