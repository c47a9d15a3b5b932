"""What `mlops-db check --sql` prints is applied to a database that has one of everything, and rows."""

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.drift.repair import BY_HAND, LOSES_ROWS, repair_statements
from support.drifts import CASES, Case, line_is
from support.workshop import Workshop

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

LONG = "far more than twenty characters"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_drift_is_repaired_but_for_what_is_by_hand(workshop: Workshop, case: Case) -> None:
    with workshop.drifted(case.drift, given=case.given):
        workshop.run(workshop.script(losing=True))
        left = workshop.lines()
        again = repair_statements(workshop.drift())
    assert [line for line in left if not any(line_is(line, expected) for expected in case.remains)] == []
    assert len(left) == len(case.remains)
    assert [statement for statement in again if not statement.startswith(BY_HAND)] == []


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items() if not case.waits])
def test_as_it_is_printed_it_runs_and_takes_no_table_and_no_column_away(workshop: Workshop, case: Case) -> None:
    with workshop.drifted(case.drift, given=case.given):
        before = holders_of_data(workshop)
        workshop.run(workshop.script(losing=False))
        assert holders_of_data(workshop) >= before


def holders_of_data(workshop: Workshop) -> set[str]:
    found = workshop.drift().found
    tables = {name.name for name in found if name.kind == "table"}
    return tables | {str(name) for name in found if name.kind == "column" and name.within in tables}


