"""Index retraining_decisions by time, of all models and of each.

Why: v_decision_history answers newest first, and is read with LIMIT 10. With this index PostgreSQL reads ten rows for
    that instead of sorting all of them, however long the history is. The second index does the same for the decisions
    about one model.
Locks: SHARE UPDATE EXCLUSIVE on retraining_decisions while each index is built, which keeps nobody from reading or
    writing. Downgrade takes ACCESS EXCLUSIVE for a moment.
Loss on downgrade: nothing.
Running code: unaffected.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

# Every name below says its schema, so that nothing in public is taken for one of ours.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.create_index_concurrently(
        "retraining_decisions_decision_timestamp_id_idx",
        "retraining_decisions",
        ["decision_timestamp", "id"],
        schema="public",
    )
    op.create_index_concurrently(
        "retraining_decisions_model_name_decision_timestamp_id_idx",
        "retraining_decisions",
        ["model_name", "decision_timestamp", "id"],
        schema="public",
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.drop_index("retraining_decisions_model_name_decision_timestamp_id_idx", "retraining_decisions", schema="public")
    op.drop_index("retraining_decisions_decision_timestamp_id_idx", "retraining_decisions", schema="public")
