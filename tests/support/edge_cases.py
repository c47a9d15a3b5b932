"""Rows that a page about a database must bear: hostile names, failures, silence, numbers at the end of a double."""

from datetime import datetime, timedelta, timezone
from typing import Any

from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "{{ 7 * 7 }}{% raw %}",
    "a.b[0]['c']",
    "datum['value'] + 1",
    "\"quoted\" & 'quoted' \\",
    "\u05d9\u05de\u05d9\u05df \u0644\u0644\u064a\u0633\u0627\u0631",
    "\u202egnp.exe",
    "🦆🦆",
    "__proto__",
    "constructor",
    "https://example.com/x.js",
    "x" * 255,
)
NOW = datetime.now(timezone.utc)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def store_edge_cases(database: Database) -> None:
    """Store them: models with hostile names, and the model `edges`."""
    rows = [(name, "performance", name, NOW - place * DAY, 0.5) for name in HOSTILE for place in range(3)]
    edges: list[tuple[str, datetime, float | None]] = [
        *(("failed only", NOW - place * DAY, None) for place in range(4)),
        ("one value", NOW - DAY, 0.25),
        *(("huge", NOW - place * DAY, value) for place, value in enumerate((1e308, -1e308, 1.7e308, 0.0))),
        # At noon, because just after midnight the last minutes are of two days.
        *(("one huge value a day", NOW.replace(hour=12) - DAY - place * MINUTE, 1.7e308) for place in range(3)),
        *(("tiny", NOW - place * DAY, 5e-324 * place) for place in range(3)),
        *(("zeros", NOW - place * DAY, 0.0) for place in range(5)),
        *(("ended before", NOW - (150 + place) * DAY, 0.4) for place in range(5)),
        *(("fell silent", NOW - (40 + place) * DAY, 0.4 + place / 100) for place in range(20)),
        *(("in the future", NOW + place * DAY / 4, 0.6) for place in range(1, 4)),
        *(("far from its bound", NOW - place * DAY, 0.5 + place / 1000) for place in range(5)),
    ]
    rows += [("edges", "performance", name, at, value) for name, at, value in edges]
    with DatabaseManager(database.settings) as db:
        db.monitoring.log_many(_metric(*row) for row in rows)
        db.monitoring.log_many(_drift_rows())
        db.monitoring.expect("performance", "far from its bound", model_name="edges", upper=1e9)
        db.monitoring.expect("performance", "never came", model_name="edges", interval=DAY)
    database.query(
        """
        INSERT INTO model_versions (mlflow_run_id, model_version, model_name, status, promoted_at) VALUES
            ('by hand', 'by hand', 'edges', 'production', NULL), ('<b>', '<b>bold</b>', '{{ 7 * 7 }}{% raw %}',
             'production', now() - interval '3 days'), ('none', '{{ 8 * 8 }}', '<!--', 'staging', NULL)
        """
    )
    database.query(
        """
        INSERT INTO model_versions (mlflow_run_id, model_version, model_name, status, f1_score) VALUES
            ('to be drawn', 'valueOf', 'edges', 'staging', 0.5), ('beside it', '__proto__', 'edges', 'staging', 0.6)
        """
    )
    database.query(
        """
        INSERT INTO retraining_decisions (model_name, action, candidate_mlflow_run_id, gate_results, reasoning)
        VALUES ('edges', 'reject', '<i>run</i>', '{"</script>": false, "odd": "?", "sufficient_samples": 7}',
                '<img src=x onerror=alert(2)> {{ 9 * 9 }}'),
               ('edges', 'reject', 'none', '{"constructor": false}', repeat('without a break', 60)),
               ('edges', 'pending', 'none', NULL, NULL)
        """
    )


def _metric(model_name: str, metric_type: str, name: str, at: datetime, value: float | None) -> dict[str, Any]:
    return {
        "model_name": model_name,
        "metric_type": metric_type,
        "metric_name": name,
        "timestamp": at,
        "metric_value": value,
    }


def _drift_rows() -> list[dict[str, Any]]:
    """Scores for which high means drift, p-values for which low does, and thresholds that say nothing."""
    series = {
        "score": (0.1, [(0.05, False), (0.25, True), (None, False)]),
        "p-value": (0.05, [(0.5, False), (0.01, True), (0.0, True)]),
        "p-value without a flag": (0.05, [(0.5, None)]),
        "no threshold": (None, [(0.5, None)]),
        "threshold of zero": (0, [(0.5, True)]),
    }
    return [
        {
            **_metric("edges", "drift", name, NOW - place * DAY, value),
            "metadata": {
                **({} if threshold is None else {"threshold": threshold}),
                **({} if drifted is None else {"drift_detected": drifted}),
            },
        }
        for name, (threshold, values) in series.items()
        for place, (value, drifted) in enumerate(values)
    ]
