"""`db.models`: which versions of the models exist, and which one of each is in production.

A version is identified by the MLflow run that made it. Its stage changes in these ways only:

    register                  -> staging
    promote     staging       -> production, and the model's version in production -> archived
    promote     archived      -> production, likewise; if it was rolled back, only with `even_rolled_back`
    reject      staging       -> archived
    rollback    production    -> archived, and the version that was in production before it -> production
    archive     staging       -> archived
    archive     production    -> archived, only with `even_production`: the model has none in production then
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from mlops_db.errors import (
    InvalidValueError,
    RegistrationConflictError,
    TransitionError,
    UnknownModelVersionError,
    printable,
)
from mlops_db.schema.limits import DEFAULT_MODEL, STATUSES, Status
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.arguments import (
    check_choice,
    check_flag,
    check_limit,
    check_model_version,
    check_moment,
    check_name,
    check_score,
)
from mlops_db.storage.decisions import check_decision, insert_decision, is_recorded_since, lock_model, record_once
from mlops_db.storage.transactions import Transactions, columns_of, equal, read_records

_log = logging.getLogger("mlops_db.storage")


@dataclass(frozen=True)
class ModelVersion:
    """A row of model_versions.

    Attributes:
        id: the version's number among those of all models.
        model_name: the model that it is a version of.
        mlflow_run_id: the MLflow run that made it; no two versions share one.
        model_version: the version, as text.
        status: staging, production (at most one of each model) or archived.
        f1_score: F1 score, 0 to 1; None if it was not measured.
        brier_score: Brier score, 0 to 1, lower is better; None if it was not measured.
        created_at: when it was registered, in UTC.
        promoted_at: when it was last promoted, in UTC; None if never.
    """

    id: int
    model_name: str
    mlflow_run_id: str
    model_version: str
    status: Status
    f1_score: float | None
    brier_score: float | None
    created_at: datetime
    promoted_at: datetime | None


_REGISTER_IT = "Register it: db.models.register(...)."
_EVER = datetime.min.replace(tzinfo=timezone.utc)
_Versions = list[ModelVersion]  # the class has a method of the name list

_COLUMNS = columns_of(ModelVersion)
SELECT = f"SELECT {_COLUMNS} FROM public.model_versions AS version"
_INSERT = f"""
INSERT INTO public.model_versions (mlflow_run_id, model_version, model_name, f1_score, brier_score)
VALUES (%(mlflow_run_id)s, %(model_version)s, %(model_name)s, %(f1_score)s, %(brier_score)s)
    ON CONFLICT (mlflow_run_id) DO NOTHING
RETURNING {_COLUMNS}
"""
_FILL_IN = f"""
UPDATE public.model_versions
   SET f1_score = coalesce(f1_score, %(f1_score)s), brier_score = coalesce(brier_score, %(brier_score)s)
 WHERE id = %(id)s
RETURNING {_COLUMNS}
"""
_NEXT_MOMENT = """
SELECT greatest(clock_timestamp(), max(promoted_at) + interval '1 microsecond')
  FROM public.model_versions WHERE model_name = %s
"""
_ARCHIVE = f"UPDATE public.model_versions SET status = 'archived' WHERE id = %s RETURNING {_COLUMNS}"
_ARCHIVE_PRODUCTION = (
    "UPDATE public.model_versions SET status = 'archived' WHERE model_name = %s AND status = 'production'"
)
_PROMOTE = f"""
UPDATE public.model_versions SET status = 'production', promoted_at = %s WHERE id = %s RETURNING {_COLUMNS}
"""
# A version in production without a promotion was put there by hand.
_ROLLED_BACK = """
SELECT decision_timestamp FROM public.retraining_decisions
 WHERE candidate_mlflow_run_id = %s AND action = 'reject' AND is_rollback
   AND decision_timestamp >= coalesce(%s, '-infinity'::timestamptz)
 ORDER BY decision_timestamp DESC LIMIT 1
