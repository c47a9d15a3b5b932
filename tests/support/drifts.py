"""Every kind of drift, with one or two statements each, on a database with one object of every kind."""

from dataclasses import dataclass, field

ANALYST = "mlops_test_analyst"
ODD_ROLE = 'mlops_test "Odd", role'
QUOTED_ROLE = '"mlops_test ""Odd"", role"'

# Objects beside the baseline, such as other revisions may create.
SCHEMA = f"""
CREATE FUNCTION public.positive(value double precision) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT value > 0';
CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEW;
END
$$;
CREATE TYPE public.stage AS ENUM ('new', 'old');
CREATE DOMAIN public.score AS double precision DEFAULT 0 CHECK (VALUE <= 1);
CREATE SEQUENCE public.tickets START 100;

CREATE TABLE public.runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id integer CONSTRAINT runs_model_fkey REFERENCES public.model_versions,
    stage public.stage DEFAULT 'new' NOT NULL,
    ticket bigint DEFAULT nextval('public.tickets'),
    score public.score,
    twice integer GENERATED ALWAYS AS (model_id * 2) STORED,
    name varchar(50) COLLATE "C" DEFAULT 'it''s',
    note text NOT NULL,
    detail varchar(20) DEFAULT '7',
    CONSTRAINT runs_name_key UNIQUE (name),
    CONSTRAINT runs_name_check CHECK (name <> ''),
    CONSTRAINT runs_score_check CHECK (public.positive(score))
) WITH (fillfactor = 90);
ALTER SEQUENCE public.tickets OWNED BY public.runs.ticket;
CREATE INDEX runs_new_idx ON public.runs (note) WHERE stage = 'new';
CREATE INDEX runs_model_idx ON public.runs USING hash (model_id) WITH (fillfactor = 80);
CREATE UNIQUE INDEX "runs Odd ""index" ON public.runs (lower(note));
CREATE TRIGGER touch BEFORE UPDATE ON public.runs FOR EACH ROW EXECUTE FUNCTION public.touch();
CREATE POLICY mine ON public.runs FOR SELECT TO PUBLIC USING (name = current_user);
ALTER TABLE public.runs ENABLE ROW LEVEL SECURITY;
CREATE RULE quiet AS ON DELETE TO public.runs DO INSTEAD NOTHING;

CREATE VIEW public.passed WITH (security_barrier = true) AS SELECT id, name, score FROM public.runs WHERE score > 0.5;
CREATE VIEW public.names AS SELECT name, count(*) AS total FROM public.passed GROUP BY name;

CREATE TABLE public."Odd ""table" ("the Id" integer NOT NULL, "select" text);
CREATE INDEX "Odd index" ON public."Odd ""table" ("select");

INSERT INTO public.model_versions (mlflow_run_id, model_version, created_at) VALUES ('run', '7', '2026-01-01');
INSERT INTO public.runs (model_id, score, note) VALUES (1, 0.5, 'a note');

COMMENT ON TABLE public.runs IS 'What was run: it''s "all" of it, 100 %';
COMMENT ON COLUMN public.runs.note IS 'A note';
COMMENT ON VIEW public.passed IS 'Those that passed';
COMMENT ON COLUMN public.passed.score IS 'More than 0.5';
COMMENT ON INDEX public.runs_new_idx IS 'For the queue';
COMMENT ON CONSTRAINT runs_name_check ON public.runs IS 'No empty names';
COMMENT ON FUNCTION public.touch() IS 'Does nothing';
COMMENT ON TYPE public.stage IS 'How far it is';

GRANT SELECT, INSERT ON public.runs TO {ANALYST};
GRANT SELECT ON public.passed TO {ANALYST} WITH GRANT OPTION;
GRANT UPDATE (note) ON public.runs TO {ANALYST};
GRANT SELECT ON public.names TO PUBLIC;
GRANT SELECT ON public."Odd ""table" TO {QUOTED_ROLE};
"""


@dataclass(frozen=True)
class Case:
    """A drift.

    Attributes:
        drift: what somebody did by hand.
        lines: the whole lines that report it; an entry that ends with an ellipsis is the beginning of a long line.
        remains: the lines that are left after the repair, because somebody must repair them by hand.
        theirs: the whole lines that report objects as not ours.
        given: further statements that belong to the revisions in this case.
        waits: whether the repair fails until somebody uncomments the statements that lose data.
    """

    drift: str
    lines: tuple[str, ...]
    remains: tuple[str, ...] = field(default=(), kw_only=True)
    theirs: tuple[str, ...] = field(default=(), kw_only=True)
    given: str = field(default="", kw_only=True)
    waits: bool = field(default=False, kw_only=True)


def line_is(line: str, expected: str) -> bool:
    return line.startswith(expected[:-1]) if expected.endswith("…") else line == expected


