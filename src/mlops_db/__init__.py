"""The `mlops` metadata database: its schema under Alembic, and the storage layer of jobs.

Jobs need `from mlops_db import DatabaseManager, MlopsDbError, get_db_manager`. The import opens no connection and
loads neither SQLAlchemy nor psycopg2.

PYTEST_DONT_REWRITE: without this mark, pytest warns about a package with a plugin that is imported before pytest runs.
"""

import logging
from typing import TYPE_CHECKING, Any

from mlops_db.errors import MlopsDbError

if TYPE_CHECKING:
    from mlops_db.storage.db_manager import DatabaseManager, get_db_manager

__all__ = ["DatabaseManager", "MlopsDbError", "get_db_manager"]
# Written here, because a package in a folder of PYTHONPATH has no metadata.
__version__ = "0.1.0"

# Without a configuration of logging, Python would write warnings to standard error.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlops_db.storage import db_manager  # noqa: PLC0415  (commands of `mlops-db` do not need it)

    return getattr(db_manager, name)
