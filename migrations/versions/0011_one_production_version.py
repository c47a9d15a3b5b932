"""Allow one production version per model, and index the versions by model.

Why: if two rows have the status 'production', nobody knows which one serves. Promotions that did not archive their
    predecessor made such rows; from now on such a promotion fails. The second index serves questions about one model:
    its versions, and what was in production when.
Locks: ACCESS SHARE on model_versions while its rows are read, then SHARE UPDATE EXCLUSIVE while each index is built,
    which keeps nobody from reading or writing. Downgrade takes ACCESS EXCLUSIVE for a moment.
Loss on downgrade: nothing.
Running code: breaks: promotions that leave the previous version in production.

If a model has several production versions, the revision stops and names them: a migration cannot decide which one
serves. If it is interrupted while an index is built, run it again: it drops the invalid index and builds a new one.
"""

from alembic import op

revision = "0011"
down_revision = "0010"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What breaks the rule. `mlops-db adopt` reads it, too; 0011_stop_if_several.sql looks for the same rows.
TABLE = "model_versions"
BROKEN = {
    "several versions of a model are in production": """status = 'production' AND model_name IN (SELECT model_name FROM public.model_versions WHERE status = 'production' GROUP BY model_name HAVING count(*) > 1)"""
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute_file("0011_stop_if_several.sql")
    op.create_index_concurrently(
        "model_versions_production_key",
        "model_versions",
        ["model_name"],
        schema="public",
        unique=True,
        where="status = 'production'",
    )
    op.create_index_concurrently(
        "model_versions_model_name_promoted_at_idx", "model_versions", ["model_name", "promoted_at"], schema="public"
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.drop_index("model_versions_model_name_promoted_at_idx", "model_versions", schema="public")
    op.drop_index("model_versions_production_key", "model_versions", schema="public")
