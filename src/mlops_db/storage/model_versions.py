"""`db.models`: which versions of the models exist, and which one of each is in production.

A version is known by the MLflow run that made it. Its stage changes so, and in no other way:

    register                  -> staging
    promote     staging       -> production, and the model's version in production -> archived
    promote     archived      -> production, likewise; if it was rolled back, only if `even_rolled_back` says so
    reject      staging       -> archived
    rollback    production    -> archived, and the version that was in production before it -> production
    archive     staging       -> archived
    archive     production    -> archived, if `even_production` says so: the model has none in production then
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, get_args

from mlops_db.errors import InvalidValueError, RegistrationConflictError, TransitionError, UnknownModelVersionError
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage import values
from mlops_db.storage.decisions import (
    checked_decision,
    insert_decision,
    is_recorded_since,
    lock_model,
    recorded_before,
)

if TYPE_CHECKING:
    from mlops_db.storage.db_manager import DatabaseManager

Status = Literal["staging", "production", "archived"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class ModelVersion:
    """A row of model_versions.

    Attributes:
        id: counts the versions of all models.
        model_name: the model that it is a version of.
        mlflow_run_id: the MLflow run that made it; no two versions share one.
        model_version: the version, as text.
        status: staging, production (at most one of each model) or archived.
        f1_score: F1 score, 0 to 1; None if it was not measured.
        brier_score: Brier score, 0 to 1, lower is better; None if it was not measured.
        created_at: when it was registered, in UTC.
        promoted_at: when it was promoted last, in UTC; None if never.
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


