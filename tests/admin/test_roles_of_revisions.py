"""Readers and writers keep what they were granted when a revision, up or down, creates something again."""

from collections.abc import Iterator

import pytest
from psycopg import sql

from mlops_db.admin.roles.granting import grant
from mlops_db.admin.roles.listing import list_roles
from mlops_db.drift.declared_roles import READER, WRITER, Kind, Privilege, describe
from mlops_db.migration.commands import downgrade, upgrade
from mlops_db.project import REPORTING_FUNCTIONS
from support import roles
from support.database import Database

pytestmark = pytest.mark.slow

# The revisions after these add something that is granted. Whatever happens between two stops, what is there at both
# must have kept its grants.
STOPS = ("0023", "0019", "0015", "0014", "0004", "base")
READER_ROLE, WRITER_ROLE = 'the "Reader"', "the 'Writer'"
KINDS = {READER_ROLE: READER, WRITER_ROLE: WRITER}
FUNCTIONS = {f"reporting.{name.partition('(')[0]}": f"reporting.{name}" for name in REPORTING_FUNCTIONS}
PRESENT = """
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname || '.' || c.relname, a.attname
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
     UNION ALL
    SELECT 'function', n.nspname || '.' || p.proname, NULL
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     UNION ALL
    SELECT 'schema', nspname, NULL FROM pg_namespace
"""


@pytest.fixture
def database(undistributed_head: Database) -> Iterator[Database]:
    """A database at head with a reader and a writer."""
    with roles.role(undistributed_head, READER_ROLE, "NOLOGIN"), roles.role(undistributed_head, WRITER_ROLE, "NOLOGIN"):
        for name, kind in KINDS.items():
            grant(undistributed_head.settings, kind, name)
        yield undistributed_head


def present(database: Database, kind: Kind) -> set[Privilege]:
    """The privileges of a kind whose objects are there now."""
    objects, columns = set(), set()
    for what, name, column in database.query(PRESENT):
        objects.add((what, name))
        columns.add((name, column))
    return {
        one
        for one in kind.privileges
        if (one.kind, one.object) in objects and (not one.column or (one.object, one.column) in columns)
    }


def held(database: Database, role: str) -> set[Privilege]:
    """Those that the role has by grants of its own; the server answers."""
    found = set()
    for one in present(database, KINDS[role]):
        name = FUNCTIONS.get(one.object, one.object)
        if one.column:
            question = "SELECT has_column_privilege(%s, %s, %s, %s)"
            values = [role, name, one.column, one.name]
        else:
            question = f"SELECT has_{one.kind}_privilege(%s, %s, %s)"
            values = [role, name, one.name]
        if database.value(question, values):
            found.add(one)
    return found


def grant_by_hand(database: Database, role: str) -> None:
    for one in present(database, KINDS[role]):
        what = f"{one.name}{f' ({one.column})' if one.column else ''} ON {one.kind.upper()} "
        statement = f"GRANT {what}{FUNCTIONS.get(one.object, one.object)} TO {{}}"
        database.connection.execute(sql.SQL(statement).format(sql.Identifier(role)))  # type: ignore[arg-type]


def test_on_the_way_down_and_up_each_revision_keeps_what_there_was(database: Database) -> None:
    for below in STOPS:
        before = {role: held(database, role) for role in KINDS}
        downgrade(database.settings, below)
        for role, kind in KINDS.items():
            assert held(database, role) == before[role] & present(database, kind), (below, role)
    for revision in (*reversed(STOPS[:-1]), "head"):
        before = {role: held(database, role) for role in KINDS}
        upgrade(database.settings, revision)
        for role in KINDS:
            assert held(database, role) >= before[role], (revision, role)
            grant_by_hand(database, role)


@pytest.mark.parametrize("below", ["0023", "0014"])
def test_what_a_revision_adds_has_to_be_granted_again(database: Database, below: str) -> None:
    downgrade(database.settings, below)
    there = {role: present(database, kind) for role, kind in KINDS.items()}
    upgrade(database.settings)

    listed = {one.role.name: one for one in list_roles(database.settings).roles}
    for role, kind in KINDS.items():
        assert {*listed[role].lacks} == {*kind.privileges} - there[role]
        assert (listed[role].kind, listed[role].beyond) == (kind.name, ())
    shown = database.run("mlops-db", "roles").stdout
    assert f"lacks {', '.join(describe(listed[READER_ROLE].lacks))}" in shown

    for role, kind in KINDS.items():
        grant(database.settings, kind, role)
    assert not any(role.lacks for role in list_roles(database.settings).roles)


def test_new_months_need_no_grant(database: Database) -> None:
    database.query("CALL mlops_internal.maintain()")
    database.query("SELECT mlops_internal.create_next_partition(24)")

    database.query(f"SET ROLE {sql.Identifier(WRITER_ROLE).as_string()}")
    try:
        database.query(
            "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)"
            " SELECT now() + n * interval '1 month', 'drift', 'psi', 1 FROM generate_series(-3, 12) AS n"
        )
        database.query("DELETE FROM monitoring_metrics")
    finally:
        database.query("RESET ROLE")
