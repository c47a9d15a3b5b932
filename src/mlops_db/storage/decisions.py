"""`db.decisions`: why each retraining candidate was promoted, rejected or left pending."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

from mlops_db.errors import DecisionConflictError
from mlops_db.schema.limits import ACTIONS, DEFAULT_MODEL, Action
from mlops_db.server.cursor import SafeCursor
from mlops_db.storage.arguments import check_choice, check_limit, check_moment, check_name, check_text, refuse_future
from mlops_db.storage.gates import encode_gates
from mlops_db.storage.transaction_lock import lock_until_commit
from mlops_db.storage.transactions import Transactions, read_records

# `history` also takes this: a rollback records a reject and a promote.
ROLLBACK = "rollback"


@dataclass(frozen=True)
class Decision:
    """A row of retraining_decisions.

    Attributes:
        id: the decision's number; of two at the same moment the greater id is the later.
        model_name: the model that it is about.
        action: promote, reject or pending.
        is_rollback: whether a rollback recorded it. A rollback rejects the version that leaves production, and promotes
            the one that returns.
        candidate: the candidate's MLflow run, registered or not; None if there is no candidate.
        gates: the results of the gates as they were stored; None if none ran.
        reasoning: why, in words.
        decided_at: when it was decided, in UTC.
        created_at: when it was recorded, in UTC.
        decided_by: who decided; None for decisions from before revision 0009.
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
    """The arguments of `record`, checked, with the gates as JSON text."""

    model_name: str
    action: str
    candidate: str | None
    gates: str | None
    reasoning: str | None
    decided_by: str | None


_NAMES = {"candidate": "candidate_mlflow_run_id", "gates": "gate_results", "decided_at": "decision_timestamp"}
_COLUMNS = ", ".join(_NAMES.get(field.name, field.name) for field in fields(Decision))
# clock_timestamp() and not CURRENT_TIMESTAMP: the transaction may have waited for the lock since it began.
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
_SAME = f"action = %(action)s AND {_SAME_GATES} AND {_SAME_REASONING}"
_OF_MOMENT = f"""
SELECT {_COLUMNS},
       concat_ws(' and ', CASE WHEN action <> %(action)s THEN 'action' END,
                          CASE WHEN NOT {_SAME_GATES} THEN 'gates' END,
                          CASE WHEN NOT {_SAME_REASONING} THEN 'reasoning' END)
  FROM public.retraining_decisions
 WHERE decision_timestamp = %(decided_at)s AND model_name = %(model_name)s
   AND candidate_mlflow_run_id IS NOT DISTINCT FROM %(candidate)s
 ORDER BY ({_SAME}) DESC, id LIMIT 1
"""
_SAME_SINCE = f"""
SELECT FROM public.retraining_decisions
 WHERE decision_timestamp >= %(since)s AND model_name = %(model_name)s
   AND candidate_mlflow_run_id IS NOT DISTINCT FROM %(candidate)s AND {_SAME}
 LIMIT 1
"""