COLUMNS = {
    "column added": Case("ALTER TABLE runs ADD extra integer", ("column public.runs.extra: unexpected",)),
    "column dropped": Case("ALTER TABLE runs DROP detail", ("column public.runs.detail: missing",)),
    "column type": Case(
        "ALTER TABLE runs ALTER detail TYPE text",
        ("column public.runs.detail: type: expected character varying(20), found text",),
    ),
    "column type that no default converts to": Case(
        "ALTER TABLE runs ALTER detail DROP DEFAULT, ALTER detail TYPE integer USING detail::integer",
        (
            "column public.runs.detail: type: expected character varying(20), found integer",
            "column public.runs.detail: default: expected '7'::character varying, found nothing",
        ),
    ),
    "type of a column that a view reads": Case(
        """DROP VIEW names; DROP VIEW passed; ALTER TABLE runs ALTER score TYPE real;
           CREATE VIEW passed WITH (security_barrier = true) AS SELECT id, name, score FROM runs WHERE score > 0.5;
           COMMENT ON VIEW passed IS 'Those that passed'; COMMENT ON COLUMN passed.score IS 'More than 0.5';
           CREATE VIEW names AS SELECT name, count(*) AS total FROM passed GROUP BY name;"""
        f"GRANT SELECT ON passed TO {ANALYST} WITH GRANT OPTION; GRANT SELECT ON names TO PUBLIC",
        (
            "view public.passed: definition differs",
            "column public.runs.score: type: expected public.score, found real",
            "column public.passed.score: type: expected public.score, found real",
        ),
    ),
    "column collation": Case(
        'ALTER TABLE runs ALTER detail TYPE varchar(20) COLLATE "C"',
        ('column public.runs.detail: collation: expected nothing, found "C"',),
    ),
    "column default changed": Case(
        "ALTER TABLE runs ALTER stage SET DEFAULT 'old'",
        ("column public.runs.stage: default: expected 'new'::public.stage, found 'old'::public.stage",),
    ),
    "column default dropped": Case(
        "ALTER TABLE runs ALTER name DROP DEFAULT",
        ("column public.runs.name: default: expected 'it''s'::character varying, found nothing",),
    ),
    "column default added": Case(
        "ALTER TABLE runs ALTER note SET DEFAULT 'none'",
        ("column public.runs.note: default: expected nothing, found 'none'::text",),
    ),
    "not null added": Case(
        "ALTER TABLE runs ALTER detail SET NOT NULL",
        ("column public.runs.detail: expected NULL allowed, found NOT NULL",),
    ),
    "not null dropped": Case(
        "ALTER TABLE runs ALTER note DROP NOT NULL",
        ("column public.runs.note: expected NOT NULL, found NULL allowed",),
    ),
    "column comment changed": Case(
        "COMMENT ON COLUMN runs.note IS 'other'",
        ("column public.runs.note: comment: expected A note, found other",),
    ),
    "column comment added": Case(
        "COMMENT ON COLUMN runs.name IS 'it''s'",
        ("column public.runs.name: comment: expected nothing, found it's",),
    ),
    "columns in another order": Case(
        """ALTER TABLE "Odd ""table" ADD new integer NOT NULL; ALTER TABLE "Odd ""table" DROP "the Id";
           ALTER TABLE "Odd ""table" RENAME new TO "the Id";""",
        (
            'column public."Odd ""table"."the Id": position: expected 1, found 2',
            'column public."Odd ""table"."select": position: expected 2, found 1',
        ),
        remains=(
            'column public."Odd ""table"."the Id": position: expected 1, found 2',
            'column public."Odd ""table"."select": position: expected 2, found 1',
        ),
    ),
    "column dropped before others": Case(
        'ALTER TABLE "Odd ""table" DROP "the Id"',
        ('column public."Odd ""table"."the Id": missing',),
        remains=(
            'column public."Odd ""table"."the Id": position: expected 1, found 2',
            'column public."Odd ""table"."select": position: expected 2, found 1',
        ),
    ),
    "columns dropped with all that hangs on them": Case(
        "ALTER TABLE runs DROP ticket CASCADE; ALTER TABLE runs DROP name CASCADE",
        (
            "sequence public.tickets: missing",
            "view public.passed: missing",
            "view public.names: missing",
            "column public.runs.ticket: missing",
            "column public.runs.name: missing",
            "constraint runs_name_key on public.runs: missing",
            "constraint runs_name_check on public.runs: missing",
            "policy mine on public.runs: missing",
        ),
        remains=(
            "column public.runs.ticket: position: expected 4, found 8",
            "column public.runs.score: position: expected 5, found 4",
            "column public.runs.twice: position: expected 6, found 5",
            "column public.runs.name: position: expected 7, found 9",
            "column public.runs.note: position: expected 8, found 6",
            "column public.runs.detail: position: expected 9, found 7",
        ),
    ),
    "column type with an index that went along": Case(
        "ALTER TABLE runs ALTER note TYPE varchar(99)",
        (
            "column public.runs.note: type: expected text, found character varying(99)",
            'index public."runs Odd ""index" on public.runs: definition: expected CREATE …',
        ),
    ),
    "column type under a policy": Case(
        """DROP POLICY mine ON runs; ALTER TABLE runs ALTER detail TYPE text;
           CREATE POLICY mine ON runs FOR SELECT TO PUBLIC USING (name = current_user OR detail = '')""",
        (
            "column public.runs.detail: type: expected character varying(20), found text",
            "policy mine on public.runs: definition: expected AS …",
        ),
    ),
    "column type under a policy that is right": Case(
        """DROP POLICY with_detail ON runs; ALTER TABLE runs ALTER detail TYPE text;
           CREATE POLICY with_detail ON runs FOR DELETE USING (detail IS NULL)""",
        ("column public.runs.detail: type: expected character varying(20), found text",),
        given="CREATE POLICY with_detail ON runs FOR DELETE USING (detail IS NULL)",
    ),
    "identity changed": Case(
        "ALTER TABLE runs ALTER id SET GENERATED BY DEFAULT",
        ("column public.runs.id: identity: expected ALWAYS, found BY DEFAULT",),
        remains=("column public.runs.id: identity: expected ALWAYS, found BY DEFAULT",),
    ),
    "generated column made a plain one": Case(
        "ALTER TABLE runs ALTER twice DROP EXPRESSION",
        ("column public.runs.twice: generated: expected (model_id * 2), found nothing",),
        remains=("column public.runs.twice: generated: expected (model_id * 2), found nothing",),
    ),
    "quoted column": Case(
        'ALTER TABLE "Odd ""table" ALTER "the Id" DROP NOT NULL',
        ('column public."Odd ""table"."the Id": expected NOT NULL, found NULL allowed',),
    ),
    "quoted column dropped": Case(
        'ALTER TABLE "Odd ""table" DROP "select"',
        ('column public."Odd ""table"."select": missing', 'index public."Odd index" on public."Odd ""table": missing'),
    ),
}

