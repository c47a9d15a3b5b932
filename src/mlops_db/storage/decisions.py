"""`db.decisions`: why each retraining candidate was promoted, rejected or left pending."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from mlops_db.errors import DecisionConflictError
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage import values
from mlops_db.storage.gates import checked_gates
from mlops_db.storage.turns import take_turn

if TYPE_CHECKING:
    from mlops_db.storage.db_manager import DatabaseManager

Action = Literal["promote", "reject", "pending"]
ACTIONS: tuple[Action, ...] = get_args(Action)
# What `history` can be asked for, too: no action of its own, but why there was one.
ROLLBACK = "rollback"
MAX_DECIDED_BY = 255  # the column's length, in characters


@dataclass(frozen=True)
class Decision:
    """A row of retraining_decisions.

    Attributes:
        id: counts the decisions; of two at the same moment the greater one is the later.
        model_name: the model that it is about.
        action: promote, reject or pending.
        is_rollback: whether a rollback made it: it rejects the version that goes, and promotes the one that comes back.
        candidate: the candidate's MLflow run, registered or not; None if it is about no candidate.
        gates: the results of the gates as they were stored; None if none ran.
        reasoning: why, in words.
        decided_at: when it was decided, in UTC.
        created_at: when it was recorded, in UTC.
        decided_by: who decided; None if it was recorded before that was.
    """

    id: int
    model_name: str
    action: Action
    is_rollback: bool
    candidate: str | None
    gates: dict[str, Any] | None
    reasoning: str | None
    decided_at: datetime
    created_at: datetime
    decided_by: str | None


@dataclass(frozen=True)
class ActionSummary:
    """The decisions of one action.

    Attributes:
        action: promote, reject or pending.
        count: how many there are.
        last_decided_at: when the latest was decided, in UTC; None if there is none.
    """

    action: Action
    count: int
    last_decided_at: datetime | None


@dataclass(frozen=True)
class CheckedDecision:
    """What can be recorded: the arguments of `record`, checked, the gates as JSON text."""

    model_name: str
    action: str
    candidate: str | None
    gates: str | None
    reasoning: str | None
    decided_by: str | None


class Decisions:
    """What retraining jobs call, as `db.decisions`. Safe to share between threads.

    Every method may raise what `DatabaseManager` lists; nothing of the call is stored then.
    """

    def __init__(self, manager: "DatabaseManager") -> None:
        """Use the connections of `manager`."""
        self._manager = manager

    def record(  # noqa: PLR0913  (a decision has that many columns)
        self,
        action: Action,
        *,
        candidate: str | None,
        gates: Mapping[str, Any] | None = None,
        reasoning: str | None = None,
        model_name: str = values.DEFAULT_MODEL,
        decided_at: datetime | None = None,
        decided_by: str | None = None,
    ) -> Decision:
        """Record a decision, whatever it was, about whatever candidate. It changes no version's stage.

        `models.promote` and `models.reject` change it, and record the decision in the same transaction.

        A job that may run twice passes `decided_at`, such as its logical date: of one model, one candidate and one
        moment there is one decision, and recording the same again returns the one that is there.

        Args:
            action: promote, reject or pending.
            candidate: the candidate's MLflow run, registered or not; None if there is no candidate.
            gates: an object with a key for each gate that ran: a boolean, or an object with a boolean `passed` and
                fields of its own. inf and NaN in such an object are stored as the texts "Infinity", "-Infinity" and
                "NaN", and its field `stored_as_text` lists them. What is neither passed nor failed is stored, and
                counts as unknown in v_decision_history.
            reasoning: why, in words.
            model_name: the model that it is about, 1 to 255 characters.
            decided_at: when it was decided, aware, and at most a day ahead of the server's clock; by default now, by
                that clock.
            decided_by: who decided, 1 to 255 characters; by default the login of the session (`session_user`). Of a
                decision that is recorded already it changes nothing.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which, or the path in `gates`. Nothing is stored.
            DecisionConflictError: another decision of that model, candidate and moment is recorded already.
        """
        checked = checked_decision(
            action,
            candidate=candidate,
            gates=gates,
            reasoning=reasoning,
            model_name=model_name,
            decided_by=decided_by,
        )
        moment = None if decided_at is None else values.moment(decided_at, "decided_at")
        with self._manager.safe_cursor() as cursor:
            if moment is None:
                return insert_decision(cursor, checked, None)
            lock_model(cursor, checked.model_name, self._manager.settings.lock_wait)
            if recorded := recorded_before(cursor, checked, moment):
                return recorded
            decision = insert_decision(cursor, checked, moment)
            values.require_not_ahead(moment, decision.created_at, "decided_at")
            return decision

    def history(
        self,
        model_name: str | None = None,
        action: Action | Literal["rollback"] | None = None,
        candidate: str | None = None,
        since: datetime | None = None,
        limit: int | None = 100,
    ) -> list[Decision]:
        """The decisions, newest first.

        Args:
            model_name: only those about this model.
            action: only those of this action; `rollback` for those that a rollback made, of which there are two each.
            candidate: only those about this candidate.
            since: only those decided at this moment, aware, or later.
            limit: how many at most; None for all.

        Raises:
            InvalidValueError: an argument cannot be one; it names which.
        """
        where, parameters = _asked(model_name, action, candidate, since)
        parameters["limit"] = values.limit(limit)
        with self._manager.safe_cursor() as cursor:
            cursor.execute(
                f"SELECT {_COLUMNS} FROM public.retraining_decisions WHERE {where}"
                " ORDER BY decision_timestamp DESC, id DESC LIMIT %(limit)s",
                parameters,
            )
            return [_decision(row) for row in cursor]

    def summary(self, model_name: str | None = None, since: datetime | None = None) -> dict[Action, ActionSummary]:
        """How many decisions there are of each action, those without any included.

        Args:
            model_name: only those about this model.
            since: only those decided at this moment, aware, or later.

        Raises:
            InvalidValueError: an argument cannot be one; it names which.
        """
        where, parameters = _asked(model_name, None, None, since)
        with self._manager.safe_cursor() as cursor:
            cursor.execute(
                "SELECT action, count(*), max(decision_timestamp) FROM public.retraining_decisions"
                f" WHERE {where} GROUP BY action",
                parameters,
            )
            found = {action: (count, values.in_utc(last)) for action, count, last in cursor}
        return {action: ActionSummary(action, *found.get(action, (0, None))) for action in ACTIONS}


def checked_decision(  # noqa: PLR0913  (a decision has that many columns)
    action: str,
    *,
    candidate: object,
    gates: object = None,
    reasoning: object,
    model_name: object = values.DEFAULT_MODEL,
    decided_by: object,
) -> CheckedDecision:
    """Check the arguments of a decision.

    Raises:
        InvalidValueError: one of them cannot be stored; it names which.
    """
    return CheckedDecision(
        model_name=values.name_of_model(model_name),
        action=values.choice(action, "action", ACTIONS),
        candidate=None if candidate is None else values.run_id(candidate, "candidate"),
        gates=checked_gates(gates),
        reasoning=None if reasoning is None else values.text(reasoning, "reasoning"),
        decided_by=None if decided_by is None else values.text(decided_by, "decided_by", most=MAX_DECIDED_BY),
    )


def lock_model(cursor: SafeCursor, model_name: str, wait_ms: int) -> None:
    """Wait until nobody else changes this model's production version or its decisions, and keep it so until the end.

    One lock for all of that: whoever waits for it sees, after that, what the others have committed.

    Raises:
        ContentionError: somebody still does after `wait_ms` milliseconds.
    """
    take_turn(cursor, f"mlops_db.model {model_name}", f"model {model_name!r}", wait_ms)


def insert_decision(
    cursor: SafeCursor, decision: CheckedDecision, decided_at: datetime | None, *, is_rollback: bool = False
) -> Decision:
    """Record the decision; `decided_at` None is now, by the server's clock."""
    cursor.execute(_INSERT, {**vars(decision), "decided_at": decided_at, "is_rollback": is_rollback})
    return _decision(cursor.fetchone())


