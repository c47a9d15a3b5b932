"""uv run --isolated --extra mlflow --with mlflow pytest -n 0 -m adapters tests/adapters/test_mlflow_registry.py."""

import io
import math
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mlops_db.adapters.mlflow import ImportResult, LeftOut, import_registry, promote_run, register_run
from mlops_db.admin.roles.granting import grant
from mlops_db.drift.declared_roles import WRITER
from mlops_db.errors import AdapterError, InvalidValueError, MlflowUnavailableError, TransitionError
from mlops_db.migration import progress
from mlops_db.storage.db_manager import DatabaseManager
from mlops_db.storage.decisions import lock_model
from support import roles
from support.database import Database
from support.examples import example
from support.forks import exit_code, forked
from support.mlflow_server import MlflowServer
from support.sessions import wait_until

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what MLflow warns about is not ours
MANY = 1000


@pytest.fixture
def client(mlflow_server: MlflowServer) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415  (takes seconds)

    return MlflowClient(tracking_uri=mlflow_server.uri, registry_uri=mlflow_server.uri)


class Registry:
    """What a team did in MLflow, under the name of a model that no other test has."""

    def __init__(self, client: Any, name: str | None = None) -> None:
        self.client = client
        self.name = name or f"churn-{uuid4().hex}"
        client.create_registered_model(self.name)

    def run(self, **metrics: float) -> str:
        run_id: str = self.client.create_run("0").info.run_id
        for name, value in metrics.items():
            self.client.log_metric(run_id, name, value)
        return run_id

    def version(self, run_id: str | None = "", *, stage: str | None = None, name: str | None = None) -> str:
        """A new version of a new run, unless it is told which; returns the run."""
        run_id = self.run(f1_score=0.81, brier_score=0.12) if run_id == "" else run_id
        name = name or self.name
        number = self.client.create_model_version(name, "s3://models/churn", run_id=run_id).version
        if stage is not None:
            self.client.transition_model_version_stage(name, number, stage)
        return run_id or ""

    def alias(self, number: int, alias: str = "production") -> None:
        self.client.set_registered_model_alias(self.name, alias, str(number))

    def entity(self, number: int) -> Any:
        return self.client.get_model_version(self.name, str(number))

    def imported(self, db: DatabaseManager, **given: Any) -> ImportResult:
        return import_registry(db, **{"client": self.client, "model_names": [self.name], **given})


@pytest.fixture
def registry(client: Any) -> Registry:
    return Registry(client)


def moment(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)


def stages(versions: Any) -> dict[str, str]:
    return {version.model_version: version.status for version in versions}


def rows(db: DatabaseManager) -> list[tuple[Any, ...]]:
    """Everything that is stored of versions and decisions."""
    found = db.execute_query("SELECT * FROM model_versions ORDER BY id")
    decided = db.execute_query("SELECT * FROM retraining_decisions ORDER BY id")
    assert isinstance(found, list)
    assert isinstance(decided, list)
    return found + decided


@contextmanager
def busy(db: DatabaseManager, model: str) -> Iterator[None]:
    """Somebody changes the model, so that an import waits before it does."""
    with db.safe_cursor() as cursor:
        lock_model(cursor, model, 1000)
        yield


def waiting(head: Database, what: str) -> int:
    """How many sessions wait for a lock in such a statement."""
    count = head.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ %s", [what])
    return int(count)


# What is registered


def test_versions_come_with_their_scores_stages_and_times(db: DatabaseManager, registry: Registry) -> None:
    for stage in (None, "Staging", "Archived", "Production"):
        registry.version(stage=stage)

    result = registry.imported(db)

    assert stages(result.registered) == {"1": "staging", "2": "staging", "3": "archived", "4": "production"}
    assert (len(result.promoted), result.present, result.left_out) == (1, (), ())
    for version in result.registered:
        entity = registry.entity(int(version.model_version))
        assert version == db.models.get(entity.run_id)
        assert (version.model_name, version.f1_score, version.brier_score) == (registry.name, 0.81, 0.12)
        assert version.created_at == moment(entity.creation_timestamp)
    assert result.promoted == (db.models.production(registry.name),)
    assert result.promoted[0].promoted_at == moment(registry.entity(4).last_updated_timestamp)
    assert [version.id for version in result.registered] == sorted(version.id for version in result.registered)


