"""docs/operating.md, "Roles and ownership": what a writer may do, and what `mlops-db roles` prints."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from psycopg import sql

from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import READER, WRITER
from mlops_db.project import TABLES
from support import roles
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


@pytest.fixture
def database(empty: Database) -> Iterator[Database]:
    """A database with the roles of the page."""
    with ExitStack() as stack:
        attributes = {"mlops_owner": "NOLOGIN", "jobs": "NOLOGIN", "airflow": "LOGIN", "dashboards": "NOLOGIN",
                      "ops": "NOLOGIN", "ana": "LOGIN"}  # fmt: skip
        for name, attribute in attributes.items():
            stack.enter_context(roles.role(empty, name, attribute))
        me = sql.Identifier(empty.settings.user)
        empty.connection.execute(sql.SQL("GRANT mlops_owner TO {}").format(me))
        empty.query(f"ALTER DATABASE {empty.settings.database} OWNER TO mlops_owner")
        empty.query("GRANT ALL ON SCHEMA public TO mlops_owner")
        yield replace(empty, settings=replace(empty.settings, owner_role="mlops_owner"))


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_roles_prints_what_the_page_shows(database: Database) -> None:
    assert database.run("alembic", "upgrade", "head").returncode == 0
    (command,) = re.findall(r"```bash writer\n(.*?)\n```", SECTION, re.DOTALL)
    assert database.run(*command.split()).returncode == 0
    grant(database.settings, READER, "dashboards")
    database.query("GRANT jobs TO airflow; GRANT ops TO ana")
    database.query("GRANT SELECT ON retraining_decisions TO ops; GRANT DELETE ON model_versions TO ana")
    database.query("REVOKE SELECT ON reporting.metric_history FROM jobs")

    (shown,) = re.findall(r"```\n\$ mlops-db roles\n(.*?)```", SECTION, re.DOTALL)
    assert database.run("mlops-db", "roles").stdout == shown