def is_recorded_since(cursor: SafeCursor, decision: CheckedDecision, since: datetime) -> bool:
    """Whether the same decision was recorded at that moment or later."""
    cursor.execute(_SAME_SINCE, {**vars(decision), "since": since})
    return cursor.fetchone() is not None


def recorded_before(cursor: SafeCursor, decision: CheckedDecision, moment: datetime) -> Decision | None:
    """The same decision of the same moment, if there is one.

    Raises:
        DecisionConflictError: there are only others.
    """
    cursor.execute(_AT, {**vars(decision), "decided_at": moment})
    rows = cursor.fetchall()
    if not rows:
        return None
    for *row, same_action, same_gates, same_reasoning in rows:
        if same_action and same_gates and same_reasoning:
            return _decision(row)
    *row, same_action, same_gates, same_reasoning = rows[0]
    other = _decision(row)
    named = zip(("action", "gates", "reasoning"), (same_action, same_gates, same_reasoning), strict=True)
    differ = " and ".join(key for key, same in named if not same)
    about = "no candidate" if decision.candidate is None else f"candidate {decision.candidate!r}"
    raise DecisionConflictError(
        f"decision {other.id} ({other.action}) about {about} of model {decision.model_name!r} at {moment.isoformat()} "
        f"is recorded already, with another {differ}",
        hint="Was it decided anew? Record it with the moment of the new decision.",
    )