def test_the_promotion_is_in_the_history_and_the_timeline_is_that_of_the_registry(
    db: DatabaseManager, registry: Registry
) -> None:
    registry.version()
    run_id = registry.version()
    registry.alias(2)
    (promoted,) = registry.imported(db).promoted

    (decision,) = db.decisions.history(registry.name)
    assert (decision.action, decision.candidate, decision.decided_at) == ("promote", run_id, promoted.promoted_at)
    assert (decision.decided_by, decision.is_rollback) == ("MLflow's registry", False)
    assert decision.reasoning == "imported from MLflow's registry: it has the alias 'production'"
    timeline = db.execute_query(
        "SELECT model_version, in_production, promoted_at FROM v_model_timeline WHERE model_name = %s", [registry.name]
    )
    assert timeline == [("2", True, promoted.promoted_at), ("1", False, None)]


def test_a_rollback_goes_back_to_an_imported_version_only_if_it_was_in_production(
    db: DatabaseManager, registry: Registry
) -> None:
    registry.version(stage="Archived")
    second = registry.version(stage="Production")
    registry.imported(db)
    with pytest.raises(TransitionError, match="no version that was in production before"):
        db.models.rollback(registry.name, yes=True)

    third = registry.version()
    register_run(db, third, model_name=registry.name, client=registry.client)
    promote_run(db, third, instead_of=second, client=registry.client)
    assert db.models.rollback(registry.name, of=third).mlflow_run_id == second


def test_the_alias_counts_before_the_stage(db: DatabaseManager, registry: Registry) -> None:
    for stage in ("Production", None, "Production"):
        registry.version(stage=stage)
    registry.alias(2)

    result = registry.imported(db)

    assert stages(result.registered) == {"1": "archived", "2": "production", "3": "archived"}
    assert [(each.model_version, each.what) for each in result.left_out] == [("1", "stage"), ("3", "stage")]
    assert "version 2 is in production: it has the alias 'production'" in result.left_out[0].reason


def test_another_alias_can_be_asked_for_and_none(db: DatabaseManager, client: Any) -> None:
    first, second = Registry(client), Registry(client)
    for each in (first, second):
        each.version()
        each.version(stage="Production")
        each.alias(1, "champion")
    assert stages(first.imported(db, alias="champion").registered) == {"1": "production", "2": "archived"}
    assert stages(second.imported(db, alias=None).registered) == {"1": "staging", "2": "production"}


def test_of_several_in_stage_production_it_is_the_one_that_mlflow_serves(
    db: DatabaseManager, registry: Registry
) -> None:
    for number in range(1, 12):  # 11 is newer than 9, although it sorts before it
        registry.version(stage="Production" if number in (9, 11) else None)
    registry.client.transition_model_version_stage(registry.name, "9", "Production")  # changed last
    result = registry.imported(db)
    assert (stages(result.registered)["9"], stages(result.registered)["11"]) == ("archived", "production")
    assert [(each.model_version, each.what) for each in result.left_out] == [("9", "stage")]
    assert registry.client.get_latest_versions(registry.name, ["Production"])[0].version in ("11", 11)


def test_a_model_whose_aliases_are_others_says_so(db: DatabaseManager, registry: Registry) -> None:
    registry.version()
    registry.alias(1, "champion")
    reason = "no version has the alias 'production', or is in stage Production; the model has the aliases champion"
    assert registry.imported(db).left_out == (LeftOut(registry.name, None, "stage", reason),)
    (promoted,) = registry.imported(db, alias="champion").promoted  # nothing was decided here meanwhile
    assert promoted.model_version == "1"


def test_all_models_are_imported_by_default_and_prompts_are_none(db: DatabaseManager, client: Any) -> None:
    names = [f"main.models.{uuid4().hex}", f"it's {uuid4().hex}", f'a "b" {uuid4().hex}', f"both '\" {uuid4().hex}"]
    for name in names:
        Registry(client, name).version()
    prompt = f"prompt-{uuid4().hex}"
    client.register_prompt(name=prompt, template="Say {{this}}")

    result = import_registry(db, client=client)

    assert set(names) <= {version.model_name for version in result.registered}
    assert prompt not in str(result)


