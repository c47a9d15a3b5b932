"""The whole schema: importing this module adds every table and view to `metadata`."""

from mlops_db.schema.base import metadata
from mlops_db.schema.model_versions import model_versions
from mlops_db.schema.monitoring_metrics import monitoring_metrics
from mlops_db.schema.retraining_decisions import retraining_decisions
from mlops_db.schema.views import VIEW_COMMENTS, VIEWS

metadata.info["views"] = VIEWS
metadata.info["view_comments"] = VIEW_COMMENTS

__all__ = ["metadata", "model_versions", "monitoring_metrics", "retraining_decisions"]
