"""What `mlops-db check` sees: every kind of drift, one at a time, on a database that has one of everything."""

import pytest

from mlops_db.drift.compare import read_drift
from mlops_db.errors import (
    BehindHeadError,
    DatabaseMissingError,
    UnknownRevisionError,
    UnmanagedDatabaseError,
)
from mlops_db.migration.commands import downgrade, upgrade
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings
from support.database import Database
from support.drifts import CASES, QUOTED_ROLE, Case, line_is
from support.workshop import Workshop


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_drift_is_reported_and_nothing_else_is(workshop: Workshop, case: Case) -> None:
    with workshop.drifted(case.drift, given=case.given):
        lines = workshop.lines()
        assert workshop.drift().theirs == list(case.theirs)
    assert [line for line in lines if not any(line_is(line, expected) for expected in case.lines)] == []
    assert [expected for expected in case.lines if not any(line_is(line, expected) for line in lines)] == []
    assert len(lines) == len(case.lines)


@pytest.mark.parametrize(
    "drift",
    [
        pytest.param("ALTER TABLE runs DISABLE RULE quiet", id="rule disabled"),
        pytest.param("ALTER TABLE model_versions DISABLE TRIGGER ALL", id="foreign key not enforced"),
        pytest.param("CREATE TYPE mlops_internal.extra AS (a integer)", id="composite type"),
        pytest.param(
            "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
            "CREATE FOREIGN TABLE mlops_internal.extra (a integer) SERVER s",
            id="foreign table",
        ),
    ],
)
def test_this_does_not_pass_unseen_either(workshop: Workshop, drift: str) -> None:
    with workshop.drifted(drift):
        assert workshop.lines()


def test_what_depends_on_the_place_is_no_drift(workshop: Workshop) -> None:
    with workshop.drifted("ALTER TABLE runs ALTER note SET STATISTICS 500; ANALYZE runs"):
        assert workshop.lines() == []


def test_a_wrong_owner_is_reported_for_every_kind_of_object(workshop: Workshop) -> None:
    kinds = {
        "table public.runs": "TABLE",
        "view public.passed": "VIEW",
        "sequence mlops_internal.loose": "SEQUENCE",
        "function public.touch()": "ROUTINE",
        "type public.stage": "TYPE",
        "type public.score": "DOMAIN",
        "table mlops_internal.parts_2026": "TABLE",
    }
    parts = """
        CREATE SEQUENCE mlops_internal.loose;
        CREATE TABLE mlops_internal.parts (at date) PARTITION BY RANGE (at);
        CREATE TABLE mlops_internal.parts_2026 PARTITION OF mlops_internal.parts
            FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
    """
    with workshop.drifted(given=parts):
        workshop.cursor.execute("SELECT quote_ident(current_user)")
        ((owner,),) = workshop.cursor.fetchall()
        for name, kind in kinds.items():
            workshop.run(f"ALTER {kind} {name.partition(' ')[2]} OWNER TO {QUOTED_ROLE}")
        output = workshop.lines()
        assert set(output) == {f"{name}: owner: expected {owner}, found {QUOTED_ROLE}" for name in kinds}
        workshop.run(workshop.script(losing=False))
        assert workshop.lines() == []


def test_other_schemas_and_extensions_are_not_ours(workshop: Workshop) -> None:
    with workshop.drifted(
        "CREATE SCHEMA other; CREATE TABLE other.runs (id integer); CREATE TABLE theirs (id integer)"
    ):
        workshop.run("ALTER EXTENSION plpgsql ADD TABLE theirs")
        assert workshop.lines() == []


def test_each_difference_is_one_line_with_any_name(workshop: Workshop) -> None:
    with workshop.drifted('CREATE TABLE "two\nlines" (); ALTER TABLE runs ADD "two\nlines" integer'):
        drift = workshop.drift()
    lines = [*map(str, drift.differences), *drift.theirs]
    assert len(lines) == 2
    assert [line for line in lines if "\n" in line] == []


def test_head_has_no_drift(head: Database) -> None:
    drift = read_drift(head.settings)
    assert drift.differences == []
    assert drift.revision == revisions()[-1].id


@pytest.mark.parametrize("revision", [revision.id for revision in revisions()[:2]])
def test_a_database_behind_head_is_compared_with_its_own_revision(empty: Database, revision: str) -> None:
    upgrade(empty.settings, revision)
    drift = read_drift(empty.settings)
    assert (drift.revision, drift.differences) == (revision, [])

    empty.query("COMMENT ON TABLE model_versions IS 'by hand'")
    (line,) = map(str, read_drift(empty.settings).differences)
    assert line.startswith("table public.model_versions: comment: expected ")


def test_a_database_that_went_down_and_up_again_has_no_drift(head: Database) -> None:
    downgrade(head.settings, "base")
    upgrade(head.settings)
    assert read_drift(head.settings).differences == []


def test_a_database_that_sql_mode_made_has_no_drift(empty: Database) -> None:
    done = empty.run("alembic", "upgrade", "head", "--sql")
    empty.psql(done.stdout)
    assert read_drift(empty.settings).differences == []


def test_settings_of_the_database_do_not_pass_for_drift(head: Database) -> None:
    """They hold for its sessions, and not for those of the scratch database."""
    for setting in ("search_path = pg_catalog", "timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'"):
        head.query(f"ALTER DATABASE {head.settings.database} SET {setting}")
    assert read_drift(head.settings).differences == []


def test_a_database_that_cannot_be_compared_is_an_error(empty: Database) -> None:
    with pytest.raises(BehindHeadError, match="has no tables yet"):
        read_drift(empty.settings)
    with pytest.raises(DatabaseMissingError):
        read_drift(Settings(**(vars(empty.settings) | {"database": "mlops_test_nowhere"})))
    empty.query("CREATE TABLE model_versions (id integer)")
    with pytest.raises(UnmanagedDatabaseError, match="model_versions"):
        read_drift(empty.settings)
    empty.query("CREATE TABLE alembic_version (version_num varchar(32))")
    empty.query("INSERT INTO alembic_version VALUES ('of_another_tool')")
    with pytest.raises(UnknownRevisionError, match="of_another_tool"):
        read_drift(empty.settings)
