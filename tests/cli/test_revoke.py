"""`mlops-db grant-reader ROLE --revoke` and `grant-writer ROLE --revoke`."""

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from mlops_db.migration.commands import downgrade, upgrade
from support import roles
from support.database import Database
from support.process import assert_failed

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

ROLE = 'a "Role" ü'
QUOTED = '"a ""Role"" ü"'
# All that the role was granted in the database, and on it.
GRANTED = """
    SELECT count(*) FROM (
        SELECT relacl AS acl FROM pg_class
         UNION ALL SELECT attacl FROM pg_attribute
         UNION ALL SELECT proacl FROM pg_proc
         UNION ALL SELECT nspacl FROM pg_namespace
         UNION ALL SELECT datacl FROM pg_database
         UNION ALL SELECT defaclacl FROM pg_default_acl
    ) AS o CROSS JOIN LATERAL aclexplode(o.acl) AS acl
     WHERE acl.grantee = (SELECT oid FROM pg_roles WHERE rolname = %s)
"""


class Kind(NamedTuple):
    name: str

    @property
    def command(self) -> tuple[str, str, str]:
        return ("mlops-db", f"grant-{self.name}", ROLE)

    @property
    def revoke(self) -> tuple[str, ...]:
        return (*self.command, "--revoke")


READER, WRITER = Kind("reader"), Kind("writer")


@pytest.fixture
def database(head: Database) -> Iterator[Database]:
    """A database at head, with the role."""
    with roles.role(head, ROLE, "NOLOGIN"):
        yield head


def granted(database: Database, kind: Kind) -> None:
    done = database.run(*kind.command)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", [READER, WRITER], ids=lambda kind: kind.name)
def test_it_takes_back_all_that_was_granted_and_the_second_time_nothing(database: Database, kind: Kind) -> None:
    granted(database, kind)
    count = database.value(GRANTED, [ROLE])

    dry = database.run(*kind.revoke, "--dry-run")
    target = database.settings.target
    assert "Nothing was changed (--dry-run)." in dry.stdout
    assert database.value(GRANTED, [ROLE]) == count

    done = database.run(*kind.revoke)
    statements = dry.stdout.splitlines()[:-1]
    assert len(statements) == count
    assert all(one.startswith("REVOKE ") and one.endswith(f" FROM {QUOTED};") for one in statements)
    lost = count if kind is READER else count - 3  # four columns of one UPDATE are one
    assert done.stdout == f'✅ Role "{ROLE}" is no {kind.name} of {target} any more: it lost {lost} privileges\n'
    assert database.value(GRANTED, [ROLE]) == 0
    again = database.run(*kind.revoke)
    assert again.stdout == f'Role "{ROLE}" has no grant of a {kind.name} of {target}. Nothing was changed.\n'
    assert again.returncode == 0


@pytest.mark.parametrize("revision", ["0004", "9999"])
def test_it_does_not_depend_on_the_revision(database: Database, revision: str) -> None:
    granted(database, WRITER)
    if revision == "0004":
        downgrade(database.settings, revision)
    else:
        database.query("UPDATE alembic_version SET version_num = %s", [revision])

    done = database.run(*WRITER.revoke)

    assert done.returncode == 0, done.stderr
    assert database.value(GRANTED, [ROLE]) == 0


def test_without_tables_there_is_nothing_to_revoke(empty: Database) -> None:
    assert_failed(empty.run(*WRITER.revoke), "has no tables yet", "alembic upgrade head")


def test_other_grants_stay_and_are_told(database: Database) -> None:
    with roles.role(database, "mlops_test_group", "NOLOGIN"):
        granted(database, READER)
        database.query(f"GRANT mlops_test_group TO {QUOTED}")
        database.query("GRANT INSERT ON model_versions TO mlops_test_group")
        database.query("GRANT SELECT ON retraining_decisions TO PUBLIC")
        database.query(f"GRANT DELETE ON model_versions TO {QUOTED}")
        database.query(f"GRANT CONNECT ON DATABASE {database.settings.database} TO {QUOTED}")

        done = database.run(*READER.revoke)

        assert done.stdout.splitlines()[-1] == (
            "It still has DELETE on model_versions, INSERT on model_versions (by mlops_test_group),"
            " SELECT on retraining_decisions (by PUBLIC)"
        )
        assert database.value(GRANTED, [ROLE]) == 2  # CONNECT, which it needs for the other one
        answer = json.loads(database.run(*READER.revoke, "--json").stdout)
        assert (answer["revoked"], answer["privileges"], answer["statements"]) == (False, [], [])
        assert answer["left"] == [
            {"privilege": "DELETE on model_versions", "by": None},
            {"privilege": "INSERT on model_versions", "by": "mlops_test_group"},
            {"privilege": "SELECT on retraining_decisions", "by": "PUBLIC"},
        ]


