"""The role of `mlops-db grant-writer`: every call of the storage layer works, and each privilege is needed."""

from collections.abc import Iterator

import pytest
from psycopg import sql

from mlops_db import DatabaseManager
from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER, WRITER, Privilege, describe
from mlops_db.errors import MlopsDbError
from mlops_db.settings import Settings
from support import roles
from support.calls_of_jobs import calls, make_calls, public_calls
from support.database import Database

pytestmark = pytest.mark.libraries

JOBS = 'mlops "Jobs" für €'


@pytest.fixture
def jobs(head: Database) -> Iterator[Settings]:
    with roles.role(head, JOBS) as settings:
        grant(head.settings, WRITER, JOBS)
        yield settings


def test_no_public_call_is_without_a_case() -> None:
    assert {name for name, _ in calls()} == public_calls()


def test_a_writer_can_make_every_call(jobs: Settings) -> None:
    with DatabaseManager(jobs) as db:
        assert make_calls(db) == {}


# A view needs nothing on the tables below it but on Citus, and a newer run shares the record.
NEEDED = [privilege for privilege in WRITER.privileges if privilege not in READER.privileges]
OF_OLDER_CODE = Privilege("SELECT", "table", "mlops_internal.running_code")


@pytest.mark.slow
@pytest.mark.plain_postgresql(reason="the shards below a view are read with the rights of who asks, so more is needed")
@pytest.mark.parametrize("privilege", NEEDED, ids=lambda one: describe([one])[0])
def test_each_privilege_is_needed(head: Database, jobs: Settings, privilege: Privilege) -> None:
    what = f"{privilege.name}{f' ({privilege.column})' if privilege.column else ''} ON {privilege.kind.upper()}"
    head.connection.execute(
        sql.SQL(f"REVOKE {what} {privilege.object} FROM {{}}").format(sql.Identifier(JOBS))  # type: ignore[arg-type]
    )
    if privilege == OF_OLDER_CODE:
        head.query("UPDATE alembic_version SET version_num = '9999'")  # older code, on a newer database
    with DatabaseManager(jobs) as db:
        failed = make_calls(db)
    assert failed
    assert any("permission denied" in str(error) or "may not read" in str(error) for error in failed.values()), failed


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("TRUNCATE monitoring_metrics", "table monitoring_metrics"),
        ("DELETE FROM model_versions", "table model_versions"),
        ("UPDATE model_versions SET mlflow_run_id = 'x'", "table model_versions"),
        ("UPDATE monitoring_metrics SET metric_value = 0", "table monitoring_metrics"),
        ("UPDATE retraining_decisions SET action = 'promote'", "table retraining_decisions"),
        ("DELETE FROM retraining_decisions", "table retraining_decisions"),
        ("ALTER TABLE model_versions ADD COLUMN note text", "table model_versions"),
        ("DROP VIEW v_recent_monitoring", "view v_recent_monitoring"),
        ("TRUNCATE mlops_internal.metric_series", "table metric_series"),
        ("UPDATE alembic_version SET version_num = '0001'", "table alembic_version"),
        ("INSERT INTO mlops_internal.running_code DEFAULT VALUES", "table running_code"),
        ("SELECT * FROM mlops_internal.migration_history", "table migration_history"),
        ("SELECT setval('model_versions_id_seq', 1)", "sequence model_versions_id_seq"),
        ("SELECT mlops_internal.register_series('m', 't', 'n')", "function register_series"),
        ("CALL mlops_internal.maintain()", "procedure maintain"),
        ("CREATE TABLE mlops_internal.mine ()", "schema mlops_internal"),
        ("CREATE VIEW reporting.mine AS SELECT 1", "schema reporting"),
        ("CREATE SCHEMA mine", "database .*"),
    ],
)
def test_a_writer_may_not_do_more(jobs: Settings, statement: str, refused: str) -> None:
    with DatabaseManager(jobs) as db, pytest.raises(MlopsDbError, match=f"(permission denied for|owner of) {refused}"):
        db.execute_query(statement)


OBJECTS = """
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, n.nspname || '.' || c.relname, c.oid
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('public', 'mlops_internal', 'reporting') AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
     UNION ALL
    SELECT 'function', n.nspname || '.' || p.proname, p.oid
      FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE n.nspname IN ('mlops_internal', 'reporting')
     UNION ALL
    SELECT 'schema', nspname, oid FROM pg_namespace WHERE nspname IN ('public', 'mlops_internal', 'reporting')
"""
KINDS = {
    "table": ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"),
    "sequence": ("USAGE", "SELECT", "UPDATE"),
    "function": ("EXECUTE",),
    "schema": ("USAGE", "CREATE"),
}
BY_COLUMN = ("SELECT", "INSERT", "UPDATE", "REFERENCES")


@pytest.mark.parametrize("kind", [READER, WRITER], ids=lambda kind: kind.name)
def test_the_server_finds_no_other_privilege_on_any_object(head: Database, kind: object) -> None:
    head.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # the default before PostgreSQL 15
    with roles.role(head, JOBS, "NOLOGIN"):
        grant(head.settings, kind, JOBS)  # type: ignore[arg-type]
        found = set()
        for what, name, oid in head.query(OBJECTS):
            for privilege in KINDS[what]:
                if head.value(f"SELECT has_{what}_privilege(%s::name, %s::oid, %s)", [JOBS, oid, privilege]):
                    found.add(Privilege(privilege, what, name))
                elif what == "table" and privilege in BY_COLUMN:
                    columns = head.query(
                        "SELECT attname FROM pg_attribute WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped"
                        " AND has_column_privilege(%(role)s::name, %(oid)s::oid, attnum, %(privilege)s)",
                        {"oid": oid, "role": JOBS, "privilege": privilege},
                    )
                    found |= {Privilege(privilege, what, name, column) for (column,) in columns}
        assert found == {*kind.privileges}  # type: ignore[attr-defined]