CONSTRAINTS = {
    "check missing": Case(
        "ALTER TABLE runs DROP CONSTRAINT runs_name_check", ("constraint runs_name_check on public.runs: missing",)
    ),
    "check added": Case(
        "ALTER TABLE runs ADD CONSTRAINT extra CHECK (note <> 'x')", ("constraint extra on public.runs: unexpected",)
    ),
    "check with another body": Case(
        """ALTER TABLE runs DROP CONSTRAINT runs_name_check, ADD CONSTRAINT runs_name_check CHECK (name <> 'x');
           COMMENT ON CONSTRAINT runs_name_check ON runs IS 'No empty names'""",
        (
            (
                "constraint runs_name_check on public.runs: definition: expected CHECK (((name)::text <> ''::text)),"
                " found CHECK (((name)::text <> 'x'::text))"
            ),
        ),
    ),
    "check not validated": Case(
        """ALTER TABLE runs DROP CONSTRAINT runs_score_check;
           ALTER TABLE runs ADD CONSTRAINT runs_score_check CHECK (positive(score)) NOT VALID""",
        (
            (
                "constraint runs_score_check on public.runs: definition:"
                " expected CHECK (public.positive((score)::double precision)),"
                " found CHECK (public.positive((score)::double precision)) NOT VALID"
            ),
        ),
    ),
    "check validated too early": Case(
        "ALTER TABLE runs VALIDATE CONSTRAINT late",
        (
            (
                "constraint late on public.runs: definition: expected CHECK ((note <> ''::text)) NOT VALID,"
                " found CHECK ((note <> ''::text))"
            ),
        ),
        given="ALTER TABLE runs ADD CONSTRAINT late CHECK (note <> '') NOT VALID",
    ),
    "check renamed": Case(
        "ALTER TABLE runs RENAME CONSTRAINT runs_score_check TO other",
        ("constraint runs_score_check on public.runs: missing", "constraint other on public.runs: unexpected"),
    ),
    "primary key dropped": Case(
        "ALTER TABLE runs DROP CONSTRAINT runs_pkey", ("constraint runs_pkey on public.runs: missing",)
    ),
    "primary key dropped with what refers to it": Case(
        "ALTER TABLE model_versions DROP CONSTRAINT model_versions_pkey CASCADE",
        (
            "constraint model_versions_pkey on public.model_versions: missing",
            "constraint runs_model_fkey on public.runs: missing",
        ),
    ),
    "primary key over other columns": Case(
        "ALTER TABLE runs DROP CONSTRAINT runs_pkey, ADD CONSTRAINT runs_pkey PRIMARY KEY (id, stage)",
        ("constraint runs_pkey on public.runs: definition: expected PRIMARY KEY (id), found PRIMARY KEY (id, stage)",),
    ),
    "unique constraint missing": Case(
        "ALTER TABLE model_versions DROP CONSTRAINT model_versions_mlflow_run_id_key",
        ("constraint model_versions_mlflow_run_id_key on public.model_versions: missing",),
    ),
    "unique constraint made an index": Case(
        "ALTER TABLE runs DROP CONSTRAINT runs_name_key; CREATE UNIQUE INDEX runs_name_key ON runs (name)",
        (
            "constraint runs_name_key on public.runs: missing",
            "index public.runs_name_key on public.runs: unexpected",
        ),
    ),
    "unique constraint added, with a key that refers to it": Case(
        """ALTER TABLE model_versions ADD CONSTRAINT extra UNIQUE (model_version);
           ALTER TABLE runs ADD CONSTRAINT to_extra FOREIGN KEY (detail) REFERENCES model_versions (model_version)""",
        (
            "constraint extra on public.model_versions: unexpected",
            "constraint to_extra on public.runs: unexpected",
        ),
    ),
    "foreign key with another action": Case(
        """ALTER TABLE runs DROP CONSTRAINT runs_model_fkey,
               ADD CONSTRAINT runs_model_fkey FOREIGN KEY (model_id) REFERENCES model_versions ON DELETE CASCADE""",
        (
            (
                "constraint runs_model_fkey on public.runs: definition:"
                " expected FOREIGN KEY (model_id) REFERENCES public.model_versions(id),"
                " found FOREIGN KEY (model_id) REFERENCES public.model_versions(id) ON DELETE CASCADE"
            ),
        ),
    ),
    "foreign key deferrable": Case(
        "ALTER TABLE runs ALTER CONSTRAINT runs_model_fkey DEFERRABLE",
        (
            (
                "constraint runs_model_fkey on public.runs: definition:"
                " expected FOREIGN KEY (model_id) REFERENCES public.model_versions(id),"
                " found FOREIGN KEY (model_id) REFERENCES public.model_versions(id) DEFERRABLE"
            ),
        ),
    ),
    "constraint comment": Case(
        "COMMENT ON CONSTRAINT runs_name_check ON runs IS NULL",
        ("constraint runs_name_check on public.runs: comment: expected No empty names, found nothing",),
    ),
    "constraint with a comment replaced": Case(
        "ALTER TABLE runs DROP CONSTRAINT runs_name_check, ADD CONSTRAINT runs_name_check CHECK (name <> 'x')",
        (
            "constraint runs_name_check on public.runs: definition: expected CHECK …",
            "constraint runs_name_check on public.runs: comment: expected No empty names, found nothing",
        ),
    ),
    "exclusion constraint added": Case(
        "ALTER TABLE runs ADD CONSTRAINT apart EXCLUDE USING btree (detail WITH =)",
        ("constraint apart on public.runs: unexpected",),
    ),
    "quoted constraint added": Case(
        'ALTER TABLE "Odd ""table" ADD CONSTRAINT "Odd, ""check" CHECK ("select" <> \'\')',
        ('constraint "Odd, ""check" on public."Odd ""table": unexpected',),
    ),
}

INDEXES = {
    "index added": Case("CREATE INDEX extra ON runs (detail)", ("index public.extra on public.runs: unexpected",)),
    "index dropped": Case("DROP INDEX runs_model_idx", ("index public.runs_model_idx on public.runs: missing",)),
    "quoted index dropped": Case(
        'DROP INDEX "Odd index"', ('index public."Odd index" on public."Odd ""table": missing',)
    ),
    "index with another predicate": Case(
        """DROP INDEX runs_new_idx; CREATE INDEX runs_new_idx ON runs (note) WHERE stage = 'old';
           COMMENT ON INDEX runs_new_idx IS 'For the queue'""",
        (
            (
                "index public.runs_new_idx on public.runs: definition:"
                " expected CREATE INDEX runs_new_idx ON public.runs USING btree (note)"
                " WHERE (stage = 'new'::public.stage),"
                " found CREATE INDEX runs_new_idx ON public.runs USING btree (note) WHERE (stage = 'old'::public.stage)"
            ),
        ),
    ),
    "index with another method": Case(
        "DROP INDEX runs_model_idx; CREATE INDEX runs_model_idx ON runs (model_id) WITH (fillfactor = 80)",
        ("index public.runs_model_idx on public.runs: definition: expected CREATE INDEX …",),
    ),
    "index no longer unique": Case(
        'DROP INDEX "runs Odd ""index"; CREATE INDEX "runs Odd ""index" ON runs (lower(note))',
        ('index public."runs Odd ""index" on public.runs: definition: expected CREATE UNIQUE INDEX …',),
    ),
    "index invalid": Case(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'runs_new_idx'::regclass",
        ("index public.runs_new_idx on public.runs: valid: expected yes, found no",),
    ),
    "index not ready": Case(
        "UPDATE pg_index SET indisready = false WHERE indexrelid = 'runs_model_idx'::regclass",
        ("index public.runs_model_idx on public.runs: valid: expected yes, found no",),
    ),
    "index options": Case(
        "ALTER INDEX runs_model_idx RESET (fillfactor)",
        (
            "index public.runs_model_idx on public.runs: definition: expected CREATE INDEX …",
            "index public.runs_model_idx on public.runs: options: expected fillfactor=80, found nothing",
        ),
    ),
    "index comment": Case(
        "COMMENT ON INDEX runs_new_idx IS 'other'",
        ("index public.runs_new_idx on public.runs: comment: expected For the queue, found other",),
    ),
}