def test_a_member_of_a_writer_stays_one_and_is_told_how_to_end_that(database: Database) -> None:
    others = ("mlops test w", "mlops_test_via")
    with roles.role(database, others[0], "NOLOGIN"), roles.role(database, others[1], "NOLOGIN"):
        assert database.run("mlops-db", "grant-writer", others[0]).returncode == 0
        granted(database, WRITER)
        database.query(f'GRANT "mlops test w" TO mlops_test_via; GRANT mlops_test_via TO {QUOTED}')

        dry = database.run(*WRITER.revoke, "--dry-run")
        how = f'a writer through mlops_test_via: REVOKE "mlops_test_via" FROM {QUOTED};'
        assert f"It would still be {how}" in dry.stdout
        done = database.run(*WRITER.revoke)
        first, second, third = done.stdout.splitlines()
        assert first == f'Role "{ROLE}" lost 27 privileges on {database.settings.target}, and is still a writer'
        assert second == f"It is still {how}"
        assert third.endswith("and 15 more")
        again = database.run(*WRITER.revoke)
        assert again.stdout.splitlines()[:2] == [
            f'Role "{ROLE}" has no grant of a writer of {database.settings.target}. Nothing was changed.',
            f"It is still {how}",
        ]
        answer = json.loads(database.run(*WRITER.revoke, "--json").stdout)
        assert (answer["revoked"], answer["privileges"], answer["still"]) == (False, [], "writer")
        assert len(answer["left"]) > 27
        assert {"privilege": "SELECT on alembic_version", "by": "mlops test w"} in answer["left"]

        database.connection.execute(second.partition(": ")[2].encode())
        granted(database, WRITER)
        answer = json.loads(database.run(*WRITER.revoke, "--json").stdout)
        assert (answer["revoked"], len(answer["privileges"]), answer["still"]) == (True, 27, None)
        assert (len(answer["statements"]), answer["left"]) == (30, [])


def test_a_membership_that_makes_it_only_a_reader_is_not_to_be_ended(database: Database) -> None:
    with roles.role(database, "mlops_test_dashboards", "NOLOGIN"), roles.role(database, "mlops_test_w", "NOLOGIN"):
        assert database.run("mlops-db", "grant-reader", "mlops_test_dashboards").returncode == 0
        assert database.run("mlops-db", "grant-writer", "mlops_test_w").returncode == 0
        database.query(f"GRANT mlops_test_dashboards, mlops_test_w TO {QUOTED}")
        granted(database, WRITER)

        done = database.run(*WRITER.revoke)

        assert done.stdout.splitlines()[1] == (
            f'It is still a writer through mlops_test_w: REVOKE "mlops_test_w" FROM {QUOTED};'
        )


def test_who_can_become_a_writer_is_none(database: Database) -> None:
    with roles.role(database, "mlops_test_group", "NOLOGIN"):
        assert database.run("mlops-db", "grant-writer", "mlops_test_group").returncode == 0
        database.query(f"ALTER ROLE {QUOTED} NOINHERIT; GRANT mlops_test_group TO {QUOTED}")
        granted(database, WRITER)
        done = database.run(*WRITER.revoke)
        assert f'"{ROLE}" is no writer of ' in done.stdout
        assert "SELECT on alembic_version (by mlops_test_group, after SET ROLE)" in done.stdout


def test_a_reader_that_is_a_writer_stays_both(database: Database) -> None:
    granted(database, WRITER)
    count = database.value(GRANTED, [ROLE])

    assert_failed(database.run(*READER.revoke), "is a writer, which needs all that a reader has", "grant-writer 'a ")
    assert_failed(database.run(*READER.command), "is a writer, which reads all that a reader does", "grant-writer 'a ")

    assert database.value(GRANTED, [ROLE]) == count


def test_a_grant_by_somebody_else_stays_and_is_told(database: Database) -> None:
    with roles.role(database, "mlops_test_other") as other:
        database.query("GRANT SELECT ON v_model_timeline TO mlops_test_other WITH GRANT OPTION")
        granted(database, READER)
        roles.run_as(other, f"GRANT SELECT ON v_model_timeline TO {QUOTED}")

        done = database.run(*READER.revoke)

        assert "note: mlops_test_other granted it SELECT on v_model_timeline" in done.stdout
        assert done.stdout.endswith("It still has SELECT on v_model_timeline\n")
        assert database.value(GRANTED, [ROLE]) == 1
        database.query(f"GRANT SELECT ON v_model_timeline TO {QUOTED}")
        database.query(f"REVOKE SELECT ON v_model_timeline FROM {QUOTED}")
        dry = database.run(*READER.revoke, "--dry-run")
        nothing = f"nothing on {database.settings.target}: others have granted it the same"
        assert dry.stdout.startswith(f'Role "{ROLE}" would lose {nothing}\nnote: mlops_test_other granted it SELECT ')
        again = database.run(*READER.revoke)
        assert again.stdout.startswith(f'Role "{ROLE}" lost {nothing}\n')
        assert "Nothing was changed" not in again.stdout
        assert database.value(GRANTED, [ROLE]) == 1


