"""Every rule for rows that a revision checks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg


@dataclass(frozen=True)
class Rule:
    """A rule of a revision.

    Attributes:
        table: the table of the rows.
        what: the text of a finding.
        column: the column that the rule is about.
        bad: values that break the rule, as SQL.
        mend: a value that keeps the rule, as SQL.
        refused: the errors that the schema at head raises for bad values.
    """

    revision: str
    table: str
    what: str
    column: str
    bad: Sequence[str]
    fix: str
    refused: tuple[type[psycopg.Error], ...] = field(default=(psycopg.errors.CheckViolation,))


NULL = (psycopg.errors.NotNullViolation,)
NOT_OF_PYTHONS_YEARS = ["'infinity'", "'-infinity'", "'0001-12-31 23:59:59+00 BC'", "'10000-01-01 00:00+00'"]
EITHER = (psycopg.errors.NotNullViolation, psycopg.errors.CheckViolation)
RULES = {
    f"{rule.revision} {rule.what}": rule
    for rule in (
        Rule(
            "0007", "model_versions", "status is not staging, production or archived", "status",
            ["NULL", "''", "'Production'", "'staging '", "'shadow'"], "'archived'", EITHER,
        ),
        Rule(
            "0007", "model_versions", "f1_score is not within 0 and 1", "f1_score",
            ["'NaN'", "-1e-9", "1.0000001", "'Infinity'", "'-Infinity'", "95"], "NULL",
        ),
        Rule(
            "0007", "model_versions", "brier_score is not within 0 and 1", "brier_score",
            ["'NaN'", "-1e-9", "1.0000001", "'Infinity'", "'-Infinity'", "95"], "1",
        ),
        Rule(
            "0007", "model_versions", "created_at is NULL or not of the years 1 to 9999", "created_at",
            ["NULL", *NOT_OF_PYTHONS_YEARS], "'0001-01-01 00:00+00'", EITHER,
        ),
        Rule(
            "0007", "model_versions", "promoted_at is not of the years 1 to 9999", "promoted_at",
            NOT_OF_PYTHONS_YEARS, "NULL",
        ),
        Rule(
            "0009", "retraining_decisions", "action is not promote, reject or pending", "action",
            ["NULL", "''", "'Promote'", "'postpone'"], "'pending'", EITHER,
        ),
        Rule(
            "0009", "retraining_decisions", "gate_results is not an object", "gate_results",
            ["'null'", "'[]'", "'[{}]'", "'\"text\"'", "'1'", "'true'"], "'{}'",
        ),
        Rule(
            "0009", "retraining_decisions", "decision_timestamp is NULL or not of the years 1 to 9999",
            "decision_timestamp", ["NULL", *NOT_OF_PYTHONS_YEARS], "now()", EITHER,
        ),
        Rule(
            "0009", "retraining_decisions", "created_at is NULL or not of the years 1 to 9999", "created_at",
            ["NULL", *NOT_OF_PYTHONS_YEARS], "'9999-12-31 23:59:59.999999+00'", EITHER,
        ),
        Rule("0013", "monitoring_metrics", "metric_type is NULL", "metric_type", ["NULL"], "''", NULL),
        Rule("0013", "monitoring_metrics", "metric_name is NULL", "metric_name", ["NULL"], "''", NULL),
        Rule(
            "0013", "monitoring_metrics", "metric_value is NaN or infinite", "metric_value",
            ["'NaN'", "'Infinity'", "'-Infinity'"], "NULL",
        ),
        Rule(
            "0013", "monitoring_metrics", "timestamp is NULL or not of the years 1 to 9999", "timestamp",
            ["NULL", *NOT_OF_PYTHONS_YEARS], "created_at", EITHER,
        ),
        Rule(
            "0013", "monitoring_metrics", "created_at is NULL or not of the years 1 to 9999", "created_at",
            ["NULL", *NOT_OF_PYTHONS_YEARS], "now()", EITHER,
        ),
    )
}  # fmt: skip
GOOD: dict[str, dict[str, Any]] = {
    "model_versions": {"model_version": "1", "status": "staging", "f1_score": 0.0, "brier_score": 1.0},
    "retraining_decisions": {"action": "reject", "gate_results": "{}"},
    "monitoring_metrics": {"metric_type": "drift", "metric_name": "share", "metric_value": -1e308},
}
