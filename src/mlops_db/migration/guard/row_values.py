"""SQL for the values that a downgrade can lose: all that a column's default would not fill in again."""

import re

_TYPE = r"[\w .\"]+(?:\(-?\d+(?:,-?\d+)?\))?[\w ]*(?:\[\])*"
_CONSTANT = re.compile(rf"(?:'(?:[^']|'')*'|\(?-?[\d.]+\)?|ARRAY\[\])(?:::{_TYPE})?|true|false")

# SQL for the policy that hides rows of a table from the role, or NULL; `table` is its oid. If row level security is
# forced, it hides them from the owner, too.
HIDDEN_BY = """
    CASE WHEN row_security_active({table}) THEN coalesce(
        (SELECT 'policy ' || string_agg(quote_ident(polname), ', ' ORDER BY polname) FROM pg_policy
          WHERE polrelid = {table}), 'row level security, which has no policy') END
"""


def constant_default(default: str | None, type_: str) -> str | None:
    """SQL for the text that a constant default fills in; None if the column has no such default.

    Args:
        default: as PostgreSQL writes it; None if there is none.
        type_: the column's type with its length: in a numeric(10,2) the default 0 reads 0.00.
    """
    # A value from the clock or a sequence does not come back with the column.
    if default is None or not _CONSTANT.fullmatch(default):
        return None
    return f"({default})::{type_}::text"


def holds_own_value(column: str, default: str | None) -> str:
    """SQL for the condition that a row holds another value than the default in the column.

    Args:
        column: its name, quoted where SQL needs that.
        default: from `constant_default`.
    """
    if default is None:
        return f"{column} IS NOT NULL"
    # Compare the text: a type such as json has no equality, and a collation can take two values for one.
    return f'{column}::text COLLATE "C" IS DISTINCT FROM {default}'


def rows_in_words(rows: int) -> str:
    """Such as `1 row` or `1,200 rows`."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"
