"""What autogenerate leaves alone: tables and views that no revision makes, whoever owns them."""

import re
from pathlib import Path

import pytest
from alembic import command

from mlops_db.migration.commands import alembic_config, run_command
from support.database import Database
from support.process import assert_run_failed
from support.projects import Checkout, sql, versions

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

THEIRS = """
CREATE TABLE spatial_ref_sys (srid integer PRIMARY KEY);
CREATE TABLE "Their Table" (id serial PRIMARY KEY, version integer REFERENCES model_versions);
CREATE TABLE status (rows integer); -- words that our revisions use
CREATE VIEW report AS SELECT model_name, health FROM v_recent_monitoring;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM model_versions;
CREATE SCHEMA bi;
CREATE VIEW bi.versions AS SELECT mlflow_run_id FROM model_versions;
"""
OURS = """
op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))
op.rename_table("things", "better_things")
op.execute("CREATE VIEW public.v_things AS SELECT id FROM public.better_things")
"""
NOT_OURS = """
op.execute("DROP VIEW v_things")
op.drop_table("better_things")
"""
BY_ROWS = """
op.create_table("things", sa.Column("id", sa.Integer, primary_key=True))
op.get_bind().execute(sa.text("SELECT count(*) FROM things")).scalar_one()
"""


def written(checkout: Checkout, database: Database) -> str:
    """What autogenerate writes into the next revision."""
    folder = versions(checkout.ini)
    before = set(folder.glob("*.py"))
    run_command(command.revision, checkout.config(database.settings), message="Next", autogenerate=True)
    (file,) = set(folder.glob("*.py")) - before
    return file.read_text(encoding="utf-8")


def operations(text: str) -> list[str]:
    body = text.partition("def upgrade")[2].partition("def downgrade")[0]
    return re.findall(r"op\.(\w+\(\"\w+\"|execute\(\W*[A-Z]+ [A-Z]+ \w+)", body)


def test_what_no_revision_makes_is_not_compared(head: Database) -> None:
    head.psql(THEIRS)
    command.check(alembic_config(head.settings))


def test_what_no_revision_makes_is_not_written_into_one(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(OURS, NOT_OURS)
    run_command(command.upgrade, checkout.config(head.settings), "head")
    head.psql(THEIRS)

    assert operations(written(checkout, head)) == ['execute("DROP VIEW v_things', 'drop_table("better_things"']


def test_what_a_revision_makes_that_reads_rows_is_still_known_to_be_ours(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(BY_ROWS, 'op.drop_table("things")')
    run_command(command.upgrade, checkout.config(head.settings), "head")
    assert operations(written(checkout, head)) == ['drop_table("things"']


def test_whose_view_reads_what_goes_is_named_and_stays(
    head: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    head.psql(THEIRS)
    from mlops_db.schema.head import metadata  # noqa: PLC0415  (only what this test changes)

    changed = dict(metadata.info["views"]) | {
        "v_recent_monitoring": "SELECT model_name, 'ok' AS health FROM model_versions"
    }
    monkeypatch.setitem(metadata.info, "views", changed)
    monkeypatch.setitem(metadata.info, "view_comments", {})

    text = written(Checkout(tmp_path), head)

    assert re.search(r"\breport\b", text) is None
    (output,) = [record.message for record in caplog.records if record.name == "mlops_db.autogenerate"]
    assert output.startswith("public.report is not ours and reads what the revision drops")


def test_a_connection_that_breaks_while_a_step_looks_for_dependents_is_one_line(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    breaks = """
        DO $$ BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid()) WHERE current_setting('application_name') LIKE 'mlops-db%';
            IF false THEN RAISE dependent_objects_still_exist; END IF;
        END $$
    """
    checkout.add(sql(breaks, "DROP VIEW IF EXISTS v_things"))
    assert_run_failed(checkout.alembic(head, "upgrade", "head"), "terminating connection")
