"""What the code takes for the limits of the columns is what the catalogue has."""

import re
from datetime import timedelta

import pytest

from mlops_db.project import TABLES
from mlops_db.schema.limits import (
    ACTIONS,
    DEFAULT_MODEL,
    GATES,
    MAX_CHARACTERS,
    MAX_INTERVAL,
    MAX_SCORE,
    MIN_SCORE,
    STATUSES,
)
from support.database import Database

LENGTHS = f"""
    SELECT DISTINCT column_name, character_maximum_length FROM information_schema.columns
     WHERE table_schema IN ('public', 'mlops_internal') AND table_name = ANY (ARRAY{[*TABLES, "metric_series"]})
       AND character_maximum_length IS NOT NULL
"""
DEFAULTS = """
    SELECT DISTINCT column_default FROM information_schema.columns
     WHERE column_name = 'model_name' AND column_default IS NOT NULL
"""
RULE = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
EXPECT = "INSERT INTO mlops_internal.metric_series VALUES ('default', 'drift', %s, %s)"


def test_the_lengths(head: Database) -> None:
    assert set(head.query(LENGTHS)) == set(MAX_CHARACTERS.items())


@pytest.mark.parametrize(
    ("constraint", "choices"),
    [("model_versions_status_check", STATUSES), ("retraining_decisions_action_check", ACTIONS)],
)
def test_the_choices(head: Database, constraint: str, choices: tuple[str, ...]) -> None:
    ((rule,),) = head.query(RULE, [constraint])

    assert tuple(re.findall(r"'(\w+)'", rule)) == choices


@pytest.mark.parametrize("column", ["f1_score", "brier_score"])
def test_the_scores(head: Database, column: str) -> None:
    ((rule,),) = head.query(RULE, [f"model_versions_{column}_check"])

    assert tuple(map(int, re.findall(r"\((\d)\)", rule))) == (MIN_SCORE, MAX_SCORE)


def test_the_default_model(head: Database) -> None:
    assert head.query(DEFAULTS) == [(f"'{DEFAULT_MODEL}'::character varying",)]


def test_the_longest_interval(head: Database) -> None:
    head.query(EXPECT, ["longest", MAX_INTERVAL])
    with pytest.raises(Exception, match="metric_series_expected_interval_check"):
        head.query(EXPECT, ["longer", MAX_INTERVAL + timedelta(microseconds=1)])


def test_the_gates(head: Database) -> None:
    ((view,),) = head.query("SELECT pg_get_viewdef('v_decision_history'::regclass)")

    assert re.findall(r"\((\d), ?'(\w+)'", view) == [(str(place), gate) for place, gate in enumerate(GATES, start=1)]
