"""Who may read a view may read it after a run that made it anew: online, and by the scripts of `--sql`."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from alembic import command
from psycopg import sql as quoted
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.migration import commands
from mlops_db.migration.commands import alembic_config
from mlops_db.project import BASELINE
from mlops_db.revisions.graph import revisions
from mlops_db.server.connection import connect
from support.database import ROOT, Database
from support.projects import Checkout, sql

HEAD = revisions()[-1].id
READER = "mlops_test_view_reader"
ODD = """mlops test's "odd" $save$ role\\, 50% :x"""
AGAIN = sql("DROP VIEW v_model_timeline", "CREATE VIEW v_model_timeline AS SELECT id, status FROM model_versions")

# Beside the owner's: view, column, grantee, privilege, with grant option.
Grant = tuple[str, str | None, str, str, bool]
GRANTS = """
    SELECT c.relname::text, g.column, coalesce(r.rolname::text, 'PUBLIC'), acl.privilege_type, acl.is_grantable
      FROM pg_class AS c
     CROSS JOIN LATERAL (SELECT NULL AS column, c.relacl AS items UNION ALL
                         SELECT attname::text, attacl FROM pg_attribute WHERE attrelid = c.oid) AS g
     CROSS JOIN LATERAL aclexplode(g.items) AS acl
      LEFT JOIN pg_roles AS r ON r.oid = acl.grantee
     WHERE c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace AND acl.grantee <> c.relowner
"""
EVERYWHERE: set[Grant] = {
    ("v_model_timeline", None, READER, "SELECT", False),
    ("v_model_timeline", None, "PUBLIC", "SELECT", False),
    ("v_decision_history", None, ODD, "SELECT", True),
    ("v_decision_history", None, ODD, "UPDATE", False),
    ("v_recent_monitoring", "metric_value", READER, "SELECT", False),
    ("v_recent_monitoring", "metric_name", ODD, "SELECT", True),
}
OF_HEALTH: Grant = ("v_recent_monitoring", "health", READER, "SELECT", False)
AT_HEAD: set[Grant] = {OF_HEALTH, ("v_model_timeline", "model_name", ODD, "SELECT", False)}


@pytest.fixture
def granted(head: Database) -> Iterator[Database]:
    """A database at head, whose views two roles may read in part."""
    roles = [quoted.Identifier(role) for role in (READER, ODD)]
    for role in roles:
        head.connection.execute(quoted.SQL("CREATE ROLE {}").format(role))
    for view, column, grantee, privilege, grantable in EVERYWHERE | AT_HEAD:
        head.connection.execute(
            quoted.SQL("GRANT {privilege}{column} ON {view} TO {grantee}{option}").format(
                privilege=quoted.SQL(privilege),
                column=quoted.SQL(" ({})").format(quoted.Identifier(column)) if column else quoted.SQL(""),
                view=quoted.Identifier(view),
                grantee=quoted.SQL("PUBLIC") if grantee == "PUBLIC" else quoted.Identifier(grantee),
                option=quoted.SQL(" WITH GRANT OPTION" if grantable else ""),
            )
        )
    assert grants(head) == EVERYWHERE | AT_HEAD
    yield head
    for role in roles:
        head.connection.execute(quoted.SQL("DROP OWNED BY {}").format(role))
        head.connection.execute(quoted.SQL("DROP ROLE {}").format(role))


def grants(database: Database) -> set[Grant]:
    return {(*row,) for row in database.query(GRANTS)}


def online(database: Database, target: str) -> None:
    run = commands.upgrade if target == HEAD else commands.downgrade
    run(database.settings, target)


def by_script(database: Database, target: str) -> None:
    config = alembic_config(database.settings)
    config.output_buffer = io.StringIO()
    run = command.upgrade if target == HEAD else command.downgrade
    run(config, f"{database.value('TABLE alembic_version')}:{target}", sql=True)
    database.psql(config.output_buffer.getvalue())


