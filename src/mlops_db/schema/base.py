"""The MetaData that every table module adds its table to."""

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
