"""The names of the six objects that users of the database rely on, in the specification's order."""

TABLES = ("model_versions", "monitoring_metrics", "retraining_decisions")
VIEWS = ("v_decision_history", "v_model_timeline", "v_recent_monitoring")

# The oids of those that are there; to_regclass takes no lock and fails on nothing.
PRESENT_SQL = f"""
    SELECT name, to_regclass('public.' || name)::oid
      FROM unnest(ARRAY{[*TABLES, *VIEWS]}) AS name
     WHERE to_regclass('public.' || name) IS NOT NULL
"""