"""
# Any promotion is before that of a version which was put into production by hand.
_PREDECESSOR = f"""
{SELECT}
 WHERE model_name = %(model_name)s AND status = 'archived'
   AND promoted_at < coalesce(%(before)s, 'infinity'::timestamptz)
   AND NOT EXISTS (
       SELECT FROM public.retraining_decisions AS decision
        WHERE decision.candidate_mlflow_run_id = version.mlflow_run_id AND decision.action = 'reject'
          AND decision.decision_timestamp >= version.promoted_at
   )
 ORDER BY promoted_at DESC, id DESC
 LIMIT 1
   FOR UPDATE
"""


class ModelVersions:
    """The versions of the models, as `db.models`. Safe to share between threads, and between processes.

    Every method may also raise the errors that `DatabaseManager` lists; nothing of the call is stored then.
    """

    def __init__(self, transactions: Transactions) -> None:
        """Use the connections of `transactions`."""
        self._transactions = transactions

    def register(
        self,
        mlflow_run_id: str,
        model_version: str | int,
        *,
        model_name: str = DEFAULT_MODEL,
        f1_score: float | None = None,
        brier_score: float | None = None,
    ) -> ModelVersion:
        """Register the version that an MLflow run made, in staging.

        Registering the same version again returns it as it is, in any stage. A score that was missing is filled
        in; a score that is not given keeps its stored value.

        Args:
            mlflow_run_id: the run, 1 to 255 characters.
            model_version: the version, 1 to 50 characters; 3 is the same as "3".
            model_name: the model that it is a version of, 1 to 255 characters.
            f1_score: F1 score, 0 to 1.
            brier_score: Brier score, 0 to 1, lower is better.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which. Nothing was sent.
            RegistrationConflictError: the run is registered with another value; it names which.
        """
        run = check_name(mlflow_run_id, "mlflow_run_id")
        given = {
            "mlflow_run_id": run,
            "model_version": check_model_version(model_version),
            "model_name": check_name(model_name, "model_name"),
            "f1_score": check_score(f1_score, "f1_score"),
            "brier_score": check_score(brier_score, "brier_score"),
        }
        with self._transactions.safe_cursor() as cursor:
            if version := _find(cursor, _INSERT, given):
                return version
            registered = _lock_version(cursor, run)
            if key := find_difference(registered, given):
                raise RegistrationConflictError(
                    f"the MLflow run {run!r} is registered with {key} {getattr(registered, key)!r}, not {given[key]!r}",
                    key=key,
                    hint="A run has one version, and its values stay. Register another version under another run.",
                )
            return fill_in_scores(cursor, registered, given)

    def get(self, mlflow_run_id: str) -> ModelVersion | None:
        """The version that an MLflow run made; None if there is none.

        Raises:
            InvalidValueError: it cannot be the id of a run.
        """
        run = check_name(mlflow_run_id, "mlflow_run_id")
        with self._transactions.safe_cursor() as cursor:
            return _find(cursor, f"{SELECT} WHERE mlflow_run_id = %s", (run,))

    def production(self, model_name: str = DEFAULT_MODEL) -> ModelVersion | None:
        """The model's version in production; None if there is none.

        Raises:
            InvalidValueError: it cannot be a model's name.
        """
        model = check_name(model_name, "model_name")
        with self._transactions.safe_cursor() as cursor:
            return _find(cursor, f"{SELECT} WHERE status = 'production' AND model_name = %s", (model,))

    def list(self, model_name: str | None = None, status: Status | None = None, limit: int | None = 100) -> _Versions:
        """The versions, the newest registration first.

        Args:
            model_name: only versions of this model.
            status: only versions in this stage.
            limit: how many at most; None for all.

        Raises:
            InvalidValueError: an argument has no valid value; it names which.
        """
        given: dict[str, Any] = {}
        if model_name is not None:
            given["model_name"] = check_name(model_name, "model_name")
        if status is not None:
            given["status"] = check_choice(status, "status", STATUSES)
        query = f"{SELECT} WHERE {equal(given)} ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
        return read_records(self._transactions, ModelVersion, query, {**given, "limit": check_limit(limit)})

    def promote(  # noqa: PLR0913  (a decision has that many columns)
        self,
        mlflow_run_id: str,
        *,
        instead_of: str | None = None,
        even_rolled_back: bool = False,
        gates: Mapping[str, Any] | None = None,
        reasoning: str | None = None,
        decided_by: str | None = None,
    ) -> ModelVersion:
        """Put a version into production; returns it.

        One transaction archives the model's version in production, puts this one in its place, and records the
        decision with the same moment. Promotions of one model that run at once wait for each other.

        Promoting the version that is in production changes nothing, and records the decision only if it differs from
        what was recorded since the promotion: a job that runs twice records one decision.

        An old job that runs again much later would undo later decisions. So a version that was rolled back since its
        latest promotion is refused. Against another version that took its place, only `instead_of` protects: pass the
        run that the evaluation compared with, and do not read it again when the job runs again.

        Args:
            mlflow_run_id: the version's run; in staging, or archived.
            instead_of: the run that this one was compared with. It must still be in production, unless this one already
                is; by default any version in production is archived.
            even_rolled_back: promote it even if it was rolled back; from then on it counts as any other version.
            gates: the results of the gates, as for `decisions.record`; None if none ran, as for a first deployment.
            reasoning: why, in words.
            decided_by: who decided, as for `decisions.record`.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which, or the path in `gates`. Nothing was sent.
            UnknownModelVersionError: the run is not registered.
            TransitionError: it was rolled back, or another version than `instead_of`, or none, is in production.
        """
        run = check_name(mlflow_run_id, "mlflow_run_id")
        expected = None if instead_of is None else check_name(instead_of, "instead_of", column="mlflow_run_id")
        even_rolled_back = check_flag(even_rolled_back, "even_rolled_back")
        checked = check_decision("promote", candidate=run, gates=gates, reasoning=reasoning, decided_by=decided_by)
        with self._transactions.safe_cursor() as cursor:
            version = self._lock_model_and_version(cursor, run)
            decision = replace(checked, model_name=version.model_name)
            if version.status == "production" and version.promoted_at is not None:
                if not is_recorded_since(cursor, decision, version.promoted_at):
                    insert_decision(cursor, decision, None)
                return version
            if version.status == "archived" and not even_rolled_back:
                _refuse_rolled_back(cursor, version)
            if version.status != "production" and expected is not None:
                _require_in_production(
                    lock_production_version(cursor, version.model_name),
                    expected,
                    version.model_name,
                    hint="Compare it with the version in production, and pass the run of that one as instead_of.",
                )
            now = _next_moment(cursor, version.model_name)
            promoted = put_into_production(cursor, version, now)
            insert_decision(cursor, decision, now)
        log_change("is promoted", promoted)
        return promoted

    def reject(
        self,
        mlflow_run_id: str,
        *,
        gates: Mapping[str, Any] | None = None,
        reasoning: str | None = None,
        decided_at: datetime | None = None,
        decided_by: str | None = None,
    ) -> ModelVersion:
        """Reject a candidate: record the decision and archive the version, in one transaction; returns it.

        Rejecting an archived version records the decision only if it differs from what was recorded since the
        version's latest promotion: a job that runs twice records one decision. With `decided_at` that holds however
        late the job runs again.

        Args:
            mlflow_run_id: the version's run; in staging, or archived.
            gates: the results of the gates, as for `decisions.record`.
            reasoning: why, in words.
            decided_at: when it was decided, as for `decisions.record`.
            decided_by: who decided, as for `decisions.record`.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which, or the path in `gates`. Nothing is stored.
            UnknownModelVersionError: the run is not registered; `decisions.record` takes any run.
            TransitionError: it is in production.
            DecisionConflictError: another decision about it, of the moment `decided_at`, is already recorded.
        """
        run = check_name(mlflow_run_id, "mlflow_run_id")
        moment = None if decided_at is None else check_moment(decided_at, "decided_at")
        checked = check_decision("reject", candidate=run, gates=gates, reasoning=reasoning, decided_by=decided_by)
        hint = "Register it, or record the decision alone: db.decisions.record('reject', candidate=...)."
        with self._transactions.safe_cursor() as cursor:
            version = self._lock_model_and_version(cursor, run, hint)
            if version.status == "production":
                raise TransitionError(
                    f"{run!r} is in production of model {version.model_name!r}; nothing was changed",
                    hint="Roll back: db.models.rollback(model_name, of=...); or promote another version in its place.",
                )
            decision = replace(checked, model_name=version.model_name)
            if moment is not None:
                record_once(cursor, decision, moment)
            elif not is_recorded_since(cursor, decision, version.promoted_at or _EVER):
                insert_decision(cursor, decision, _next_moment(cursor, version.model_name))
            rejected = _change(cursor, _ARCHIVE, (version.id,))
        if version.status != "archived":
            log_change("is rejected", rejected)
        return rejected

    def rollback(
        self,
        model_name: str = DEFAULT_MODEL,
        *,
        of: str | None = None,
        yes: bool = False,
        reasoning: str | None = None,
        decided_by: str | None = None,
    ) -> ModelVersion:
        """Return to the version that was in production before the current one; returns it.

        That is the archived version with the latest promotion before the current one's. Versions that were rejected
        since their promotion, as by a rollback, are left out. One transaction exchanges the two versions and records
        two decisions, both with `is_rollback`: reject for the current version, promote for the other.

        Args:
            model_name: the model.
            of: the run to roll back, which must be in production. A call that is repeated, by a retry or by two people,
                then rolls back only once.
            yes: roll back any version that is in production; a call that is repeated then rolls back twice.
            reasoning: why, in words; recorded with both decisions.
            decided_by: who decided, as for `decisions.record`.

        Raises:
            InvalidValueError: an argument cannot be stored, or neither `of` nor `yes` is given; it names which. Nothing
                was sent.
            TransitionError: no version, or another one than `of`, is in production, or there is no earlier version.
        """
        model = check_name(model_name, "model_name")
        expected = None if of is None else check_name(of, "of", column="mlflow_run_id")
        if not check_flag(yes, "yes") and expected is None:
            raise InvalidValueError(
                "of",
                "is not given, and a rollback that is repeated would go back once more",
                hint=f"Name the version to roll back: rollback({model!r}, of=its run); or roll back any version: "
                f"rollback({model!r}, yes=True).",
            )
        checked = check_decision("reject", candidate=None, reasoning=reasoning, model_name=model, decided_by=decided_by)
        promote_one = "Promote one: db.models.list(model_name) has them all."
        with self._transactions.safe_cursor() as cursor:
            lock_model(cursor, model, self._transactions.settings.lock_wait)
            current = lock_production_version(cursor, model)
            if current is None:
                raise TransitionError(f"model {model!r} has no version in production", hint=promote_one)
            if expected is not None:
                _require_in_production(
                    current,
                    expected,
                    model,
                    hint="It may have been rolled back already: look at db.decisions.history(model_name, "
                    "action='rollback').",
                )
            before = _find(cursor, _PREDECESSOR, {"model_name": model, "before": current.promoted_at})
            if before is None:
                raise TransitionError(
                    f"model {model!r} has no version that was in production before {current.mlflow_run_id!r}, and was "
                    "not rejected since",
                    hint=promote_one,
                )
            now = _next_moment(cursor, model)
            restored = put_into_production(cursor, before, now)
            for action, run in (("reject", current.mlflow_run_id), ("promote", restored.mlflow_run_id)):
                insert_decision(cursor, replace(checked, action=action, candidate=run), now, is_rollback=True)
        log_change("is rolled back", replace(current, status="archived"))
        log_change("is promoted", restored)
        return restored

    def archive(self, mlflow_run_id: str, *, even_production: bool = False) -> ModelVersion:
        """Archive a version; returns it. An archived version stays archived. No decision is recorded.

        Args:
            mlflow_run_id: the version's run.
            even_production: archive it even if it is in production; its model has no version in production then.

        Raises:
            InvalidValueError: an argument has no valid value; it names which.
            UnknownModelVersionError: the run is not registered.
            TransitionError: it is in production.
        """
        run = check_name(mlflow_run_id, "mlflow_run_id")
        even_production = check_flag(even_production, "even_production")
        with self._transactions.safe_cursor() as cursor:
            version = self._lock_model_and_version(cursor, run)
            if version.status == "production" and not even_production:
                raise TransitionError(
                    f"{run!r} is in production, and model {version.model_name!r} would have no version there",
                    hint="Promote another version, which archives this one, or roll back; to retire the model, pass "
                    "even_production=True.",
                )
            archived = _change(cursor, _ARCHIVE, (version.id,))
        if version.status != "archived":
            log_change("is archived", archived)
        return archived

    def _lock_model_and_version(self, cursor: SafeCursor, run: str, hint: str = _REGISTER_IT) -> ModelVersion:
        """The run's version, locked together with its model until the transaction ends."""
        cursor.execute("SELECT model_name FROM public.model_versions WHERE mlflow_run_id = %s", (run,))
        for (model_name,) in cursor.fetchall():
            # Before the row: a session that holds this lock may want the row, too.
            lock_model(cursor, model_name, self._transactions.settings.lock_wait)
        return _lock_version(cursor, run, hint)