@pytest.mark.parametrize("run", [online, by_script])
def test_grants_go_down_and_up_with_the_views(granted: Database, run: Callable[[Database, str], None]) -> None:
    run(granted, BASELINE)
    assert grants(granted) == EVERYWHERE, "a grant on a column goes with its column"

    run(granted, HEAD)
    assert grants(granted) == EVERYWHERE


def test_what_is_revoked_from_a_view_that_stays_is_revoked(granted: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(sql(f"REVOKE SELECT ON v_model_timeline FROM {READER}"))
    checkout.add(AGAIN)

    command.upgrade(checkout.config(granted.settings), "head")

    assert grants(granted) == (EVERYWHERE | {OF_HEALTH}) - {("v_model_timeline", None, READER, "SELECT", False)}


def test_a_revision_that_commits_in_between_keeps_them(granted: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    drop, create = AGAIN.splitlines()
    checkout.add(f"{drop}\nwith op.get_context().autocommit_block():\n    op.execute('SELECT 1')\n{create}")

    command.upgrade(checkout.config(granted.settings), "head")

    assert grants(granted) == EVERYWHERE | {OF_HEALTH}


def test_a_run_that_failed_has_lost_none(granted: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.add(f"{AGAIN}\nassert op.get_bind().exec_driver_sql('TABLE switch').scalar(), 'off'")
    granted.query("CREATE TABLE switch AS SELECT false AS is_on")

    with pytest.raises(AssertionError, match="off"):
        command.upgrade(checkout.config(granted.settings), "head")
    assert grants(granted) == EVERYWHERE | AT_HEAD
    granted.query("UPDATE switch SET is_on = true")
    command.upgrade(checkout.config(granted.settings), "head")

    assert grants(granted) == EVERYWHERE | {OF_HEALTH}


OF_REPORTING = """
    SELECT has_schema_privilege(%(role)s, 'reporting', 'USAGE'),
           has_table_privilege(%(role)s, 'reporting.metric_history', 'SELECT'),
           has_column_privilege(%(role)s, 'reporting.decision_gates', 'gate', 'SELECT WITH GRANT OPTION'),
           has_function_privilege(%(role)s, 'reporting.metric_daily(timestamptz, timestamptz)', 'EXECUTE'),
           has_function_privilege('public', 'reporting.metric_daily(timestamptz, timestamptz)', 'EXECUTE')
"""


def test_those_on_a_schema_and_its_function_are_kept_too(granted: Database, tmp_path: Path) -> None:
    role = quoted.Identifier(ODD)
    for grant in (
        "USAGE ON SCHEMA reporting",
        "SELECT ON reporting.metric_history",
        "EXECUTE ON FUNCTION reporting.metric_daily",
    ):
        granted.connection.execute(quoted.SQL("GRANT {} TO {}").format(quoted.SQL(grant), role))
    granted.connection.execute(
        quoted.SQL("GRANT SELECT (gate) ON reporting.decision_gates TO {} WITH GRANT OPTION").format(role)
    )
    checkout = Checkout(tmp_path)
    again = (ROOT / "migrations" / "versions" / "0024_reporting.py").read_text(encoding="utf-8")
    down, up = (again.partition(f"def {way}() -> None:\n")[2].partition("\n\n")[0] for way in ("downgrade", "upgrade"))
    checkout.add(dedent(f"{down}\n{up}").replace("SAFE_PATH", '"SET search_path = pg_catalog, pg_temp"'))

    command.upgrade(checkout.config(granted.settings), "head")

    assert granted.connection.execute(OF_REPORTING, {"role": ODD}).fetchone() == (True, True, True, True, False)


def test_in_a_caller_s_transaction_they_are_kept_and_nothing_else_is(granted: Database) -> None:
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(granted.settings), poolclass=NullPool)
    with engine.connect() as connection, connection.begin():
        config = alembic_config(granted.settings, connection=connection)
        command.downgrade(config, "0019")  # further down, an index is built, which no transaction can do
        assert connection.exec_driver_sql("SELECT current_setting('mlops_db.view_grants')").scalar_one() == ""

    assert grants(granted) == EVERYWHERE
