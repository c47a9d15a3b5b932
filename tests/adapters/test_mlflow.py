"""uv run --isolated --extra mlflow pytest -n 0 -m adapters tests/adapters/test_mlflow.py."""

import socket
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_db.adapters.mlflow import promote_run, register_run, tag_run
from mlops_db.errors import AdapterError, InvalidValueError, MlflowUnavailableError, RunNotFoundError
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database
from support.examples import example
from support.refusing_proxy import refusing_proxy

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what MLflow warns about is not ours
METRICS = {"f1_score": 0.81, "brier_score": 0.12, "val_f1": 0.79}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415  (takes seconds)

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model("churn")
    client.create_registered_model("other")
    return client


@pytest.fixture
def nowhere(head: Database) -> Iterator[DatabaseManager]:
    """A database that must not be asked: it is not there."""
    with DatabaseManager(replace(head.settings, port=1)) as manager:
        yield manager


def client_of(uri: str, **given: str) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415  (takes seconds)

    return MlflowClient(uri, **given)


def requests_of_mlflow() -> Any:
    import requests  # noqa: PLC0415  (MLflow brings it along)

    return requests


def failure_of(call: Callable[[], object]) -> AdapterError:
    """The error of a call: short, and without a password."""
    with pytest.raises(AdapterError) as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return caught.value


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


def test_promotion_and_rollback_tag_both_runs(db: DatabaseManager, client: Any) -> None:
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
    runs = [run(client, {"val_f1": 0.8, "val_brier": 0.1}) for _ in range(2)]
    for run_id in runs:
        client.create_model_version("churn", "s3://models/churn", run_id=run_id)
    page: dict[str, Any] = {}
    exec(example("docs/storing.md", "mlflow"), page)  # noqa: S102  (that is what is tested)
    page["after_training"](runs[0], None, {"metric_improvement": True})
    page["after_training"](runs[1], runs[0], {"metric_improvement": True})
    page["roll_back"](runs[1])
    page["get_db_manager"]().close()
    assert [status(client, run_id) for run_id in runs] == ["production", "archived"]
    assert client.get_model_version_by_alias("churn", "production").run_id == runs[0]


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


REFUSED = """{"error_code": "%s", "message": "for somebody's reasons"}"""


@pytest.mark.parametrize(
    ("status", "content", "error", "hint"),
    [
        (400, REFUSED % "INVALID_PARAMETER_VALUE", RunNotFoundError, "to the server that the run was logged to"),
        (404, REFUSED % "RESOURCE_DOES_NOT_EXIST", RunNotFoundError, "to the server that the run was logged to"),
        (400, REFUSED % "INVALID_STATE", AdapterError, "fix what it names"),
        (401, "<html>Who are you?</html>", AdapterError, "MLFLOW_TRACKING_PASSWORD"),
        (401, REFUSED % "CUSTOMER_UNAUTHORIZED", AdapterError, "MLFLOW_TRACKING_PASSWORD"),
        (403, REFUSED % "PERMISSION_DENIED", AdapterError, "administrator"),
        (403, "<html>", AdapterError, "administrator"),
        (404, "<html>", AdapterError, "of an MLflow server"),
        (404, '{"detail": "Not Found"}', AdapterError, "of an MLflow server"),
        (200, "<html>Sign in</html>", AdapterError, "of an MLflow server"),
        (200, "", AdapterError, "of an MLflow server"),
        (200, '{"of": "another service"}', AdapterError, "of an MLflow server"),
        (200, '{"run": 3}', AdapterError, "of an MLflow server"),
        (302, "moved", AdapterError, "of an MLflow server"),
        (501, "not yet", AdapterError, "fix what it names"),
        (429, REFUSED % "REQUEST_LIMIT_EXCEEDED", MlflowUnavailableError, "safe to repeat"),
        (429, "slower", MlflowUnavailableError, "safe to repeat"),
        (400, REFUSED % "RESOURCE_EXHAUSTED", MlflowUnavailableError, "safe to repeat"),
        (400, REFUSED % "TEMPORARILY_UNAVAILABLE", MlflowUnavailableError, "safe to repeat"),
        (500, REFUSED % "INTERNAL_ERROR", MlflowUnavailableError, "safe to repeat"),
        (502, "<html>Bad gateway</html>", MlflowUnavailableError, "safe to repeat"),
        (503, "<html>", MlflowUnavailableError, "safe to repeat"),
        (504, "<html>", MlflowUnavailableError, "safe to repeat"),
        (522, "the gateway's own", MlflowUnavailableError, "safe to repeat"),
    ],
)
def test_the_error_names_an_answer_that_is_not_mlflow_s(
    nowhere: DatabaseManager, status: int, content: str, error: type[AdapterError], hint: str
) -> None:
    with refusing_proxy("", "", status, content) as uri:
        client = client_of(uri.replace("http://", "http://somebody:secret@"))
        failure = failure_of(lambda: register_run(nowhere, "a" * 32, model_version="1", client=client))
    assert (type(failure), failure.retryable) == (error, error is MlflowUnavailableError)
    assert hint in failure.hint
    assert f"MLflow at {uri} " in str(failure) or f"at {uri} is not MLflow" in str(failure)
    assert str(failure).endswith("; nothing was stored")


