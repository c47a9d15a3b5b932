"""`db.decisions`: what is recorded, what is refused, and what is recorded once."""

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlops_db import DatabaseManager
from mlops_db.errors import DecisionConflictError, InvalidValueError
from mlops_db.schema.limits import ACTIONS
from mlops_db.settings import Settings
from mlops_db.storage.decisions import ActionSummary, Decisions
from mlops_db.storage.json_values import MAX_DEPTH
from support.database import Database

pytestmark = pytest.mark.libraries

UTC = timezone.utc
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# As the evaluation gate has them, where the candidate before had no Brier score.
GATES: dict[str, Any] = {
    "sufficient_samples": {"passed": True, "num_samples": 512, "min_required": 200},
    "minimum_coverage": {"passed": True, "coverage_pct": 41.5, "min_required_pct": 30},
    "promotion_cooldown": {"passed": True, "message": "no promotion in the last 7 days"},
    "metric_improvement": {"passed": True, "f1_improvement_pct": 3.25, "threshold": 2.0},
    "calibration_maintained": {"passed": False, "brier_change": math.inf, "threshold": 0.01},
}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def decisions(head: Database) -> Iterator[Decisions]:
    with DatabaseManager(head.settings) as db:
        yield db.decisions


@pytest.fixture
def nowhere() -> Decisions:
    """What is refused is refused without a server."""
    return Decisions(DatabaseManager(Settings(host="/nonexistent")))