def log_change(what: str, version: ModelVersion) -> None:
    """Log a change of a version's stage, after it is committed."""
    fields = {name: getattr(version, name) for name in ("model_name", "model_version", "mlflow_run_id", "status")}
    model, number, run, _ = map(printable, fields.values())
    _log.info("version %s of model %s (run %s) %s", number, model, run, what, extra=fields)


def find_difference(registered: ModelVersion, given: Mapping[str, Any]) -> str | None:
    """The first key with different values in both; a value that either lacks does not count."""
    for key, value in given.items():
        stored = getattr(registered, key)
        if value is not None and stored is not None and value != stored:
            return key
    return None


def fill_in_scores(cursor: SafeCursor, registered: ModelVersion, given: Mapping[str, Any]) -> ModelVersion:
    """Store the given scores where the version has none; returns the version."""
    if all(given[key] is None or getattr(registered, key) is not None for key in ("f1_score", "brier_score")):
        return registered
    return _change(cursor, _FILL_IN, {**given, "id": registered.id})


def lock_production_version(cursor: SafeCursor, model: str) -> ModelVersion | None:
    """The model's version in production, locked until the transaction ends; None if there is none."""
    return _find(cursor, f"{SELECT} WHERE status = 'production' AND model_name = %s FOR UPDATE", (model,))