@given(
    cases=st.lists(
        st.sampled_from([case for case in CASES.values() if not case.given and not case.theirs]), min_size=2, max_size=6
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_several_drifts_at_once_are_repaired_together(workshop: Workshop, cases: list[Case]) -> None:
    with workshop.drifted():
        for case in cases:
            workshop.runs(case.drift)  # some exclude each other
        workshop.run(workshop.script(losing=True))
        drift = workshop.drift()
    output = repair_statements(drift)
    assert [statement for statement in output if not statement.startswith(BY_HAND)] == []
    by_hand = "".join(output)
    assert [str(found) for found in drift.differences if str(found.name) not in by_hand] == []


def test_rows_stay_as_they_are(workshop: Workshop) -> None:
    with workshop.drifted(
        "ALTER TABLE runs ALTER note TYPE varchar(99), ALTER detail DROP DEFAULT,"
        "ALTER detail TYPE integer USING detail::integer;"
        "ALTER TABLE runs RENAME CONSTRAINT runs_pkey TO other; DROP SEQUENCE tickets CASCADE"
    ):
        workshop.run(workshop.script(losing=True))
        workshop.run("SELECT id, note, detail, ticket FROM public.runs")
        assert workshop.cursor.fetchall() == [(1, "a note", "7", 100)]


def test_a_longer_value_than_its_column_should_hold_is_not_cut(workshop: Workshop) -> None:
    """The statement fails, or is left to the reader; a cast that cuts would lose the rest without a word."""
    with workshop.drifted(f"ALTER TABLE runs ALTER detail TYPE text; UPDATE runs SET detail = '{LONG}'"):
        if workshop.runs(workshop.script(losing=False)):
            workshop.run("SELECT detail FROM public.runs")
            assert workshop.cursor.fetchall() == [(LONG,)]


def test_a_column_that_must_not_be_null_comes_back_to_a_table_with_rows(workshop: Workshop) -> None:
    """There is no value for it, so it is by hand; the rest of the repair runs all the same."""
    with workshop.drifted("ALTER TABLE runs DROP note; DROP INDEX runs_model_idx"):
        workshop.run(workshop.script(losing=True))
        assert "index public.runs_model_idx on public.runs: missing" not in workshop.lines()


def test_a_sequence_that_comes_back_goes_on_after_the_rows_that_are_there(workshop: Workshop) -> None:
    with workshop.drifted("DROP SEQUENCE model_versions_id_seq CASCADE"):
        workshop.run(workshop.script(losing=True))
        workshop.run("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('next', '2') RETURNING id")
        assert workshop.cursor.fetchall() == [(2,)]


@pytest.mark.parametrize(
    "drift",
    [
        'CREATE TABLE "evil\nDROP TABLE model_versions CASCADE; --" ()',
        'ALTER TABLE runs ADD "evil\nDROP TABLE model_versions CASCADE; --" integer',
        'CREATE DOMAIN "evil\nDROP TABLE model_versions CASCADE; --" AS integer',
    ],
)
def test_nobodys_name_makes_a_statement_of_a_comment(workshop: Workshop, drift: str) -> None:
    """Whoever may create a table in public would have the owner of the database run what he likes."""
    with workshop.drifted(drift):
        workshop.run(workshop.script(losing=False))
        assert "table public.model_versions: missing" not in workshop.lines()


def test_what_is_by_hand_is_one_line_of_comment(workshop: Workshop) -> None:
    made = "ALTER TABLE model_versions ADD twice text GENERATED ALWAYS AS ('a\n;SELECT 1/0;' || model_version) STORED"
    with workshop.drifted("ALTER TABLE model_versions ALTER twice DROP EXPRESSION", given=made):
        output = [line for line in repair_statements(workshop.drift()) if line.startswith((BY_HAND, LOSES_ROWS))]
    assert output
    assert [line for line in output if "\n" in line] == []


def test_nothing_is_repaired_where_nothing_differs(workshop: Workshop) -> None:
    with workshop.drifted():
        assert repair_statements(workshop.drift()) == []


@pytest.mark.parametrize(
    ("theirs", "output"),
    [
        pytest.param("CREATE VIEW other.theirs AS SELECT name FROM names", "view other.theirs", id="view"),
        pytest.param(
            "CREATE MATERIALIZED VIEW theirs AS SELECT n.name FROM passed, names AS n",
            "materialized view public.theirs",
            id="materialized view",
        ),
        pytest.param("CREATE TABLE theirs (of_it names)", "table column public.theirs.of_it", id="column of its type"),
        pytest.param("CREATE TABLE theirs (of_it names[])", "table column public.theirs.of_it", id="array of its type"),
        pytest.param(
            "CREATE FUNCTION theirs() RETURNS SETOF names LANGUAGE sql AS 'SELECT * FROM public.names'",
            "function public.theirs()",
            id="function",
        ),
    ],
)
def test_what_others_built_on_a_view_of_ours_is_named_and_not_taken_with_it(
    workshop: Workshop, theirs: str, output: str
) -> None:
    with workshop.drifted(f"CREATE SCHEMA other; {theirs}; ALTER VIEW names SET (security_barrier = true)"):
        script = workshop.script(losing=True)
        line = f"-- by hand: {output} needs view public.names: drop it before this, and create it again afterwards"
        assert line in script.splitlines()
        with pytest.raises(psycopg2.errors.DependentObjectsStillExist, match="theirs"):
            workshop.run(script)


@pytest.mark.parametrize("array", ["", "[]"])
@pytest.mark.parametrize("drift", ["ALTER detail TYPE text", "DROP detail"], ids=["another type", "a default"])
def test_a_column_of_the_row_type_of_a_table_whose_values_change_is_named(
    workshop: Workshop, drift: str, array: str
) -> None:
    with workshop.drifted(f"ALTER TABLE runs {drift}; CREATE TABLE theirs (of_it runs{array})"):
        script = workshop.script(losing=True)
        line = "table column public.theirs.of_it needs column public.runs.detail: drop it before this, and create it"
        assert line in script
        with pytest.raises(psycopg2.errors.FeatureNotSupported, match="theirs"):
            workshop.run(script)


def test_a_column_of_the_row_type_of_a_table_that_only_gets_shorter_stands_in_nobodys_way(workshop: Workshop) -> None:
    with workshop.drifted("ALTER TABLE runs ADD COLUMN extra text; CREATE TABLE theirs (of_it runs)"):
        assert "of_it" not in workshop.script(losing=True)


def test_a_foreign_key_of_others_that_a_key_of_ours_is_needed_for_is_named(workshop: Workshop) -> None:
    with workshop.drifted(
        """ALTER TABLE runs ADD CONSTRAINT extra UNIQUE (detail);
           CREATE TABLE theirs (detail varchar(20) CONSTRAINT to_ours REFERENCES runs (detail))"""
    ):
        assert [line for line in repair_statements(workshop.drift()) if "to_ours" in line] == [
            (
                "-- by hand: constraint to_ours on public.theirs needs constraint extra on public.runs:"
                " drop it before this, and create it again afterwards"
            )
        ]


def test_what_others_built_on_a_view_that_is_right_stands_in_nobodys_way(workshop: Workshop) -> None:
    with workshop.drifted(
        "CREATE VIEW theirs AS SELECT name FROM names; DROP VIEW v_recent_monitoring; COMMENT ON VIEW names IS 'x'"
    ):
        workshop.run(workshop.script(losing=True))
        assert workshop.lines() == []