def test_one_name_is_accepted_and_an_unknown_one_is_an_error_before_anything_is_stored(
    db: DatabaseManager, registry: Registry
) -> None:
    registry.version()
    with pytest.raises(AdapterError, match="no registered model 'chrun'; nothing was stored") as failure:
        registry.imported(db, model_names=[registry.name, "chrun"])
    assert not failure.value.retryable
    assert rows(db) == []
    assert len(registry.imported(db, model_names=registry.name).registered) == 1
    assert registry.imported(db, model_names=[]) == ImportResult((), (), (), ())


def test_a_model_without_versions_is_left_out(db: DatabaseManager, registry: Registry) -> None:
    assert registry.imported(db).left_out == (LeftOut(registry.name, None, "version", "it has none"),)


@pytest.mark.parametrize(
    "given",
    [
        {"model_names": 7},
        {"model_names": [7]},
        {"alias": 7},
        {"f1_metric": 7},
        {"brier_metric": b"f1"},
        {"client": "http://mlflow"},
    ],
)
def test_wrong_arguments_are_named(db: DatabaseManager, registry: Registry, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as failure:
        registry.imported(db, **given)
    assert failure.value.key == next(iter(given))


# What cannot be registered


def test_what_has_no_run_or_no_model_is_left_out_and_the_rest_is_not(
    db: DatabaseManager, registry: Registry, mlflow_server: MlflowServer
) -> None:
    registry.version(None)
    failed, pending, fine = (registry.version() for _ in range(3))
    registry.alias(1)
    with sqlite3.connect(mlflow_server.database) as theirs:
        for run_id, status in ((failed, "FAILED_REGISTRATION"), (pending, "PENDING_REGISTRATION")):
            theirs.execute("UPDATE model_versions SET status = ? WHERE run_id = ?", (status, run_id))

    result = registry.imported(db)

    assert [version.mlflow_run_id for version in result.registered] == [fine]
    assert [(each.model_version, each.what) for each in result.left_out] == [(n, "version") for n in "123"]
    assert result.left_out[0].reason.endswith("; it is in production in MLflow")
    assert "FAILED_REGISTRATION" in result.left_out[1].reason
    assert "PENDING_REGISTRATION" in result.left_out[2].reason
    assert db.models.production(registry.name) is None


def test_what_is_too_long_is_left_out(db: DatabaseManager, client: Any) -> None:
    registry = Registry(client, "x" * 250 + uuid4().hex)
    registry.version()
    (left_out,) = registry.imported(db).left_out
    assert "282 characters long; 255 is the most" in left_out.reason


def test_a_run_makes_one_version_the_one_in_production_or_the_first(db: DatabaseManager, client: Any) -> None:
    first, second = Registry(client), Registry(client)
    run_id = first.version()
    first.version(run_id)
    other = second.version()
    second.version(other)
    second.version(other, name=first.name)
    second.alias(2)

    result = import_registry(db, model_names=[first.name, second.name], client=client)

    chosen = {(version.model_name, version.model_version) for version in result.registered}
    assert chosen == {(first.name, "1"), (second.name, "2")}
    assert {(each.model_name, each.model_version) for each in result.left_out} == {
        (first.name, "2"),
        (first.name, "3"),
        (second.name, "1"),
    }
    second.alias(1)  # what is registered stays what it is, whatever would be chosen now
    again = import_registry(db, model_names=[first.name, second.name], client=client)
    assert {(version.model_name, version.model_version) for version in again.present} == chosen
    assert any(each.reason.endswith("; it is in production in MLflow") for each in again.left_out)


def test_runs_that_are_deleted_keep_their_scores_and_those_that_are_purged_have_none(
    db: DatabaseManager, registry: Registry, mlflow_server: MlflowServer
) -> None:
    deleted, purged = registry.version(), registry.version()
    registry.client.delete_run(deleted)
    with sqlite3.connect(mlflow_server.database) as theirs:
        for table in ("metrics", "latest_metrics", "tags", "runs"):
            theirs.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (purged,))

    result = registry.imported(db)

    assert [version.f1_score for version in result.registered] == [0.81, None]
    assert result.left_out == (LeftOut(registry.name, "2", "score", f"MLflow does not have its run {purged} any more"),)


