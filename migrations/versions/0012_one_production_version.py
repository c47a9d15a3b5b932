"""Allow one production version per model, and index the versions by model.

Why: two rows with status 'production' leave everybody to guess which one serves. Promotions that did not archive their
    predecessor made such rows; from now on such a promotion fails. The second index is for what is asked of one model:
    its versions, and what was in production when.
Locks: ACCESS SHARE on model_versions while its rows are read, then SHARE UPDATE EXCLUSIVE while each index is built,
    which keeps nobody from reading or writing. Downgrade takes ACCESS EXCLUSIVE for a moment.
Loss on downgrade: nothing.

If a model has several production versions, the revision stops and names them: which one serves is not for a migration
to decide. Interrupted while an index is built, run it again: it drops the invalid index and builds it anew.
"""

from alembic import op

revision = "0012"
down_revision = "0011"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What breaks the rule; `mlops-db adopt` looks for it, too.
TABLE = "model_versions"
SEVERAL = """status = 'production' AND model_name IN (SELECT model_name FROM public.model_versions WHERE status = 'production' GROUP BY model_name HAVING count(*) > 1)"""
BROKEN = {"several versions of a model are in production": SEVERAL}

STOP_IF_SEVERAL = f"""
DO $find$
DECLARE
    models bigint;
    found text;
BEGIN
    SELECT count(*), string_agg(format('%s (%s rows, id %s)', model_name, rows, ids), '; ' ORDER BY model_name)
                     FILTER (WHERE place <= 10)
      INTO models, found
      FROM (
          SELECT model_name, count(*) AS rows, array_to_string((array_agg(id ORDER BY id))[1:10], ', ') AS ids,
                 row_number() OVER (ORDER BY model_name) AS place
            FROM public.model_versions WHERE {SEVERAL} GROUP BY model_name
      ) AS several;
    IF models > 0 THEN
        RAISE unique_violation USING
            MESSAGE = format('%s several production versions: %s; nothing was changed',
                             CASE models WHEN 1 THEN '1 model has' ELSE models || ' models have' END, found),
            HINT = $all$Archive all but the one that serves (UPDATE model_versions SET status = 'archived' WHERE id = ...), then run it again: SELECT * FROM model_versions WHERE status = 'production' ORDER BY model_name, id$all$;
    END IF;
END $find$
"""


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(STOP_IF_SEVERAL)
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
