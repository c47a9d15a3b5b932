"""Runs as versions in `db.models`, and what became of them as tags of the runs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import made_client, named_in, telling
from mlops_db.errors import AdapterError, RunNotFoundError
from mlops_db.storage.values import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.storage.model_versions import ModelVersion

TAGS = {"mlops_db.model_name": "model_name", "mlops_db.version_id": "id", "mlops_db.status": "status"}


def register_run(  # noqa: PLR0913  (all but the first two have a default that fits)
    db: DatabaseManager,
    run_id: str,
    *,
    model_name: str = DEFAULT_MODEL,
    model_version: str | None = None,
    f1_metric: str | None = "f1_score",
    brier_metric: str | None = "brier_score",
    client: MlflowClient | None = None,
) -> ModelVersion:
    """Register the version that a run made, with its scores, and tag the run; returns the version. Idempotent.

    Args:
        db: where the version is registered.
        run_id: the run.
        model_name: the model that it is a version of.
        model_version: the version; by default the one that MLflow's registry has of this run, under `model_name` or,
            if there is only one, under any name.
        f1_metric: the run's metric that is its F1 score; None if it has none.
        brier_metric: the run's metric that is its Brier score; None if it has none.
        client: by default MLflow's own, which MLFLOW_TRACKING_URI directs.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted.
        AdapterError: the run lacks one of the metrics, or nobody said which version it is, or MLflow failed.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: a score is not within 0 to 1, or a text is too long.
        RegistrationConflictError: the run is registered with other values.
    """
    client = client or made_client()
    run = _run(client, run_id)
    version = _version_in_registry(client, run_id, model_name) if model_version is None else model_version
    registered = db.models.register(
        run_id,
        version,
        model_name=model_name,
        f1_score=_score(run, f1_metric, "f1_metric"),
        brier_score=_score(run, brier_metric, "brier_metric"),
    )
    _tag(client, registered)
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
    client: MlflowClient | None = None,
) -> ModelVersion:
    """Promote a registered version as `db.models.promote` does, and tag its run and that of the version before it.

    Args:
        db: where the version is registered.
        run_id: its run.
        instead_of: as for `db.models.promote`, as those that follow.
        even_rolled_back: as above.
        gates: as above.
        reasoning: as above.
        decided_by: as above.
        client: as for `register_run`.

    Raises:
        AdapterError: it is promoted, but MLflow refused a tag: `tag_run` makes up for it.
        MissingExtraError: MLflow is not installed.
        UnknownModelVersionError: the run is not registered.
        TransitionError: it was rolled back, or another version than `instead_of` is in production.
    """
    client = client or made_client()
    candidate = db.models.get(run_id)
    before = candidate and db.models.production(candidate.model_name)
    promoted = db.models.promote(
        run_id,
        instead_of=instead_of,
        even_rolled_back=even_rolled_back,
        gates=gates,
        reasoning=reasoning,
        decided_by=decided_by,
    )
    _tag(client, promoted)
    if before and before.mlflow_run_id != run_id and (archived := db.models.get(before.mlflow_run_id)):
        with suppress(RunNotFoundError):  # old runs are deleted at some time, and their tags with them
            _tag(client, archived)
    return promoted


def tag_run(db: DatabaseManager, run_id: str, *, client: MlflowClient | None = None) -> ModelVersion:
    """Tag a run with what its version is now, as after a rollback; returns the version.

    Raises:
        RunNotFoundError: MLflow has no such run, or it is deleted.
        AdapterError: the run is not registered, or MLflow failed.
        MissingExtraError: MLflow is not installed.
    """
    client = client or made_client()
    version = db.models.get(run_id)
    if version is None:
        raise AdapterError(f"no version is registered for the MLflow run {run_id!r}", hint="Call register_run first.")
    _tag(client, version)
    return version


def _tag(client: MlflowClient, version: ModelVersion) -> None:
    with telling(client, version.mlflow_run_id, "the database is up to date, the run's tags are not"):
        for tag, attribute in TAGS.items():
            client.set_tag(version.mlflow_run_id, tag, str(getattr(version, attribute)))


def _run(client: MlflowClient, run_id: str) -> Run:
    with telling(client, run_id, "nothing was stored"):
        run = client.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise RunNotFoundError(run_id, named_in(client))
    return run


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
    with telling(client, run_id, "nothing was stored"):
        found = [(each.name, str(each.version)) for each in client.search_model_versions(f"run_id='{run_id}'")]
    versions = [version for name, version in found if name == model_name] or [version for _, version in found]
    if len(versions) == 1:
        return versions[0]
    named = ", ".join(f"version {version} of {name}" for name, version in sorted(found)) or "no version"
    raise AdapterError(
        f"MLflow's registry has {named} for the run {run_id!r}, so {model_name!r} has no version to take from it",
        hint="Say which it is: model_version=.",
    )
