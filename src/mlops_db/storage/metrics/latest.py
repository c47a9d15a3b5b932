"""Finds the newest values of series for `db.monitoring.latest`: v_recent_monitoring, or its query of one model."""

from collections.abc import Collection

from mlops_db.schema.views import recent_monitoring
from mlops_db.storage.transactions import equal

_OF_MODEL = recent_monitoring(metrics="public.monitoring_metrics", model="%(model_name)s")


def latest_query(columns: str, filters: Collection[str], *, on_citus: bool) -> str:
    """SQL for the newest value of every series, the most recent first.

    Args:
        columns: what to select.
        filters: the columns of the view that are equal to the parameter of their name.
        on_citus: whether the database has Citus, on which the query of one model goes to its shard, and the view to
            all of them. Elsewhere the view is as fast, and needs no privilege on the tables.
    """
    of_model = on_citus and "model_name" in filters
    source = f"({_OF_MODEL}) AS recent" if of_model else "public.v_recent_monitoring"
    return f"""
        SELECT {columns} FROM {source} WHERE {equal(filters)}
         ORDER BY timestamp DESC NULLS LAST, id DESC, model_name, metric_type, metric_name
    """
