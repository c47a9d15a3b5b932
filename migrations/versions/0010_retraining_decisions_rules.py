"""Hold new rows of retraining_decisions to the specification's values, and say of which model they are, and whose.

Why: the specification lists three actions, and gate results are one JSON object: anything else is counted by no view.
    The years and the model name are those of revision 0008. A rollback records a reject and a promote; is_rollback tells
    them from a candidate's. Who decided is the session's login, unless the writer says another name.
Locks: ACCESS SHARE on retraining_decisions while its rows are read for the findings, then ACCESS EXCLUSIVE for a
    moment, in which no row is read or written.
Loss on downgrade: the model names, which decisions were rollbacks, and who decided.
Accepted: running-code, because a decision without an action says nothing, and no code of this package wrote one.

A row that breaks a rule stops the revision, as in revision 0008. Nobody knows who decided what is there already: a
column that comes with this default would say that it was whoever runs the revision.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

# Every name below says its schema, so nothing that others put into public can be taken for it.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"


def of_years(column: str) -> str:
    """Whether a moment is one that Python, too, can hold: a single other one, and nobody can read the table there."""
    utc = f"timezone('UTC', {column})"  # a call, as AT TIME ZONE reads back differently from version to version
    return f"{utc} >= timestamp '0001-01-01' AND {utc} < timestamp '10000-01-01'"


# What breaks each rule; `mlops-db adopt` looks for it, too.
TABLE = "retraining_decisions"
BROKEN = {
    "action is not promote, reject or pending": "action IS NULL OR action NOT IN ('promote', 'reject', 'pending')",
    "gate_results is not an object": "jsonb_typeof(gate_results) <> 'object'",
    "decision_timestamp is NULL or not of the years 1 to 9999": "decision_timestamp IS NULL"
    f" OR NOT ({of_years('decision_timestamp')})",
    "created_at is NULL or not of the years 1 to 9999": f"created_at IS NULL OR NOT ({of_years('created_at')})",
}


def upgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(stop_if_broken(TABLE, BROKEN))
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.retraining_decisions ADD COLUMN model_name varchar(255) NOT NULL DEFAULT 'default'
        """
    )
    op.execute("ALTER TABLE public.retraining_decisions ADD COLUMN is_rollback boolean NOT NULL DEFAULT false")
    op.execute(
        """
        -- squawk-ignore prefer-text-field
        ALTER TABLE public.retraining_decisions ADD COLUMN decided_by varchar(255)
        """
    )
    op.execute("ALTER TABLE public.retraining_decisions ALTER COLUMN decided_by SET DEFAULT session_user")
    op.execute(
        f"""
        ALTER TABLE public.retraining_decisions
            ADD CONSTRAINT retraining_decisions_action_check
                CHECK (action::text IN ('promote', 'reject', 'pending')) NOT VALID,
            ADD CONSTRAINT retraining_decisions_gate_results_check
                CHECK (jsonb_typeof(gate_results) = 'object') NOT VALID,
            ADD CONSTRAINT retraining_decisions_decision_timestamp_check
                CHECK ({of_years("decision_timestamp")}) NOT VALID,
            ADD CONSTRAINT retraining_decisions_created_at_check CHECK ({of_years("created_at")}) NOT VALID,
            ADD CONSTRAINT retraining_decisions_not_null
                CHECK (action IS NOT NULL AND decision_timestamp IS NOT NULL AND created_at IS NOT NULL) NOT VALID
        """
    )


def downgrade() -> None:
    op.execute(SAFE_PATH)
    op.execute(
        """
        ALTER TABLE public.retraining_decisions
            DROP CONSTRAINT retraining_decisions_not_null,
            DROP CONSTRAINT retraining_decisions_created_at_check,
            DROP CONSTRAINT retraining_decisions_decision_timestamp_check,
            DROP CONSTRAINT retraining_decisions_gate_results_check,
            DROP CONSTRAINT retraining_decisions_action_check
        """
    )
    for column in ("decided_by", "is_rollback", "model_name"):
        op.drop_column("retraining_decisions", column, schema="public")


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