class ModelVersions:
    """What retraining jobs call, as `db.models`. Safe to share between threads, and between processes.

    Every method may raise what `DatabaseManager` lists; nothing of the call is stored then.
    """

    def __init__(self, manager: "DatabaseManager") -> None:
        """Use the connections of `manager`."""
        self._manager = manager

    def register(
        self,
        mlflow_run_id: str,
        model_version: str | int,
        *,
        model_name: str = values.DEFAULT_MODEL,
        f1_score: float | None = None,
        brier_score: float | None = None,
    ) -> ModelVersion:
        """Register the version that an MLflow run made, in staging; a run that is registered stays what it is.

        To register the same again returns what is there, whatever its stage. A score that was not measured then is
        filled in; one that is left out now says nothing.

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
        run = values.run_id(mlflow_run_id)
        given = {
            "mlflow_run_id": run,
            "model_version": values.version_of_model(model_version),
            "model_name": values.name_of_model(model_name),
            "f1_score": values.score(f1_score, "f1_score"),
            "brier_score": values.score(brier_score, "brier_score"),
        }
        with self._manager.safe_cursor() as cursor:
            cursor.execute(_INSERT, given)
            if row := cursor.fetchone():
                return version_of(row)
            registered = _locked(cursor, run)
            _require_same(registered, given)
            return filled_in(cursor, registered, given)

    def get(self, mlflow_run_id: str) -> ModelVersion | None:
        """The version that an MLflow run made; None if there is none.

        Raises:
            InvalidValueError: it cannot be the id of a run.
        """
        return self._one("mlflow_run_id = %s", values.run_id(mlflow_run_id))

    def production(self, model_name: str = values.DEFAULT_MODEL) -> ModelVersion | None:
        """The model's version in production; None if there is none.

        Raises:
            InvalidValueError: it cannot be a model's name.
        """
        return self._one("status = 'production' AND model_name = %s", values.name_of_model(model_name))

    def list(self, model_name: str | None = None, status: Status | None = None, limit: int | None = 100) -> _Versions:
        """The versions, the newest registration first.

        Args:
            model_name: only those of this model.
            status: only those in this stage.
            limit: how many at most; None for all.

        Raises:
            InvalidValueError: an argument cannot be one; it names which.
        """
        given: dict[str, Any] = {}
        if model_name is not None:
            given["model_name"] = values.name_of_model(model_name)
        if status is not None:
            given["status"] = values.choice(status, "status", STATUSES)
        where = " AND ".join(f"{column} = %({column})s" for column in given) or "true"
        given["limit"] = values.limit(limit)
        with self._manager.safe_cursor() as cursor:
            cursor.execute(f"{SELECT} WHERE {where} ORDER BY created_at DESC, id DESC LIMIT %(limit)s", given)
            return [version_of(row) for row in cursor]

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

        In one transaction the model's version in production is archived, this one takes its place with the time of
        now, and the decision is recorded, of that same moment. Several at once come one after the other.

        To promote the version that is in production changes nothing, and records the decision only if it says
        something new: a job that runs twice records one decision. An old job that is run again, long after it, would
        undo what was decided since. So a version that was rolled back is refused: a rollback has rejected it at its
        latest promotion or later. Another version that took its place since then is protected by `instead_of` alone:
        pass the run that the evaluation compared with, and do not read it anew when the job runs again.

        Args:
            mlflow_run_id: the version's run; in staging, or archived.
            instead_of: the run that this one was compared with, which must be in production still, unless this one is
                already; by default whatever is there is archived.
            even_rolled_back: promote it also if it was rolled back; it counts as any other version from then on.
            gates: the results of the gates, as for `decisions.record`; None if none ran, as for a first deployment.
            reasoning: why, in words.
            decided_by: who decided, as for `decisions.record`.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which, or the path in `gates`. Nothing was sent.
            UnknownModelVersionError: the run is not registered.
            TransitionError: it was rolled back, or another version than `instead_of`, or none, is in production.
        """
        run = values.run_id(mlflow_run_id)
        expected = None if instead_of is None else values.run_id(instead_of, "instead_of")
        even_rolled_back = values.flag(even_rolled_back, "even_rolled_back")
        checked = checked_decision("promote", candidate=run, gates=gates, reasoning=reasoning, decided_by=decided_by)
        with self._manager.safe_cursor() as cursor:
            version = _locked_with_model(cursor, run, self._manager.settings.lock_wait)
            decision = replace(checked, model_name=version.model_name)
            if version.status == "production" and version.promoted_at is not None:
                if not is_recorded_since(cursor, decision, version.promoted_at):
                    insert_decision(cursor, decision, None)
                return version
            if version.status == "archived" and not even_rolled_back:
                _refuse_rolled_back(cursor, version)
            if version.status != "production" and expected is not None:
                _require_in_production(
                    in_production(cursor, version.model_name),
                    expected,
                    version.model_name,
                    hint="Compare it with what is in production now, and pass that as instead_of.",
                )
            now = _next_moment(cursor, version.model_name)
            promoted = put_into_production(cursor, version, now)
            insert_decision(cursor, decision, now)
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

        To reject what is archived records the decision only if it says something new since the version's latest
        promotion: a job that runs twice records one. With `decided_at` it does so however late it runs again.

        Args:
            mlflow_run_id: the version's run; in staging, or archived.
            gates: the results of the gates, as for `decisions.record`.
            reasoning: why, in words.
            decided_at: as for `decisions.record`.
            decided_by: as for `decisions.record`.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which, or the path in `gates`. Nothing is stored.
            UnknownModelVersionError: the run is not registered: `decisions.record` records decisions about any.
            TransitionError: it is in production.
            DecisionConflictError: another decision about it, of the moment `decided_at`, is recorded already.
        """
        run = values.run_id(mlflow_run_id)
        moment = None if decided_at is None else values.moment(decided_at, "decided_at")
        checked = checked_decision("reject", candidate=run, gates=gates, reasoning=reasoning, decided_by=decided_by)
        with self._manager.safe_cursor() as cursor:
            version = _locked_with_model(
                cursor,
                run,
                self._manager.settings.lock_wait,
                hint="Register it, or record the decision alone: db.decisions.record('reject', candidate=...).",
            )
            if version.status == "production":
                raise TransitionError(
                    f"{run!r} is in production of model {version.model_name!r}; nothing was changed",
                    hint="Roll back: db.models.rollback(model_name, of=...); or promote another version in its place.",
                )
            decision = replace(checked, model_name=version.model_name)
            if moment is not None:
                recorded = recorded_before(cursor, decision, moment) is not None
            else:
                recorded = is_recorded_since(cursor, decision, version.promoted_at or _EVER)
            if not recorded:
                inserted = insert_decision(cursor, decision, moment or _next_moment(cursor, version.model_name))
                if moment is not None:
                    values.require_not_ahead(moment, inserted.created_at, "decided_at")
            cursor.execute(_ARCHIVE, (version.id,))
            return version_of(cursor.fetchone())

    def rollback(
        self,
        model_name: str = values.DEFAULT_MODEL,
        *,
        of: str | None = None,
        yes: bool = False,
        reasoning: str | None = None,
        decided_by: str | None = None,
    ) -> ModelVersion:
        """Bring back the version that was in production before the one that is; returns it.

        That is the archived version with the latest promotion before this one's, leaving out those that were rejected
        since their promotion, as by a rollback. In one transaction the two change places, and two decisions are
        recorded, both with `is_rollback`: reject for the one that goes, promote for the other.

        Args:
            model_name: the model.
            of: the run that is to go, and that must be in production. A call that is made twice, by a retry or by two
                people, then goes back only once.
            yes: roll back whatever is in production; a call that is made twice then goes back twice.
            reasoning: why, in words; recorded with both decisions.
            decided_by: who decided, as for `decisions.record`.

        Raises:
            InvalidValueError: an argument cannot be stored, or neither `of` nor `yes` is given; it names which. Nothing
                was sent.
            TransitionError: none is in production, or another one than `of`, or there is none to go back to.
        """
        model = values.name_of_model(model_name)
        expected = None if of is None else values.run_id(of, "of")
        if not values.flag(yes, "yes") and expected is None:
            raise InvalidValueError(
                "of",
                "is not given, and a rollback that is repeated would go back once more",
                hint=f"Say which version is to go: rollback({model!r}, of=its run); or whatever is in production: "
                f"rollback({model!r}, yes=True).",
            )
        checked = checked_decision(
            "reject", candidate=None, reasoning=reasoning, model_name=model, decided_by=decided_by
        )
        with self._manager.safe_cursor() as cursor:
            lock_model(cursor, model, self._manager.settings.lock_wait)
            current = in_production(cursor, model)
            if current is None:
                raise TransitionError(
                    f"model {model!r} has no version in production",
                    hint="Promote one: db.models.list(model_name) has them all.",
                )
            if expected is not None:
                _require_in_production(
                    current,
                    expected,
                    model,
                    hint="Was it rolled back already? db.decisions.history(model_name, action='rollback') tells.",
                )
            cursor.execute(_PREDECESSOR, {"model_name": model, "before": current.promoted_at})
            row = cursor.fetchone()
            if row is None:
                raise TransitionError(
                    f"model {model!r} has no version that was in production before {current.mlflow_run_id!r}, and was "
                    "not rejected since",
                    hint="Promote one: db.models.list(model_name) has them all.",
                )
            now = _next_moment(cursor, model)
            restored = put_into_production(cursor, version_of(row), now)
            for action, run in (("reject", current.mlflow_run_id), ("promote", restored.mlflow_run_id)):
                insert_decision(cursor, replace(checked, action=action, candidate=run), now, is_rollback=True)
            return restored

    def archive(self, mlflow_run_id: str, *, even_production: bool = False) -> ModelVersion:
        """Archive a version; returns it. One that is archived stays so. No decision is recorded: it decides nothing.

        Args:
            mlflow_run_id: the version's run.
            even_production: archive it also if it is in production, so that its model has none there.

        Raises:
            InvalidValueError: an argument cannot be one; it names which.
            UnknownModelVersionError: the run is not registered.
            TransitionError: it is in production.
        """
        run = values.run_id(mlflow_run_id)
        even_production = values.flag(even_production, "even_production")
        with self._manager.safe_cursor() as cursor:
            version = _locked_with_model(cursor, run, self._manager.settings.lock_wait)
            if version.status == "production" and not even_production:
                raise TransitionError(
                    f"{run!r} is in production, and model {version.model_name!r} would have no version there",
                    hint="Promote another version, which archives this one, or roll back; to retire the model, pass "
                    "even_production=True.",
                )
            cursor.execute(_ARCHIVE, (version.id,))
            return version_of(cursor.fetchone())

    def _one(self, condition: str, parameter: str) -> ModelVersion | None:
        with self._manager.safe_cursor() as cursor:
            cursor.execute(f"{SELECT} WHERE {condition}", (parameter,))
            row = cursor.fetchone()
            return None if row is None else version_of(row)


def _locked(cursor: SafeCursor, run: str, hint: str = _REGISTER_IT) -> ModelVersion:
    """The run's version, which nobody else changes until the transaction ends.

    Raises:
        UnknownModelVersionError: there is none.
    """
    cursor.execute(f"{SELECT} WHERE mlflow_run_id = %s FOR UPDATE", (run,))
    row = cursor.fetchone()
    if row is None:
        raise UnknownModelVersionError(f"no version is registered for the MLflow run {run!r}", hint=hint)
    return version_of(row)


def _locked_with_model(cursor: SafeCursor, run: str, wait_ms: int, hint: str = _REGISTER_IT) -> ModelVersion:
    """The run's version, while nobody else changes what is in production of its model."""
    cursor.execute("SELECT model_name FROM public.model_versions WHERE mlflow_run_id = %s", (run,))
    for (model_name,) in cursor.fetchall():
        # Before the row: whoever holds this lock may want the row, too.
        lock_model(cursor, model_name, wait_ms)
    return _locked(cursor, run, hint)