def types_of(value: Any) -> Any:
    """The value with its types: 1, 1.0 and True are equal in Python."""
    if isinstance(value, dict):
        return {key: types_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [types_of(item) for item in value]
    return type(value), value


def report(error: InvalidValueError | DecisionConflictError) -> str:
    assert len(f"{error}\n{error.hint}".splitlines()) == 2
    assert str(error).isprintable()
    return str(error)


def test_the_actions_are_the_schemas(head: Database) -> None:
    check = head.value(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'retraining_decisions_action_check'"
    )
    assert re.findall(r"'(\w+)'", check) == list(ACTIONS)


def test_a_decision_is_recorded(head: Database, decisions: Decisions) -> None:
    moment = datetime(2026, 7, 1, 14, 0, 0, 123456, tzinfo=ZoneInfo("Europe/Berlin"))
    recorded = decisions.record(
        "reject", candidate="run", gates={"x": True}, reasoning="it is worse", model_name="churn", decided_at=moment
    )
    assert recorded.decided_at == moment
    assert recorded.decided_at.tzinfo is recorded.created_at.tzinfo is UTC
    assert decisions.history() == [recorded]
    assert head.query(
        "SELECT id, model_name, action, candidate_mlflow_run_id, gate_results, reasoning, decision_timestamp,"
        " created_at FROM retraining_decisions"
    ) == [(recorded.id, "churn", "reject", "run", {"x": True}, "it is worse", moment, recorded.created_at)]


def test_a_decision_is_about_now_by_default(head: Database, decisions: Decisions) -> None:
    first = decisions.record("pending", candidate=None)
    assert (first.model_name, first.candidate, first.gates, first.reasoning) == ("default", None, None, None)
    assert decisions.record("pending", candidate=None).id != first.id
    assert head.value("SELECT max(decision_timestamp) <= clock_timestamp() FROM retraining_decisions")


def test_who_decided_is_the_sessions_login_by_default(head: Database, decisions: Decisions) -> None:
    login = head.value("SELECT session_user")
    first = decisions.record("reject", candidate="run", decided_at=NOON)
    assert (first.decided_by, first.is_rollback) == (login, False)
    assert decisions.record("reject", candidate="run", decided_at=NOON, decided_by="ada") == first
    assert decisions.record("pending", candidate="run", decided_by="ada").decided_by == "ada"
    assert head.query("SELECT decided_by FROM v_decision_history") == [("ada",), (login,)]


def test_who_decided_before_that_was_recorded_is_not_known(head: Database, decisions: Decisions) -> None:
    head.query("INSERT INTO retraining_decisions (action, decided_by) VALUES ('pending', NULL)")
    assert decisions.history()[0].decided_by is None


def test_the_callers_gates_are_stored_with_their_infinity_as_text(head: Database, decisions: Decisions) -> None:
    recorded = decisions.record("reject", candidate="run", gates=GATES)
    assert recorded.gates == GATES | {
        "calibration_maintained": {
            "passed": False,
            "brier_change": "Infinity",
            "threshold": 0.01,
            "stored_as_text": ["brier_change"],
        }
    }
    assert head.query(
        "SELECT gates_passed, gates_failed, gates_not_run, first_failed_gate FROM v_decision_history"
    ) == [(4, 1, 1, "calibration_maintained")]
    assert decisions.record("reject", candidate="run", gates=recorded.gates).gates == recorded.gates


def test_infinity_is_found_wherever_it_is_in_a_gate(decisions: Decisions) -> None:
    gate = {"passed": True, "issues": [{"segment": "a", "delta": -math.inf}, 1, [math.nan]], "a b": np.float32("inf")}
    assert decisions.record("reject", candidate="run", gates={"no_segment_regression": gate}).gates == {
        "no_segment_regression": {
            "passed": True,
            "issues": [{"segment": "a", "delta": "-Infinity"}, 1, ["NaN"]],
            "a b": "Infinity",
            "stored_as_text": ["issues[0].delta", "issues[2][0]", "'a b'"],
        }
    }


def test_what_numpy_holds_is_stored_as_what_it_is(decisions: Decisions) -> None:
    gates = {"a": np.bool_(True), "b": {"passed": np.bool_(False), "n": np.int64(7), "x": np.float64(0.5), "t": (1, 2)}}  # noqa: FBT003
    stored = decisions.record("reject", candidate="run", gates=gates).gates
    assert types_of(stored) == types_of({"a": True, "b": {"passed": False, "n": 7, "x": 0.5, "t": [1, 2]}})


@given(gates=st.dictionaries(TEXT, JSON, max_size=4))
@example(gates={})
@example(gates={"": {"": [1e16, 1e22, 1e23, 1.7976931348623157e308, 5e-324, -0.0, 10**4299, "\x7f\\u0000\U0001f600"]}})
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gates_come_back_as_they_were(decisions: Decisions, gates: dict[str, Any]) -> None:
    recorded = decisions.record("pending", candidate="run", gates=gates)
    assert types_of(recorded.gates) == types_of(gates)
    assert recorded in decisions.history(limit=1)


@pytest.mark.parametrize(
    ("gates", "key"),
    [
        ([True], "gates"),
        ("text", "gates"),
        ({"a": math.inf}, "gates.a"),
        ({"a": [math.nan]}, "gates.a[0]"),
        ({1: True}, "gates"),
        ({"a": {"b": {None: 1}}}, "gates.a.b"),
        ({"a": {"b": [0, "x\0"]}}, "gates.a.b[1]"),
        ({"a": {"b\0\n": 1}}, "gates.a.'b\\x00\\n'"),
        ({"a": {"b": "\ud800"}}, "gates.a.b"),
        ({"a": {"b": {1, 2}}}, "gates.a.b"),
        ({"a": {"b": NOON}}, "gates.a.b"),
        ({"a": {"b": np.array([1, 2])}}, "gates.a.b"),
        ({"a": 10**5000}, "gates.a"),
        ({"a": {"x": math.inf, "stored_as_text": []}}, "gates.a.stored_as_text"),
    ],
)
def test_gates_that_cannot_be_stored_are_refused_by_their_path(nowhere: Decisions, gates: Any, key: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        nowhere.record("reject", candidate="run", gates=gates)
    assert caught.value.key == key
    assert report(caught.value).startswith(f"{key}: ")


def test_gates_that_contain_themselves_or_are_too_deep_are_refused(nowhere: Decisions, decisions: Decisions) -> None:
    endless: dict[str, Any] = {"passed": True}
    endless["again"] = endless
    deep: Any = True
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(InvalidValueError, match="contains itself"):
        nowhere.record("reject", candidate="run", gates={"gate": endless})
    with pytest.raises(InvalidValueError, match="more than 100 deep"):
        nowhere.record("reject", candidate="run", gates={"gate": deep})
    assert decisions.record("reject", candidate="run", gates={"gate": deep[0]}).gates == {"gate": deep[0]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action", "Promote"),
        ("action", None),
        ("candidate", ""),
        ("candidate", " "),
        ("candidate", "x" * 256),
        ("candidate", "a\0"),
        ("candidate", "\udc00"),
        ("candidate", 7),
        ("reasoning", "a\0"),
        ("reasoning", 7),
        ("model_name", None),
        ("model_name", "x" * 256),
        ("decided_at", datetime(2026, 3, 1)),  # noqa: DTZ001  (what is refused)
        ("decided_at", "2026-03-01"),
        ("decided_by", ""),
        ("decided_by", "\t"),
        ("decided_by", "x" * 256),
        ("decided_by", "a\0"),
        ("decided_by", 7),
    ],
)
def test_what_cannot_be_recorded_is_refused_by_its_name(nowhere: Decisions, key: str, value: Any) -> None:
    arguments: dict[str, Any] = {"action": "reject", "candidate": "run"} | {key: value}
    with pytest.raises(InvalidValueError) as caught:
        nowhere.record(**arguments)
    assert caught.value.key == key
    assert report(caught.value).startswith(f"{key}: ")


def test_the_longest_that_can_be_recorded(decisions: Decisions) -> None:
    class Run(str, Enum):
        OURS = "ours"

    name = "ä" * 255
    recorded = decisions.record("reject", candidate=name, model_name=name, reasoning="x" * 100_000, decided_by=name)
    assert (recorded.candidate, recorded.model_name, recorded.reasoning) == (name, name, "x" * 100_000)
    assert recorded.decided_by == name
    assert decisions.record("reject", candidate=Run.OURS, reasoning="").candidate == "ours"


# Once


def test_the_same_decision_of_the_same_moment_is_recorded_once(head: Database, decisions: Decisions) -> None:
    first = decisions.record("reject", candidate="run", gates=GATES, decided_at=NOON)
    again = decisions.record("reject", candidate="run", gates=GATES, decided_at=NOON.astimezone(ZoneInfo("Asia/Tokyo")))
    assert again == first
    for other in (
        {"candidate": "other"},
        {"candidate": None},
        {"model_name": "churn"},
        {"decided_at": NOON + timedelta(hours=1)},
    ):
        recorded = decisions.record("reject", **{"candidate": "run", "gates": GATES, "decided_at": NOON, **other})  # type: ignore[arg-type]
        assert recorded.id != first.id
    assert decisions.record("reject", candidate=None, gates=GATES, decided_at=NOON).id != first.id
    assert head.value("SELECT count(*) FROM retraining_decisions") == 5


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"action": "promote"}, "another action"),
        ({"gates": {"x": False}}, "another gates"),
        ({"gates": None}, "another gates"),
        ({"reasoning": "why"}, "another reasoning"),
        ({"action": "pending", "reasoning": "why"}, "another action and reasoning"),
    ],
)
def test_another_decision_of_the_same_moment_is_refused(
    head: Database, decisions: Decisions, other: dict[str, Any], named: str
) -> None:
    arguments: dict[str, Any] = {"action": "reject", "candidate": "run", "gates": {"x": True}, "decided_at": NOON}
    decisions.record(**arguments)
    with pytest.raises(DecisionConflictError) as caught:
        decisions.record(**(arguments | other))
    assert named in report(caught.value)
    assert head.value("SELECT count(*) FROM retraining_decisions") == 1


