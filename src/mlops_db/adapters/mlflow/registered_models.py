"""Read MLflow's registry: its models, their versions, the version in production, and the versions' metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import NOTHING_STORED, Mlflow, quote_ids, search_all
from mlops_db.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

PER_SEARCH = 200  # versions or models per request
_LOGGED_MODEL = re.compile(
    r"models:/(m-[0-9a-zA-Z]+)/?"
)  # the source of versions that are logged models, since MLflow 3


@dataclass(frozen=True)
class RegisteredModel:
    """A model of the registry.

    Attributes:
        name: its name.
        versions: MLflow's own entities, in the order of their creation.
        aliases: all of its aliases.
        production: the version in production; None if none is.
        because: why that version is in production, or none, in words.
    """

    name: str
    versions: Sequence[Any]
    aliases: Collection[str]
    production: str | None
    because: str


def read_model(mlflow: Mlflow, name: str, alias: str | None) -> RegisteredModel:
    """Read a model with all of its versions.

    Args:
        mlflow: the client of MLflow.
        name: the model's name.
        alias: the alias of the version in production; None if only stages count.

    Raises:
        AdapterError: the registry has no such model, or MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now.
    """
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  (there is a client, so it is loaded)

    with mlflow.registry_errors(NOTHING_STORED):
        try:
            model = mlflow.client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise AdapterError(
                f"the registry of MLflow at {mlflow.registry_uri} has no registered model {name!r}; {NOTHING_STORED}",
                hint="Check that MLFLOW_TRACKING_URI, or MLFLOW_REGISTRY_URI, is the server that has it. Without "
                "model_names=, all models are imported.",
            ) from None
        found = {
            int(version.version): version
            for version in search_all(
                mlflow.client.search_model_versions, filter_string=_named(name), max_results=PER_SEARCH
            )
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


def names_of_models(mlflow: Mlflow) -> list[str]:
    """The names of all models of the registry, sorted, without MLflow's prompts.

    Raises:
        AdapterError: MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now.
    """
    with mlflow.registry_errors(NOTHING_STORED):
        return sorted({model.name for model in search_all(mlflow.client.search_registered_models)})


def read_metrics(mlflow: Mlflow, versions: Sequence[Any], outcome: str) -> dict[str, Mapping[str, float]]:
    """The metrics of some versions, by run. A metric of the logged model has precedence over the run's.

    A run can make several models, such as one at each checkpoint. It then has the metric of the last one.

    Args:
        mlflow: the client of MLflow.
        versions: MLflow's entities; PER_SEARCH at most.
        outcome: what is stored so far.

    Returns:
        An item for each run that MLflow still has, deleted or not.

    Raises:
        AdapterError: MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now.
    """
    run_ids = [version.run_id for version in versions]
    models = {version.run_id: model for version in versions if (model := _logged_model(version))}
    of_models: dict[str, Mapping[str, float]] = {}
    with mlflow.tracking_errors(outcome):
        of_runs = {run.info.run_id: run.data.metrics for run in mlflow.find_runs(run_ids, deleted=True)}
        for ids in quote_ids(models.values()):
            for model in search_all(
                mlflow.client.search_logged_models,
                experiment_ids=mlflow.experiments,
                filter_string=f"model_id IN ({ids})",
                max_results=PER_SEARCH,
            ):
                logged = sorted(model.metrics or (), key=lambda metric: (metric.step, metric.timestamp, metric.value))
                of_models[model.model_id] = {metric.key: metric.value for metric in logged}
    return {run: {**of_run, **of_models.get(models.get(run, ""), {})} for run, of_run in of_runs.items()}


def _logged_model(version: Any) -> str | None:
    if version.model_id:
        return str(version.model_id)
    source = _LOGGED_MODEL.fullmatch(version.source or "")
    return source and source[1]


def _named(name: str) -> str | None:
    """The filter for a model's versions; None, which finds all versions, if the name cannot be quoted."""
    quote = next((quote for quote in "'\"" if quote not in name), None)
    return quote and f"name={quote}{name}{quote}"
