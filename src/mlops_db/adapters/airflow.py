"""A task's logical date as `replace=` of `db.monitoring.log_many`: a task that is tried again stores its values once.

No hook, no connection and no operator: jobs connect by the environment, as everywhere. Airflow itself is imported only
by `logical_date()` without a context.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from mlops_db.errors import AdapterError, MissingExtraError

_HINT = "Pass the context of the task: logical_date(context), or call it in a task that runs."


def logical_date(context: Mapping[str, Any] | None = None) -> datetime:
    """The moment that a task run is about, in UTC: the same for every try of it.

    Airflow 3 has runs without a logical date, such as those that an asset triggers. Theirs is `run_after` of the DAG
    run, which stays the same through retries and clearing, too.

    Args:
        context: the task's context, as `**context` of a task or as `execute()` gets it; by default the one of the task
            that runs.

    Raises:
        AdapterError: no task runs, or the context says nothing about a date.
        MissingExtraError: there is no context, and Airflow is not installed.
    """
    if context is None:
        context = _current_context()
    dag_run = context.get("dag_run")
    for moment in (
        context.get("logical_date"),
        getattr(dag_run, "logical_date", None),
        getattr(dag_run, "run_after", None),
        context.get("execution_date"),  # Airflow 2.1 and earlier; later ones warn who asks for it
    ):
        if isinstance(moment, datetime) and moment.utcoffset() is not None:
            # Airflow's are pendulum's, whose arithmetic differs.
            return datetime.fromisoformat(moment.isoformat()).astimezone(timezone.utc)
    raise AdapterError("the context of the task has neither a logical date nor a DAG run", hint=_HINT)


def _current_context() -> Mapping[str, Any]:
    try:
        from airflow.sdk import get_current_context  # noqa: PLC0415  (optional, and seconds to import)
    except ModuleNotFoundError:
        try:
            from airflow.operators.python import get_current_context  # noqa: PLC0415  (Airflow 2)
        except ModuleNotFoundError:
            raise MissingExtraError(
                "Airflow is not installed, so there is no context of a task",
                hint="Pass one: logical_date(context), or pip install 'mlops-db[airflow]'.",
            ) from None
    try:
        context: Mapping[str, Any] = get_current_context()  # noqa: AIR301  (of the Airflow that is here)
    except Exception as error:
        # RuntimeError in Airflow 3, AirflowException in Airflow 2, which has another place in each version.
        raise AdapterError(f"no task of Airflow runs here: {error}", hint=_HINT) from error
    return context
