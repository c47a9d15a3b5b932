"""Versions that another registry has already, taken over with its times, one model in one transaction.

What was decided in this database is what counts: no version that is registered here changes its stage, unless nothing
but imports has decided about its model so far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from mlops_db.server.cursor import SafeCursor
from mlops_db.storage import values
from mlops_db.storage.decisions import CheckedDecision, checked_decision, insert_decision, lock_model
from mlops_db.storage.model_versions import (
    SELECT,
    STATUSES,
    ModelVersion,
    Status,
    differing,
    filled_in,
    in_production,
    put_into_production,
    version_of,
)

if TYPE_CHECKING:
    from mlops_db.storage.db_manager import DatabaseManager

Part = Literal["version", "score", "stage"]
# What a run is registered with.
_KEYS: Mapping[Part, Sequence[str]] = {"version": ("model_name", "model_version"), "score": ("f1_score", "brier_score")}


@dataclass(frozen=True)
class KnownVersion:
    """A version as another registry knows it, each value such as the database can store.

    Attributes:
        mlflow_run_id: the MLflow run that made it.
        model_version: the version, as text.
        status: its stage there.
        f1_score: F1 score, 0 to 1; None if there is none.
        brier_score: Brier score, 0 to 1; None if there is none.
        created_at: when it was registered there, aware.
        changed_at: when it was changed last there, aware: for the one in production, when it was promoted.
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
        values.run_id(self.mlflow_run_id)
        values.text(self.model_version, "model_version", most=values.MAX_VERSION)
        values.choice(self.status, "status", STATUSES)
        values.score(self.f1_score, "f1_score")
        values.score(self.brier_score, "brier_score")
        values.moment(self.created_at, "created_at")
        values.moment(self.changed_at, "changed_at")


@dataclass(frozen=True)
class Conflict:
    """What was not taken, as the database has something else.

    Attributes:
        model_version: of which version.
        what: the whole version, one of its scores, or its stage.
        reason: why, in words.
    """

    model_version: str
    what: Part
    reason: str


@dataclass(frozen=True)
class ImportedVersions:
    """What became of the versions of one model.

    Attributes:
        registered: those that are new, as they are now.
        present: those that were registered already, as they are now.
        promoted: the one that came into production, as it is now; None if none did.
        conflicts: what was not taken of the versions.
    """

    registered: list[ModelVersion]
    present: list[ModelVersion]
    promoted: ModelVersion | None
    conflicts: list[Conflict]