def test_a_score_that_is_none_is_left_out_and_one_that_is_missing_is_no_score(
    db: DatabaseManager, registry: Registry
) -> None:
    registry.version(registry.run(f1_score=math.nan, brier_score=81.0))
    registry.version(registry.run(other=0.5))
    registry.version(registry.run(f1_score=0.0, brier_score=1.0))
    result = registry.imported(db)
    assert [(version.f1_score, version.brier_score) for version in result.registered] == [
        (None, None),
        (None, None),
        (0.0, 1.0),
    ]
    assert [(each.model_version, each.what) for each in result.left_out] == [("1", "score"), ("1", "score")]
    assert result.left_out[0].reason == "metric f1_score: nan is not a finite number"
    assert result.left_out[1].reason == "metric brier_score: 81.0 is not from 0 to 1"


def test_metrics_can_be_named_and_fill_in_what_was_not_found_before(db: DatabaseManager, registry: Registry) -> None:
    registry.version(registry.run(val_f1=0.7, val_brier=0.2))
    assert registry.imported(db, f1_metric=None, brier_metric=None).registered[0].f1_score is None
    (version,) = registry.imported(db, f1_metric="val_f1", brier_metric="val_brier").present
    assert (version.f1_score, version.brier_score) == (0.7, 0.2)
    again = registry.imported(db, f1_metric="val_brier", brier_metric=None)  # what is registered stays
    assert again.present == (version,)
    assert [(each.model_version, each.what) for each in again.left_out] == [("1", "score")]
    assert "registered with f1_score 0.7, not 0.2" in again.left_out[0].reason


def test_a_checkpoint_has_the_score_of_its_model_and_not_the_last_one_of_its_run(
    db: DatabaseManager, registry: Registry
) -> None:
    client = registry.client
    run_id = registry.run()
    models = [client.create_logged_model("0", name=f"checkpoint-{step}", source_run_id=run_id) for step in range(2)]
    for step, (model, value) in enumerate(zip(models, (0.9, 0.6), strict=True)):
        client.log_metric(run_id, "f1_score", value, step=step, model_id=model.model_id)
    client.log_metric(run_id, "brier_score", 0.1)
    client.create_model_version(
        registry.name, f"models:/{models[0].model_id}", run_id=run_id, model_id=models[0].model_id
    )
    (version,) = registry.imported(db).registered
    assert (version.f1_score, version.brier_score) == (0.9, 0.1)


# Again and again


def test_to_import_again_changes_nothing(db: DatabaseManager, registry: Registry) -> None:
    for stage in (None, "Archived", "Production"):
        registry.version(stage=stage)
    first = registry.imported(db)
    before = rows(db)

    again = registry.imported(db)

    assert rows(db) == before
    assert (again.registered, again.promoted, again.present) == ((), (), first.registered)
    assert again.left_out == first.left_out == ()


def test_new_versions_are_added_and_the_registry_is_followed_while_nothing_is_decided_here(
    db: DatabaseManager, registry: Registry
) -> None:
    registry.version()
    registry.alias(1)
    registry.imported(db)
    imported_at = db.decisions.history(registry.name)[0].created_at
    registry.version()
    registry.version()
    registry.alias(2)

    result = registry.imported(db)

    assert stages(result.registered) == {"2": "production", "3": "staging"}
    assert stages(result.present) == {"1": "archived"}
    assert [version.model_version for version in result.promoted] == ["2"]
    promoted_at = result.promoted[0].promoted_at
    assert promoted_at is not None
    assert promoted_at > imported_at  # until then it was another
    assert db.models.rollback(registry.name, yes=True).model_version == "1"
    assert stages(registry.imported(db).present) == {"1": "production", "2": "archived", "3": "staging"}


