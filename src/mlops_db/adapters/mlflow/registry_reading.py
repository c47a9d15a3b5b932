"""What MLflow's registry says: its models, their versions, which one is in production, and the versions' metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import NOTHING_STORED, every, listed, registry_of, telling, tracking_of
from mlops_db.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from mlflow import MlflowClient

PER_SEARCH = 200  # how many versions, runs or models are asked for at once
_LOGGED_MODEL = re.compile(r"models:/(m-[0-9a-zA-Z]+)/?")  # where such versions come from, since MLflow 3


@dataclass(frozen=True)
class RegisteredModel:
    """A model of the registry.

    Attributes:
        name: its name.
        versions: MLflow's own entities, in the order of their creation.
        aliases: all that it has.
        production: which version is in production; None if none is.
        because: why it is that one, or none, in words.
    """

    name: str
    versions: Sequence[Any]
    aliases: Collection[str]
    production: str | None
    because: str


def read_model(client: MlflowClient, name: str, alias: str | None) -> RegisteredModel:
    """Read a model with all of its versions.

    Args:
        client: the client that is asked.
        name: the model's name.
        alias: the alias of the version in production; None if only stages count.

    Raises:
        AdapterError: the registry has no such model, or MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)

    with telling(registry_of(client), NOTHING_STORED):
        try:
            model = client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise AdapterError(
                f"the registry of MLflow at {registry_of(client)} has no registered model {name!r}; {NOTHING_STORED}",
                hint="Is MLFLOW_TRACKING_URI, or MLFLOW_REGISTRY_URI, that of the server which has it? Without "
                "model_names= all of its models are imported.",
            ) from None
        found = {
            int(version.version): version
            for version in every(client.search_model_versions, filter_string=_named(name), max_results=PER_SEARCH)
            if version.name == name
        }
    aliased = None if alias is None else model.aliases.get(alias)
    in_stage = [number for number, version in found.items() if version.current_stage == "Production"]
    if aliased is not None:
        production, because = str(aliased), f"it has the alias {alias!r}"
    elif in_stage:
        production, because = str(max(in_stage)), "it is the newest in stage Production"
    else:
        wanted = "" if alias is None else f"has the alias {alias!r}, or "
        production, because = None, f"no version {wanted}is in stage Production"
    versions = [found[number] for number in sorted(found, key=lambda each: (found[each].creation_timestamp, each))]
    return RegisteredModel(name, versions, sorted(model.aliases), production, because)


def names_of_models(client: MlflowClient) -> list[str]:
    """The names of all models of the registry, sorted; MLflow's prompts are none.

    Raises:
        AdapterError: MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now.
    """
    with telling(registry_of(client), NOTHING_STORED):
        return sorted({model.name for model in every(client.search_registered_models)})


def read_metrics(
    client: MlflowClient, versions: Sequence[Any], experiments: Sequence[str], outcome: str
) -> dict[str, Mapping[str, float]]:
    """The metrics of some versions, by their runs; those of the logged model count before those of its run.

    A run that makes several models, such as one at each checkpoint, logs a metric of each; its own is the last one.

    Args:
        client: the client that is asked.
        versions: MLflow's entities; PER_SEARCH at most.
        experiments: the ids of all experiments.
        outcome: what is stored so far.

    Returns:
        An item for each run that MLflow still has, deleted or not.

    Raises:
        AdapterError: MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now.
    """
    from mlflow.entities import ViewType  # noqa: PLC0415  (there is a client, so it is loaded)

    runs = listed(version.run_id for version in versions)
    made = {version.run_id: model for version in versions if (model := _logged_model(version))}
    metrics: dict[str, Mapping[str, float]] = {}
    of_models: dict[str, Mapping[str, float]] = {}
    with telling(tracking_of(client), outcome):
        if runs:
            for run in every(
                client.search_runs,
                experiment_ids=experiments,
                filter_string=f"attributes.run_id IN ({runs})",
                run_view_type=ViewType.ALL,
                max_results=PER_SEARCH,
            ):
                metrics[run.info.run_id] = run.data.metrics
        if models := listed(made.values()):
            for model in every(
                client.search_logged_models,
                experiment_ids=experiments,
                filter_string=f"model_id IN ({models})",
                max_results=PER_SEARCH,
            ):
                logged = sorted(model.metrics or (), key=lambda metric: (metric.step, metric.timestamp, metric.value))
                of_models[model.model_id] = {metric.key: metric.value for metric in logged}
    return {run: {**of_run, **of_models.get(made.get(run, ""), {})} for run, of_run in metrics.items()}


def _logged_model(version: Any) -> str | None:
    if version.model_id:
        return str(version.model_id)
    source = _LOGGED_MODEL.fullmatch(version.source or "")
    return source and source[1]


def _named(name: str) -> str | None:
    """The search for a model's versions; None, which finds all, if its name cannot stand in one: nothing escapes."""
    quote = next((quote for quote in "'\"" if quote not in name), None)
    return quote and f"name={quote}{name}{quote}"