VIEWS = {
    "view changed": Case(
        "CREATE OR REPLACE VIEW names AS SELECT name, count(*) + 1 AS total FROM passed GROUP BY name",
        ("view public.names: definition differs",),
    ),
    "view changed under another": Case(
        """CREATE OR REPLACE VIEW passed WITH (security_barrier = true)
           AS SELECT id, name, score FROM runs WHERE score > 0.9""",
        ("view public.passed: definition differs",),
    ),
    "view with a further column": Case(
        "CREATE OR REPLACE VIEW names AS SELECT name, count(*) AS total, 1 AS extra FROM passed GROUP BY name",
        (
            "view public.names: definition differs",
            "column public.names.extra: unexpected",
        ),
    ),
    "view missing": Case("DROP VIEW names", ("view public.names: missing",)),
    "views missing, one on the other": Case(
        "DROP VIEW passed CASCADE", ("view public.passed: missing", "view public.names: missing")
    ),
    "view added": Case(
        "CREATE VIEW extra AS SELECT 1 AS a",
        (),
        theirs=("theirs: view public.extra",),
    ),
    "view added on ours": Case(
        "CREATE VIEW extra AS SELECT name FROM names",
        (),
        theirs=("theirs: view public.extra",),
    ),
    "view renamed": Case(
        "ALTER VIEW names RENAME TO titles",
        ("view public.names: missing",),
        theirs=("theirs: view public.titles",),
    ),
    "view without its barrier": Case(
        "ALTER VIEW passed RESET (security_barrier)",
        ("view public.passed: options: expected security_barrier=true, found nothing",),
    ),
    "view with an option": Case(
        "ALTER VIEW names SET (security_barrier = true)",
        ("view public.names: options: expected nothing, found security_barrier=true",),
    ),
    "view comment": Case(
        "COMMENT ON VIEW passed IS NULL", ("view public.passed: comment: expected Those that passed, found nothing",)
    ),
    "view column comment": Case(
        "COMMENT ON COLUMN passed.score IS NULL",
        ("column public.passed.score: comment: expected More than 0.5, found nothing",),
    ),
    "quoted view": Case(
        'CREATE VIEW "Odd ""view" AS SELECT 1 AS a',
        (),
        theirs=('theirs: view public."Odd ""view"',),
    ),
    "view that was made to read a younger one": Case(
        """CREATE VIEW young AS SELECT 1 AS a;
           CREATE OR REPLACE VIEW names AS SELECT name, count(*) AS total FROM passed, young GROUP BY name""",
        ("view public.names: definition differs",),
        theirs=("theirs: view public.young",),
    ),
    "view missing that reads a younger one": Case(
        "DROP VIEW one",
        ("view public.one: missing",),
        given="""CREATE VIEW one AS SELECT 1 AS a; CREATE VIEW two AS SELECT 1 AS a;
                 CREATE OR REPLACE VIEW one AS SELECT a FROM two""",
    ),
    "view missing that groups by a primary key": Case(
        "ALTER TABLE runs DROP CONSTRAINT runs_pkey CASCADE",
        ("view public.by_key: missing", "constraint runs_pkey on public.runs: missing"),
        given="CREATE VIEW by_key AS SELECT id, note, count(*) AS n FROM runs GROUP BY id",
    ),
    "view missing with its function": Case(
        "DROP FUNCTION twice CASCADE",
        ("view public.doubled: missing", "function public.twice(integer): missing"),
        given="""CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2';
                 CREATE VIEW doubled AS SELECT twice(model_id) AS model_id FROM runs""",
    ),
    "view added with its function": Case(
        """CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2';
           CREATE VIEW doubled AS SELECT twice(model_id) AS model_id FROM runs""",
        (),
        theirs=(
            "theirs: view public.doubled",
            "theirs: function public.twice(integer)",
        ),
    ),
    "view missing beside one with a trigger": Case(
        "DROP VIEW names",
        ("view public.names: missing",),
        given="""CREATE VIEW editable AS SELECT id, note FROM runs;
                 CREATE TRIGGER t INSTEAD OF UPDATE ON editable FOR EACH ROW EXECUTE FUNCTION touch();
                 COMMENT ON TRIGGER t ON editable IS 'Kept'""",
    ),
    "view missing beside one with a rule": Case(
        "DROP VIEW names",
        ("view public.names: missing",),
        given="""CREATE VIEW ruled AS SELECT id FROM runs;
                 CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING""",
    ),
    "view trigger added": Case(
        "CREATE TRIGGER extra INSTEAD OF UPDATE ON names FOR EACH ROW EXECUTE FUNCTION touch()",
        ("trigger extra on public.names: unexpected",),
    ),
    "view trigger added, and a view": Case(
        """CREATE TRIGGER extra INSTEAD OF UPDATE ON names FOR EACH ROW EXECUTE FUNCTION touch();
           CREATE VIEW another AS SELECT 1 AS a""",
        ("trigger extra on public.names: unexpected",),
        theirs=("theirs: view public.another",),
    ),
    "view missing beside a materialized one": Case(
        "DROP VIEW names",
        ("view public.names: missing",),
        given="""CREATE MATERIALIZED VIEW totals AS SELECT stage, count(*) AS runs FROM runs GROUP BY stage;
                 CREATE UNIQUE INDEX totals_stage ON totals (stage); COMMENT ON INDEX totals_stage IS 'Kept';
                 COMMENT ON COLUMN totals.stage IS 'Kept'; COMMENT ON MATERIALIZED VIEW totals IS 'Kept'""",
    ),
    "materialized view missing": Case(
        "DROP MATERIALIZED VIEW totals",
        ("materialized view public.totals: missing",),
        given="""CREATE MATERIALIZED VIEW totals AS SELECT stage, count(*) AS runs FROM runs GROUP BY stage;
                 CREATE UNIQUE INDEX totals_stage ON totals (stage)""",
    ),
    "materialized view added": Case(
        "CREATE MATERIALIZED VIEW extra AS SELECT 1 AS a; CREATE INDEX ON extra (a)",
        (),
        theirs=("theirs: materialized view public.extra",),
    ),
}

