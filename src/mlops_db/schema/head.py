"""The whole schema: importing this module adds every table and view to `metadata`.

Each module of this folder is imported, so a new table needs no entry here.
"""

from importlib import import_module
from pkgutil import iter_modules

from mlops_db import schema
from mlops_db.schema.base import metadata
from mlops_db.schema.reporting_views import REPORTING_COMMENTS, REPORTING_VIEWS
from mlops_db.schema.views import VIEW_COMMENTS, VIEWS

for _module in iter_modules(schema.__path__):
    import_module(f"{schema.__name__}.{_module.name}")

metadata.info["views"] = {**VIEWS, **REPORTING_VIEWS}
metadata.info["view_comments"] = {**VIEW_COMMENTS, **REPORTING_COMMENTS}

__all__ = ["metadata"]