@pytest.mark.parametrize("decided", ["promoted", "rolled back", "archived", "rejected", "recorded"])
def test_what_was_decided_here_stays(db: DatabaseManager, registry: Registry, decided: str) -> None:
    first, second, third = (registry.version() for _ in range(3))
    registry.alias(1)
    registry.imported(db)
    if decided == "promoted":
        db.models.promote(second)
    elif decided == "rolled back":
        db.models.promote(third)
        db.models.rollback(registry.name, of=third)
    elif decided == "archived":
        db.models.archive(first, even_production=True)
    elif decided == "rejected":
        db.models.reject(third)
    else:
        db.decisions.record("reject", candidate=third, model_name=registry.name)
    before = rows(db)
    registry.alias(3)

    result = registry.imported(db)

    assert rows(db) == before
    assert result.promoted == ()
    (left_out,) = result.left_out
    assert (left_out.model_version, left_out.what) == ("3", "stage")
    assert left_out.reason.startswith("it is in production in MLflow's registry; here ")

    registry.version()
    registry.alias(4)
    result = registry.imported(db)
    assert [version.model_version for version in result.registered] == ["4"]
    assert bool(result.promoted) == (decided in ("rejected", "recorded"))  # that was about version 3 alone


def test_versions_registered_by_hand_stay_and_conflicts_are_left_out(db: DatabaseManager, registry: Registry) -> None:
    same, other, elsewhere = (registry.version() for _ in range(3))
    db.models.register(same, "1", model_name=registry.name)
    db.models.register(other, "2026.3", model_name=registry.name)
    db.models.register(elsewhere, "3")
    registry.alias(1)

    result = registry.imported(db)

    assert (result.registered, stages(result.present)) == ((), {"1": "production"})
    assert [(each.model_version, each.what) for each in result.left_out] == [("2", "version"), ("3", "version")]
    assert "with model_version '2026.3', not '2'" in result.left_out[0].reason
    assert "with model_name 'default', not" in result.left_out[1].reason


# What goes wrong


def test_an_import_that_is_killed_goes_on_as_if_it_had_not_been(
    head: Database, db: DatabaseManager, client: Any
) -> None:
    registries = [Registry(client, f"{letter}-{uuid4().hex}") for letter in "abc"]
    names = [registry.name for registry in registries]
    for registry in registries:
        registry.version()
        registry.version()
        registry.alias(2)

    with busy(db, names[1]):
        _kill_import(head, client, names, "pg_advisory_xact_lock")
    assert {version.model_name for version in db.models.list()} == {names[0]}
    with db.cursor() as cursor:  # in the middle of a model
        cursor.execute("LOCK TABLE retraining_decisions IN SHARE MODE")
        _kill_import(head, client, names, "INSERT INTO public.retraining_decisions")
    assert {version.model_name for version in db.models.list()} == {names[0]}

    result = import_registry(db, model_names=names, client=client)

    assert [version.model_name for version in result.present] == [names[0]] * 2
    assert [version.model_name for version in result.registered] == [names[1]] * 2 + [names[2]] * 2
    for registry in registries:
        assert stages(db.models.list(registry.name)) == {"1": "staging", "2": "production"}
        assert len(db.decisions.history(registry.name)) == 1


def _kill_import(head: Database, client: Any, names: list[str], at: str) -> None:
    def importing() -> None:
        with DatabaseManager(head.settings) as db:
            import_registry(db, model_names=names, client=client)

    child = forked(importing)
    try:
        wait_until(lambda: waiting(head, at) == 1, "the import to wait")
    finally:
        os.kill(child, signal.SIGKILL)
        exit_code(child)


def test_two_imports_at_once_register_each_version_once(head: Database, db: DatabaseManager, client: Any) -> None:
    registries = [Registry(client) for _ in range(2)]
    for registry in registries:
        registry.version()
        registry.version()
        registry.alias(2)
    names = [registry.name for registry in registries]
    with ThreadPoolExecutor(2) as pool:
        with busy(db, names[0]):
            jobs = [pool.submit(import_registry, db, model_names=names, client=client) for _ in range(2)]
            wait_until(lambda: waiting(head, "pg_advisory_xact_lock") == 2, "both imports to wait")
        results = [job.result() for job in jobs]
    for name in names:
        for done in ("registered", "promoted", "present"):
            expected = {"registered": 2, "promoted": 1, "present": 2}[done]
            assert sum(each.model_name == name for result in results for each in getattr(result, done)) == expected
        assert stages(db.models.list(name)) == {"1": "staging", "2": "production"}
        assert len(db.decisions.history(name)) == 1