def test_what_it_has_granted_on_is_refused(database: Database) -> None:
    with roles.role(database, "mlops_test_other", "NOLOGIN"):
        granted(database, READER)
        database.query(f"GRANT SELECT ON v_model_timeline TO {QUOTED} WITH GRANT OPTION")
        database.query(f"SET ROLE {QUOTED}")
        database.query("GRANT SELECT ON v_model_timeline TO mlops_test_other")
        database.query("RESET ROLE")
        count = database.value(GRANTED, [ROLE])

        done = database.run(*READER.revoke)

        assert_failed(done, "has granted on to others", "CASCADE")
        assert database.value(GRANTED, [ROLE]) == count
        assert "theirs: grants to" in database.run("mlops-db", "check").stdout  # a reader needs no grant option
        database.connection.execute(done.stderr.partition("from them, too: ")[2].encode())
        assert database.run(*READER.revoke).returncode == 0
        assert database.value(GRANTED, [ROLE]) == 0


def test_who_may_connect_for_something_else_may_still_connect(database: Database) -> None:
    owner = database.value("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()")
    name = database.settings.database
    with roles.role(database, "mlops_test_group", "NOLOGIN"):
        database.query(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; GRANT mlops_test_group TO {QUOTED}")
        assert database.run("mlops-db", "grant-reader", "mlops_test_group").returncode == 0
        granted(database, READER)
        database.query(f"GRANT CONNECT ON DATABASE {name} TO {QUOTED}")
        before = database.value("SELECT datacl::text FROM pg_database WHERE datname = current_database()")

        for role in (ROLE, owner):
            assert database.run("mlops-db", "grant-reader", role, "--revoke").returncode == 0

        assert database.value("SELECT datacl::text FROM pg_database WHERE datname = current_database()") == before


@pytest.mark.parametrize("membership", ["GRANT {role} TO {other}", "GRANT {other} TO {role}"])
def test_what_the_team_needs_to_connect_stays(database: Database, membership: str) -> None:
    may_connect = "SELECT has_database_privilege(%s::name, current_database(), 'CONNECT')"
    name = database.settings.database
    with roles.role(database, "mlops_test_other", "LOGIN"):
        database.query(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {QUOTED}")
        database.query(membership.format(role=QUOTED, other="mlops_test_other"))
        database.query("CREATE TABLE theirs (id int); GRANT SELECT ON theirs TO mlops_test_other")
        granted(database, WRITER)
        assert database.run(*WRITER.revoke).returncode == 0
        assert database.value(may_connect, [ROLE])


def test_who_created_the_role_does_not_connect_through_it(empty: Database) -> None:
    may_connect = "SELECT has_database_privilege(%s::name, current_database(), 'CONNECT')"
    empty.query(f"REVOKE CONNECT ON DATABASE {empty.settings.database} FROM PUBLIC")
    with roles.owner(empty) as owned:
        empty.query(f"ALTER ROLE {owned.settings.user} CREATEROLE")
        upgrade(owned.settings)
        created = ("mlops-db", "grant-reader", "mlops_test_created")
        try:
            done = owned.run(*created, "--create", MLOPS_READER_PASSWORD="x")  # noqa: S106
            assert done.returncode == 0, done.stderr
            assert empty.value(may_connect, ["mlops_test_created"])
            assert owned.run(*created, "--revoke").returncode == 0
            assert not empty.value(may_connect, ["mlops_test_created"])
        finally:
            empty.query("DROP OWNED BY mlops_test_created; DROP ROLE mlops_test_created")


def test_who_does_not_own_the_views_revokes_nothing(database: Database) -> None:
    with roles.role(database, "mlops_test_other") as other:
        granted(database, READER)
        database.query("GRANT SELECT ON alembic_version TO mlops_test_other")
        count = database.value(GRANTED, [ROLE])

        done = database.run(*READER.revoke, POSTGRES_USER=other.user, POSTGRES_PASSWORD=other.password or "")

        assert_failed(done, "", "wner")
        assert database.value(GRANTED, [ROLE]) == count


@pytest.mark.parametrize("options", [("--create",), ("--password-file", "/nowhere")])
def test_it_goes_with_no_option_of_a_login(database: Database, options: tuple[str, ...]) -> None:
    done = database.run(*WRITER.revoke, *options, MLOPS_WRITER_PASSWORD="x")  # noqa: S106
    assert done.returncode == 64
    assert_failed(done, "--create")


def test_a_role_that_is_not_there_is_told(head: Database) -> None:
    assert_failed(head.run(*WRITER.revoke), f'no role "{ROLE}"')