def differing(registered: ModelVersion, given: Mapping[str, Any]) -> str | None:
    """The first key whose value is another one in the registered version; what either lacks does not differ."""
    for key, value in given.items():
        there = getattr(registered, key)
        if value is not None and there is not None and value != there:
            return key
    return None


def filled_in(cursor: SafeCursor, registered: ModelVersion, given: Mapping[str, Any]) -> ModelVersion:
    """The version, with the given scores where it had none."""
    if all(given[key] is None or getattr(registered, key) is not None for key in ("f1_score", "brier_score")):
        return registered
    cursor.execute(_FILL_IN, {**given, "id": registered.id})
    return version_of(cursor.fetchone())


def _require_same(registered: ModelVersion, given: Mapping[str, Any]) -> None:
    if key := differing(registered, given):
        raise RegistrationConflictError(
            f"the MLflow run {registered.mlflow_run_id!r} is registered with {key} {getattr(registered, key)!r}, not "
            f"{given[key]!r}",
            key=key,
            hint="A run makes one version, whose values stay: register another one under a run of its own.",
        )


def in_production(cursor: SafeCursor, model: str) -> ModelVersion | None:
    """The model's version in production, which nobody else changes until the transaction ends; None if none is."""
    cursor.execute(f"{SELECT} WHERE status = 'production' AND model_name = %s FOR UPDATE", (model,))
    row = cursor.fetchone()
    return None if row is None else version_of(row)


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
            f"{version.mlflow_run_id!r} was rolled back at {values.in_utc(moment).isoformat()}; nothing was changed",
            hint="Is this an old job, run again? If the version is to come back all the same: even_rolled_back=True.",
        )


