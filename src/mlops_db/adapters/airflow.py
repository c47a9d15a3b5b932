"""A task's logical date, for `replace=` of `db.monitoring.log_many`: a retried task stores its values once.

There is no hook, connection or operator: jobs connect by the environment, as everywhere. Only `logical_date()` without
a context imports Airflow.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mlops_db.errors import AdapterError, InvalidValueError, MissingExtraError
from mlops_db.storage.arguments import TEXT_HINT, check_moment, excerpt
from mlops_db.storage.mapped_moment import MappedMoment

_NOT_MAPPED = -1  # Airflow's map_index of a task that is not mapped
_HINT = "Pass the context of the task: logical_date(context), or call it in a running task."


def logical_date(context: Mapping[str, Any] | None = None) -> datetime:
    """The logical date of a task run, in UTC. It is the same for every try.

    Airflow 3 has runs without a logical date, such as those that an asset triggers. For them it is `run_after` of the
    DAG run, which also stays the same through retries and clearing.

    For a mapped task the result is a `MappedMoment`, a datetime with the task's `map_index`. With it as `replace=`, the
    mapped tasks of one date do not replace each other's rows. Otherwise it is a plain datetime.

    Args:
        context: the task's context, as `**context` of a task or as `execute()` gets it. By default the context of the
            running task.

    Raises:
        AdapterError: no task is running, or the context has no date, or a date that is naive or text.
        MissingExtraError: no context is given, and Airflow is not installed.
    """
    if context is None:
        context = _current_context()
    elif not isinstance(context, Mapping):
        hint = TEXT_HINT if isinstance(context, str) else _HINT
        if isinstance(context, datetime):
            hint = "It is a datetime already: pass it to replace= directly."
        raise AdapterError(f"{excerpt(context)} is no context of a task: a context is a mapping", hint=hint)
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
        ("execution_date", context.get("execution_date")),  # Airflow 2.1 and earlier; later ones warn
    ):
        if given is not None:
            try:
                return check_moment(given, name)
            except InvalidValueError as refused:
                raise AdapterError(f"the context's {refused}", hint=refused.hint) from None
    hint = f"Use datetime.fromisoformat(ts) with the context's ts instead. {_HINT}" if "ts" in context else _HINT
    raise AdapterError("the context of the task has neither a logical date nor a DAG run", hint=hint)


def _current_context() -> Mapping[str, Any]:
    try:
        from airflow.sdk import get_current_context  # noqa: PLC0415  (optional, and seconds to import)
    except ModuleNotFoundError:
        try:
            from airflow.operators.python import get_current_context  # noqa: PLC0415  (Airflow 2)
        except ModuleNotFoundError:
            raise MissingExtraError(
                "Airflow is not installed, so no task is running",
                hint="Pass the context of the task: logical_date(context), or run `pip install 'mlops-db[airflow]'`.",
            ) from None
    try:
        context: Mapping[str, Any] = get_current_context()  # noqa: AIR301  (the installed Airflow decides)
    except Exception as error:
        # RuntimeError in Airflow 3; in Airflow 2 AirflowException, whose module differs between versions.
        raise AdapterError(f"no task of Airflow is running here: {error}", hint=_HINT) from error
    return context