def _asked(
    model_name: str | None, action: str | None, candidate: str | None, since: datetime | None
) -> tuple[str, dict[str, Any]]:
    """The condition and the parameters of a question."""
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    if model_name is not None:
        conditions.append("model_name = %(model_name)s")
        parameters["model_name"] = values.name_of_model(model_name)
    if action is not None:
        parameters["action"] = values.choice(action, "action", (*ACTIONS, ROLLBACK))
        conditions.append("is_rollback" if parameters["action"] == ROLLBACK else "action = %(action)s")
    if candidate is not None:
        conditions.append("candidate_mlflow_run_id = %(candidate)s")
        parameters["candidate"] = values.run_id(candidate, "candidate")
    if since is not None:
        conditions.append("decision_timestamp >= %(since)s")
        parameters["since"] = values.moment(since, "since")
    return " AND ".join(conditions) or "true", parameters


def _decision(row: Any) -> Decision:
    return Decision(*map(values.in_utc, row))


_NAMES = {"candidate": "candidate_mlflow_run_id", "gates": "gate_results", "decided_at": "decision_timestamp"}
_COLUMNS = ", ".join(_NAMES.get(field.name, field.name) for field in fields(Decision))
# The clock, not the transaction's beginning, from which on it may have waited for the lock.
_INSERT = f"""
INSERT INTO public.retraining_decisions
       (model_name, action, is_rollback, candidate_mlflow_run_id, gate_results, reasoning, decision_timestamp,
        decided_by)
VALUES (%(model_name)s, %(action)s, %(is_rollback)s, %(candidate)s, %(gates)s, %(reasoning)s,
        coalesce(%(decided_at)s, clock_timestamp()), coalesce(%(decided_by)s::text, session_user))
RETURNING {_COLUMNS}
"""
_SAME_GATES = "gate_results IS NOT DISTINCT FROM %(gates)s::jsonb"
_SAME_REASONING = "reasoning IS NOT DISTINCT FROM %(reasoning)s"
_AT = f"""
SELECT {_COLUMNS}, action = %(action)s, {_SAME_GATES}, {_SAME_REASONING}
  FROM public.retraining_decisions
 WHERE decision_timestamp = %(decided_at)s AND model_name = %(model_name)s
   AND candidate_mlflow_run_id IS NOT DISTINCT FROM %(candidate)s
 ORDER BY id
"""
_SAME_SINCE = f"""
SELECT FROM public.retraining_decisions
 WHERE decision_timestamp >= %(since)s AND model_name = %(model_name)s AND action = %(action)s
   AND candidate_mlflow_run_id IS NOT DISTINCT FROM %(candidate)s AND {_SAME_GATES} AND {_SAME_REASONING}
 LIMIT 1
"""
