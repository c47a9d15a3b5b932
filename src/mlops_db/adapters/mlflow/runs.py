"""Register and promote runs as versions in `db.models`, and tag them in MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import NOTHING_STORED, Mlflow, search_all
from mlops_db.adapters.mlflow.synchronize import PRODUCTION_ALIAS, check_alias, synchronize
from mlops_db.errors import AdapterError
from mlops_db.schema.limits import DEFAULT_MODEL
from mlops_db.storage.arguments import check_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.storage.model_versions import ModelVersion


def register_run(  # noqa: PLR0913  (all but the first two have a default that fits)
    db: DatabaseManager,
    run_id: str,
    *,
    model_name: str = DEFAULT_MODEL,
    model_version: str | int | None = None,
    f1_metric: str | None = "f1_score",
    brier_metric: str | None = "brier_score",
    alias: str | None = PRODUCTION_ALIAS,
    client: MlflowClient | None = None,
) -> ModelVersion:
    """Register the version that a run made, with its scores, update MLflow as `tag_run` does, and return the version.

    Idempotent.

    Args:
        db: where the version is registered.
        run_id: the run.
        model_name: the model that it is a version of.
        model_version: the version. By default the version of this run in MLflow's registry: under `model_name`, or the
            only one under any name.
        f1_metric: the run's metric that is its F1 score; None if it has none.
        brier_metric: the run's metric that is its Brier score; None if it has none.
        alias: as for `tag_run`.
        client: as for `tag_run`.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted.
        AdapterError: the run lacks one of the metrics, or its version is unknown: nothing was stored. Or MLflow
            refused: the message says whether the version is stored.
        MlflowUnavailableError: MLflow does not answer, or not now. The message says whether the version is stored.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: a score is not within 0 to 1, or a text is too long.
        RegistrationConflictError: the run is registered with other values.
    """
    run_id = check_text(run_id, "run_id")
    alias = check_alias(alias)
    mlflow = Mlflow(client)
    run = mlflow.get_run(run_id, NOTHING_STORED)
    version = _version_in_registry(mlflow, run_id, model_name) if model_version is None else model_version
    registered = db.models.register(
        run_id,
        version,
        model_name=model_name,
        f1_score=_score(run, f1_metric, "f1_metric"),
        brier_score=_score(run, brier_metric, "brier_metric"),
    )
    synchronize(db, mlflow, registered, alias)
    return registered


def promote_run(  # noqa: PLR0913  (what `db.models.promote` takes)
    db: DatabaseManager,
    run_id: str,
    *,
    instead_of: str | None = None,
    even_rolled_back: bool = False,
    gates: Mapping[str, Any] | None = None,
    reasoning: str | None = None,
    decided_by: str | None = None,
    alias: str | None = PRODUCTION_ALIAS,
    client: MlflowClient | None = None,
) -> ModelVersion:
    """Promote a version as `db.models.promote` does, update MLflow as `tag_run` does, and return the version.

    Args:
        db: where the version is registered.
        run_id: its run.
        instead_of: as for `db.models.promote`.
        even_rolled_back: as for `db.models.promote`.
        gates: as for `db.models.promote`.
        reasoning: as for `db.models.promote`.
        decided_by: as for `db.models.promote`.
        alias: as for `tag_run`.
        client: as for `tag_run`.

    Raises:
        RunNotFoundError: the version is promoted, but MLflow does not have the run any more.
        MlflowUnavailableError: the version is promoted, but MLflow does not answer, or not now.
        AdapterError: the version is promoted, but MLflow refused a tag or the alias.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: an argument cannot be stored; nothing was changed.
        UnknownModelVersionError: the run is not registered.
        TransitionError: the version was rolled back, or another version than `instead_of` is in production.
    """
    alias = check_alias(alias)
    mlflow = Mlflow(client)
    promoted = db.models.promote(
        run_id,
        instead_of=instead_of,
        even_rolled_back=even_rolled_back,
        gates=gates,
        reasoning=reasoning,
        decided_by=decided_by,
    )
    synchronize(db, mlflow, promoted, alias)
    return promoted


def tag_run(
    db: DatabaseManager, run_id: str, *, alias: str | None = PRODUCTION_ALIAS, client: MlflowClient | None = None
) -> ModelVersion:
    """Bring MLflow in step with the database, for the whole model of a version; return the version.

    Call it after a decision that was made without MLflow, such as `db.models.rollback`, after an outage, or after
    changes by hand. Each run of the model gets the tags that it lacks, and the alias moves to the version in
    production. Only differences are written. Other runs that are deleted in MLflow are skipped.

    Args:
        db: where the version is registered.
        run_id: its run, or any other of the model.
        alias: the alias of the registered model for its version in production; None leaves the registry alone. It
            moves if the registry has the version in production, with the same run and the same number. It is deleted
            if it points at an archived version. Otherwise it stays.
        client: a client of MLflow; by default one of the server in MLFLOW_TRACKING_URI.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted; everything else is in step.
        MlflowUnavailableError: MLflow does not answer, or not now.
        AdapterError: the run is not registered, or MLflow refused a tag or the alias.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: an argument has a wrong value.
    """
    alias = check_alias(alias)
    mlflow = Mlflow(client)
    version = db.models.get(run_id)
    if version is None:
        raise AdapterError(f"no version is registered for the MLflow run {run_id!r}", hint="Call register_run first.")
    synchronize(db, mlflow, version, alias)
    return version


def _score(run: Run, metric: str | None, argument: str) -> float | None:
    if metric is None:
        return None
    metrics: Mapping[str, float] = run.data.metrics
    if metric not in metrics:
        raise AdapterError(
            f"the MLflow run {run.info.run_id!r} has no metric {metric!r}, but {', '.join(sorted(metrics)) or 'none'}",
            hint=f"Name the right one with {argument}=, or pass None if there is none.",
        )
    return metrics[metric]


def _version_in_registry(mlflow: Mlflow, run_id: str, model_name: str) -> str:
    with mlflow.registry_errors(NOTHING_STORED, instead="Or pass the version: model_version=."):
        entries = list(search_all(mlflow.client.search_model_versions, filter_string=f"run_id='{run_id}'"))
    found = [(entry.name, str(entry.version)) for entry in entries]
    versions = [version for name, version in found if name == model_name] or [version for _, version in found]
    if len(versions) == 1:
        return versions[0]
    named = ", ".join(f"version {version} of {name}" for name, version in sorted(found)) or "no version"
    raise AdapterError(
        f"MLflow's registry has {named} for the run {run_id!r}, so {model_name!r} has no version to take from it",
        hint="Pass the version: model_version=.",
    )