CODE = {
    "function changed": Case(
        "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$",
        ("function public.touch(): definition differs",),
    ),
    "function that returns something else": Case(
        "DROP FUNCTION twice; CREATE FUNCTION twice(integer) RETURNS bigint LANGUAGE sql AS 'SELECT $1 * 2::bigint'",
        ("function public.twice(integer): definition differs",),
        given="CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2'",
    ),
    "function with other parameters": Case(
        "DROP FUNCTION twice; CREATE FUNCTION twice(bigint) RETURNS integer LANGUAGE sql AS 'SELECT 2'",
        ("function public.twice(integer): missing",),
        given="CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 * 2'",
        theirs=("theirs: function public.twice(bigint)",),
    ),
    "function added": Case(
        """CREATE FUNCTION "Odd fn"(x integer DEFAULT 1, OUT y text) LANGUAGE sql AS 'SELECT text ''a''' """,
        (),
        theirs=('theirs: function public."Odd fn"(x integer, OUT y text)',),
    ),
    "procedure added": Case(
        "CREATE PROCEDURE extra() LANGUAGE sql AS 'SELECT 1'",
        (),
        theirs=("theirs: function public.extra()",),
    ),
    "procedure missing": Case(
        "DROP PROCEDURE extra",
        ("function public.extra(): missing",),
        given="""CREATE PROCEDURE extra() LANGUAGE sql AS 'SELECT 1'; COMMENT ON PROCEDURE extra() IS 'x';
                 REVOKE EXECUTE ON PROCEDURE extra() FROM PUBLIC""",
    ),
    "aggregate added": Case(
        "CREATE AGGREGATE extra(integer) (SFUNC = int4pl, STYPE = integer)",
        (),
        theirs=("theirs: function public.extra(integer)",),
    ),
    "aggregate missing": Case(
        "DROP AGGREGATE extra(integer)",
        ("function public.extra(integer): missing",),
        given="CREATE AGGREGATE extra(integer) (SFUNC = int4pl, STYPE = integer)",
        remains=("function public.extra(integer): missing",),
    ),
    "function missing that a check calls": Case(
        "DROP FUNCTION positive CASCADE",
        (
            "constraint runs_score_check on public.runs: missing",
            "function public.positive(value double precision): missing",
        ),
    ),
    "function missing that a trigger calls": Case(
        "DROP FUNCTION touch CASCADE",
        ("function public.touch(): missing", "trigger touch on public.runs: missing"),
    ),
    "function missing that a default calls": Case(
        "DROP FUNCTION three CASCADE",
        (
            "column public.runs.model_id: default: expected public.three(), found nothing",
            "function public.three(): missing",
        ),
        given="""CREATE FUNCTION three() RETURNS integer LANGUAGE sql AS 'SELECT 3';
                 ALTER TABLE runs ALTER model_id SET DEFAULT three()""",
    ),
    "function missing that reads a table": Case(
        "DROP FUNCTION names_of",
        ("function public.names_of(): missing",),
        given="CREATE FUNCTION names_of() RETURNS SETOF public.names LANGUAGE sql AS 'SELECT * FROM public.names'",
    ),
    "function added that a default calls": Case(
        """CREATE FUNCTION three() RETURNS integer LANGUAGE sql AS 'SELECT 3';
           ALTER TABLE runs ALTER model_id SET DEFAULT three()""",
        ("column public.runs.model_id: default: expected nothing, found public.three()",),
        theirs=("theirs: function public.three()",),
    ),
    "function comment": Case(
        "COMMENT ON FUNCTION touch() IS NULL",
        ("function public.touch(): comment: expected Does nothing, found nothing",),
    ),
    "function no longer for everybody": Case(
        "REVOKE EXECUTE ON FUNCTION positive FROM PUBLIC",
        ("function public.positive(value double precision): grants: expected EXECUTE TO PUBLIC, found nothing",),
    ),
    "trigger missing": Case("DROP TRIGGER touch ON runs", ("trigger touch on public.runs: missing",)),
    "trigger added": Case(
        'CREATE TRIGGER "Odd trigger" AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION touch()',
        ('trigger "Odd trigger" on public.runs: unexpected',),
    ),
    "trigger disabled": Case(
        "ALTER TABLE runs DISABLE TRIGGER touch",
        ("trigger touch on public.runs: enabled: expected nothing, found DISABLE",),
    ),
    "trigger changed": Case(
        """DROP TRIGGER touch ON runs;
           CREATE TRIGGER touch BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION touch()""",
        ("trigger touch on public.runs: definition: expected CREATE TRIGGER touch BEFORE UPDATE …",),
    ),
    "trigger for replicas": Case(
        "ALTER TABLE runs ENABLE REPLICA TRIGGER touch",
        ("trigger touch on public.runs: enabled: expected ENABLE ALWAYS, found ENABLE REPLICA",),
        given="ALTER TABLE runs ENABLE ALWAYS TRIGGER touch",
    ),
    "trigger changed that fires always": Case(
        """DROP TRIGGER touch ON runs;
           CREATE TRIGGER touch BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION touch();
           ALTER TABLE runs ENABLE ALWAYS TRIGGER touch""",
        ("trigger touch on public.runs: definition: expected CREATE TRIGGER touch BEFORE UPDATE …",),
        given="ALTER TABLE runs ENABLE ALWAYS TRIGGER touch",
    ),
    "trigger changed that has a comment": Case(
        """DROP TRIGGER touch ON runs;
           CREATE TRIGGER touch BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION touch();
           COMMENT ON TRIGGER touch ON runs IS 'Kept'""",
        ("trigger touch on public.runs: definition: expected CREATE TRIGGER touch BEFORE UPDATE …",),
        given="COMMENT ON TRIGGER touch ON runs IS 'Kept'",
    ),
    "trigger added with its function": Case(
        """CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
           CREATE TRIGGER log AFTER INSERT ON model_versions FOR EACH ROW EXECUTE FUNCTION log()""",
        ("trigger log on public.model_versions: unexpected",),
        theirs=("theirs: function public.log()",),
    ),
    "rule missing": Case("DROP RULE quiet ON runs", ("rule quiet on public.runs: missing",)),
    "rule added": Case(
        'CREATE RULE "Odd rule" AS ON UPDATE TO runs DO INSTEAD NOTHING',
        ('rule "Odd rule" on public.runs: unexpected',),
    ),
    "rule changed": Case(
        "CREATE OR REPLACE RULE quiet AS ON DELETE TO runs WHERE old.id > 5 DO INSTEAD NOTHING",
        ("rule quiet on public.runs: definition differs",),
    ),
    "policy missing": Case("DROP POLICY mine ON runs", ("policy mine on public.runs: missing",)),
    "policy added": Case(
        'CREATE POLICY "Odd policy" ON runs AS RESTRICTIVE FOR INSERT WITH CHECK (true)',
        ('policy "Odd policy" on public.runs: unexpected',),
    ),
    "policy changed": Case(
        "ALTER POLICY mine ON runs USING (true)",
        (
            (
                "policy mine on public.runs: definition: expected AS PERMISSIVE FOR SELECT TO PUBLIC"
                " USING (((name)::text = CURRENT_USER)), found AS PERMISSIVE FOR SELECT TO PUBLIC USING (true)"
            ),
        ),
    ),
    "row level security off": Case(
        "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
        ("table public.runs: row level security: expected ENABLE, found nothing",),
    ),
    "row level security forced": Case(
        "ALTER TABLE runs FORCE ROW LEVEL SECURITY",
        ("table public.runs: row level security: expected ENABLE, found ENABLE, FORCE",),
    ),
    "row level security on": Case(
        "ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY",
        ("table public.model_versions: row level security: expected nothing, found ENABLE",),
    ),
    "row level security on and forced": Case(
        "ALTER TABLE model_versions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        ("table public.model_versions: row level security: expected nothing, found ENABLE, FORCE",),
    ),
    "row level security off where it was forced": Case(
        "ALTER TABLE runs DISABLE ROW LEVEL SECURITY",
        ("table public.runs: row level security: expected ENABLE, FORCE, found FORCE",),
        given="ALTER TABLE runs FORCE ROW LEVEL SECURITY",
    ),
    "row level security no longer forced": Case(
        "ALTER TABLE runs NO FORCE ROW LEVEL SECURITY",
        ("table public.runs: row level security: expected ENABLE, FORCE, found ENABLE",),
        given="ALTER TABLE runs FORCE ROW LEVEL SECURITY",
    ),
}

