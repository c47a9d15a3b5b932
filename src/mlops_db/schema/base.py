"""The MetaData that each table module adds its table to, and the columns and rules that tables share."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, MetaData, String, text
from sqlalchemy.dialects.postgresql import TIMESTAMP

from mlops_db.schema.limits import DEFAULT_MODEL, MAX_CHARACTERS

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


def text_column(name: str, comment: str, *, nullable: bool = False, **options: Any) -> Column[str]:
    """A column of text with the length that `limits` has for its name."""
    return Column(name, String(MAX_CHARACTERS[name]), nullable=nullable, comment=comment, **options)


def model_name_column(comment: str) -> Column[str]:
    """The column model_name, which has a default because the specification's writers do not name a model."""
    return text_column("model_name", comment, server_default=DEFAULT_MODEL)


def moment_column(name: str, comment: str) -> Column[datetime]:
    """A column of moments, by default the time of the transaction."""
    now = text("CURRENT_TIMESTAMP")
    return Column(name, TIMESTAMP(timezone=True), nullable=False, server_default=now, comment=comment)


def of_years(column: str) -> str:
    """The rule that a moment is one of the years 1 to 9999 in UTC, which Python can hold, too."""
    utc = f"timezone('UTC', {column})"  # a call: AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"
