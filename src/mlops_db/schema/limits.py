"""The limits of columns: lengths, choices and ranges. The tables and the checks of arguments take them from here.

Nothing here loads SQLAlchemy: commands and jobs that check arguments start without it.
"""

from datetime import timedelta
from typing import Literal, get_args

Status = Literal["staging", "production", "archived"]
STATUSES: tuple[Status, ...] = get_args(Status)
Action = Literal["promote", "reject", "pending"]
ACTIONS: tuple[Action, ...] = get_args(Action)
DEFAULT_MODEL = "default"

# Lengths in characters. A column has the same length in each table.
MAX_CHARACTERS = {
    "action": 50,
    "candidate_mlflow_run_id": 255,
    "decided_by": 255,
    "metric_name": 255,
    "metric_type": 100,
    "mlflow_run_id": 255,
    "model_name": 255,
    "model_version": 50,
    "status": 50,
}
MIN_SCORE, MAX_SCORE = 0, 1
MAX_INTERVAL = timedelta(days=360_000)  # 1,000 years: PostgreSQL compares intervals with years of 360 days

# The gates in the order in which an evaluation runs them. It stops at the first gate that fails.
GATES = (
    "sufficient_samples",
    "minimum_coverage",
    "promotion_cooldown",
    "metric_improvement",
    "calibration_maintained",
    "no_segment_regression",
)