_TICKETS = "AS bigint START 100 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 NO CYCLE"
_SERIAL = "expected nextval('public.model_versions_id_seq'::regclass), found nothing"
SEQUENCES_AND_TYPES = {
    "sequence changed": Case(
        "ALTER SEQUENCE tickets CACHE 20 CYCLE",
        (
            (
                f"sequence public.tickets: definition: expected {_TICKETS},"
                f" found {_TICKETS.replace('CACHE 1 NO CYCLE', 'CACHE 20 CYCLE')}"
            ),
        ),
    ),
    "sequence added": Case(
        'CREATE SEQUENCE "Odd sequence"',
        (),
        theirs=('theirs: sequence public."Odd sequence"',),
    ),
    "sequence added for a column of ours": Case(
        "CREATE SEQUENCE extra OWNED BY runs.model_id", ("sequence public.extra: unexpected",)
    ),
    "sequence added with a default": Case(
        "CREATE SEQUENCE extra; ALTER TABLE runs ALTER model_id SET DEFAULT nextval('extra')",
        ("column public.runs.model_id: default: expected nothing, found nextval('public.extra'::regclass)",),
        theirs=("theirs: sequence public.extra",),
    ),
    "sequence of an identity changed": Case(
        "ALTER TABLE runs ALTER id SET INCREMENT 5",
        ("sequence public.runs_id_seq: definition: expected AS bigint START 1 INCREMENT 1 …",),
    ),
    "sequence no longer owned": Case(
        "ALTER SEQUENCE tickets OWNED BY NONE",
        ("sequence public.tickets: owned by: expected public.runs.ticket, found nothing",),
    ),
    "sequence owned by another column": Case(
        'ALTER SEQUENCE tickets OWNED BY "Odd ""table"."the Id"',
        ('sequence public.tickets: owned by: expected public.runs.ticket, found public."Odd ""table"."the Id"',),
    ),
    "sequence missing": Case(
        "DROP SEQUENCE tickets CASCADE",
        (
            "sequence public.tickets: missing",
            "column public.runs.ticket: default: expected nextval('public.tickets'::regclass), found nothing",
        ),
    ),
    "serial made an identity": Case(
        """ALTER TABLE model_versions ALTER id DROP DEFAULT; DROP SEQUENCE model_versions_id_seq;
           ALTER TABLE model_versions ALTER id ADD GENERATED BY DEFAULT AS IDENTITY""",
        (
            "sequence public.model_versions_id_seq: identity: expected nothing, found yes",
            f"column public.model_versions.id: default: {_SERIAL}",
            "column public.model_versions.id: identity: expected nothing, found BY DEFAULT",
        ),
        remains=(
            "sequence public.model_versions_id_seq: identity: expected nothing, found yes",
            f"column public.model_versions.id: default: {_SERIAL}",
            "column public.model_versions.id: identity: expected nothing, found BY DEFAULT",
        ),
    ),
    "enum added": Case(
        """CREATE TYPE "Odd type" AS ENUM ('a, b', 'it''s')""",
        (),
        theirs=('theirs: type public."Odd type"',),
    ),
    "enum added with a column": Case(
        "CREATE TYPE extra AS ENUM ('a'); ALTER TABLE runs ADD extra extra",
        ("column public.runs.extra: unexpected",),
        theirs=("theirs: type public.extra",),
    ),
    "enum with a further label": Case(
        "ALTER TYPE stage ADD VALUE 'it''s'",
        ("type public.stage: labels: expected 'new', 'old', found 'new', 'old', 'it''s'",),
        remains=("type public.stage: labels: expected 'new', 'old', found 'new', 'old', 'it''s'",),
    ),
    "enum missing": Case(
        "DROP TYPE spare", ("type public.spare: missing",), given="CREATE TYPE spare AS ENUM ('a, b', 'it''s')"
    ),
    "domain added": Case(
        "CREATE DOMAIN extra AS integer CHECK (VALUE > 0)",
        (),
        theirs=("theirs: type public.extra",),
    ),
    "domain changed": Case(
        "ALTER DOMAIN score SET NOT NULL",
        ("type public.score: domain: expected double precision DEFAULT 0 CHECK …",),
        remains=("type public.score: domain: expected double precision DEFAULT 0 CHECK …",),
    ),
    "domain missing": Case(
        "DROP DOMAIN spare",
        ("type public.spare: missing",),
        given="""CREATE DOMAIN spare AS varchar(5) DEFAULT 'a' NOT NULL CHECK (VALUE <> 'b');
                 COMMENT ON DOMAIN spare IS 'Kept'""",
    ),
    "type comment": Case(
        "COMMENT ON TYPE stage IS NULL", ("type public.stage: comment: expected How far it is, found nothing",)
    ),
}