def test_the_callers_own_failure_is_not_taken_for_that_of_mlflow(nowhere: DatabaseManager) -> None:
    with refusing_proxy("", "", 200, "<html>Sign in</html>") as uri:
        try:
            requests_of_mlflow().get("http://127.0.0.1:1", timeout=1)
        except OSError:
            failure = failure_of(lambda: register_run(nowhere, "a" * 32, model_version="1", client=client_of(uri)))
    assert type(failure) is AdapterError


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("http://somebody:secret@127.0.0.1:1", MlflowUnavailableError, "[Errno 111] Connection refused; nothing"),
        ("http://somebody:secret@no.such.host.invalid", MlflowUnavailableError, "resolve"),
        ("http://somebody:secret@127.0.0.1:99999", AdapterError, "Invalid url"),
        ("https://somebody:secret@{plain}", AdapterError, "SSL"),
        ("http://somebody:secret@{silent}", MlflowUnavailableError, "timed out"),
    ],
)
def test_the_error_of_a_wrong_address_has_no_password(
    nowhere: DatabaseManager, monkeypatch: pytest.MonkeyPatch, uri: str, error: type[AdapterError], message: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1" if "{silent}" in uri else "10")
    with refusing_proxy("", "", 200, "{}") as plain, socket.create_server(("127.0.0.1", 0)) as silent:
        there = uri.format(plain=plain.removeprefix("http://"), silent=f"127.0.0.1:{silent.getsockname()[1]}")
        failure = failure_of(lambda: register_run(nowhere, "a" * 32, model_version="1", client=client_of(there)))
    assert (type(failure), failure.retryable) == (error, error is MlflowUnavailableError)
    assert message in str(failure)
    assert ("safe to repeat" in failure.hint) == failure.retryable


@pytest.mark.parametrize(
    ("proxy", "error"),
    [
        ("http://somebody:secret@127.0.0.1:1", MlflowUnavailableError),
        ("http://some.invalid/body:secret@127.0.0.1:1", MlflowUnavailableError),
        ("somebody:secret@127.0.0.1:port", AdapterError),
        ("nonsense://somebody:secret@127.0.0.1:1", AdapterError),
    ],
)
def test_the_error_of_a_proxy_has_no_password(
    nowhere: DatabaseManager, monkeypatch: pytest.MonkeyPatch, proxy: str, error: type[AdapterError]
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    client = client_of("http://mlflow.invalid")
    failure = failure_of(lambda: register_run(nowhere, "a" * 32, model_version="1", client=client))
    assert (type(failure), failure.retryable) == (error, error is MlflowUnavailableError)
    assert failure.retryable or "HTTP_PROXY" in failure.hint


def test_the_error_has_no_token_that_cannot_be_sent(nowhere: DatabaseManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret\n")  # as a file has it
    client = client_of("http://127.0.0.1:1")
    failure = failure_of(lambda: register_run(nowhere, "a" * 32, model_version="1", client=client))
    assert (type(failure), failure.retryable) == (AdapterError, False)
    assert "in header value; nothing was stored" in str(failure)
    assert "MLFLOW_TRACKING_TOKEN" in failure.hint


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nonsense://some/body:sec/secret@there", "unsupported URI"),  # SQLAlchemy takes such a password
        ("nonsense://somebody:secret@there", "unsupported URI"),
        ("file:///tmp/mlruns", "maintenance mode"),
    ],
)
def test_a_client_that_cannot_be_created_is_an_error(
    nowhere: DatabaseManager, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for call in (register_run, promote_run, tag_run):
        failure = failure_of(lambda call=call: call(nowhere, "a" * 32))
        assert message in str(failure)
        assert (type(failure), failure.retryable) == (AdapterError, False)
        with pytest.raises(InvalidValueError, match="client"):
            call(nowhere, "a" * 32, client=uri)


def test_the_file_store_does_as_well(db: DatabaseManager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # as long as MLflow has it
    folder = tmp_path / "mlruns"
    client = client_of(str(folder), registry_uri=str(folder))
    client.create_registered_model("churn")
    runs = [run(client), run(client)]
    for run_id in runs:
        version = client.create_model_version("churn", "s3://models/churn", run_id=run_id).version
        assert isinstance(version, int)
        assert register_run(db, run_id, model_name="churn", model_version=version, client=client).status == "staging"
        promote_run(db, run_id, client=client)
    assert [status(client, run_id) for run_id in runs] == ["archived", "production"]
    assert client.get_model_version_by_alias("churn", "production").run_id == runs[1]

    (folder / "0" / runs[0] / "meta.yaml").write_bytes(b"no: [run")
    failure = failure_of(lambda: tag_run(db, runs[0], client=client))
    assert not failure.retryable


@pytest.mark.parametrize("run_id", [None, 3, "a\0"])
def test_what_is_no_runs_id_is_refused(nowhere: DatabaseManager, client: Any, run_id: Any) -> None:
    for call in (register_run, promote_run, tag_run):
        with pytest.raises(InvalidValueError, match="run_id"):
            call(nowhere, run_id, client=client)


def test_by_default_the_environment_says_where_mlflow_is(
    db: DatabaseManager, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = run(client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
    assert register_run(db, run_id, model_version="1").mlflow_run_id == run_id

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(RunNotFoundError, match=r"sqlite:///.*mlflow\.db has no active run") as failure:
        register_run(db, run_id, model_version="1")
    assert "Without it, MLflow makes a store of its own in the working directory" in failure.value.hint
