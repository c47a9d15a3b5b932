"""uv run --isolated --extra mlflow pytest -n 0 -m adapters tests/adapters/test_mlflow.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_db.adapters.mlflow import promote_run, register_run, tag_run
from mlops_db.errors import AdapterError, InvalidValueError, RunNotFoundError
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database
from support.examples import example

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what MLflow warns about is not ours
METRICS = {"f1_score": 0.81, "brier_score": 0.12, "val_f1": 0.79}


@pytest.fixture
def db(head: Database) -> Iterator[DatabaseManager]:
    with DatabaseManager(head.settings) as manager:
        yield manager


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415  (takes seconds)

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("churn")
    client.create_registered_model("other")
    return client


def run(client: Any, metrics: dict[str, float] | None = None) -> str:
    run_id: str = client.create_run("0").info.run_id
    for name, value in (METRICS if metrics is None else metrics).items():
        client.log_metric(run_id, name, value)
    return run_id


def status(client: Any, run_id: str) -> str | None:
    found: str | None = client.get_run(run_id).data.tags.get("mlops_db.status")
    return found


def test_a_run_is_registered_with_the_registrys_version_and_its_scores_once(db: DatabaseManager, client: Any) -> None:
    run_id = run(client)
    version = client.create_model_version("churn", "s3://models/churn", run_id=run_id).version

    first = register_run(db, run_id, model_name="churn", client=client)
    again = register_run(db, run_id, model_name="churn", client=client)

    assert first == again == db.models.get(run_id)
    assert (first.model_version, first.f1_score, first.brier_score) == (str(version), 0.81, 0.12)
    tags = client.get_run(run_id).data.tags
    assert {tag: value for tag, value in tags.items() if tag.startswith("mlops_db.")} == {
        "mlops_db.model_name": "churn",
        "mlops_db.version_id": str(first.id),
        "mlops_db.status": "staging",
    }


def test_the_metrics_and_the_version_can_be_named(db: DatabaseManager, client: Any) -> None:
    version = register_run(
        db, run(client), model_version="2026.3", f1_metric="val_f1", brier_metric=None, client=client
    )
    assert (version.model_name, version.model_version, version.f1_score, version.brier_score) == (
        "default",
        "2026.3",
        0.79,
        None,
    )


def test_promotion_and_rollback_are_told_to_both_runs(db: DatabaseManager, client: Any) -> None:
    old, new = run(client), run(client)
    for version, run_id in enumerate((old, new)):
        register_run(db, run_id, model_version=str(version), client=client)
    gates = {"sufficient_samples": {"passed": True, "num_samples": 900, "min_required": 200}}
    promote_run(db, old, client=client)

    promoted = promote_run(db, new, gates=gates, reasoning="better", client=client)

    assert promoted == db.models.production()
    assert (status(client, old), status(client, new)) == ("archived", "production")
    (decision, *_) = db.decisions.history()
    assert (decision.candidate, decision.gates, decision.reasoning) == (new, gates, "better")

    db.models.rollback(of=new)
    for run_id in (old, new):
        tag_run(db, run_id, client=client)
    assert (status(client, old), status(client, new)) == ("production", "archived")


def test_the_example_of_the_page_registers_promotes_and_tags(
    head: Database, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (head.environment | {"MLFLOW_TRACKING_URI": client.tracking_uri}).items():
        monkeypatch.setenv(name, value)
    run_id = run(client, {"val_f1": 0.8, "val_brier": 0.1})
    client.create_model_version("churn", "s3://models/churn", run_id=run_id)
    page: dict[str, Any] = {}
    exec(example("docs/storing.md", "mlflow"), page)  # noqa: S102  (that is what is tested)
    page["after_training"](run_id, None, {"metric_improvement": True})
    page["after_rollback"](run_id)
    page["get_db_manager"]().close()
    assert status(client, run_id) == "production"


def test_a_version_whose_run_was_deleted_can_still_be_replaced(db: DatabaseManager, client: Any) -> None:
    old, new = run(client), run(client)
    for run_id in (old, new):
        register_run(db, run_id, model_version="1", client=client)
    promote_run(db, old, client=client)
    client.delete_run(old)

    promote_run(db, new, client=client)
    assert status(client, new) == "production"


@pytest.mark.parametrize("run_id", ["0" * 32, "no such run", "it's", ""])
def test_a_run_that_is_not_there_is_not_registered(db: DatabaseManager, client: Any, run_id: str) -> None:
    with pytest.raises(RunNotFoundError, match="has no active run"):
        register_run(db, run_id, model_version="1", client=client)
    assert db.models.list() == []


def test_a_deleted_run_is_not_registered(db: DatabaseManager, client: Any) -> None:
    run_id = run(client)
    client.delete_run(run_id)
    with pytest.raises(RunNotFoundError):
        register_run(db, run_id, model_version="1", client=client)


def test_what_a_run_lacks_is_named(db: DatabaseManager, client: Any) -> None:
    run_id = run(client, {"accuracy": 0.9, "val_f1": 0.8})
    with pytest.raises(AdapterError, match="no metric 'f1_score', but accuracy, val_f1") as refused:
        register_run(db, run_id, model_version="1", client=client)
    assert "f1_metric=" in refused.value.hint
    with pytest.raises(AdapterError, match="no version for the run"):
        register_run(db, run_id, client=client)
    for name in ("left", "right"):
        client.create_registered_model(name)
    client.create_model_version("left", "s3://models/left", run_id=run_id)
    client.create_model_version("right", "s3://models/right", run_id=run_id)
    with pytest.raises(AdapterError, match="version 1 of left, version 1 of right for the run"):
        register_run(db, run_id, model_name="fraud", client=client)
    client.create_model_version("left", "s3://models/again", run_id=run_id)
    with pytest.raises(AdapterError, match="version 1 of left, version 2 of left, version 1 of right for the run"):
        register_run(db, run_id, model_name="left", client=client)
    with pytest.raises(InvalidValueError, match="model_version"):
        register_run(db, run_id, model_name="left", model_version="", f1_metric=None, brier_metric=None, client=client)
    with pytest.raises(AdapterError, match="no version is registered"):
        tag_run(db, run_id, client=client)
    assert db.models.list() == []


def test_a_score_that_is_none_is_refused_before_the_run_is_tagged(db: DatabaseManager, client: Any) -> None:
    run_id = run(client, {"f1_score": float("nan"), "brier_score": 0.1})
    with pytest.raises(InvalidValueError, match="f1_score"):
        register_run(db, run_id, model_version="1", client=client)
    assert status(client, run_id) is None


def test_a_server_that_does_not_answer_is_told_without_its_password(
    db: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    client = MlflowClient(tracking_uri="http://somebody:secret@127.0.0.1:1")
    with pytest.raises(AdapterError, match=r"MLflow at http://127\.0\.0\.1:1 failed: .*nothing was stored") as failure:
        register_run(db, "a" * 32, model_version="1", client=client)
    assert "secret" not in str(failure.value)


def test_by_default_the_environment_says_where_mlflow_is(
    db: DatabaseManager, client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = run(client)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    assert register_run(db, run_id, model_version="1").mlflow_run_id == run_id
