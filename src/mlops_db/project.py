"""What this project is: the names of its objects, its baseline, and where its revisions are."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_alembic"

# The last revision of the specification's own schema; `mlops-db adopt` takes over handmade databases here.
BASELINE = "0004"

# The schemas that the revisions use.
SCHEMAS = ("public", "mlops_internal", "reporting")

# The six objects of the specification, in its order.
BASELINE_TABLES = ("model_versions", "monitoring_metrics", "retraining_decisions")
BASELINE_VIEWS = ("v_decision_history", "v_model_timeline", "v_recent_monitoring")

# The tables and views that schema public has at head. New ones come last.
TABLES = (*BASELINE_TABLES,)
VIEWS = (*BASELINE_VIEWS,)

# The views and the function that schema reporting has at head.
REPORTING_VIEWS = ("metric_history", "production_periods", "decision_gates")
REPORTING_FUNCTIONS = ("metric_daily(timestamptz, timestamptz)",)

# What code calls and reads of mlops_internal. The rest serves the revisions themselves, which may change it.
USED_INTERNALS = (
    "metric_series",
    "advance_sequences",
    "create_next_partition",
    "drop_partitions",
    "late_sequences",
    "maintain",
    "metric_partitions",
    "missing_series",
    "move_earlier_month",
    "partitions_older_than",
    "register_missing_series",
    "register_new_series",
    "register_series",
)

# The oids of those that exist; to_regclass takes no lock and never fails.
PRESENT_SQL = f"""
    SELECT name, to_regclass('public.' || name)::oid
      FROM unnest(ARRAY{[*TABLES, *VIEWS]}) AS name
     WHERE to_regclass('public.' || name) IS NOT NULL
"""

# Those of schema reporting that are missing, which a role sees that may not use the schema.
MISSING_REPORTING_SQL = f"""
    SELECT 'reporting.' || name
      FROM unnest(ARRAY{[*REPORTING_VIEWS, *(function.partition("(")[0] for function in REPORTING_FUNCTIONS)]})
      WITH ORDINALITY AS wanted (name, place)
     WHERE name <> ALL (ARRAY(
               SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                WHERE n.nspname = 'reporting'
                UNION ALL
               SELECT p.proname::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                WHERE n.nspname = 'reporting'))
     ORDER BY place
"""


def alembic_ini() -> Path:
    """The alembic.ini of the package's own revisions, with migrations/ beside it.

    An installed package contains it; otherwise it is in the checkout around the package.
    """
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parents[1]) / "alembic.ini"


def revisions_folder() -> Path:
    """The folder of the package's own revisions."""
    return alembic_ini().parent / "migrations" / "versions"


def project_ini() -> Path:
    """The alembic.ini of the project: the one that ALEMBIC_CONFIG names, as for Alembic itself, or our own."""
    return Path(os.environ.get("ALEMBIC_CONFIG") or alembic_ini())
