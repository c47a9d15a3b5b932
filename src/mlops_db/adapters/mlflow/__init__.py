"""MLflow's runs as versions in `db.models`, and what became of them as tags of the runs.

The tags are `mlops_db.model_name`, `mlops_db.version_id` and `mlops_db.status`. The database is what counts: it is
written first, and tags that could not be written are made up for by `tag_run`.
"""

from mlops_db.adapters.mlflow.runs import promote_run, register_run, tag_run

__all__ = ["promote_run", "register_run", "tag_run"]
