"""Hold new rows of model_versions to the specification's values, and give them a model name.

Why: the specification lists three stages, and scores are shares; a misspelled stage hides a version from everybody who
    asks for 'production', one NaN makes every average NaN, and one moment that Python cannot hold, such as infinity,
    makes every reader in Python fail. With a model name several models can live side by side; who does not know of it
    goes on with the model 'default'.
Locks: ACCESS SHARE on model_versions while its rows are read for the findings, then ACCESS EXCLUSIVE for a moment: the
    column's default is a constant, and the rules are NOT VALID, so no row is read or written under that lock.
Loss on downgrade: the model names.

If a row breaks a rule, the revision stops before it changes anything, and says how many do, which are the first ten,
and what finds them all. Revision 0009 has PostgreSQL verify the old rows.
"""

from alembic import op

revision = "0008"
down_revision = "0007"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def of_years(column: str) -> str:
    """Whether a moment is one that Python, too, can hold: a single other one, and nobody can read the table there."""
    utc = f"timezone('UTC', {column})"  # a call, as AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"


# What breaks each rule; `mlops-db adopt` looks for it, too.
TABLE = "model_versions"
BROKEN = {
    "status is not staging, production or archived": "status IS NULL"
    " OR status NOT IN ('staging', 'production', 'archived')",
    "f1_score is not within 0 and 1": "NOT f1_score BETWEEN 0 AND 1",  # NaN sorts above all numbers
    "brier_score is not within 0 and 1": "NOT brier_score BETWEEN 0 AND 1",
    "created_at is NULL or not of the years 1 to 9999": f"created_at IS NULL OR NOT ({of_years('created_at')})",
    "promoted_at is not of the years 1 to 9999": f"NOT ({of_years('promoted_at')})",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(stop_if_broken(TABLE, BROKEN))
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.model_versions ADD COLUMN model_name varchar(255) NOT NULL DEFAULT 'default'
        """
    )
    op.execute(
        f"""
        ALTER TABLE public.model_versions
            ALTER COLUMN status SET DEFAULT 'staging',
            ADD CONSTRAINT model_versions_status_check
                CHECK (status::text IN ('staging', 'production', 'archived')) NOT VALID,
            ADD CONSTRAINT model_versions_f1_score_check CHECK (f1_score BETWEEN 0 AND 1) NOT VALID,
            ADD CONSTRAINT model_versions_brier_score_check CHECK (brier_score BETWEEN 0 AND 1) NOT VALID,
            ADD CONSTRAINT model_versions_created_at_check CHECK ({of_years("created_at")}) NOT VALID,
            ADD CONSTRAINT model_versions_promoted_at_check CHECK ({of_years("promoted_at")}) NOT VALID,
            ADD CONSTRAINT model_versions_not_null CHECK (status IS NOT NULL AND created_at IS NOT NULL) NOT VALID
        """
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(
        """
        ALTER TABLE public.model_versions
            DROP CONSTRAINT model_versions_not_null,
            DROP CONSTRAINT model_versions_promoted_at_check,
            DROP CONSTRAINT model_versions_created_at_check,
            DROP CONSTRAINT model_versions_brier_score_check,
            DROP CONSTRAINT model_versions_f1_score_check,
            DROP CONSTRAINT model_versions_status_check,
            ALTER COLUMN status DROP DEFAULT
        """
    )
    op.drop_column("model_versions", "model_name", schema="public")


def stop_if_broken(table: str, broken: dict[str, str]) -> str:
    """A block that raises if rows meet one of the conditions: what each means, by what it is found."""
    looks = "\n".join(
        f"""
        SELECT count(*), left(string_agg(id::text, ', ' ORDER BY id) FILTER (WHERE place <= 10), 200)
          INTO rows, ids
          FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM public.{table} WHERE {condition}) AS broken;
        IF rows > 0 THEN
            found := found || format('%s (%s %s, id %s%s)', $what${what}$what$, rows,
                                     CASE rows WHEN 1 THEN 'row' ELSE 'rows' END, ids,
                                     CASE WHEN rows > 10 THEN ', ...' ELSE '' END);
        END IF;"""
        for what, condition in broken.items()
    )
    every = " OR ".join(f"({condition})" for condition in broken.values())
    return f"""
    DO $find$
    DECLARE
        rows bigint;
        ids text;
        found text[] := '{{}}';
    BEGIN
        {looks}
        IF found <> '{{}}' THEN
            RAISE check_violation USING
                MESSAGE = format('rows of {table} break rules of revision {revision}: %s; nothing was changed',
                                 array_to_string(found, '; ')),
                HINT = 'Mend these rows, then run it again: '
                       || $all$SELECT * FROM {table} WHERE {every} ORDER BY id$all$;
        END IF;
    END $find$
    """
