"""docs/operating.md, "Roles and ownership": its roles, what a writer may do, and what `mlops-db roles` prints."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from mlops_db import DatabaseManager
from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER, WRITER
from mlops_db.project import TABLES
from support import roles
from support.calls_of_jobs import make_calls
from support.database import ROOT, Database

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## Roles and ownership\n")[2].partition("\n## ")[0]


def granted_on(name: str) -> str:
    """What a writer has on a table, as the page writes it."""
    found: dict[str, list[str]] = {}
    for one in WRITER.privileges:
        if one.kind == "table" and name in (one.object, one.object.removeprefix("public.")):
            found.setdefault(one.name, []).extend([f"`{one.column}`"] if one.column else [])
    return ", ".join(f"{each}{f' of {chr(44).join(columns)}' if columns else ''}" for each, columns in found.items())


def test_the_page_says_what_a_writer_may_do() -> None:
    rows = dict(re.findall(r"^\| (`.*?`) \| (.*?) \| .* \|$", SECTION, re.MULTILINE))
    tables = {name: granted for names, granted in rows.items() for name in re.findall(r"`(.*?)`", names)}
    wanted = {one.object.removeprefix("public.") for one in WRITER.privileges if one.kind == "table"}
    wanted -= {one.object.removeprefix("public.") for one in READER.privileges}
    assert {name: tables[name].replace(", `", ",`") for name in wanted} == {name: granted_on(name) for name in wanted}
    assert f"their {('no', 'one', 'two', 'three', 'four')[len(TABLES)]} sequences | USAGE |" in SECTION


def block(name: str) -> str:
    (found,) = re.findall(rf"```{name}\n(.*?)\n```", SECTION, re.DOTALL)
    return str(found)


@pytest.fixture
def database(empty: Database) -> Iterator[Database]:
    """A database with the roles of the page, as the login that becomes the owner."""
    with ExitStack() as stack:
        for name in ("mlops_owner", "airflow", "jobs", "dashboards", "grafana", "ops", "ana"):
            stack.enter_context(roles.role(empty, name))
            empty.query(f"DROP ROLE {name}")
        empty.connection.execute(block("sql owner").encode())
        empty.connection.execute(block("sql jobs").encode())
        empty.query(
            "CREATE ROLE dashboards; CREATE ROLE ops; CREATE ROLE ana LOGIN; CREATE ROLE grafana LOGIN NOINHERIT"
        )
        empty.query(f"ALTER DATABASE {empty.settings.database} OWNER TO mlops_owner")
        empty.query("GRANT ALL ON SCHEMA public TO mlops_owner")
        yield replace(empty, settings=replace(empty.settings, user="airflow", owner_role="mlops_owner"))


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_the_page_s_commands_make_jobs_that_run_and_roles_prints_what_it_shows(database: Database) -> None:
    assert database.run("alembic", "upgrade", "head").returncode == 0
    done = database.run(*block("bash writer").split())
    assert done.returncode == 0, done.stderr
    with DatabaseManager(replace(database.settings, user="jobs")) as db:  # also with MLOPS_OWNER_ROLE, as in one .env
        assert make_calls(db) == {}

    grant(database.settings, READER, "dashboards")
    database.query("GRANT dashboards TO grafana; GRANT ops TO ana")
    database.query("GRANT SELECT ON retraining_decisions TO ops; GRANT DELETE ON model_versions TO ana")
    database.query("REVOKE SELECT ON reporting.metric_history FROM jobs")

    (shown,) = re.findall(r"```\n\$ mlops-db roles\n(.*?)```", SECTION, re.DOTALL)
    assert database.run("mlops-db", "roles").stdout == shown
