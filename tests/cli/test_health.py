"""`mlops-db health`: what people and scripts get."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from alembic import command

from mlops_db.migration.commands import alembic_config
from mlops_db.storage.monitoring import Monitoring
from support.database import Database
from support.process import SECRET, assert_failed
from support.terminal import on_a_terminal, without_colours

pytestmark = pytest.mark.full_postgresql

SINCE = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
HOSTILE = "\x1b[2Jred\nnext\u009b1m\u202e"
# Each kind of character that a terminal would obey, or that would break a line of the table.
OBEYED = ("\x1b[2J", "\nnext", "\u009b", "\u202e")


@pytest.fixture
def series(monitoring: Monitoring) -> None:
    for model_name, metric_name, value in (("churn", "f1", 0.4), ("churn", "auc", 0.9), ("fraud", "auc", 0.9)):
        monitoring.expect("performance", metric_name, lower=0.5, model_name=model_name)
        monitoring.log("performance", metric_name, value, timestamp=SINCE, model_name=model_name)
    monitoring.log_failure("drift", "psi", "ValueError: an empty column", timestamp=SINCE, model_name="churn")


@pytest.mark.usefixtures("series")
def test_in_a_pipe_it_is_a_table_of_what_is_not_ok_and_a_last_line(head: Database) -> None:
    done = head.run("mlops-db", "health")
    at = f"{SINCE:%Y-%m-%d %H:%M}"
    assert (done.returncode, done.stderr) == (1, "")
    assert (
        done.stdout
        == f"""\
state     series                since (UTC)       reason
▼ low     churn performance f1  {at}  0.4 < 0.5
✖ failed  churn drift psi       {at}  no value: ValueError: an empty column

2 of 4 series are not ok: 1 low, 1 failed
"""
    )


@pytest.mark.usefixtures("series")
@pytest.mark.parametrize(
    ("arguments", "code", "last_line"),
    [
        (("--model", "fraud"), 0, "✔ 1 series is ok"),
        (("--fail-on", "stale, missing"), 0, "2 of 4 series are not ok: 1 low, 1 failed"),
        (("--fail-on", "stale,failed"), 1, "2 of 4 series are not ok: 1 low, 1 failed"),
        (("--model", "churn", "--model", "fraud"), 1, "2 of 4 series are not ok: 1 low, 1 failed"),
    ],
)
def test_the_exit_code_is_that_of_the_states_that_fail(
    head: Database, arguments: tuple[str, ...], code: int, last_line: str
) -> None:
    done = head.run("mlops-db", "health", *arguments)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[-1] == last_line


@pytest.mark.usefixtures("series")
def test_json_is_one_object(head: Database) -> None:
    done = head.run("mlops-db", "health", "--json", "--fail-on", "stale")
    answer = json.loads(done.stdout)
    low, failed = answer.pop("not_ok")
    assert done.returncode == 0
    assert answer == {
        "target": head.settings.target,
        "state": "low",
        "fails": False,
        "series": 4,
        "counts": {"low": 1, "high": 0, "failed": 1, "stale": 0, "missing": 0, "drifted": 0, "ok": 2},
    }
    assert 3600 <= low.pop("age_s") < 3 * 3600
    assert low == {
        "model_name": "churn",
        "metric_type": "performance",
        "metric_name": "f1",
        "state": "low",
        "metric_value": 0.4,
        "timestamp": SINCE.isoformat(),
        "since": SINCE.isoformat(),
        "since_is_exact": True,
        "bound": 0.5,
        "reason": "0.4 < 0.5",
        "expected_interval_s": None,
    }
    assert (failed["state"], failed["metric_value"], failed["bound"]) == ("failed", None, None)


@pytest.mark.usefixtures("series")
def test_a_model_without_series_is_refused(head: Database) -> None:
    done = head.run("mlops-db", "health", "--model", "churn", "--model", HOSTILE)
    assert_failed(done, "has no series of model ", "hint: It has series of churn, fraud.")
    assert done.returncode == 1
    assert not any(character in done.stderr for character in OBEYED)


def test_a_database_without_series_is_refused(head: Database) -> None:
    done = head.run("mlops-db", "health")
    assert_failed(done, "has no series of metrics yet", "mlops-db demo")
    assert done.returncode == 1


@pytest.mark.parametrize("states", ["stale,ok", "", "broken", "stale,,low"])
def test_an_unknown_state_is_a_wrong_command_line(head: Database, states: str) -> None:
    done = head.run("mlops-db", "health", "--fail-on", states)
    assert_failed(done, "low, high, failed, stale, missing, drifted")
    assert done.returncode == 64


def test_without_an_answer_the_exit_code_says_why(head: Database) -> None:
    unreachable = head.run("mlops-db", "health", POSTGRES_HOST="/no/such/folder", POSTGRES_PASSWORD=SECRET)
    assert_failed(unreachable)
    assert unreachable.returncode == 2
    command.downgrade(alembic_config(head.settings), "0024")
    behind = head.run("mlops-db", "health", "--json")
    assert behind.returncode == 1
    assert json.loads(behind.stdout)["state"] == "error"


@pytest.mark.slow
def test_on_a_terminal_states_have_colours_and_words_stay_whole(head: Database, monitoring: Monitoring) -> None:
    reason = "ValueError: the feature pipeline delivered no rows for this window"
    monitoring.log_failure("drift", "drift_score.days_since_login", reason, model_name="churn")
    code, shown = on_a_terminal("health", environment=head.environment)
    assert code == 1
    assert "\x1b[31m✖ failed" in shown
    lines = without_colours(shown).splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).replace("│", " ").split()
    assert {*reason.split(), "drift_score.days_since_login"} <= {*words}
    assert without_colours(shown).endswith("1 of 1 series is not ok: 1 failed\n")


@pytest.mark.parametrize("output", [(), ("--json",)])
def test_hostile_names_and_reasons_steer_no_terminal(
    head: Database, monitoring: Monitoring, output: tuple[str, ...]
) -> None:
    monitoring.log_failure(HOSTILE, HOSTILE, HOSTILE, model_name=HOSTILE)
    done = head.run("mlops-db", "health", *output)
    assert done.returncode == 1
    assert not any(character in done.stdout for character in OBEYED)
    if output:
        assert json.loads(done.stdout)["not_ok"][0]["metric_name"] == HOSTILE
    else:
        assert len(done.stdout.splitlines()) == 4