_PARTS = """
CREATE TABLE mlops_internal.parts (id integer, at date, note text NOT NULL, PRIMARY KEY (id, at), CHECK (note <> ''))
    PARTITION BY RANGE (at);
CREATE INDEX parts_note ON mlops_internal.parts (note);
CREATE TABLE mlops_internal.parts_2026 PARTITION OF mlops_internal.parts
    FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
"""
TABLES = {
    "table added": Case(
        "CREATE TABLE extra (id serial PRIMARY KEY, note text UNIQUE CHECK (note <> '')); CREATE INDEX ON extra (note)",
        (),
        theirs=("theirs: table public.extra",),
    ),
    "tables added that refer to each other": Case(
        """CREATE TABLE one (id integer PRIMARY KEY); CREATE TABLE two (id integer PRIMARY KEY REFERENCES one);
           ALTER TABLE one ADD FOREIGN KEY (id) REFERENCES two""",
        (),
        theirs=(
            "theirs: table public.one",
            "theirs: table public.two",
        ),
    ),
    "partitioned table added": Case(
        """CREATE TABLE extra (id integer PRIMARY KEY) PARTITION BY HASH (id);
           CREATE TABLE extra_0 PARTITION OF extra FOR VALUES WITH (MODULUS 1, REMAINDER 0)""",
        (),
        theirs=(
            "theirs: table public.extra",
            "theirs: table public.extra_0",
        ),
    ),
    "table added with its type and sequence": Case(
        """CREATE TYPE kind AS ENUM ('a'); CREATE SEQUENCE numbers;
           CREATE TABLE extra (id integer DEFAULT nextval('numbers'), kind kind)""",
        (),
        theirs=(
            "theirs: type public.kind",
            "theirs: sequence public.numbers",
            "theirs: table public.extra",
        ),
    ),
    "table added with a view": Case(
        "CREATE TABLE extra (id integer); CREATE VIEW on_extra AS SELECT id FROM extra",
        (),
        theirs=(
            "theirs: table public.extra",
            "theirs: view public.on_extra",
        ),
    ),
    "quoted table added": Case(
        'CREATE TABLE "Odd, ""other""" ("a b" integer)',
        (),
        theirs=('theirs: table public."Odd, ""other"""',),
    ),
    "table missing": Case(
        "DROP TABLE retraining_decisions CASCADE",
        (
            "sequence public.retraining_decisions_id_seq: missing",
            "table public.retraining_decisions: missing",
            "view public.v_decision_history: missing",
        ),
    ),
    "quoted table missing": Case('DROP TABLE "Odd ""table"', ('table public."Odd ""table": missing',)),
    "table missing with a bit of everything": Case(
        "DROP TABLE runs CASCADE",
        (
            "sequence public.tickets: missing",
            "sequence public.runs_id_seq: missing",
            "table public.runs: missing",
            "view public.passed: missing",
            "view public.names: missing",
        ),
    ),
    "table unlogged": Case(
        "ALTER TABLE monitoring_metrics SET UNLOGGED",
        ("table public.monitoring_metrics: persistence: expected nothing, found UNLOGGED",),
    ),
    "table options changed": Case(
        "ALTER TABLE runs SET (fillfactor = 50, autovacuum_enabled = false)",
        ("table public.runs: options: expected fillfactor=90, found fillfactor=50, autovacuum_enabled=false",),
    ),
    "table options dropped": Case(
        "ALTER TABLE runs RESET (fillfactor)", ("table public.runs: options: expected fillfactor=90, found nothing",)
    ),
    "table options added": Case(
        "ALTER TABLE model_versions SET (autovacuum_vacuum_scale_factor = 0.01)",
        ("table public.model_versions: options: expected nothing, found autovacuum_vacuum_scale_factor=0.01",),
    ),
    "table comment": Case(
        "COMMENT ON TABLE runs IS NULL",
        ("""table public.runs: comment: expected What was run: it's "all" of it, 100 %, found nothing""",),
    ),
    "table comment on several lines": Case(
        "COMMENT ON TABLE model_versions IS E'first\\nsecond'",
        ("table public.model_versions: comment differs",),
    ),
    "replica identity": Case(
        "ALTER TABLE runs REPLICA IDENTITY FULL",
        ("table public.runs: replica identity: expected nothing, found f",),
        remains=("table public.runs: replica identity: expected nothing, found f",),
    ),
    "partition missing": Case(
        "DROP TABLE mlops_internal.parts_2026", ("table mlops_internal.parts_2026: missing",), given=_PARTS
    ),
    "partition detached": Case(
        "ALTER TABLE mlops_internal.parts DETACH PARTITION mlops_internal.parts_2026",
        (
            "table mlops_internal.parts_2026: parents: expected mlops_internal.parts, found nothing",
            (
                "table mlops_internal.parts_2026: partition bound:"
                " expected FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'), found nothing"
            ),
        ),
        remains=(
            "table mlops_internal.parts_2026: parents: expected mlops_internal.parts, found nothing",
            (
                "table mlops_internal.parts_2026: partition bound:"
                " expected FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'), found nothing"
            ),
        ),
        given=_PARTS,
    ),
    "partition added": Case(
        """CREATE TABLE mlops_internal.parts_2027 PARTITION OF mlops_internal.parts
               FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')""",
        ("table mlops_internal.parts_2027: unexpected",),
        given=_PARTS,
    ),
    "partitioned table missing": Case(
        "DROP TABLE mlops_internal.parts",
        ("table mlops_internal.parts: missing", "table mlops_internal.parts_2026: missing"),
        given=_PARTS,
    ),
    "partitioned index missing": Case(
        "DROP INDEX mlops_internal.parts_note",
        ("index mlops_internal.parts_note on mlops_internal.parts: missing",),
        given=_PARTS,
    ),
    "partitioned index added": Case(
        "CREATE INDEX extra ON mlops_internal.parts (at)",
        ("index mlops_internal.extra on mlops_internal.parts: unexpected",),
        given=_PARTS,
    ),
    "partitioned check missing": Case(
        "ALTER TABLE mlops_internal.parts DROP CONSTRAINT parts_note_check",
        ("constraint parts_note_check on mlops_internal.parts: missing",),
        given=_PARTS,
    ),
    "partitioned column dropped": Case(
        "ALTER TABLE mlops_internal.parts DROP note",
        (
            "column mlops_internal.parts.note: missing",
            "constraint parts_note_check on mlops_internal.parts: missing",
            "index mlops_internal.parts_note on mlops_internal.parts: missing",
        ),
        given=_PARTS,
    ),
    "schema missing": Case(
        "DROP SCHEMA mlops_internal CASCADE",
        (
            "schema mlops_internal: missing",
            "sequence mlops_internal.migration_history_id_seq: missing",
            "table mlops_internal.migration_history: missing",
            "table mlops_internal.running_code: missing",
        ),
    ),
}