def test_where_no_registry_answers_nothing_is_stored(db: DatabaseManager) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    with pytest.raises(MlflowUnavailableError, match="nothing was stored") as failure:
        import_registry(db, client=MlflowClient("http://127.0.0.1:1"))
    assert failure.value.retryable
    assert rows(db) == []


def test_a_thousand_versions_take_seconds_and_an_outage_in_the_middle_costs_what_is_not_registered_yet(
    head: Database, db: DatabaseManager, client: Any, mlflow_server: MlflowServer
) -> None:
    one, many = Registry(client, f"a-{uuid4().hex}"), Registry(client, f"b-{uuid4().hex}")
    one.version()
    last = many.version()
    many.alias(1)
    _multiply(mlflow_server.database, last, MANY)
    names = [one.name, many.name]
    with ThreadPoolExecutor() as pool, ExitStack() as outage:
        with busy(db, one.name):
            importing = pool.submit(import_registry, db, model_names=names, client=client)
            wait_until(lambda: waiting(head, "pg_advisory_xact_lock") == 1, "the import to wait")
            outage.enter_context(mlflow_server.outage())
        failed = importing.exception()
    assert isinstance(failed, MlflowUnavailableError)
    assert failed.retryable
    assert failed.message.endswith("; 1 versions are registered")
    assert [version.model_name for version in db.models.list()] == [one.name]

    begun = time.monotonic()
    result = import_registry(db, model_names=names, client=client)
    assert time.monotonic() - begun < 120  # some three seconds, if nothing else runs
    assert (len(result.present), len(result.registered), result.left_out) == (1, MANY, ())
    assert [version.model_version for version in result.registered] == [str(1 + number) for number in range(MANY)]
    assert all(version.f1_score == 0.81 for version in result.registered)


def _multiply(theirs: Path, run_id: str, total: int) -> None:
    """As if the run and its version had been made that many times: MLflow's own rows, with other names."""
    with sqlite3.connect(theirs) as connection:
        connection.row_factory = sqlite3.Row
        for table, key in (("runs", "run_uuid"), ("latest_metrics", "run_uuid"), ("model_versions", "run_id")):
            for row in connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (run_id,)).fetchall():
                copies = [
                    {**dict(row), key: f"{run_id[:-6]}{number:06}"}
                    | ({"version": number, "creation_time": row["creation_time"] + number} if key == "run_id" else {})
                    for number in range(2, total + 1)
                ]
                marks = ", ".join(f":{column}" for column in copies[0])
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)


def test_a_role_of_the_jobs_can_import(head: Database, registry: Registry) -> None:
    registry.version()
    registry.alias(1)
    with roles.role(head, "jobs") as settings, DatabaseManager(settings) as db:
        grant(head.settings, WRITER, "jobs")
        assert len(registry.imported(db).promoted) == 1


# What is seen of it


def test_it_is_quiet_unless_it_is_asked(
    db: DatabaseManager, registry: Registry, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.version()
    capfd.readouterr()
    registry.imported(db)
    assert capfd.readouterr() == ("", "")

    log = io.StringIO()
    registry.imported(db, progress=log)
    label = re.escape(f"Importing the registry of MLflow at {registry.client.tracking_uri}")
    assert re.fullmatch(rf"{label} \.\.\. [\d.]+ s\n", log.getvalue())

    monkeypatch.setattr(progress, "LOG_EVERY_S", 0)
    log = io.StringIO()
    registry.imported(db, progress=log)
    lines = rf"{label} \.\.\. \n{label}: models read, 0 %\n{label}: versions, 0 %\n{label} \.\.\. [\d.]+ s\n"
    assert re.fullmatch(lines, log.getvalue()), log.getvalue()


def test_the_example_of_the_page_moves_in(
    head: Database, registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.version(registry.run(val_f1=0.7, val_brier=math.nan))
    for name, value in (head.environment | {"MLFLOW_TRACKING_URI": registry.client.tracking_uri}).items():
        monkeypatch.setenv(name, value)
    page: dict[str, Any] = {}
    exec(example("docs/storing.md", "mlflow"), page)  # noqa: S102  (that is what is tested)
    page["move_in"]()
    page["get_db_manager"]().close()
    assert f"{registry.name} 1 score metric val_brier: nan is not a finite number" in capsys.readouterr().out
