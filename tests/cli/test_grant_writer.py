"""`mlops-db grant-writer`: the role of jobs. tests/storage/test_jobs_role.py makes every call as such a role."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mlops_db import DatabaseManager
from mlops_db.admin.roles.listing import list_roles
from mlops_db.errors import NotPermittedError, OutdatedCodeError
from mlops_db.migration.commands import upgrade
from mlops_db.server.advisory import RUN_LOCK
from mlops_db.settings import Settings
from support import roles
from support.database import Database
from support.process import SECRET, assert_failed
from support.sessions import another_session

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

ROLE = 'Jobs "à la" 100%'
QUOTED = '"Jobs ""à la"" 100%"'
GRANT = ("mlops-db", "grant-writer", ROLE)


@pytest.fixture
def writer(head: Database) -> Iterator[Settings]:
    with roles.role(head, ROLE) as settings:
        done = head.run(*GRANT)
        assert done.returncode == 0, done.stderr
        what = "make every call of the storage layer"
        assert done.stdout == f'✅ Role "{ROLE}" may {what} of {head.settings.target}, and nothing else\n'
        yield settings


def test_it_may_write_and_read_but_not_run_what_the_owner_runs(head: Database, writer: Settings) -> None:
    with DatabaseManager(writer) as db:
        db.monitoring.log("drift", "psi", 0.5)
    as_writer = replace(head, settings=writer)

    for command in ("status", "health", "roles", "history"):
        done = as_writer.run("mlops-db", command)
        assert done.returncode in ((0,) if command != "history" else (0, 1)), (command, done.stderr)
    for words in (
        "alembic downgrade 0024",
        "alembic upgrade head",
        "alembic stamp 0024",
        "mlops-db maintain --keep 1d",
    ):
        done = as_writer.run(*words.split())
        if words != "alembic upgrade head":  # which has nothing to do
            assert_failed(done, "")
    assert head.value("SELECT version_num FROM alembic_version") == max(
        row[0] for row in head.query("SELECT revision FROM mlops_internal.migration_history")
    )
    for command in (GRANT, (*GRANT, "--revoke")):
        assert_failed(as_writer.run(*command), "does not own the tables and views; nothing was changed")
    check = head.run("mlops-db", "check")
    assert (check.returncode, "theirs" in check.stdout) == (0, False)


def test_older_code_reads_as_a_writer_whether_it_works(head: Database, writer: Settings) -> None:
    head.query("UPDATE alembic_version SET version_num = '9999'")
    head.query("UPDATE mlops_internal.running_code SET heads = '{9999}', revisions = revisions || '{9999}'")
    with DatabaseManager(writer) as db:
        db.monitoring.log("drift", "psi", 0.5)
    head.query("UPDATE mlops_internal.running_code SET works_from = '{9999}'")
    with DatabaseManager(writer) as db, pytest.raises(OutdatedCodeError):
        db.monitoring.log("drift", "psi", 0.5)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("GRANT DELETE ON model_versions TO {}", "DELETE on model_versions"),
        ("GRANT UPDATE (id) ON model_versions TO {}", "UPDATE (id) on model_versions"),
        (
            "GRANT SELECT, INSERT, UPDATE ON model_versions, retraining_decisions, monitoring_metrics TO {}",
            "UPDATE on model_versions, UPDATE on monitoring_metrics, UPDATE on retraining_decisions",
        ),
        ("GRANT SELECT ON mlops_internal.migration_history TO {}", "SELECT on mlops_internal.migration_history"),
        ("GRANT EXECUTE ON PROCEDURE mlops_internal.maintain TO {}", "EXECUTE on function mlops_internal.maintain"),
        ("GRANT UPDATE ON SEQUENCE model_versions_id_seq TO {}", "UPDATE on sequence model_versions_id_seq"),
        ("GRANT SELECT ON model_versions TO {} WITH GRANT OPTION", "SELECT WITH GRANT OPTION on model_versions"),
        ("ALTER ROLE {} CREATEROLE", "CREATEROLE"),
        ("ALTER ROLE {} REPLICATION", "REPLICATION"),
        ("ALTER ROLE {} CREATEDB BYPASSRLS", "CREATEDB, BYPASSRLS"),
        ("ALTER ROLE {} SUPERUSER", "SUPERUSER"),
        ("GRANT UPDATE (version_num) ON alembic_version TO {} WITH GRANT OPTION", "UPDATE (version_num) on alembic_"),
        ("GRANT ALL ON ALL TABLES IN SCHEMA mlops_internal TO {}", ""),
        (
            "ALTER TABLE mlops_internal.metric_series OWNER TO mlops_test_via; GRANT mlops_test_via TO {}",
            "ownership of mlops_internal.metric_series (by mlops_test_via)",
        ),
        (
            "GRANT mlops_test_group TO mlops_test_via; GRANT mlops_test_via TO {}",
            "TRUNCATE on model_versions (by mlops_test_group)",
        ),
        ("GRANT TRIGGER ON retraining_decisions TO PUBLIC", "TRIGGER on retraining_decisions (by PUBLIC)"),
        ("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {}", "DELETE on later tables, INSERT on later tables"),
        (
            "ALTER DEFAULT PRIVILEGES IN SCHEMA reporting GRANT SELECT ON TABLES TO PUBLIC",
            "SELECT on later tables (by PUBLIC)",
        ),
        ("ALTER VIEW v_model_timeline OWNER TO {}", "ownership of v_model_timeline"),
    ],
)
def test_a_role_that_can_do_more_gets_nothing_until_the_hint_is_run(head: Database, statement: str, told: str) -> None:
    others = ("mlops_test_group", "mlops_test_via")
    with roles.role(head, others[0], "NOLOGIN"), roles.role(head, others[1], "NOLOGIN"), roles.role(head, ROLE):
        head.query("GRANT TRUNCATE ON model_versions TO mlops_test_group")
        head.query(statement.format(QUOTED))
        before = head.query("SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace")

        done = head.run(*GRANT)

        if "VIEW" not in statement:  # the gate says that before
            assert_failed(done, f"can do more than make every call of the storage layer: {told}")
        assert done.returncode == 1
        after = head.query("SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert after == before
        if "VIEW" not in statement:
            head.connection.execute(done.stderr.partition("or run: ")[2].encode())
            granted = head.run(*GRANT)
            assert granted.returncode == 0, granted.stderr


@pytest.mark.usefixtures("writer")
def test_a_writer_may_register_series_as_earlier_pages_told(head: Database) -> None:
    head.query(f"GRANT EXECUTE ON FUNCTION mlops_internal.register_series TO {QUOTED}")
    assert head.run(*GRANT).returncode == 0
    (listed,) = (one for one in list_roles(head.settings).roles if one.role.name == ROLE)
    assert (listed.kind, listed.beyond) == ("writer", ())
    assert "theirs" not in head.run("mlops-db", "check").stdout


@pytest.mark.parametrize("options", [(), ("--revoke",)])
@pytest.mark.usefixtures("writer")
def test_it_waits_for_a_run_or_another_grant(head: Database, options: tuple[str, ...]) -> None:
    with another_session(head, "the deploy", f"SELECT pg_advisory_lock({RUN_LOCK})"):
        done = head.run(*GRANT, *options, MLOPS_LOCK_WAIT="200ms")
        assert_failed(done, "another run or command still holds the lock after 0.2 s", "(the deploy")
    assert head.run(*GRANT, *options).returncode == 0


def test_json_and_dry_run(head: Database) -> None:
    with roles.role(head, ROLE):
        text = head.run(*GRANT, "--dry-run")
        *statements, last = text.stdout.splitlines()
        assert last.startswith(f'Role "{ROLE}" could make every call of the storage layer of ')
        assert last.endswith(", and nothing else. Nothing was changed (--dry-run).")
        answer = json.loads(head.run(*GRANT, "--dry-run", "--json").stdout)
        assert (answer["role"], answer["granted"]) == (ROLE, False)
        assert "UPDATE (brier_score, f1_score, promoted_at, status) on model_versions" in answer["privileges"]
        assert answer["statements"] == statements
        assert not head.value("SELECT has_table_privilege(%s::name, 'model_versions', 'SELECT')", [ROLE])
        head.connection.execute("\n".join(statements).encode())
        (listed,) = (one for one in list_roles(head.settings).roles if one.role.name == ROLE)
        assert (listed.kind, listed.lacks, listed.beyond) == ("writer", (), ())
        assert json.loads(head.run(*GRANT, "--json").stdout)["granted"] is True
        assert json.loads(head.run(*GRANT, "--json").stdout)["granted"] is True


def test_it_makes_a_login(head: Database) -> None:
    head.query(f"REVOKE CONNECT ON DATABASE {head.settings.database} FROM PUBLIC")
    try:
        done = head.run(*GRANT, "--create", MLOPS_WRITER_PASSWORD=SECRET, MLOPS_READER_PASSWORD="another")  # noqa: S106
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        with DatabaseManager(replace(head.settings, user=ROLE, password=SECRET)) as db:
            db.monitoring.log("drift", "psi", 0.5)
        assert head.value("SELECT rolpassword LIKE 'SCRAM-SHA-256$%%' FROM pg_authid WHERE rolname = %s", [ROLE])

        done = head.run(*GRANT, "--revoke")
        assert done.stdout.endswith("it lost 28 privileges\n")
        assert not head.value("SELECT has_database_privilege(%s::name, current_database(), 'CONNECT')", [ROLE])
    finally:
        head.query(f"DROP ROLE IF EXISTS {QUOTED}")


def test_the_password_has_a_variable_of_its_own(head: Database) -> None:
    done = head.run(*GRANT, "--create", MLOPS_READER_PASSWORD=SECRET)
    assert_failed(done, "MLOPS_WRITER_PASSWORD has none; nothing was changed")


def test_a_login_that_migrates_is_told_to_leave_jobs_to_another_one(empty: Database) -> None:
    with roles.owner(empty) as owned, roles.role(empty, "mlops_test_login", "LOGIN NOINHERIT") as login:
        upgrade(owned.settings)
        with roles.role(empty, "mlops test jobs", "NOLOGIN"):
            empty.query('GRANT mlops_test_owner, "mlops test jobs" TO mlops_test_login')
            assert owned.run("mlops-db", "grant-writer", "mlops test jobs").returncode == 0
            refused = owned.run("mlops-db", "grant-writer", login.user)
            assert_failed(
                refused,
                'It is a member of "mlops test jobs", but inherits nothing from that, so it is no writer.',
                "Take a login that cannot become the owner (`mlops-db grant-writer NAME --create`), or run: "
                'REVOKE "mlops_test_owner" FROM "mlops_test_login";',
            )


def test_a_member_that_inherits_nothing_can_be_a_writer_itself(head: Database) -> None:
    with roles.role(head, ROLE), roles.role(head, "mlops_test_login", "LOGIN NOINHERIT") as login:
        assert head.run(*GRANT).returncode == 0
        head.query(f"GRANT {QUOTED} TO mlops_test_login")
        with DatabaseManager(login) as db:
            with pytest.raises(NotPermittedError, match="alembic_version") as refused:
                db.monitoring.log("drift", "psi", 0.5)
            command = re.findall("`(mlops-db grant-writer .*?)`", refused.value.hint)[0]
            assert "If it is a writer only after SET ROLE, let jobs" in refused.value.hint
            assert "a writer only after SET ROLE" in head.run("mlops-db", "roles").stdout
            assert head.run(*command.split()).returncode == 0
            db.monitoring.log("drift", "psi", 0.5)
            with pytest.raises(NotPermittedError) as refused:
                db.execute_query("DELETE FROM model_versions")
            assert 'shows "mlops_test_login" as a writer, anything else is for the owner' in refused.value.hint


def test_an_owner_without_superuser_grants_it_through_the_owner_role(empty: Database) -> None:
    with roles.role(empty, 'the "Owner"', "NOLOGIN") as owner, roles.role(empty, "mlops_test_login") as login:
        empty.query('GRANT "the ""Owner""" TO mlops_test_login')
        empty.query(f'ALTER DATABASE {empty.settings.database} OWNER TO "the ""Owner"""')
        empty.query('GRANT ALL ON SCHEMA public TO "the ""Owner"""')
        settings = replace(login, owner_role=owner.user)
        upgrade(settings)
        owned = replace(empty, settings=settings)
        with roles.role(empty, ROLE) as writer:
            assert owned.run(*GRANT).returncode == 0
            with DatabaseManager(writer) as db:
                db.monitoring.log("drift", "psi", 0.5)
            listed = owned.run("mlops-db", "roles").stdout
            assert 'the "Owner"' in listed
            assert "mlops_test_login  owner" in listed
            done = owned.run(*GRANT, "--revoke")
            assert done.returncode == 0, done.stderr
