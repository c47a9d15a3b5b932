"""Import the versions of MLflow's registry into `db.models`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from mlops_db.adapters.mlflow.client import NOTHING_STORED, Mlflow
from mlops_db.adapters.mlflow.registered_models import (
    PER_SEARCH,
    RegisteredModel,
    names_of_models,
    read_metrics,
    read_model,
)
from mlops_db.adapters.mlflow.synchronize import PRODUCTION_ALIAS, check_alias
from mlops_db.errors import InvalidValueError
from mlops_db.migration.progress import Progress
from mlops_db.storage.arguments import MOMENT_HINT, check_name, check_score, check_text, excerpt
from mlops_db.storage.version_imports import KnownVersion, Part, import_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from mlflow import MlflowClient

    from mlops_db.schema.limits import Status
    from mlops_db.storage.db_manager import DatabaseManager
    from mlops_db.storage.model_versions import ModelVersion

_SOURCE = "MLflow's registry"
_OUT_OF_USE = ("Archived", "Production")  # only one version is in production; the others in stage Production were
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class LeftOut:
    """Something of MLflow's registry that was not imported.

    Attributes:
        model_name: the registered model.
        model_version: the version; None for something of the model itself.
        what: a whole version, one of its scores, or its stage.
        reason: why, in words.
    """

    model_name: str
    model_version: str | None
    what: Part
    reason: str


@dataclass(frozen=True)
class ImportResult:
    """The result of an import. Each version is as it is after the import.

    Attributes:
        registered: the versions that are new, by model, in the order of their creation.
        promoted: the versions that were promoted.
        present: the versions that were registered before. Only missing scores were filled in.
        left_out: what was not imported.
    """

    registered: tuple[ModelVersion, ...]
    promoted: tuple[ModelVersion, ...]
    present: tuple[ModelVersion, ...]
    left_out: tuple[LeftOut, ...]


def import_registry(  # noqa: PLR0913  (all but the first have a default that fits)
    db: DatabaseManager,
    *,
    model_names: str | Iterable[str] | None = None,
    alias: str | None = PRODUCTION_ALIAS,
    f1_metric: str | None = "f1_score",
    brier_metric: str | None = "brier_score",
    progress: TextIO | None = None,
    client: MlflowClient | None = None,
) -> ImportResult:
    """Register the versions of MLflow's registry, and promote those in production there. Idempotent.

    Each version is registered under the registered model's name, with the time of its creation in the registry. The
    version with the alias is in production; without the alias, the newest one in stage Production, which MLflow serves.
    It is promoted with the time of its last change, because MLflow does not store the time of an alias, and the
    decision is recorded. The other versions in stage Production or Archived are archived; the rest are in staging.
    MLflow does not store what was in production before. So a rollback fails until another version is promoted.

    Decisions of this database stay. A registered version keeps its stage. Once anything but an import has changed the
    production of a model, no import promotes a version of it. Until then each import follows the registry, also back
    to a version that an import promoted before. If no version is in production there any more, the version here stays,
    and `left_out` says so. Times in the future become the current time. Nothing is written to MLflow.

    Each model is imported in one transaction. After an error, the models that were finished stay imported; call it
    again to continue.

    Args:
        db: where the versions are registered.
        model_names: the registered models; by default all.
        alias: the alias of the version in production; None to use only stages.
        f1_metric: the metric for the F1 score, of the logged model or else of its run; None for no F1 scores. A version
            without the metric, or with a value that is not from 0 to 1, has no score.
        brier_metric: the metric for the Brier score, likewise.
        progress: where to show progress, such as sys.stderr: a bar on a terminal, a line now and then in a log. By
            default nowhere.
        client: as for `tag_run`.

    Raises:
        AdapterError: the registry has no model of such a name, or MLflow refused.
        MlflowUnavailableError: MLflow does not answer, or not now. The message says what is stored so far.
        MissingExtraError: MLflow is not installed.
        InvalidValueError: an argument has a wrong value; the error names it. Nothing was stored.
        ContentionError: others changed a model for too long.
    """
    names = _check_names(model_names)
    alias = check_alias(alias)
    metrics = {
        column: check_text(metric, argument)
        for column, argument, metric in (
            ("f1_score", "f1_metric", f1_metric),
            ("brier_score", "brier_metric", brier_metric),
        )
        if metric is not None
    }
    mlflow = Mlflow(client)
    shown = Progress(progress)
    registered: list[ModelVersion] = []
    promoted: list[ModelVersion] = []
    present: list[ModelVersion] = []
    try:
        shown.begin(f"Importing the registry of MLflow at {mlflow.registry_uri}")
        names = names_of_models(mlflow) if names is None else names
        models = []
        for read, name in enumerate(names):
            shown.report("models read", read, len(names))
            models.append(read_model(mlflow, name, alias))
        candidates, left_out = _candidates(models)
        chosen = _choose_one_per_run(db, candidates, left_out)

        def read_scores() -> Iterator[tuple[str, KnownVersion]]:
            for start in range(0, len(chosen), PER_SEARCH):
                some = chosen[start : start + PER_SEARCH]
                shown.report("versions", start, len(chosen))
                outcome = f"{len(registered)} versions are registered" if registered else NOTHING_STORED
                found = read_metrics(mlflow, [each.entity for each in some], outcome) if metrics else {}
                for each in some:
                    yield each.model_name, _with_scores(each, found, metrics, left_out)

        because = {model.name: model.because for model in models}
        for name, versions in groupby(read_scores(), key=itemgetter(0)):
            imported = import_versions(
                db,
                name,
                [version for _, version in versions],
                source=_SOURCE,
                reasoning=f"imported from {_SOURCE}: {because[name]}",
            )
            registered += imported.registered
            present += imported.present
            promoted += [imported.promoted] if imported.promoted else []
            left_out += [LeftOut(name, *astuple(conflict)) for conflict in imported.conflicts]
        shown.done()
    finally:
        shown.stop()
    return ImportResult(tuple(registered), tuple(promoted), tuple(present), tuple(left_out))


def _check_names(given: object) -> list[str] | None:
    if given is None:
        return None
    hint = "Give the names of registered models, or None for all of them."
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Iterable):
        raise InvalidValueError("model_names", f"is {excerpt(given)}", hint=hint)
    return list(dict.fromkeys(check_text(name, "model_names") for name in given))


@dataclass(frozen=True)
class _Candidate:
    """A version that can be registered. Its scores are not known yet."""

    entity: Any
    model_name: str
    known: KnownVersion

    @property
    def names(self) -> tuple[str, str]:
        return self.model_name, self.known.model_version


def _candidates(models: Sequence[RegisteredModel]) -> tuple[list[_Candidate], list[LeftOut]]:
    """The versions that can be registered, by model, in the order of creation; and why the others cannot."""
    candidates: list[_Candidate] = []
    left_out: list[LeftOut] = []
    for model in models:
        if not model.versions:
            left_out.append(LeftOut(model.name, None, "version", "it has none"))
        elif model.production is None and model.aliases:
            reason = f"{model.because}; the model has the aliases {', '.join(model.aliases)}"
            left_out.append(LeftOut(model.name, None, "stage", reason))
        for entity in model.versions:
            number = str(entity.version)
            in_production = number == model.production
            try:
                candidates.append(_candidate(model.name, entity, in_production=in_production))
            except InvalidValueError as refusal:
                reason = f"{refusal.message}{'; it is in production in MLflow' if in_production else ''}"
                left_out.append(LeftOut(model.name, number, "version", reason))
            else:
                if entity.current_stage == "Production" and not in_production:
                    reason = f"it is in stage Production, too, but version {model.production} is in production: "
                    left_out.append(LeftOut(model.name, number, "stage", f"{reason}{model.because}"))
    return candidates, left_out


def _candidate(model_name: str, entity: Any, *, in_production: bool) -> _Candidate:
    """A version of the registry.

    Raises:
        InvalidValueError: it cannot be registered.
    """
    hint = "Register it by hand, with an id that you choose: db.models.register(...)."
    if entity.status != "READY":
        raise InvalidValueError("status", f"is {entity.status} in MLflow, so there is no model", hint=hint)
    if not entity.run_id:
        raise InvalidValueError("run_id", "is missing, and this database identifies a version by its run", hint=hint)
    status: Status = "archived" if entity.current_stage in _OUT_OF_USE else "staging"
    known = KnownVersion(
        mlflow_run_id=entity.run_id,
        model_version=str(entity.version),
        status="production" if in_production else status,
        f1_score=None,
        brier_score=None,
        created_at=_moment(entity.creation_timestamp, "creation_timestamp"),
        changed_at=_moment(entity.last_updated_timestamp or entity.creation_timestamp, "last_updated_timestamp"),
    )
    return _Candidate(entity, check_name(model_name, "model_name"), known)


def _moment(milliseconds: int, key: str) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except (OverflowError, TypeError):
        raise InvalidValueError(key, f"{milliseconds} is no moment", hint=MOMENT_HINT) from None


def _choose_one_per_run(
    db: DatabaseManager, candidates: Sequence[_Candidate], left_out: list[LeftOut]
) -> list[_Candidate]:
    """Choose one version of each run: the registered one, or the one in production, or the one created first.

    So a version that is created later changes nothing.
    """
    of_run: dict[str, list[_Candidate]] = {}
    for candidate in candidates:
        of_run.setdefault(candidate.known.mlflow_run_id, []).append(candidate)
    chosen = {}
    for run_id, several in of_run.items():
        there = db.models.get(run_id) if len(several) > 1 else None
        registered = there and (there.model_name, there.model_version)
        chosen[run_id] = min(
            several,
            key=lambda each: (
                each.names != registered,
                each.known.status != "production",
                each.known.created_at,
            ),
        )
    for candidate in candidates:
        instead = chosen[candidate.known.mlflow_run_id]
        if instead is not candidate:
            name, number = instead.names
            suffix = "; it is in production in MLflow" if candidate.known.status == "production" else ""
            reason = f"its run {candidate.known.mlflow_run_id} is that of version {number} of {name}{suffix}"
            left_out.append(LeftOut(*candidate.names, "version", reason))
    return [candidate for candidate in candidates if chosen[candidate.known.mlflow_run_id] is candidate]


def _with_scores(
    candidate: _Candidate,
    found: Mapping[str, Mapping[str, float]],
    metrics: Mapping[str, str],
    left_out: list[LeftOut],
) -> KnownVersion:
    run_id = candidate.known.mlflow_run_id
    if metrics and run_id not in found:
        left_out.append(LeftOut(*candidate.names, "score", f"MLflow does not have its run {run_id} any more"))
        return candidate.known
    scores = {column: _score(column, metric, candidate, found[run_id], left_out) for column, metric in metrics.items()}
    return replace(candidate.known, **scores)


def _score(
    column: str, metric: str, candidate: _Candidate, of_run: Mapping[str, float], left_out: list[LeftOut]
) -> Any:
    try:
        return check_score(of_run.get(metric), column)
    except InvalidValueError as refusal:
        left_out.append(LeftOut(*candidate.names, "score", f"metric {metric}: {refusal.reason}"))
        return None
