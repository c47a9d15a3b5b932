"""What was written down of each revision, beside what that makes on this server; and when it no longer holds."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2.extensions
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_db.drift.catalogue import Catalogue, Name, read_catalogue, reading
from mlops_db.drift.compare import Drift, differences, read_drift
from mlops_db.drift.rendering import as_written_here, trying
from mlops_db.drift.repair import repair_statements
from mlops_db.drift.scratch import catalogue_of, scratch_database
from mlops_db.drift.snapshot import SNAPSHOT, recorded_catalogue, snapshot_text
from mlops_db.migration.commands import upgrade
from mlops_db.revisions.graph import revisions
from mlops_db.server.connection import connect
from support.cluster import chosen_programs, settings_of, start, stop, throwaway_cluster
from support.database import Database
from support.projects import Checkout, installed

pytestmark = pytest.mark.slow

REVISIONS = [revision.id for revision in revisions()]
HEAD = REVISIONS[-1]


def known(revision: str, snapshot: Path = SNAPSHOT) -> Catalogue:
    catalogue = recorded_catalogue(revision, snapshot)
    assert catalogue is not None
    return catalogue


def test_each_revision_makes_on_this_server_what_was_snapshot_text(empty: Database) -> None:
    with scratch_database(empty.settings) as scratch:
        for revision in REVISIONS:
            upgrade(scratch, revision)
            with reading(scratch) as cursor:
                made = read_catalogue(cursor)
            with trying(scratch) as cursor:
                expected = as_written_here(cursor, known(revision), made)
            assert list(map(str, differences(expected, made))) == []
            assert list(expected) == list(made)
            assert [list(properties) for properties in expected.values()] == [list(made[name]) for name in expected]


# By hand, on a database at head


DRIFTS = {
    "view that says the same in other words": """
        CREATE OR REPLACE VIEW v_model_timeline AS TABLE v_model_timeline""",
    "view with another order": "ALTER VIEW v_model_timeline SET (security_barrier = true)",
    "view dropped": "DROP VIEW v_recent_monitoring",
    "view of something else": """
        DROP VIEW v_recent_monitoring; CREATE VIEW v_recent_monitoring AS SELECT id, metric_name FROM monitoring_metrics
         WHERE timestamp AT TIME ZONE 'UTC' > '2026-01-01' AND metric_type IN ('drift', 'psi')""",
    "comment": "COMMENT ON TABLE model_versions IS E'by hand\\nand long'",
    "check dropped": "ALTER TABLE model_versions DROP CONSTRAINT model_versions_f1_score_check",
    "check with another body": """
        ALTER TABLE model_versions DROP CONSTRAINT model_versions_status_check;
        ALTER TABLE model_versions ADD CONSTRAINT model_versions_status_check CHECK (status IN ('staging', 'new'))""",
    "check spelled otherwise": """
        ALTER TABLE model_versions DROP CONSTRAINT model_versions_created_at_check;
        ALTER TABLE model_versions ADD CONSTRAINT model_versions_created_at_check CHECK (
            created_at AT TIME ZONE 'UTC' >= timestamp '0001-01-01'
            AND created_at AT TIME ZONE 'UTC' < timestamp '10000-01-01')""",
    "check not validated": """
        ALTER TABLE retraining_decisions DROP CONSTRAINT retraining_decisions_action_check;
        ALTER TABLE retraining_decisions ADD CONSTRAINT retraining_decisions_action_check
            CHECK (action::text IN ('promote', 'reject', 'pending')) NOT VALID""",
    "default": "ALTER TABLE retraining_decisions ALTER created_at SET DEFAULT timezone('UTC', now())",
    "type": "DROP VIEW v_decision_history; ALTER TABLE retraining_decisions ALTER reasoning TYPE varchar(9)",
    "type that nothing converts": """
        DROP VIEW v_decision_history, reporting.decision_gates; ALTER TABLE retraining_decisions DROP CONSTRAINT
            retraining_decisions_gate_results_check, ALTER gate_results TYPE date USING now()""",
    "generated column": "ALTER TABLE model_versions ADD year float GENERATED ALWAYS AS (f1_score * 2) STORED",
    "not null": "ALTER TABLE model_versions ALTER status DROP NOT NULL",
    "index": "CREATE INDEX extra ON model_versions (lower(status)) WHERE status IN ('a', 'b')",
    "index dropped": "DROP INDEX model_versions_production_key",
    "function": """
        CREATE OR REPLACE FUNCTION mlops_internal.name_of_month(month timestamptz) RETURNS text LANGUAGE sql
            AS 'SELECT ''x'''""",
    "procedure dropped": "DROP PROCEDURE mlops_internal.maintain",
    "trigger dropped": "DROP TRIGGER monitoring_metrics_register_series ON monitoring_metrics",
    "grants": "GRANT INSERT, DELETE ON v_recent_monitoring, model_versions TO PUBLIC",
    "sequence": "ALTER SEQUENCE monitoring_metrics_id_seq INCREMENT 7",
    "table": "CREATE TABLE extra (id int PRIMARY KEY, at timestamptz DEFAULT now())",
    "table dropped": "DROP TABLE retraining_decisions CASCADE",
    "options": "ALTER TABLE model_versions SET (fillfactor = 50)",
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, Catalogue]:
    return {}


@pytest.fixture
def by_hand(head: Database, made: dict[str, Catalogue]) -> Iterator[psycopg2.extensions.cursor]:
    if not made:
        made[HEAD] = catalogue_of(head.settings, HEAD)
    with closing(connect(head.settings)) as connection, connection.cursor() as cursor:
        yield cursor


def same_answer(cursor: psycopg2.extensions.cursor, made: Catalogue, *statements: str) -> int:
    """Hold what the snapshot answers about a drift against what a scratch database does; how many differences."""
    answers = []
    try:
        for statement in statements:
            cursor.execute("SET LOCAL search_path = public; SAVEPOINT before")
            try:
                cursor.execute(statement)
            except psycopg2.Error:
                cursor.execute("ROLLBACK TO before")  # some exclude each other
        found = read_catalogue(cursor)
        for expected in (made, known(HEAD)):
            drift = Drift(HEAD, as_written_here(cursor, expected, found), found)
            output = [(str(difference), difference.details()) for difference in drift.differences]
            answers.append((output, repair_statements(drift)))
    finally:
        cursor.connection.rollback()
    assert answers[0] == answers[1]
    return len(answers[0][0])


@pytest.mark.parametrize("drift", DRIFTS.values(), ids=DRIFTS)
def test_the_answer_is_that_of_a_scratch_database(
    by_hand: psycopg2.extensions.cursor, made: dict[str, Catalogue], drift: str
) -> None:
    found = same_answer(by_hand, made[HEAD], drift)
    assert bool(found) != (drift == DRIFTS["check spelled otherwise"])


@given(drifts=st.lists(st.sampled_from(list(DRIFTS.values())), min_size=2, max_size=8, unique=True))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_so_it_is_with_several_drifts_at_once(
    by_hand: psycopg2.extensions.cursor, made: dict[str, Catalogue], drifts: list[str]
) -> None:
    same_answer(by_hand, made[HEAD], *drifts)


def test_a_definition_in_another_server_s_words_is_no_difference(head: Database) -> None:
    """As PostgreSQL before 16 writes the columns of v_model_timeline, and before 14 the time zone of a CHECK."""
    view = Name("view", "", "public.v")
    check = Name("constraint", "public.t", "t_check")
    column = Name("column", "public.t", "later")
    head.query("""
        CREATE TABLE t (id int, at timestamptz, later timestamp DEFAULT now()::timestamp,
                        CONSTRAINT t_check CHECK (date_part('year', at) > 2000));
        CREATE VIEW v AS SELECT id FROM t WHERE id > 1
    """)
    with trying(head.settings) as cursor:
        found = read_catalogue(cursor)
        expected = {name: dict(found[name]) for name in found}
        expected[view]["definition"] = "SELECT t.id FROM public.t WHERE (t.id > 1);"
        expected[check]["definition"] = "CHECK (date_part('year'::text, t.at) > (2000)::double precision)"
        expected[column]["default"] = "CAST(now() AS timestamp)"
        assert len(differences(expected, found)) == 3

        assert differences(as_written_here(cursor, expected, found), found) == []

        expected[view]["definition"] = "SELECT t.id FROM public.t WHERE (t.id > 2);"
        expected[check]["definition"] += " NOT VALID"
        assert len(differences(as_written_here(cursor, expected, found), found)) == 2


# When it holds


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    with installed(checkout):
        yield checkout


def file_of(checkout: Checkout, revision: str) -> Path:
    (file,) = checkout.ini.parent.glob(f"migrations/versions/{revision}_*.py")
    return file


def test_it_holds_up_to_the_first_revision_that_was_edited(checkout: Checkout) -> None:
    file = file_of(checkout, "0012")
    file.write_bytes(file.read_bytes() + b"\n")

    assert [recorded_catalogue(revision) is not None for revision in REVISIONS] == [
        revision < "0012" for revision in REVISIONS
    ]


def test_it_is_valid_with_any_line_ends(checkout: Checkout) -> None:
    for revision in REVISIONS:
        file = file_of(checkout, revision)
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))

    assert known(HEAD)


def test_it_holds_for_the_revisions_before_a_new_one_and_not_for_that(checkout: Checkout) -> None:
    new = checkout.add("pass")

    with installed(checkout):
        assert known(HEAD)
        assert recorded_catalogue(new) is None


def follow(file: Path, before: str, after: str | tuple[str, ...]) -> None:
    """Let a revision follow others than the one before it."""
    text = file.read_text(encoding="utf-8")
    assert text.count(f"down_revision = {before!r}") == 1
    file.write_text(text.replace(f"down_revision = {before!r}", f"down_revision = {after!r}"), encoding="utf-8")


def test_of_a_line_with_branches_it_holds_as_far_as_one_follows_the_other(checkout: Checkout, tmp_path: Path) -> None:
    branch = checkout.add("pass")
    follow(file_of(checkout, branch), HEAD, "0010")
    checkout.ids = [HEAD, branch]
    merge = checkout.add("pass")
    follow(file_of(checkout, merge), branch, (HEAD, branch))
    with installed(checkout):
        snapshot = tmp_path / "snapshot.json"
        snapshot.write_text(snapshot_text({one.id: known("0002") for one in revisions()}), encoding="utf-8")

        assert known("0010", snapshot)
        assert known(merge, snapshot)
        assert (recorded_catalogue(HEAD, snapshot) is None) or (recorded_catalogue(branch, snapshot) is None)


def test_a_file_that_a_revision_reads_counts_too(checkout: Checkout, tmp_path: Path) -> None:
    folder = checkout.ini.parent / "migrations" / "versions" / "sql"
    (folder / "view.sql").write_text("SELECT 1", encoding="utf-8")
    made = {revision: known(revision) for revision in REVISIONS}
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(snapshot_text(made), encoding="utf-8")
    assert known(HEAD, snapshot) == made[HEAD]

    (folder / "another.sql").write_text("SELECT 2", encoding="utf-8")
    assert known(HEAD, snapshot) == made[HEAD]
    (folder / "view.sql").write_text("SELECT 3", encoding="utf-8")
    assert recorded_catalogue(HEAD, snapshot) is None


@pytest.mark.parametrize("text", [None, "", "<<<<<<< HEAD\n", "{}\n<<<<<<< HEAD"])
def test_without_a_snapshot_that_can_be_read_there_is_none(tmp_path: Path, text: str | None) -> None:
    snapshot = tmp_path / "snapshot.json"
    if text is not None:
        snapshot.write_text(text, encoding="utf-8")

    assert recorded_catalogue(HEAD, snapshot) is None


def test_a_new_revision_is_compared_with_a_scratch_database(empty: Database, checkout: Checkout) -> None:
    checkout.add("op.execute('CREATE TABLE public.new (id int)')", "op.execute('DROP TABLE public.new')")
    with installed(checkout):
        upgrade(empty.settings)
        assert read_drift(empty.settings).differences == []

        empty.query("ALTER TABLE new ADD extra int")
        assert list(map(str, read_drift(empty.settings).differences)) == ["column public.new.extra: unexpected"]


# Where nothing can be made


def test_a_standby_is_checked_too(request: pytest.FixtureRequest) -> None:
    """It makes neither a scratch database nor a temporary view."""
    programs = chosen_programs(request.config)
    with throwaway_cluster(programs) as folder:
        settings = settings_of(folder)
        upgrade(settings)
        with closing(connect(settings)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(
                "COMMENT ON VIEW public.v_model_timeline IS 'by hand'; ALTER TABLE public.model_versions ADD extra int"
            )
            cursor.execute("DROP VIEW public.v_decision_history")
            cursor.execute("ALTER TABLE public.retraining_decisions ALTER reasoning TYPE date USING NULL")
        found = read_drift(settings)
        stop(programs, folder, mode="fast")
        (folder / "data" / "standby.signal").touch()
        start(programs, folder)

        on_standby = read_drift(settings)

    assert list(map(str, on_standby.differences)) == list(map(str, found.differences))
    assert len(found.differences) == 4


# How it is written


NAMES = st.builds(
    Name,
    st.sampled_from(["table", "column", "view"]),
    st.sampled_from(["", "public.t", 'public."a: b"']),
    st.text(min_size=1, max_size=3),
)
TEXTS = st.one_of(st.text(max_size=4), st.sampled_from(["a\nb", "\n", "a\n\n", "[]"]))
PROPERTIES = st.dictionaries(st.sampled_from(["definition", "type", "comment", "not null"]), TEXTS).map(
    lambda properties: {key: properties[key] for key in sorted(properties, key=lambda key: (len(key), key))}
)


@given(data=st.data())
@settings(max_examples=30)
def test_the_objects_of_all_revisions_are_read_as_they_were_written(
    data: st.DataObject, tmp_path_factory: object
) -> None:
    names = data.draw(st.lists(NAMES, min_size=1, max_size=8, unique=True))
    made = {}
    for revision in REVISIONS:
        order = data.draw(st.permutations(names)) if data.draw(st.booleans()) else names
        there = [name for name in order if data.draw(st.integers(0, 9)) < 7]
        before = made.get(f"{int(revision) - 1:04}", {})
        made[revision] = {
            name: before[name] if name in before and data.draw(st.booleans()) else data.draw(PROPERTIES)
            for name in there
        }
    assert isinstance(tmp_path_factory, pytest.TempPathFactory)
    snapshot = tmp_path_factory.getbasetemp() / "written.json"
    text = snapshot_text(made)
    snapshot.write_text(text, encoding="utf-8", newline="\n")

    for revision, catalogue in made.items():
        read = known(revision, snapshot)
        assert [(name, list(properties.items())) for name, properties in read.items()] == [
            (name, list(properties.items())) for name, properties in catalogue.items()
        ]
    assert snapshot_text(made) == text
    objects = {json.dumps(one) for one in json.loads(text)["objects"]}
    assert len(objects) == len(json.loads(text)["objects"])
