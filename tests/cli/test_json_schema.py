"""The schemas that docs/json.md publishes, and what the commands really print."""

import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from jsonschema import Draft202012Validator, ValidationError

from mlops_db.errors import MlopsDbError
from mlops_db.migration import commands
from support.database import Database
from support.json_shapes import OPTIONAL, SCHEMAS, Seen, check, parts, possible
from support.process import SECRET
from support.projects import Checkout, sql

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

UNAFFECTED = "unaffected. Older code does not know what it adds."
BY_HAND = """
    INSERT INTO model_versions (mlflow_run_id, model_version, model_name, status, promoted_at)
    VALUES ('a', '7', 'churn', 'production', '2026-03-01T06:30:00Z'), ('b', '1', E'by\\x1bhand', 'production', NULL);
    INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'psi');
    SET session_replication_role = replica;
    INSERT INTO monitoring_metrics (id, metric_type, metric_name) VALUES (9, 'drift', 'unregistered');
    RESET session_replication_role;
    DROP VIEW v_decision_history;
    CREATE VIEW v_decision_history AS SELECT 1 / (random() * 0)::int AS one;
"""
# As a run leaves it that has applied a revision of a project beside ours.
BESIDE_OURS = """
    INSERT INTO alembic_version VALUES ('acme_0001');
    UPDATE mlops_internal.running_code
       SET heads = heads || '{acme_0001}', revisions = revisions || '{acme_0001}', others = '{acme_0001}';
"""


def answer(database: Database, *arguments: str, **variables: str) -> dict[str, Any]:
    done = database.run("mlops-db", *arguments, "--json", **variables)
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_and_describes_and_requires_all_its_keys(name: str) -> None:
    schema = SCHEMAS[name]
    Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == name
    assert schema["$id"].endswith(f":{name}")
    for part in parts(schema):
        properties = part["properties"]
        assert all(schema["$defs"][value["$ref"][8:]] if "$ref" in value else value for value in properties.values())
        for key, value in properties.items():
            described = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert described["description"].endswith("."), key
        assert {*part["required"]} == {*properties} - OPTIONAL
        assert "additionalProperties" not in part  # what we publish permits new keys


def test_status_has_everything_that_its_schema_has_and_nothing_else(
    head: Database, empty: Database, tmp_path: Path
) -> None:
    seen: Seen = set()
    head.query("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    seen |= check(answer(head, "status"))
    head.psql(BY_HAND)
    seen |= check(answer(head, "status"))
    head.query("DROP VIEW reporting.decision_gates; DROP TABLE retraining_decisions CASCADE")
    seen |= check(answer(head, "status"))
    seen |= check(answer(empty, "status"))
    newer = Checkout(tmp_path)
    newer.add(sql("CREATE TABLE newer ()"), title="newer", running_code=UNAFFECTED)
    commands.run_command(command.upgrade, newer.config(empty.settings), "head")
    seen |= check(answer(empty, "status"))
    empty.psql(BESIDE_OURS)
    seen |= check(answer(empty, "status"))

    unseen = possible("status-1") - seen
    assert {one for one in unseen if not one[0].startswith(tuple(f".{key}" for key in OPTIONAL))} == set()


def test_history_has_everything_that_its_schema_has_and_nothing_else(empty: Database) -> None:
    seen = check(answer(empty, "history"))
    commands.upgrade(empty.settings, "0001")
    empty.query("CREATE TYPE monitoring_metrics AS ENUM ('in the way')")
    with pytest.raises(MlopsDbError):
        commands.upgrade(empty.settings, "0002")
    empty.query("DROP TYPE monitoring_metrics")
    commands.downgrade(empty.settings, "base")
    commands.run_command(command.stamp, commands.alembic_config(empty.settings), "0001")
    empty.query(
        "INSERT INTO mlops_internal.migration_history (revision, direction, client, tools, outcome, backup)"
        " VALUES ('1', 'upgrade', 'me', 'mine', 'running', NULL), ('1', 'upgrade', 'me', 'mine', 'interrupted', '/b')"
    )
    seen |= check(answer(empty, "history"))
    assert possible("history-1") - seen == set()


@pytest.mark.parametrize("name", ["status", "history", "check", "maintain"])
def test_failures_of_each_kind_have_the_same_schema(empty: Database, name: str) -> None:
    nowhere = {"MLOPS_DB_NAME": 'no such "dätabase"'}
    seen = check(answer(empty, name, **nowhere))
    seen |= check(answer(empty, name, POSTGRES_PORT="x"))
    seen |= check(answer(empty, name, POSTGRES_HOST="/no/such/folder", POSTGRES_PASSWORD=SECRET))
    empty.query("CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('9999')")
    if name != "history":
        seen |= check(answer(empty, name))
    assert possible("error-1") - seen == set()


def test_a_key_that_the_schema_lacks_is_noticed(empty: Database) -> None:
    status = answer(empty, "status")
    with pytest.raises(ValidationError, match="unknown"):
        check(status | {"unknown": 1})
    Draft202012Validator(SCHEMAS["status-1"]).validate(status | {"unknown": 1})
