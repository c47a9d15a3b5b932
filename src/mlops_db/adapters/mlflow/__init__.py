"""Register MLflow's runs as versions in `db.models`, and keep MLflow's tags and alias in step with the database.

The tags are `mlops_db.model_name`, `mlops_db.version_id` and `mlops_db.status`, the alias is `production`. The database
decides, and is written first. Then each call updates MLflow for the whole model. So the next call makes up for an
outage, and for decisions that were made without MLflow.
"""

from mlops_db.adapters.mlflow.registry import ImportResult, LeftOut, import_registry
from mlops_db.adapters.mlflow.runs import promote_run, register_run, tag_run

__all__ = ["ImportResult", "LeftOut", "import_registry", "promote_run", "register_run", "tag_run"]