GRANTS = {
    "grant on a table added": Case(
        f"GRANT DELETE ON runs TO {ANALYST}",
        (),
        theirs=(f"theirs: grants to {ANALYST} on table public.runs",),
    ),
    "grant on a table missing": Case(
        f"REVOKE INSERT ON runs FROM {ANALYST}",
        (f"table public.runs: grants: expected INSERT TO {ANALYST}, SELECT TO {ANALYST}, found SELECT TO {ANALYST}",),
    ),
    "grant to everybody": Case(
        "GRANT SELECT ON model_versions TO PUBLIC",
        ("table public.model_versions: grants: expected nothing, found SELECT TO PUBLIC",),
    ),
    "grant with grant option": Case(
        f"GRANT SELECT ON runs TO {ANALYST} WITH GRANT OPTION",
        (),
        theirs=(f"theirs: grants to {ANALYST} on table public.runs",),
    ),
    "grant without its grant option": Case(
        f"REVOKE GRANT OPTION FOR SELECT ON passed FROM {ANALYST}",
        (f"view public.passed: grants: expected SELECT TO {ANALYST} WITH GRANT OPTION, found SELECT TO {ANALYST}",),
    ),
    "grant on a view": Case(
        "REVOKE SELECT ON names FROM PUBLIC",
        ("view public.names: grants: expected SELECT TO PUBLIC, found nothing",),
    ),
    "grant on a column added": Case(
        f'GRANT UPDATE ("the Id") ON "Odd ""table" TO {ANALYST}',
        (),
        theirs=(f'theirs: grants to {ANALYST} on column public."Odd ""table"."the Id"',),
    ),
    "grant on a column missing": Case(
        f"REVOKE UPDATE (note) ON runs FROM {ANALYST}",
        (f"column public.runs.note: grants: expected UPDATE TO {ANALYST}, found nothing",),
    ),
    "grant on the table beside one on a column": Case(
        f"GRANT UPDATE ON runs TO {ANALYST}",
        (),
        theirs=(f"theirs: grants to {ANALYST} on table public.runs",),
    ),
    "grant to a quoted role missing": Case(
        f'REVOKE SELECT ON "Odd ""table" FROM {QUOTED_ROLE}',
        (f'table public."Odd ""table": grants: expected SELECT TO {QUOTED_ROLE}, found nothing',),
    ),
    "grant to a quoted role added": Case(
        f"GRANT SELECT ON model_versions TO {QUOTED_ROLE}",
        (),
        theirs=(f"theirs: grants to {QUOTED_ROLE} on table public.model_versions",),
    ),
    "grant on a sequence": Case(
        f"GRANT USAGE ON SEQUENCE tickets TO {ANALYST}",
        (),
        theirs=(f"theirs: grants to {ANALYST} on sequence public.tickets",),
    ),
    "grant on a function": Case(
        f"GRANT EXECUTE ON FUNCTION touch() TO {ANALYST}",
        (),
        theirs=(f"theirs: grants to {ANALYST} on function public.touch()",),
    ),
    "grant on the schema": Case(
        f"GRANT USAGE ON SCHEMA mlops_internal TO {ANALYST}",
        (),
        theirs=(f"theirs: grants to {ANALYST} on schema mlops_internal",),
    ),
    "grant on what is missing": Case(
        f"DROP VIEW passed CASCADE; REVOKE ALL ON runs FROM {ANALYST}",
        (
            f"table public.runs: grants: expected INSERT TO {ANALYST}, SELECT TO {ANALYST}, found nothing",
            "view public.passed: missing",
            "view public.names: missing",
            f"column public.runs.note: grants: expected UPDATE TO {ANALYST}, found nothing",
        ),
    ),
}

CASES = COLUMNS | CONSTRAINTS | INDEXES | VIEWS | CODE | SEQUENCES_AND_TYPES | TABLES | GRANTS
