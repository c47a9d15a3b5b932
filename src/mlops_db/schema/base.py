"""What the table modules share: the MetaData that each adds its table to, and the rule for moments."""

from sqlalchemy import MetaData

# PostgreSQL's own names for unnamed constraints (manual, "CREATE TABLE": names are chosen by the system), so that a
# database made by plain SQL and one made by the revisions are the same.
metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def of_years(column: str) -> str:
    """The rule that a moment is one of the years 1 to 9999 in UTC, which is what Python can hold, too."""
    utc = f"timezone('UTC', {column})"  # a call, as AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"
