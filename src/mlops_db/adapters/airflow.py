"""A task's logical date as `replace=` of `db.monitoring.log_many`: a task that is tried again stores its values once.

No hook, no connection and no operator: jobs connect by the environment, as everywhere. Airflow itself is imported only
by `logical_date()` without a context.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mlops_db.errors import AdapterError, InvalidValueError, MissingExtraError
from mlops_db.storage.arguments import TEXT_HINT, check_moment, excerpt
from mlops_db.storage.mapped_moment import MappedMoment

_NOT_MAPPED = -1  # what Airflow says of a task that is not mapped
_HINT = "Pass the context of the task: logical_date(context), or call it in a task that runs."


def logical_date(context: Mapping[str, Any] | None = None) -> datetime:
    """The moment that a task run is about, in UTC: the same for every try of it.

    Airflow 3 has runs without a logical date, such as those that an asset triggers. Theirs is `run_after` of the DAG
    run, which stays the same through retries and clearing, too.

    In a mapped task it is a `MappedMoment`, a datetime that has the task's `map_index`, too: with it as `replace=`, the
    mapped tasks of one date leave each other's rows. Elsewhere it is a plain datetime.

    Args:
        context: the task's context, as `**context` of a task or as `execute()` gets it; by default the one of the task
            that runs.

    Raises:
        AdapterError: no task runs, or the context says nothing about a date, or has one that is naive or text.
        MissingExtraError: there is no context, and Airflow is not installed.
    """
    if context is None:
        context = _current_context()
    elif not isinstance(context, Mapping):
        hint = TEXT_HINT if isinstance(context, str) else _HINT
        if isinstance(context, datetime):
            hint = "It is a moment already: give it to replace= as it is."
        raise AdapterError(f"{excerpt(context)} is no context of a task, which is a mapping", hint=hint)
    date = _date_of(context)
    map_index = getattr(context.get("ti", context.get("task_instance")), "map_index", None)
    if map_index is None or map_index == _NOT_MAPPED:
        return date
    try:
        return MappedMoment.of(date, map_index)
    except InvalidValueError as refused:
        raise AdapterError(f"the task instance's {refused}", hint=_HINT) from None


def _date_of(context: Mapping[str, Any]) -> datetime:
    dag_run = context.get("dag_run")
    for name, given in (
        ("logical_date", context.get("logical_date")),
        ("logical_date of dag_run", getattr(dag_run, "logical_date", None)),
        ("run_after of dag_run", getattr(dag_run, "run_after", None)),
        ("execution_date", context.get("execution_date")),  # Airflow 2.1 and earlier; later ones warn who asks for it
    ):
        if given is not None:
            try:
                return check_moment(given, name)
            except InvalidValueError as refused:
                raise AdapterError(f"the context's {refused}", hint=refused.hint) from None
    hint = f"Take datetime.fromisoformat(ts) instead, of the ts that it has. {_HINT}" if "ts" in context else _HINT
    raise AdapterError("the context of the task has neither a logical date nor a DAG run", hint=hint)


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
