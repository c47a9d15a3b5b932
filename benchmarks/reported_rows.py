"""Fill a database at head with what the reporting views show: metrics with bounds and drift, versions, decisions.

Each model has 23 series: 12 drift scores with a threshold of their own, and 11 others. For the last 20 days two
series of each model are beyond their bounds, and one drift score drifts; one value in 500 could not be computed.
"""

from typing import Any

import psycopg

from metric_rows import fill

SERIES_OF_A_MODEL = 23
MONTHS = 13
_PLACE = f"mod(i / {{models}}, {SERIES_OF_A_MODEL})"
_LATE = "moment > now() - interval '20 days'"
_VALUE = f"""
    CASE
        WHEN mod(i, 500) = 7 THEN NULL
        WHEN {_PLACE} < 12 THEN 0.05 + 0.04 * sin(i) + CASE WHEN {_LATE} AND {_PLACE} = 3 THEN 0.2 ELSE 0 END
        ELSE 0.5 + 0.3 * sin(i) + CASE WHEN {_LATE} AND {_PLACE} IN (13, 17) THEN 0.8 ELSE 0 END
    END
"""
_COLUMNS = f"""
    'model_' || mod(i, {{models}}) AS model_name,
    CASE
        WHEN {_PLACE} < 15 THEN 'drift' WHEN {_PLACE} < 20 THEN 'prediction' WHEN {_PLACE} < 22 THEN 'coverage'
        ELSE 'performance'
    END AS metric_type,
    CASE WHEN {_PLACE} < 12 THEN 'drift_score.feature_' ELSE 'metric_' END || {_PLACE} AS metric_name,
    {_VALUE} AS metric_value,
    CASE
        WHEN mod(i, 500) = 7 THEN '{{{{"error": "ValueError: an empty column was provided"}}}}'::jsonb
        WHEN {_PLACE} < 12 THEN jsonb_build_object(
            'feature', 'feature_' || {_PLACE}, 'stat_test', 'psi', 'threshold', 0.1, 'drift_detected', {_VALUE} > 0.1)
    END AS metadata
"""
_BOUNDS = """
    UPDATE mlops_internal.metric_series SET expected_interval = '2 days',
           lower_threshold = CASE WHEN metric_name LIKE 'metric%' THEN 0 END,
           upper_threshold = CASE WHEN metric_name LIKE 'metric%' THEN 1 END
"""
# Every third version is rejected, the others are promoted in turn; every seventh is promoted again three days later.
_VERSIONS = """
    INSERT INTO model_versions
           (mlflow_run_id, model_version, model_name, status, f1_score, brier_score, created_at, promoted_at)
    SELECT 'run_' || i, 1 + i / %(models)s, 'model_' || mod(i, %(models)s),
           CASE WHEN i >= %(versions)s - %(models)s THEN 'production' ELSE 'archived' END, 0.9, 0.1, moment,
           CASE WHEN mod(i / %(models)s, 3) > 0 OR i >= %(versions)s - %(models)s THEN moment + interval '1 hour' END
      FROM generate_series(0, %(versions)s - 1) AS i
     CROSS JOIN LATERAL (SELECT now() - (%(versions)s - i) * interval '390 days' / %(versions)s AS moment) AS at
"""
_DECISIONS = """
    INSERT INTO retraining_decisions
           (decision_timestamp, model_name, action, candidate_mlflow_run_id, gate_results, reasoning)
    SELECT v.created_at + interval '50 minutes' + again * interval '3 days', v.model_name,
           CASE WHEN v.promoted_at IS NULL THEN 'reject' ELSE 'promote' END, v.mlflow_run_id,
           jsonb_build_object(
               'sufficient_samples', jsonb_build_object('passed', true, 'value', 1000 + v.id, 'threshold', 1000),
               'minimum_coverage', jsonb_build_object('passed', true, 'value', 0.97, 'threshold', 0.9),
               'promotion_cooldown', true,
               'metric_improvement', jsonb_build_object('passed', v.promoted_at IS NOT NULL, 'threshold', 0.005)
           ),
           'f1_score is not better by enough'
      FROM model_versions AS v
      CROSS JOIN generate_series(0, 1) AS again
     WHERE again = 0 OR mod(v.id, 7) = 0 AND v.promoted_at IS NOT NULL
"""


def fill_reported(connection: psycopg.Connection[Any], *, rows: int, models: int, versions: int) -> int:
    """Fill it; returns the number of series.

    Args:
        connection: with autocommit, to a database at head.
        rows: how many metrics, in 13 months.
        models: how many models, of 23 series each.
        versions: how many versions all of them have, each with a decision or two.
    """
    series = models * SERIES_OF_A_MODEL
    fill(connection, rows=rows, months=MONTHS, series=series, columns=_COLUMNS.format(models=models))
    connection.execute(_BOUNDS)
    connection.execute(_VERSIONS, {"models": models, "versions": versions})
    connection.execute(_DECISIONS)
    connection.execute("VACUUM (ANALYZE) mlops_internal.metric_series, model_versions, retraining_decisions")
    return series
