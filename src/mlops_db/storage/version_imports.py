"""Imports the versions of another registry with their times, one model in one transaction.

Decisions in this database win: a version that is registered here keeps its stage, unless only imports have decided
about its model so far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from mlops_db.schema.limits import STATUSES, Status
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.arguments import check_choice, check_moment, check_name, check_score
from mlops_db.storage.decisions import check_decision, insert_decision, lock_model
from mlops_db.storage.model_versions import (
    SELECT,
    ModelVersion,
    fill_in_scores,
    find_difference,
    lock_production_version,
    log_change,
    put_into_production,
)
from mlops_db.storage.transactions import Transactions

Part = Literal["version", "score", "stage"]
# The values with which a run is registered.
_KEYS: Mapping[Part, Sequence[str]] = {"version": ("model_name", "model_version"), "score": ("f1_score", "brier_score")}


@dataclass(frozen=True)
class KnownVersion:
    """A version of another registry, with values that the database can store.

    Attributes:
        mlflow_run_id: the MLflow run that made it.
        model_version: the version, as text.
        status: its stage there: staging, production or archived.
        f1_score: F1 score, 0 to 1; None if there is none.
        brier_score: Brier score, 0 to 1; None if there is none.
        created_at: when it was registered there, aware.
        changed_at: when it was last changed there, aware; for the version in production, when it was promoted.
    """

    mlflow_run_id: str
    model_version: str
    status: Status
    f1_score: float | None
    brier_score: float | None
    created_at: datetime
    changed_at: datetime

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            InvalidValueError: a value cannot be stored; it names which.
        """
        check_name(self.mlflow_run_id, "mlflow_run_id")
        check_name(self.model_version, "model_version")
        check_choice(self.status, "status", STATUSES)
        check_score(self.f1_score, "f1_score")
        check_score(self.brier_score, "brier_score")
        check_moment(self.created_at, "created_at")
        check_moment(self.changed_at, "changed_at")


@dataclass(frozen=True)
class Conflict:
    """A part of a version that was not imported, because the database has something else.

    Attributes:
        model_version: the version.
        what: `version`: the whole of it, `score`: one of its scores, or `stage`.
        reason: why, in words.
    """

    model_version: str
    what: Part
    reason: str


@dataclass(frozen=True)
class ImportedVersions:
    """The result of an import of one model.

    Attributes:
        registered: the new versions, as they are now.
        present: the versions that were already registered, as they are now.
        promoted: the version that was put into production, as it is now; None if none was.
        conflicts: what was not imported.
    """

    registered: list[ModelVersion]
    present: list[ModelVersion]
    promoted: ModelVersion | None
    conflicts: list[Conflict]


def import_versions(
    transactions: Transactions, model_name: str, versions: Sequence[KnownVersion], *, source: str, reasoning: str
) -> ImportedVersions:
    """Register the new versions of a model, and promote the one in production unless a decision here is against it.

    In one transaction, in the order given. A version that is already registered keeps its stage; a missing score is
    filled in, as by `register`. The version in production is promoted if it is in staging, or an import has promoted it
    before; no decision but an import's may be about it. Besides, no version of the model was ever in production here,
    or an import made the latest promotion and its version still is. The decision has the moment of the promotion and is
    made by `source`. No moment is in the future, even if the other registry's clock is ahead.

    Args:
        transactions: the database.
        model_name: the model.
        versions: one for each run; at most one in production.
        source: the registry, such as "MLflow's registry"; later imports recognize their decisions by it.
        reasoning: of the promotion.

    Raises:
        InvalidValueError: the name or the reasoning cannot be stored. Nothing was sent.
        ContentionError: others changed the model for too long.
    """
    model = check_name(model_name, "model_name")
    known = {version.mlflow_run_id: version for version in versions}
    candidate = next((run for run, version in known.items() if version.status == "production"), None)
    decision = check_decision("promote", candidate=candidate, reasoning=reasoning, model_name=model, decided_by=source)
    with transactions.safe_cursor() as cursor:
        lock_model(cursor, model, transactions.settings.lock_wait)
        cursor.execute(_INSERT, {"model_name": model, **_columns(versions)})
        new = {run for (run,) in cursor.fetchall()}
        stored = _read_versions(cursor, list(known))
        conflicts: list[Conflict] = []
        for run in [run for run in known if run not in new]:
            given = {**asdict(known[run]), "model_name": model}
            conflict = _find_conflict(stored[run], given)
            if conflict is not None:
                conflicts.append(conflict)
            if conflict is not None and conflict.what == "version":
                del stored[run]
            else:
                stored[run] = fill_in_scores(cursor, stored[run], given)
        promoted = None
        if candidate is None and (current := lock_production_version(cursor, model)):
            reason = f"here it is in production, and stays so; in {source} no version that is registered here is"
            conflicts.append(Conflict(current.model_version, "stage", reason))
        elif candidate in stored and stored[candidate].status != "production":
            if objection := _find_objection(cursor, stored[candidate], source):
                reason = f"it is in production in {source}; {objection}, and that stays so"
                conflicts.append(Conflict(stored[candidate].model_version, "stage", reason))
            else:
                moment = cursor.value(_MOMENT, {**asdict(stored[candidate]), "changed_at": known[candidate].changed_at})
                promoted = put_into_production(cursor, stored[candidate], moment)
                insert_decision(cursor, decision, moment)
                stored = _read_versions(cursor, list(stored))  # the version that was in production is archived now
    for run in known:
        if run in new:
            log_change("is imported", stored[run])
    if promoted is not None:
        log_change("is promoted", promoted)
    return ImportedVersions(
        registered=[stored[run] for run in known if run in new],
        present=[stored[run] for run in known if run in stored and run not in new],
        promoted=promoted,
        conflicts=conflicts,
    )


