"""A monitoring job for cron: the coverage of the last full hour.

    python monitor.py predictions.csv

The file has the columns predicted_at (such as 2026-11-27T14:05:00+00:00) and covered (1 or 0). Run it again for the
same hour, and it replaces what it stored. An hour that cannot be measured is stored as failed.

The exit code is 0 if the value is stored, 1 if it could not be measured or stored, 2 if the command line is wrong, and
75 if another attempt within the same hour may succeed, such as after a restart of the server (sysexits.h: EX_TEMPFAIL).
"""

import argparse
import csv
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mlops_db import MlopsDbError, get_db_manager

EX_TEMPFAIL = 75
MODEL = "churn"


def coverage(file: Path, since: datetime, until: datetime) -> float:
    """The share of predictions in that time which the model has covered."""
    with file.open(encoding="utf-8", newline="") as lines:
        covered = [
            int(row["covered"])
            for row in csv.DictReader(lines)
            if since <= datetime.fromisoformat(row["predicted_at"]) < until
        ]
    return sum(covered) / len(covered)


def main() -> int:
    """Measure and store; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    until = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    since = until - timedelta(hours=1)
    try:
        monitoring = get_db_manager().monitoring
        row: dict[str, object] = {"metric_type": "coverage", "metric_name": "coverage_rate", "model_name": MODEL}
        try:
            row["metric_value"] = coverage(file, since, until)
        except Exception as error:
            # As log_failure() does, but so that a rerun replaces it.
            monitoring.log_many([row | {"metric_value": None, "metadata": {"error": repr(error)}}], replace=since)
            raise
        monitoring.log_many([row], replace=since)
    except MlopsDbError as error:
        print(f"{error}\n{error.hint}", file=sys.stderr)
        return EX_TEMPFAIL if error.retryable else 1
    except (ArithmeticError, KeyError, OSError, TypeError, ValueError, csv.Error) as error:
        print(f"{since:%Y-%m-%d %H:%M}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
