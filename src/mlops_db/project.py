"""What this project is: the names of its objects, its baseline, and where its revisions are."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_alembic"

# The last revision of the specification's own schema, where databases that were made by hand come in.
BASELINE = "0004"

# The schemas that the revisions use.
SCHEMAS = ("public", "mlops_internal")

# The six objects that users of the database rely on, in the specification's order.
TABLES = ("model_versions", "monitoring_metrics", "retraining_decisions")
VIEWS = ("v_decision_history", "v_model_timeline", "v_recent_monitoring")

# The oids of those that are there; to_regclass takes no lock and fails on nothing.
PRESENT_SQL = f"""
    SELECT name, to_regclass('public.' || name)::oid
      FROM unnest(ARRAY{[*TABLES, *VIEWS]}) AS name
     WHERE to_regclass('public.' || name) IS NOT NULL
"""


def alembic_ini() -> Path:
    """The alembic.ini of the package's own revisions, with migrations/ beside it.

    It is in the package if that was installed, and otherwise in the checkout around it.
    """
    return (_INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parents[1]) / "alembic.ini"