def _columns(versions: Sequence[KnownVersion]) -> dict[str, list[object]]:
    rows = [asdict(version) for version in versions]
    return {key: [row[key] for row in rows] for key in KnownVersion.__annotations__}


def _read_versions(cursor: SafeCursor, runs: list[str]) -> dict[str, ModelVersion]:
    cursor.execute(f"{SELECT} WHERE mlflow_run_id = ANY(%s)", (runs,))
    return {version.mlflow_run_id: version for version in (ModelVersion(*row) for row in cursor)}


def _find_conflict(version: ModelVersion, given: Mapping[str, Any]) -> Conflict | None:
    """The first value of a registered version that differs in the other registry."""
    for what, keys in _KEYS.items():
        if key := find_difference(version, {key: given[key] for key in keys}):
            registered = f"is registered with {key} {getattr(version, key)!r}, not {given[key]!r}"
            return Conflict(given["model_version"], what, f"its run {version.mlflow_run_id} {registered}")
    return None


def _find_objection(cursor: SafeCursor, candidate: ModelVersion, source: str) -> str | None:
    """Why decisions made here forbid to promote the candidate; None if they do not."""
    if candidate.status == "archived" and candidate.promoted_at is None:
        return "here it is archived"
    cursor.execute(_DECIDED, (candidate.mlflow_run_id, source))
    if cursor.fetchone() is not None:
        return f"here its stage is {candidate.status}, with a decision about it"
    cursor.execute(_LATEST_PROMOTION, (candidate.model_name,))
    latest = cursor.fetchone()
    current = lock_production_version(cursor, candidate.model_name)
    if current is not None:
        by_an_import = latest == (current.mlflow_run_id, source, False)
        return None if by_an_import else f"here version {current.model_version} is in production"
    cursor.execute(_WAS_PROMOTED, (candidate.model_name,))
    return None if latest is None and cursor.fetchone() is None else "here no version is in production any more"


# The version in production is promoted afterwards, if no decision here is against it.
_INSERT = """
INSERT INTO public.model_versions
       (mlflow_run_id, model_version, model_name, f1_score, brier_score, created_at, status)
SELECT run, version, %(model_name)s, f1, brier, least(created, clock_timestamp()),
       CASE status WHEN 'archived' THEN status ELSE 'staging' END
  FROM unnest(%(mlflow_run_id)s::text[], %(model_version)s::text[], %(f1_score)s::double precision[],
              %(brier_score)s::double precision[], %(created_at)s::timestamptz[], %(status)s::text[])
       WITH ORDINALITY AS known (run, version, f1, brier, created, status, position)
 ORDER BY position
    ON CONFLICT (mlflow_run_id) DO NOTHING
RETURNING mlflow_run_id
"""
_DECIDED = """
SELECT FROM public.retraining_decisions
 WHERE candidate_mlflow_run_id = %s AND (action <> 'promote' OR is_rollback OR decided_by IS DISTINCT FROM %s)
 LIMIT 1
"""
_LATEST_PROMOTION = """
SELECT candidate_mlflow_run_id, decided_by, is_rollback FROM public.retraining_decisions
 WHERE model_name = %s AND action = 'promote'
 ORDER BY decision_timestamp DESC, id DESC LIMIT 1
"""
_WAS_PROMOTED = "SELECT FROM public.model_versions WHERE model_name = %s AND promoted_at IS NOT NULL LIMIT 1"
# Not in the future or before the registration, even if the other registry's clock is wrong; and later than all earlier
# promotions and the decisions about them.
_MOMENT = """
SELECT greatest(
           least(%(changed_at)s, clock_timestamp()),
           %(created_at)s,
           (SELECT max(promoted_at) + interval '1 microsecond'
              FROM public.model_versions WHERE model_name = %(model_name)s),
           (SELECT max(created_at) + interval '1 microsecond'
              FROM public.retraining_decisions WHERE model_name = %(model_name)s AND action = 'promote'))
"""
