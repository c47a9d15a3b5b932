"""MLflow's runs as versions in `db.models`, and what became of them as tags of the runs and an alias of the registry.

The tags are `mlops_db.model_name`, `mlops_db.version_id` and `mlops_db.status`, the alias is `production`. The database
is what counts: it is written first. Each call then mends what MLflow says of the whole model, so that the next one
makes up for what an outage, or a decision without MLflow, has left behind.
"""

from mlops_db.adapters.mlflow.registry import ImportResult, LeftOut, import_registry
from mlops_db.adapters.mlflow.runs import promote_run, register_run, tag_run

__all__ = ["ImportResult", "LeftOut", "import_registry", "promote_run", "register_run", "tag_run"]