def import_versions(
    manager: "DatabaseManager", model_name: str, versions: Sequence[KnownVersion], *, source: str, reasoning: str
) -> ImportedVersions:
    """Register the versions of a model that are not, and promote the one in production if that is not decided here.

    In one transaction, in the order given. A version that is registered already keeps its stage; a score that it lacks
    is filled in, as by `register`. The one in production is promoted if no version of the model ever was here, or if
    the latest promotion was an import's, too, and holds; and if no decision but an import's is about it, and it is in
    staging, or an import has promoted it before. The decision is recorded, of the moment of the promotion, and by
    `source`. No moment is in the future, whatever that registry's clock says.

    Args:
        manager: of the database.
        model_name: the model.
        versions: one for each run; at most one in production.
        source: whose registry it is, such as "MLflow's registry"; decides, as far as later imports are concerned.
        reasoning: of the promotion.

    Raises:
        InvalidValueError: the name or the reasoning cannot be stored. Nothing was sent.
        ContentionError: others changed the model for too long.
    """
    model = values.name_of_model(model_name)
    known = {version.mlflow_run_id: version for version in versions}
    candidate = next((run for run, version in known.items() if version.status == "production"), None)
    decision = checked_decision(
        "promote", candidate=candidate, reasoning=reasoning, model_name=model, decided_by=source
    )
    with manager.safe_cursor() as cursor:
        lock_model(cursor, model, manager.settings.lock_wait)
        cursor.execute(_INSERT, {"model_name": model, **_columns(versions)})
        registered = {run for (run,) in cursor.fetchall()}
        there = _there(cursor, list(known))
        conflicts: list[Conflict] = []
        for run in (run for run in known if run not in registered):
            given, version = {**asdict(known[run]), "model_name": model}, there[run]
            for what, keys in _KEYS.items():
                if key := differing(version, {key: given[key] for key in keys}):
                    reason = f"its run {run} is registered with {key} {getattr(version, key)!r}, not {given[key]!r}"
                    conflicts.append(Conflict(known[run].model_version, what, reason))
                    if what == "version":
                        del there[run]
                        break
            else:
                there[run] = filled_in(cursor, version, given)
        promoted = None
        if candidate is None and (current := in_production(cursor, model)):
            reason = f"here it is in production, and stays so; in {source} none of the versions here is"
            conflicts.append(Conflict(current.model_version, "stage", reason))
        elif candidate in there and there[candidate].status != "production":
            if against := _reason_against(cursor, there[candidate], source):
                reason = f"it is in production in {source}; {against}, and stays so"
                conflicts.append(Conflict(there[candidate].model_version, "stage", reason))
            else:
                promoted = _promote(cursor, there[candidate], known[candidate].changed_at, decision)
                there = _there(cursor, list(there))  # the one before it is archived now
        return ImportedVersions(
            registered=[there[run] for run in known if run in registered],
            present=[there[run] for run in known if run in there and run not in registered],
            promoted=promoted,
            conflicts=conflicts,
        )


def _columns(versions: Sequence[KnownVersion]) -> dict[str, list[object]]:
    rows = [asdict(version) for version in versions]
    return {key: [row[key] for row in rows] for key in KnownVersion.__annotations__}


def _there(cursor: SafeCursor, runs: list[str]) -> dict[str, ModelVersion]:
    cursor.execute(f"{SELECT} WHERE mlflow_run_id = ANY(%s)", (runs,))
    return {version.mlflow_run_id: version for version in map(version_of, cursor.fetchall())}


def _reason_against(cursor: SafeCursor, candidate: ModelVersion, source: str) -> str | None:
    """Why the candidate is not to be promoted, by what was decided here; None if nothing is against it."""
    if candidate.status == "archived" and candidate.promoted_at is None:
        return "here it is archived"
    cursor.execute(_DECIDED, (candidate.mlflow_run_id, source))
    if cursor.fetchone() is not None:
        return f"here its stage is {candidate.status}, with a decision about it"
    cursor.execute(_LATEST_PROMOTION, (candidate.model_name,))
    latest = cursor.fetchone()
    current = in_production(cursor, candidate.model_name)
    if current is not None:
        by_an_import = latest == (current.mlflow_run_id, source, False)
        return None if by_an_import else f"here version {current.model_version} is"
    cursor.execute(_WAS_PROMOTED, (candidate.model_name,))
    return None if latest is None and cursor.fetchone() is None else "here none is any more"


def _promote(
    cursor: SafeCursor, candidate: ModelVersion, changed_at: datetime, decision: CheckedDecision
) -> ModelVersion:
    cursor.execute(_MOMENT, {**asdict(candidate), "changed_at": changed_at})
    (moment,) = cursor.fetchone() or (None,)
    promoted = put_into_production(cursor, candidate, moment)
    insert_decision(cursor, decision, moment)
    return promoted


# The one in production is put there afterwards, if it may be.
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
# Not in the future, nor before it was registered, whatever that registry's clock says; and later than what was so when
# the import before was made.
_MOMENT = """
SELECT greatest(
           least(%(changed_at)s, clock_timestamp()),
           %(created_at)s,
           (SELECT max(promoted_at) + interval '1 microsecond'
              FROM public.model_versions WHERE model_name = %(model_name)s),
           (SELECT max(created_at) + interval '1 microsecond'
              FROM public.retraining_decisions WHERE model_name = %(model_name)s AND action = 'promote'))
"""