def test_old_duplicates_do_not_hide_the_same_decision(head: Database, decisions: Decisions) -> None:
    head.query(
        "INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, decision_timestamp)"
        " VALUES ('pending', 'run', %(t)s), ('reject', 'run', %(t)s), ('reject', 'run', %(t)s)",
        {"t": NOON},
    )
    assert decisions.record("reject", candidate="run", decided_at=NOON).id == 2


def test_one_decision_of_many_at_once_is_recorded_once(head: Database, decisions: Decisions) -> None:
    with ThreadPoolExecutor(8) as threads:
        recorded = set(
            threads.map(lambda _: decisions.record("reject", candidate="run", decided_at=NOON).id, range(24))
        )
    assert len(recorded) == 1
    assert head.value("SELECT count(*) FROM retraining_decisions") == 1


# Questions


def test_history_is_newest_first_and_by_what_is_asked_for(decisions: Decisions) -> None:
    hours = [NOON + timedelta(hours=hour) for hour in range(4)]
    a = decisions.record("reject", candidate="a", decided_at=hours[2])
    b = decisions.record("promote", candidate="b", decided_at=hours[1])
    c = decisions.record("reject", candidate="c", model_name="churn", decided_at=hours[3])
    d = decisions.record("reject", candidate="a", decided_at=hours[0])
    e = decisions.record("pending", candidate="e", decided_at=hours[0])
    assert decisions.history() == [c, a, b, e, d]
    assert decisions.history(limit=2) == [c, a]
    assert decisions.history(limit=0) == []
    assert len(decisions.history(limit=10**30)) == len(decisions.history(limit=None))
    assert decisions.history("default") == [a, b, e, d]
    assert decisions.history(action="reject") == [c, a, d]
    assert decisions.history(candidate="a") == [a, d]
    assert decisions.history(since=hours[2]) == [c, a]
    assert decisions.history("default", "reject", "a", hours[1], None) == [a]


def test_history_has_a_hundred_rows_by_default(head: Database, decisions: Decisions) -> None:
    head.query("INSERT INTO retraining_decisions (action) SELECT 'pending' FROM generate_series(1, 101)")
    assert len(decisions.history()) == 100
    assert len(decisions.history(limit=None)) == 101


def test_a_summary_has_every_action(decisions: Decisions) -> None:
    decisions.record("reject", candidate="a", decided_at=NOON)
    decisions.record("reject", candidate="b", decided_at=NOON + timedelta(hours=1))
    decisions.record("promote", candidate="c", decided_at=NOON, model_name="churn")
    assert decisions.summary() == {
        "promote": ActionSummary("promote", 1, NOON),
        "reject": ActionSummary("reject", 2, NOON + timedelta(hours=1)),
        "pending": ActionSummary("pending", 0, None),
    }
    assert decisions.summary("default", since=NOON + timedelta(minutes=1))["reject"].count == 1
    assert decisions.summary("churn")["reject"].count == 0
    assert list(decisions.summary("nobody")) == list(ACTIONS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name", "a\0"),
        ("action", "archive"),
        ("candidate", ""),
        ("since", datetime(2026, 3, 1)),  # noqa: DTZ001  (what is refused)
        ("limit", -1),
        ("limit", 1.5),
        ("limit", True),
    ],
)
def test_a_question_that_is_none_is_refused_by_name(nowhere: Decisions, key: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        nowhere.history(**{key: value})
    assert caught.value.key == key
    report(caught.value)
