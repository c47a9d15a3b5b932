"""Runs as versions in `db.models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import NOTHING_STORED, active_run, checked_client, every, registry_of, telling
from mlops_db.adapters.mlflow.mending import PRODUCTION_ALIAS, checked_alias, mend
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
    """Register the version that a run made, with its scores, and mend as `tag_run` does; returns it. Idempotent.

    Args:
        db: where the version is registered.
        run_id: the run.
        model_name: the model that it is a version of.
        model_version: the version; by default the one that MLflow's registry has of this run, under `model_name` or,
            if there is only one, under any name.
        f1_metric: the run's metric that is its F1 score; None if it has none.
        brier_metric: the run's metric that is its Brier score; None if it has none.
        alias: as for `tag_run`.
        client: as for `tag_run`.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted.
        AdapterError: the run lacks one of the metrics, or nobody said which version it is: nothing was stored. Or
            MLflow refused; the message says whether the version is stored.
        MlflowUnavailableError: MLflow does not answer, or not now; the message says the same.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: a score is not within 0 to 1, or a text is too long.
        RegistrationConflictError: the run is registered with other values.
    """
    run_id = check_text(run_id, "run_id")
    alias = checked_alias(alias)
    client = checked_client(client)
    run = active_run(client, run_id, NOTHING_STORED)
    version = _version_in_registry(client, run_id, model_name) if model_version is None else model_version
    registered = db.models.register(
        run_id,
        version,
        model_name=model_name,
        f1_score=_score(run, f1_metric, "f1_metric"),
        brier_score=_score(run, brier_metric, "brier_metric"),
    )
    mend(db, client, registered, alias)
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
    """Promote a registered version as `db.models.promote` does, and mend as `tag_run` does; returns it.

    Args:
        db: where the version is registered.
        run_id: its run.
        instead_of: as for `db.models.promote`, as those that follow.
        even_rolled_back: as above.
        gates: as above.
        reasoning: as above.
        decided_by: as above.
        alias: as for `tag_run`.
        client: as for `tag_run`.

    Raises:
        RunNotFoundError: it is promoted, but MLflow has no such run any more.
        MlflowUnavailableError: it is promoted, but MLflow does not answer, or not now.
        AdapterError: it is promoted, but MLflow refused a tag or the alias.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: an argument cannot be stored; nothing was changed.
        UnknownModelVersionError: the run is not registered.
        TransitionError: it was rolled back, or another version than `instead_of` is in production.
    """
    alias = checked_alias(alias)
    client = checked_client(client)
    promoted = db.models.promote(
        run_id,
        instead_of=instead_of,
        even_rolled_back=even_rolled_back,
        gates=gates,
        reasoning=reasoning,
        decided_by=decided_by,
    )
    mend(db, client, promoted, alias)
    return promoted


def tag_run(
    db: DatabaseManager, run_id: str, *, alias: str | None = PRODUCTION_ALIAS, client: MlflowClient | None = None
) -> ModelVersion:
    """Have MLflow say of a version's whole model what the database says now; returns the version.

    Each run of the model gets the tags that it lacks, and the alias points at the version in production: after a
    decision that was made without MLflow, such as `db.models.rollback`, after an outage, after changes by hand. What is
    right already is not written. Runs that are deleted in MLflow are passed over, but for this one.

    Args:
        db: where the version is registered.
        run_id: its run, or any other of the model.
        alias: the alias that the registered model has for its version in production; None leaves the registry alone.
            It moves where the registry has the version in production, of the same run and the same number, and it is
            deleted where it points at a version that is archived. Other versions keep it.
        client: by default MLflow's own, which MLFLOW_TRACKING_URI directs.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted; all else is mended.
        MlflowUnavailableError: MLflow does not answer, or not now.
        AdapterError: the run is not registered, or MLflow refused a tag or the alias.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: an argument cannot be one.
    """
    alias = checked_alias(alias)
    client = checked_client(client)
    version = db.models.get(run_id)
    if version is None:
        raise AdapterError(f"no version is registered for the MLflow run {run_id!r}", hint="Call register_run first.")
    mend(db, client, version, alias)
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


def _version_in_registry(client: MlflowClient, run_id: str, model_name: str) -> str:
    with telling(registry_of(client), NOTHING_STORED, instead="Or say which version it is: model_version=."):
        entries = list(every(client.search_model_versions, filter_string=f"run_id='{run_id}'"))
    found = [(entry.name, str(entry.version)) for entry in entries]
    versions = [version for name, version in found if name == model_name] or [version for _, version in found]
    if len(versions) == 1:
        return versions[0]
    named = ", ".join(f"version {version} of {name}" for name, version in sorted(found)) or "no version"
    raise AdapterError(
        f"MLflow's registry has {named} for the run {run_id!r}, so {model_name!r} has no version to take from it",
        hint="Say which it is: model_version=.",
    )
