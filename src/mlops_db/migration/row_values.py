"""What a downgrade can lose of a table: its rows, and the values that a column would not have anyway."""

import re

_CONSTANT = re.compile(r"'(?:[^']|'')*'(?:::[\w .\"]+)?|-?[\d.]+|true|false")

# SQL for: what keeps the role from seeing all rows of a table, or NULL; `table` is its oid. It keeps the owner, too, if
# row level security is forced.
HIDDEN_BY = """
    CASE WHEN row_security_active({table}) THEN coalesce(
        (SELECT 'policy ' || string_agg(quote_ident(polname), ', ' ORDER BY polname) FROM pg_policy
          WHERE polrelid = {table}), 'row level security, which has no policy') END
"""


def own_value(column: str, default: str | None) -> str:
    """SQL for: a row holds a value of its own in the column.

    Args:
        column: its name, quoted where SQL needs that.
        default: its default as PostgreSQL writes it; None for none.
    """
    # What a constant default filled in comes back with the column; what the clock or a sequence filled in does not.
    if default is not None and _CONSTANT.fullmatch(default):
        return f"{column}::text IS DISTINCT FROM ({default})::text"  # json, for one, has no equality
    return f"{column} IS NOT NULL"


def rows_in_words(rows: int) -> str:
    """Such as `1 row`, `1,200 rows`."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"