def put_into_production(cursor: SafeCursor, version: ModelVersion, now: datetime) -> ModelVersion:
    """Promote the version as of `now`, and archive its model's version in production; the caller has locked the model.

    In two statements: two rows of a model may never be in production, not within one UPDATE either.
    """
    cursor.execute(_ARCHIVE_PRODUCTION, (version.model_name,))
    return _change(cursor, _PROMOTE, (now, version.id))


def _find(cursor: SafeCursor, query: str, parameters: Any) -> ModelVersion | None:
    """The version of the query's row; None if it has none."""
    cursor.execute(query, parameters)
    row = cursor.fetchone()
    return None if row is None else ModelVersion(*row)


def _change(cursor: SafeCursor, statement: str, parameters: Any) -> ModelVersion:
    """The version as the statement left it."""
    cursor.execute(statement, parameters)
    ((*row,),) = cursor.fetchall()
    return ModelVersion(*row)


def _lock_version(cursor: SafeCursor, run: str, hint: str = _REGISTER_IT) -> ModelVersion:
    """The run's version, locked until the transaction ends.

    Raises:
        UnknownModelVersionError: there is none.
    """
    version = _find(cursor, f"{SELECT} WHERE mlflow_run_id = %s FOR UPDATE", (run,))
    if version is None:
        raise UnknownModelVersionError(f"no version is registered for the MLflow run {run!r}", hint=hint)
    return version


def _require_in_production(current: ModelVersion | None, expected: str, model: str, hint: str) -> None:
    run = current and current.mlflow_run_id
    if run != expected:
        shown = "no version" if run is None else repr(run)
        raise TransitionError(
            f"{expected!r} is not in production of model {model!r}, {shown} is; nothing was changed", hint=hint
        )


def _refuse_rolled_back(cursor: SafeCursor, version: ModelVersion) -> None:
    cursor.execute(_ROLLED_BACK, (version.mlflow_run_id, version.promoted_at))
    for (moment,) in cursor.fetchall():
        raise TransitionError(
            f"{version.mlflow_run_id!r} was rolled back at {moment.isoformat()}; nothing was changed",
            hint="This may be an old job that runs again. To promote the version anyway: even_rolled_back=True.",
        )


def _next_moment(cursor: SafeCursor, model_name: str) -> datetime:
    """The time by the server's clock, but after the model's latest promotion, even if the clock was set back."""
    return cursor.value(_NEXT_MOMENT, (model_name,))  # type: ignore[no-any-return]
