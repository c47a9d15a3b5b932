"""The `mlops` metadata database: its schema under Alembic, and the layer that jobs store through.

`from mlops_db import DatabaseManager, MlopsDbError, get_db_manager` is what jobs need. Importing it connects to
nothing, and loads neither SQLAlchemy nor psycopg2.
"""

from typing import TYPE_CHECKING, Any

from mlops_db.errors import MlopsDbError

if TYPE_CHECKING:
    from mlops_db.storage.db_manager import DatabaseManager, get_db_manager

__all__ = ["DatabaseManager", "MlopsDbError", "get_db_manager"]
# Not asked of the installation: run from a folder in PYTHONPATH, there is none.
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlops_db.storage import db_manager  # noqa: PLC0415  (commands of `mlops-db` do not need it)

    return getattr(db_manager, name)
