"""Bring MLflow in step with the database: the tags of a model's runs, and the alias of its registered model."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from mlops_db.adapters.mlflow.client import Mlflow, quote_ids, search_all
from mlops_db.errors import AdapterError, MlflowUnavailableError, RunNotFoundError
from mlops_db.schema.limits import MAX_CHARACTERS
from mlops_db.storage.arguments import check_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.storage.model_versions import ModelVersion

TAGS = {"mlops_db.model_name": "model_name", "mlops_db.version_id": "id", "mlops_db.status": "status"}
PRODUCTION_ALIAS = "production"
_UP_TO_DATE = "the database is up to date"


def synchronize(db: DatabaseManager, mlflow: Mlflow, version: ModelVersion, alias: str | None) -> None:
    """Bring MLflow in step with the database, for the model of a version.

    Other processes may change the model at the same time. A call that wrote anything reads the database again, and
    repeats until the database has not changed meanwhile. So the last write is always of the latest decision.

    Args:
        db: the database.
        mlflow: the client of MLflow.
        version: the version that the call is about.
        alias: the alias of the version in production; None leaves the registry alone.

    Raises:
        RunNotFoundError: MLflow does not have the version's run; everything else is in step.
        MlflowUnavailableError: MLflow does not answer, or not now.
        AdapterError: MLflow refused a tag or the alias; everything else is in step.
    """
    versions = _versions(db, version.model_name)
    while True:
        refusals: list[AdapterError] = []
        written = _write_tags(mlflow, versions, version.mlflow_run_id, refusals)
        if alias is not None:
            written |= _move_alias(db, mlflow, alias, versions, refusals)
        before, versions = versions, _versions(db, version.model_name) if written else versions
        if versions == before:
            break
    if refusals:
        raise refusals[0]


def check_alias(alias: str | None) -> str | None:
    """The alias, if the registry can have it.

    Raises:
        InvalidValueError: it is neither None nor text of 1 to 255 characters.
    """
    return None if alias is None else check_text(alias, "alias", most=255)


@contextmanager
def _collect(refusals: list[AdapterError]) -> Iterator[None]:
    """Keep a refusal for the end, so that the rest is still written."""
    try:
        yield
    except MlflowUnavailableError:
        raise
    except AdapterError as refusal:
        refusals.append(refusal)


def _versions(db: DatabaseManager, model_name: str) -> dict[str, ModelVersion]:
    return {version.mlflow_run_id: version for version in db.models.list(model_name, limit=None)}


def _write_tags(mlflow: Mlflow, versions: Mapping[str, ModelVersion], asked: str, refusals: list[AdapterError]) -> bool:
    """Write the tags that differ, except on runs that MLflow does not have; return whether any differed."""
    with mlflow.tracking_errors(f"{_UP_TO_DATE}, the runs' tags may not be"):
        present = {run.info.run_id: run.data.tags for run in mlflow.find_runs(versions)}
    if asked not in present:
        with _collect(refusals):
            present[asked] = mlflow.get_run(asked, _UP_TO_DATE).data.tags
    written = False
    for run_id, tags in present.items():
        wanted = {tag: str(getattr(versions[run_id], attribute)) for tag, attribute in TAGS.items()}
        if differing := dict(wanted.items() - tags.items()):
            with _collect(refusals):
                _write(mlflow, run_id, differing)
                written = True
    return written


def _write(mlflow: Mlflow, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag  # noqa: PLC0415  (there is a client, so it is loaded)

    outcome = f"{_UP_TO_DATE}, the tags of run {run_id} are not"
    try:
        with mlflow.tracking_errors(outcome):
            mlflow.client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
    except MlflowUnavailableError:
        raise
    except AdapterError:
        with suppress(RunNotFoundError):  # it was deleted meanwhile
            mlflow.get_run(run_id, outcome)
            raise


def _move_alias(
    db: DatabaseManager,
    mlflow: Mlflow,
    alias: str,
    versions: Mapping[str, ModelVersion],
    refusals: list[AdapterError],
) -> bool:
    """Point the alias at the version in production, and at no archived one; return whether it was wrong."""
    outcome, instead = f"{_UP_TO_DATE}, the alias {alias!r} may not be", "alias=None leaves the registry alone."
    errors = partial(mlflow.registry_errors, outcome, instead=instead)
    entries: dict[tuple[str, str], ModelVersion] = {}
    with _collect(refusals), errors():
        entries = _find_entries(db, mlflow, versions)
    changed = False
    for name in {name for name, _ in entries}:
        with _collect(refusals), errors():
            present = mlflow.client.get_registered_model(name).aliases.get(alias)
            pointed = None if present is None else entries.get((name, str(present)))
            wanted = [number for (of, number), each in entries.items() if of == name and each.status == "production"]
            if wanted and (pointed is None or pointed.status != "production"):
                mlflow.client.set_registered_model_alias(name, alias, wanted[0])
                changed = True
            elif pointed is not None and pointed.status == "archived":
                mlflow.client.delete_registered_model_alias(name, alias)
                changed = True
    return changed


def _find_entries(
    db: DatabaseManager, mlflow: Mlflow, versions: Mapping[str, ModelVersion]
) -> dict[tuple[str, str], ModelVersion]:
    """The versions that the registry has, too, by the name of the registered model and the number there.

    Such an entry has the same run and the same number. It is under the model's own name. If there is none, the only
    entry under another name counts, unless the database has a model of that name, too.
    """
    found: dict[str, list[str]] = {}
    for ids in quote_ids(versions):
        for entry in search_all(mlflow.client.search_model_versions, filter_string=f"run_id IN ({ids})"):
            version = versions.get(entry.run_id)
            if version is not None and str(entry.version) == version.model_version:
                found.setdefault(entry.run_id, []).append(entry.name)
    entries = {}
    for run_id, names in found.items():
        version = versions[run_id]
        chosen = [name for name in names if name == version.model_name] or names
        if len(chosen) == 1:
            entries[chosen[0], version.model_version] = version
    others = {name for name, _ in entries} - {version.model_name for version in versions.values()}
    with_own = {name for name in others if len(name) <= MAX_CHARACTERS["model_name"] and db.models.list(name, limit=1)}
    return {key: version for key, version in entries.items() if key[0] not in with_own}