class Decisions:
    """The decisions about retraining candidates, as `db.decisions`. Safe to share between threads.

    Every method may also raise the errors that `DatabaseManager` lists; nothing of the call is stored then.
    """

    def __init__(self, transactions: Transactions) -> None:
        """Use the connections of `transactions`."""
        self._transactions = transactions

    def record(  # noqa: PLR0913  (a decision has that many columns)
        self,
        action: Action,
        *,
        candidate: str | None,
        gates: Mapping[str, Any] | None = None,
        reasoning: str | None = None,
        model_name: str = DEFAULT_MODEL,
        decided_at: datetime | None = None,
        decided_by: str | None = None,
    ) -> Decision:
        """Record a decision about any candidate. The stages of versions do not change.

        `models.promote` and `models.reject` change the stage, and record the decision in the same transaction.

        A job that may run twice passes `decided_at`, such as its logical date: then there is one decision for a model,
        a candidate and a moment, and recording the same decision again returns the first one.

        Args:
            action: promote, reject or pending.
            candidate: the candidate's MLflow run, registered or not; None if there is no candidate.
            gates: an object with a key for each gate that ran: a boolean, or an object with a boolean `passed` and
                fields of its own. inf and NaN in such an object are stored as the texts "Infinity", "-Infinity" and
                "NaN", and its field `stored_as_text` lists them. A gate that is neither passed nor failed is stored,
                and counts as unknown in v_decision_history.
            reasoning: why, in words.
            model_name: the model that it is about, 1 to 255 characters.
            decided_at: when it was decided, aware, and at most a day ahead of the server's clock; by default now, by
                that clock.
            decided_by: who decided, 1 to 255 characters; by default the login of the session (`session_user`). It does
                not change a decision that is already recorded.

        Raises:
            InvalidValueError: an argument cannot be stored; it names which, or the path in `gates`. Nothing is stored.
            DecisionConflictError: another decision of that model, candidate and moment is already recorded.
        """
        checked = check_decision(
            action,
            candidate=candidate,
            gates=gates,
            reasoning=reasoning,
            model_name=model_name,
            decided_by=decided_by,
        )
        moment = None if decided_at is None else check_moment(decided_at, "decided_at")
        with self._transactions.safe_cursor() as cursor:
            if moment is None:
                return insert_decision(cursor, checked, None)
            lock_model(cursor, checked.model_name, self._transactions.settings.lock_wait)
            return record_once(cursor, checked, moment)

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
            model_name: only decisions about this model.
            action: only decisions of this action; `rollback`: only those that a rollback recorded, two for each.
            candidate: only decisions about this candidate.
            since: only decisions at this moment, aware, or later.
            limit: how many at most; None for all.

        Raises:
            InvalidValueError: an argument has no valid value; it names which.
        """
        where, parameters = _where(model_name, action, candidate, since)
        query = f"""
            SELECT {_COLUMNS} FROM public.retraining_decisions WHERE {where}
             ORDER BY decision_timestamp DESC, id DESC LIMIT %(limit)s
        """
        return read_records(self._transactions, Decision, query, {**parameters, "limit": check_limit(limit)})

    def summary(self, model_name: str | None = None, since: datetime | None = None) -> dict[Action, ActionSummary]:
        """How many decisions there are of each action; an action without decisions has the count 0.

        Args:
            model_name: only decisions about this model.
            since: only decisions at this moment, aware, or later.

        Raises:
            InvalidValueError: an argument has no valid value; it names which.
        """
        where, parameters = _where(model_name, None, None, since)
        query = f"""
            SELECT action, count(*), max(decision_timestamp) FROM public.retraining_decisions
             WHERE {where} GROUP BY action
        """
        found = {each.action: each for each in read_records(self._transactions, ActionSummary, query, parameters)}
        return {action: found.get(action, ActionSummary(action, 0, None)) for action in ACTIONS}


def check_decision(  # noqa: PLR0913  (a decision has that many columns)
    action: str,
    *,
    candidate: object,
    gates: object = None,
    reasoning: object,
    model_name: object = DEFAULT_MODEL,
    decided_by: object,
) -> CheckedDecision:
    """Check the arguments of a decision.

    Raises:
        InvalidValueError: one of them cannot be stored; it names which.
    """
    return CheckedDecision(
        model_name=check_name(model_name, "model_name"),
        action=check_choice(action, "action", ACTIONS),
        candidate=None if candidate is None else check_name(candidate, "candidate", column="mlflow_run_id"),
        gates=encode_gates(gates),
        reasoning=None if reasoning is None else check_text(reasoning, "reasoning"),
        decided_by=None if decided_by is None else check_name(decided_by, "decided_by"),
    )


def lock_model(cursor: SafeCursor, model_name: str, wait_ms: int) -> None:
    """Lock the production version and the decisions of a model until the transaction ends.

    One lock for both: after the wait, the transaction sees what the others have committed.

    Raises:
        ContentionError: another session still has the lock after `wait_ms` milliseconds.
    """
    lock_until_commit(cursor, f"mlops_db.model {model_name}", f"model {model_name!r}", wait_ms)


def insert_decision(
    cursor: SafeCursor, decision: CheckedDecision, decided_at: datetime | None, *, is_rollback: bool = False
) -> Decision:
    """Record the decision; `decided_at` None is now, by the server's clock."""
    cursor.execute(_INSERT, {**vars(decision), "decided_at": decided_at, "is_rollback": is_rollback})
    ((*row,),) = cursor.fetchall()
    return Decision(*row)


def is_recorded_since(cursor: SafeCursor, decision: CheckedDecision, since: datetime) -> bool:
    """Whether the same decision was recorded at that moment or later."""
    cursor.execute(_SAME_SINCE, {**vars(decision), "since": since})
    return cursor.fetchone() is not None


def record_once(cursor: SafeCursor, decision: CheckedDecision, decided_at: datetime) -> Decision:
    """Record a decision of a given moment, unless it is already recorded.

    Raises:
        InvalidValueError: the moment is more than a day ahead of the server's clock.
        DecisionConflictError: another decision of that model, candidate and moment is already recorded.
    """
    cursor.execute(_OF_MOMENT, {**vars(decision), "decided_at": decided_at})
    for *row, difference in cursor.fetchall():
        recorded = Decision(*row)
        if not difference:
            return recorded
        about = "no candidate" if decision.candidate is None else f"candidate {decision.candidate!r}"
        raise DecisionConflictError(
            f"decision {recorded.id} ({recorded.action}) about {about} of model {decision.model_name!r} at "
            f"{decided_at.isoformat()} is recorded already, with another {difference}",
            hint="If it was decided again, record it with the moment of the new decision.",
        )
    inserted = insert_decision(cursor, decision, decided_at)
    refuse_future(decided_at, inserted.created_at, "decided_at")
    return inserted


def _where(
    model_name: str | None, action: str | None, candidate: str | None, since: datetime | None
) -> tuple[str, dict[str, Any]]:
    """The condition on the decisions to read, and its parameters."""
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    if model_name is not None:
        conditions.append("model_name = %(model_name)s")
        parameters["model_name"] = check_name(model_name, "model_name")
    if action is not None:
        parameters["action"] = check_choice(action, "action", (*ACTIONS, ROLLBACK))
        conditions.append("is_rollback" if parameters["action"] == ROLLBACK else "action = %(action)s")
    if candidate is not None:
        conditions.append("candidate_mlflow_run_id = %(candidate)s")
        parameters["candidate"] = check_name(candidate, "candidate", column="mlflow_run_id")
    if since is not None:
        conditions.append("decision_timestamp >= %(since)s")
        parameters["since"] = check_moment(since, "since")
    return " AND ".join(conditions) or "true", parameters
