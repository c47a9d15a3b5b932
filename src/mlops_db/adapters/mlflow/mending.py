"""What MLflow says of a model, made what the database says: the tags of all its runs, and the alias in the registry."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import active_run, every, experiments_of, listed, registry_of, telling, tracking_of
from mlops_db.errors import AdapterError, MlflowUnavailableError, RunNotFoundError
from mlops_db.schema.limits import MAX_CHARACTERS
from mlops_db.storage.arguments import check_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.storage.model_versions import ModelVersion

TAGS = {"mlops_db.model_name": "model_name", "mlops_db.version_id": "id", "mlops_db.status": "status"}
PRODUCTION_ALIAS = "production"
_UP_TO_DATE = "the database is up to date"
_RUNS_PER_SEARCH = 500


def mend(db: DatabaseManager, client: MlflowClient, version: ModelVersion, alias: str | None) -> None:
    """Have MLflow say of a version's model what the database says.

    Others may decide meanwhile. Whoever wrote anything reads the database once more, and goes on until it did not
    change while they wrote. So what is written last is of the latest decision, whoever writes it.

    Args:
        db: what counts.
        client: the client of MLflow.
        version: the version that the call is about.
        alias: the alias of the version in production; None leaves the registry alone.

    Raises:
        RunNotFoundError: MLflow does not have the version's run; all else is mended.
        MlflowUnavailableError: MLflow does not answer, or not now.
        AdapterError: MLflow refused a tag or the alias; all else is mended.
    """
    versions = _versions(db, version.model_name)
    while True:
        refusals: list[AdapterError] = []
        written = _write_tags(client, versions, version.mlflow_run_id, refusals)
        if alias is not None:
            written |= _point(db, client, alias, versions, refusals)
        seen, versions = versions, _versions(db, version.model_name) if written else versions
        if versions == seen:
            break
    if refusals:
        raise refusals[0]


def checked_alias(alias: str | None) -> str | None:
    """The alias, if the registry can have it.

    Raises:
        InvalidValueError: it is neither None nor text of 1 to 255 characters.
    """
    return None if alias is None else check_text(alias, "alias", most=255)


@contextmanager
def _put_off(refusals: list[AdapterError]) -> Iterator[None]:
    """Keep a refusal for the end: all else is mended all the same."""
    try:
        yield
    except MlflowUnavailableError:
        raise
    except AdapterError as refusal:
        refusals.append(refusal)


def _versions(db: DatabaseManager, model_name: str) -> dict[str, ModelVersion]:
    return {version.mlflow_run_id: version for version in db.models.list(model_name, limit=None)}


def _write_tags(
    client: MlflowClient, versions: Mapping[str, ModelVersion], asked: str, refusals: list[AdapterError]
) -> bool:
    """Write the tags that differ; returns whether any did. Runs that MLflow does not have are passed over."""
    present = _present_tags(client, versions)
    if asked not in present:
        with _put_off(refusals):
            present[asked] = active_run(client, asked, _UP_TO_DATE).data.tags
    written = False
    for run_id, tags in present.items():
        wanted = {tag: str(getattr(versions[run_id], attribute)) for tag, attribute in TAGS.items()}
        if differing := dict(wanted.items() - tags.items()):
            with _put_off(refusals):
                _write(client, run_id, differing)
                written = True
    return written


def _present_tags(client: MlflowClient, versions: Mapping[str, ModelVersion]) -> dict[str, dict[str, str]]:
    """The tags of those runs of the versions that MLflow has and that are not deleted."""
    with telling(tracking_of(client), f"{_UP_TO_DATE}, the runs' tags may not be"):
        experiments = experiments_of(client)
        return {
            run.info.run_id: run.data.tags
            for runs in _chunks(versions)
            for run in every(
                client.search_runs,
                experiment_ids=experiments,
                filter_string=f"attributes.run_id IN ({runs})",
                max_results=_RUNS_PER_SEARCH,
            )
        }


def _write(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag  # noqa: PLC0415  (there is a client, so it is loaded)

    outcome = f"{_UP_TO_DATE}, the tags of run {run_id} are not"
    try:
        with telling(tracking_of(client), outcome):
            client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()])
    except MlflowUnavailableError:
        raise
    except AdapterError:
        with suppress(RunNotFoundError):  # it was deleted meanwhile
            active_run(client, run_id, outcome)
            raise


def _point(
    db: DatabaseManager,
    client: MlflowClient,
    alias: str,
    versions: Mapping[str, ModelVersion],
    refusals: list[AdapterError],
) -> bool:
    """Have the alias point at the version in production, and at no archived one; returns whether it did not."""
    outcome, instead = f"{_UP_TO_DATE}, the alias {alias!r} may not be", "alias=None leaves the registry alone."
    telling_alias = partial(telling, registry_of(client), outcome, instead=instead)
    entries: dict[tuple[str, str], ModelVersion] = {}
    with _put_off(refusals), telling_alias():
        entries = _entries(db, client, versions)
    changed = False
    for name in {name for name, _ in entries}:
        with _put_off(refusals), telling_alias():
            present = client.get_registered_model(name).aliases.get(alias)
            pointed = None if present is None else entries.get((name, str(present)))
            wanted = [number for (of, number), each in entries.items() if of == name and each.status == "production"]
            if wanted and (pointed is None or pointed.status != "production"):
                client.set_registered_model_alias(name, alias, wanted[0])
                changed = True
            elif pointed is not None and pointed.status == "archived":
                client.delete_registered_model_alias(name, alias)
                changed = True
    return changed


def _entries(
    db: DatabaseManager, client: MlflowClient, versions: Mapping[str, ModelVersion]
) -> dict[tuple[str, str], ModelVersion]:
    """The versions that the registry has, by the registered model's name and its number.

    The registry's is of the same run and has the same number. It is under the model's name; or, if none there is, and
    only one is elsewhere, it is that one, unless that is a model of the database, too.
    """
    found: dict[str, list[str]] = {}
    for runs in _chunks(versions):
        for entry in every(client.search_model_versions, filter_string=f"run_id IN ({runs})"):
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


def _chunks(versions: Mapping[str, Any]) -> Iterator[str]:
    """The runs' ids, as a search takes them, some at a time."""
    runs = list(versions)
    for start in range(0, len(runs), _RUNS_PER_SEARCH):
        if some := listed(runs[start : start + _RUNS_PER_SEARCH]):
            yield some
