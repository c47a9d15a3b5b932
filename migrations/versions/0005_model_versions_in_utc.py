"""Give the timestamps of model_versions a time zone.

Why: the specification says that all timestamps are in UTC, and a column without time zone cannot keep that: whoever
    writes in another zone writes another moment. With a time zone each row holds a moment, whatever the session's zone.
Locks: ACCESS EXCLUSIVE on model_versions, v_decision_history and v_model_timeline, for a moment: in a session in UTC
    PostgreSQL takes the values as they are (manual, "ALTER TABLE", Notes: a binary coercible type needs no rewrite).
    With `-x legacy-timezone=Europe/Berlin` the table is rewritten under that lock, some 2 seconds per million rows.
Loss on downgrade: the time zone, which is UTC then; nothing else. With -x legacy-timezone, an hour that a clock change
    had twice comes back as it was, one that it skipped does not.

For a server that wrote local time say `-x legacy-timezone=Europe/Berlin`, with its zone, in the run that carries out this revision and the
two after it. Times that a clock change skipped or had twice mean what PostgreSQL takes them for: the offset before the
change for the first, standard time for the second.

The views read the columns, so they go and come back, with the text of revision 0004.
"""

from alembic import op

revision = "0005"
down_revision = "0004"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# The zone that the old rows were written in: a run takes it from `-x legacy-timezone`, and is in UTC without it.
ZONE = """
SELECT set_config('TimeZone', coalesce(nullif(current_setting('mlops_db.legacy_timezone', true), ''), 'UTC'), true)
"""

V_DECISION_HISTORY = """
CREATE VIEW public.v_decision_history AS
SELECT
    d.id,
    d.decision_timestamp,
    d.action,
    d.candidate_mlflow_run_id,
    v.model_version,
    v.status AS model_status,
    v.f1_score,
    v.brier_score,
    v.promoted_at,
    g.gates_passed,
    g.gates_failed,
    g.gates_unknown,
    g.gates_not_run,
    g.first_failed_gate,
    g.all_gates_passed,
    coalesce(d.action = 'promote' AND g.gates_failed > 0, false) AS promoted_with_failed_gate,
    d.gate_results,
    d.reasoning,
    d.created_at
FROM public.retraining_decisions AS d
LEFT JOIN public.model_versions AS v ON v.mlflow_run_id = d.candidate_mlflow_run_id
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE outcome.passed) AS gates_passed,
        count(*) FILTER (WHERE NOT outcome.passed) AS gates_failed,
        count(*) FILTER (WHERE result.value IS NOT NULL AND outcome.passed IS NULL) AS gates_unknown,
        count(*) FILTER (WHERE result.value IS NULL) AS gates_not_run,
        (array_agg(coalesce(known.gate, result.key) ORDER BY known.position, result.key)
            FILTER (WHERE NOT outcome.passed))[1] AS first_failed_gate,
        count(*) FILTER (WHERE known.gate IS NOT NULL AND outcome.passed) = 6 AS all_gates_passed
    FROM (
        VALUES
            (1, 'sufficient_samples'),
            (2, 'minimum_coverage'),
            (3, 'promotion_cooldown'),
            (4, 'metric_improvement'),
            (5, 'calibration_maintained'),
            (6, 'no_segment_regression')
    ) AS known (position, gate)
    FULL JOIN jsonb_each(
        CASE WHEN jsonb_typeof(d.gate_results) = 'object' THEN d.gate_results ELSE '{}' END
    ) AS result (key, value) ON result.key = known.gate
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN result.value IN ('true', 'false') THEN result.value
                WHEN result.value -> 'passed' IN ('true', 'false') THEN result.value -> 'passed'
            END = 'true' AS passed
    ) AS outcome
) AS g
ORDER BY d.decision_timestamp DESC NULLS LAST, d.id DESC
"""

V_MODEL_TIMELINE = """
CREATE VIEW public.v_model_timeline AS
SELECT
    id,
    mlflow_run_id,
    model_version,
    status,
    coalesce(status = 'production', false) AS in_production,
    f1_score,
    brier_score,
    created_at,
    promoted_at,
    CASE WHEN promoted_at IS NOT NULL THEN lead(promoted_at) OVER promotions END AS production_until,
    CASE WHEN promoted_at IS NOT NULL THEN lag(model_version) OVER promotions END AS previous_version,
    CASE WHEN promoted_at IS NOT NULL THEN f1_score - lag(f1_score) OVER promotions END AS f1_delta,
    CASE WHEN promoted_at IS NOT NULL THEN brier_score - lag(brier_score) OVER promotions END AS brier_delta
FROM public.model_versions
WINDOW promotions AS (ORDER BY promoted_at, id)
ORDER BY created_at DESC NULLS LAST, id DESC
"""


def upgrade() -> None:
    convert("timestamptz")


def downgrade() -> None:
    convert("timestamp")


def convert(type_: str) -> None:
    op.execute(SAFE_PATH)
    op.execute("DROP VIEW public.v_model_timeline")
    op.execute("DROP VIEW public.v_decision_history")
    op.execute(ZONE)
    op.execute(
        f"""
        ALTER TABLE public.model_versions
            -- squawk-ignore changing-column-type
            ALTER COLUMN created_at TYPE {type_},
            -- squawk-ignore changing-column-type
            ALTER COLUMN promoted_at TYPE {type_}
        """
    )
    op.execute(V_DECISION_HISTORY)
    op.execute(V_MODEL_TIMELINE)