def _next_moment(cursor: SafeCursor, model_name: str) -> datetime:
    """The time by the server's clock, but after the model's latest promotion, however the clock was set since."""
    cursor.execute(_NEXT_MOMENT, (model_name,))
    (moment,) = cursor.fetchone() or (None,)
    return moment  # type: ignore[no-any-return]


def put_into_production(cursor: SafeCursor, version: ModelVersion, now: datetime) -> ModelVersion:
    """Promote the version as of `now`, and archive what is in production of its model; the caller has locked it."""
    # Two statements: at no time may two rows of a model be in production, not within one UPDATE either.
    cursor.execute(_ARCHIVE_PRODUCTION, (version.model_name,))
    cursor.execute(_PROMOTE, (now, version.id))
    return version_of(cursor.fetchone())


def version_of(row: Any) -> ModelVersion:
    """The version that a row of `SELECT` holds."""
    return ModelVersion(*map(values.in_utc, row))


_COLUMNS = ", ".join(field.name for field in fields(ModelVersion))
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
# A version without a promotion was in production by hand.
_ROLLED_BACK = """
SELECT decision_timestamp FROM public.retraining_decisions
 WHERE candidate_mlflow_run_id = %s AND action = 'reject' AND is_rollback
   AND decision_timestamp >= coalesce(%s, '-infinity'::timestamptz)
 ORDER BY decision_timestamp DESC LIMIT 1
"""
# A version in production without a promotion was put there by hand: any promotion was before it.
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
