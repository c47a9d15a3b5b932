"""MLflow's server, a process that the tests start and kill: whatever happens to it, both sides agree afterwards.

uv run --isolated --extra mlflow --with mlflow pytest -n 0 -m adapters tests/adapters/test_mlflow_server.py
"""

import itertools
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier, Condition
from types import SimpleNamespace
from typing import Any

import pytest

from mlops_db.adapters.mlflow import promote_run, register_run, tag_run
from mlops_db.errors import AdapterError, InvalidValueError, MlflowUnavailableError, RunNotFoundError, TransitionError
from mlops_db.storage.db_manager import DatabaseManager
from support.database import LONG_TIMEOUT_S, Database
from support.mlflow_server import MlflowServer
from support.refusing_proxy import refusing_proxy

pytestmark = [pytest.mark.adapters, pytest.mark.filterwarnings("ignore")]  # what MLflow warns about is not ours
UNSCORED = {"f1_metric": None, "brier_metric": None}
NUMBERS = itertools.count()


@pytest.fixture
def client(mlflow_server: MlflowServer) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415  (takes seconds)

    return MlflowClient(mlflow_server.uri)


@pytest.fixture
def name(client: Any) -> str:
    """A model of the test's own, which MLflow's registry has, too."""
    name = f"churn-{next(NUMBERS)}"
    client.create_registered_model(name)
    return name


def run(client: Any, name: str) -> tuple[str, int]:
    """A run, and the version of the registered model that it made."""
    run_id: str = client.create_run("0").info.run_id
    return run_id, client.create_model_version(name, "s3://models/churn", run_id=run_id).version


def registered(db: DatabaseManager, client: Any, name: str, count: int) -> list[str]:
    """Runs whose versions only the database knows so far."""
    runs = []
    for _ in range(count):
        run_id, version = run(client, name)
        db.models.register(run_id, version, model_name=name)
        runs.append(run_id)
    return runs


def aliases(client: Any, name: str) -> dict[str, str]:
    """The run of the version that each alias of a registered model points at."""
    found = client.get_registered_model(name).aliases
    return {alias: client.get_model_version(name, version).run_id for alias, version in found.items()}


def require_agreement(db: DatabaseManager, client: Any, name: str) -> None:
    """Every run carries what the database says, and the alias points at what is in production."""
    versions = db.models.list(name, limit=None)
    for version in versions:
        assert (
            client.get_run(version.mlflow_run_id).data.tags
            | {
                "mlops_db.model_name": name,
                "mlops_db.version_id": str(version.id),
                "mlops_db.status": version.status,
            }
            == client.get_run(version.mlflow_run_id).data.tags
        )
    production = db.models.production(name)
    assert aliases(client, name) == ({"production": production.mlflow_run_id} if production else {})


# Mending


def test_a_call_corrects_what_was_decided_without_mlflow(db: DatabaseManager, client: Any, name: str) -> None:
    first, second, third, fourth = registered(db, client, name, 4)
    assert register_run(db, fourth, model_name=name, **UNSCORED, client=client).status == "staging"
    require_agreement(db, client, name)

    promote_run(db, first, client=client)
    require_agreement(db, client, name)

    db.models.promote(second)
    db.models.reject(third)
    tag_run(db, fourth, client=client)
    require_agreement(db, client, name)

    db.models.rollback(name, of=second)
    tag_run(db, second, client=client)
    require_agreement(db, client, name)
    assert aliases(client, name) == {"production": first}

    client.set_tag(second, "mlops_db.status", "production")
    client.delete_tag(first, "mlops_db.model_name")
    client.set_registered_model_alias(name, "production", client.get_model_version_by_alias(name, "production").version)
    tag_run(db, fourth, client=client)
    require_agreement(db, client, name)

    db.models.archive(first, even_production=True)
    tag_run(db, second, client=client)
    require_agreement(db, client, name)
    assert aliases(client, name) == {}


def test_deleted_runs_are_skipped_and_the_run_of_the_call_is_an_error(
    db: DatabaseManager, client: Any, name: str
) -> None:
    gone, kept, candidate = registered(db, client, name, 3)
    db.models.register("it's no run of MLflow's", 1, model_name=name)
    db.models.register(uuid.uuid4().hex, 1, model_name=name)
    promote_run(db, gone, client=client)
    client.delete_run(gone)
    promote_run(db, kept, client=client)
    with pytest.raises(RunNotFoundError, match="nothing was stored"):
        register_run(db, gone, model_name=name, **UNSCORED, client=client)

    db.models.promote(candidate)
    with pytest.raises(RunNotFoundError, match="the database is up to date") as caught:
        tag_run(db, gone, client=client)
    assert not caught.value.retryable
    status = {run_id: client.get_run(run_id).data.tags["mlops_db.status"] for run_id in (kept, candidate)}
    assert status == {kept: "archived", candidate: "production"}
    with pytest.raises(RunNotFoundError, match="the database is up to date"):
        promote_run(db, gone, client=client)
    assert aliases(client, name) == {"production": gone}
    assert client.get_run(candidate).data.tags["mlops_db.status"] == "archived"

    client.restore_run(gone)
    tag_run(db, kept, client=client)
    assert client.get_run(gone).data.tags["mlops_db.status"] == "production"


def test_runs_of_other_experiments_are_found(db: DatabaseManager, client: Any, name: str) -> None:
    first, second = registered(db, client, name, 2)
    elsewhere = client.create_run(client.create_experiment(f"of {name}")).info.run_id
    db.models.register(elsewhere, "x", model_name=name)
    db.models.promote(elsewhere)
    promote_run(db, first, client=client)
    tags = client.get_run(elsewhere).data.tags
    assert tags["mlops_db.status"] == "archived"
    tag_run(db, second, client=client)
    require_agreement(db, client, name)


class Watched:
    """Passes calls on to a client, or to `db.models`, and does something before each."""

    def __init__(self, target: Any, before: Callable[[str], object]) -> None:
        self.target = target
        self.before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.target, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            self.before(name)
            return getattr(self.target, name)(*given, **named)

        return call


def test_a_thousand_versions_are_few_calls(head: Database, db: DatabaseManager, client: Any, name: str) -> None:
    runs = registered(db, client, name, 3)
    head.query(
        "INSERT INTO model_versions (mlflow_run_id, model_version, model_name) "
        f"SELECT md5(n::text), n, '{name}' FROM generate_series(100, 1100) AS n RETURNING id"
    )
    calls: list[str] = []
    counting: Any = Watched(client, calls.append)
    promote_run(db, runs[0], client=counting)
    assert calls.count("log_batch") == 3
    calls.clear()
    tag_run(db, runs[1], client=counting)
    assert sorted(calls) == [
        "get_registered_model",
        "search_experiments",
        *["search_model_versions"] * 3,
        *["search_runs"] * 3,
    ]


# Outages


def test_an_outage_in_the_middle_is_made_up_for_by_the_same_call(
    db: DatabaseManager, client: Any, name: str, mlflow_server: MlflowServer
) -> None:
    first, second = registered(db, client, name, 2)
    promote_run(db, first, client=client)
    promote = partial(promote_run, db, second, instead_of=first, reasoning="better")
    writes: list[str] = []

    def before(call: str) -> None:
        writes.extend([call] * (call == "log_batch"))
        if len(writes) == 2:
            mlflow_server.kill()

    killing: Any = Watched(client, before)
    try:
        with pytest.raises(MlflowUnavailableError, match="Connection refused; the database is up to date") as caught:
            promote(client=killing)
        assert caught.value.retryable
        with pytest.raises(MlflowUnavailableError, match="nothing was stored"):
            register_run(db, uuid.uuid4().hex, model_name=name, model_version=9, client=client)
    finally:
        mlflow_server.restart()
    with pytest.raises(AssertionError):
        require_agreement(db, client, name)
    assert db.models.production(name) == promote(client=client)
    require_agreement(db, client, name)
    assert len(db.decisions.history(name, action="promote")) == 2


def answering(client: Any, requests: int) -> Any:
    """A client whose server goes away after some requests."""
    from mlflow import MlflowClient  # noqa: PLC0415

    left = iter(range(requests))

    def before(_: str) -> None:
        if next(left, None) is None:
            going.target = MlflowClient("http://127.0.0.1:1")

    going = Watched(client, before)
    return going


def test_an_outage_before_any_of_the_requests_is_made_up_for_by_any_call(
    db: DatabaseManager, client: Any, name: str
) -> None:
    runs = registered(db, client, name, 3)
    promote_run(db, runs[0], client=client)
    for answered in range(7):  # two searches, two runs, a search, the alias, and again the alias
        promoted = runs[(answered + 1) % 2]
        with pytest.raises(MlflowUnavailableError, match="the database is up to date"):
            promote_run(db, promoted, client=answering(client, answered))
        assert db.models.production(name) == db.models.get(promoted)
        tag_run(db, runs[answered % 3], client=client)
        require_agreement(db, client, name)
    promote_run(db, runs[1], client=answering(client, 7))
    require_agreement(db, client, name)


# Several at once


def test_a_call_that_is_overtaken_before_any_of_its_requests_does_not_bring_back_what_was(
    db: DatabaseManager, client: Any, name: str
) -> None:
    runs = registered(db, client, name, 2)
    promote_run(db, runs[0], client=client)
    for overtaken in range(4):  # which are all: it has nothing to write
        requests = itertools.count()

        def before(_: str, overtaken: int = overtaken, requests: Iterator[int] = requests) -> None:
            if next(requests) == overtaken:
                promote_run(db, runs[(overtaken + 1) % 2], client=client)

        overtaking: Any = Watched(client, before)
        tag_run(db, runs[0], client=overtaking)
        require_agreement(db, client, name)
        assert db.models.production(name) == db.models.get(runs[(overtaken + 1) % 2])


class Turns:
    """Lets one of several threads go on at a time, from one of its calls to the next, in an order made of a seed."""

    def __init__(self, seed: int, threads: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  (no secret)
        self.running = set(range(threads))
        self.waiting: set[int] = set()
        self.last = self.turn = -1
        self.changed = Condition()

    def wait(self, thread: int) -> None:
        with self.changed:
            self.waiting.add(thread)
            self._give()
            assert self.changed.wait_for(lambda: self.turn == thread, LONG_TIMEOUT_S)
            self.turn = -1
            self.waiting.remove(thread)

    def end(self, thread: int) -> None:
        with self.changed:
            self.running.remove(thread)
            self._give()

    def _give(self) -> None:
        if self.running and self.waiting == self.running:
            if self.last not in self.waiting or self.random.random() < 0.25:  # so that some are left far behind
                self.last = self.random.choice(sorted(self.waiting))
            self.turn = self.last
            self.changed.notify_all()


@pytest.mark.parametrize("seed", range(12))
def test_the_latest_of_concurrent_decisions_holds_in_mlflow(
    db: DatabaseManager, client: Any, name: str, seed: int
) -> None:
    first, second, third = registered(db, client, name, 3)
    promote_run(db, first, client=client)
    turns = Turns(seed, 3)

    def rolled_back(db: Any, **given: Any) -> None:
        db.models.rollback(name, yes=True)
        tag_run(db, first, **given)

    def decide(thread: int) -> None:
        client_in_turns: Any = Watched(client, lambda _: turns.wait(thread))
        db_in_turns: Any = SimpleNamespace(models=Watched(db.models, lambda _: turns.wait(thread)))
        decision = (
            partial(promote_run, run_id=second, even_rolled_back=True),
            partial(promote_run, run_id=third, even_rolled_back=True),
            rolled_back,
        )[thread]
        try:
            decision(db_in_turns, client=client_in_turns)
        except TransitionError:  # the rollback came first: nothing was in production before
            assert thread == 2
        finally:
            turns.end(thread)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(decide, range(3)))
    require_agreement(db, client, name)


def test_threads_that_promote_at_once_leave_one_in_production(db: DatabaseManager, client: Any, name: str) -> None:
    runs = registered(db, client, name, 5)
    for _ in range(3):
        with ThreadPoolExecutor(len(runs)) as threads:
            together = Barrier(len(runs))

            def promote(run_id: str, together: Barrier = together) -> None:
                together.wait(LONG_TIMEOUT_S)
                promote_run(db, run_id, even_rolled_back=True, client=client)

            list(threads.map(promote, random.sample(runs, len(runs))))
        require_agreement(db, client, name)


PROMOTING = """
import sys
from mlops_db import get_db_manager
from mlops_db.adapters.mlflow import promote_run
for run_id in sys.argv[1:]:
    promote_run(get_db_manager(), run_id)
"""


def test_processes_that_promote_at_once_leave_one_in_production(
    head: Database, db: DatabaseManager, client: Any, name: str
) -> None:
    runs = registered(db, client, name, 6)
    environment = head.environment | {"MLFLOW_TRACKING_URI": client.tracking_uri}
    jobs = [
        subprocess.Popen([sys.executable, "-c", PROMOTING, *part], env=environment) for part in (runs[::2], runs[1::2])
    ]
    assert [job.wait(LONG_TIMEOUT_S) for job in jobs] == [0, 0]
    require_agreement(db, client, name)
    assert len(db.decisions.history(name, action="promote")) == len(runs)


def test_registrations_at_once_all_end(db: DatabaseManager, client: Any, name: str) -> None:
    runs = [run(client, name)[0] for _ in range(12)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda run_id: register_run(db, run_id, model_name=name, **UNSCORED, client=client), runs))
    require_agreement(db, client, name)


# The alias


def test_the_alias_is_of_the_version_with_the_same_number_under_the_models_name_or_the_only_one(
    db: DatabaseManager, client: Any, name: str
) -> None:
    elsewhere = f"{name}-elsewhere"
    client.create_registered_model(elsewhere)
    run_id, version = run(client, elsewhere)
    register_run(db, run_id, model_name=name, model_version=version, **UNSCORED, client=client)
    promote_run(db, run_id, client=client)
    assert (aliases(client, name), aliases(client, elsewhere)) == ({}, {"production": run_id})

    both = run(client, name)[0]
    client.create_model_version(elsewhere, "s3://models/churn", run_id=both)
    client.create_model_version(name, "s3://models/churn", run_id=both)
    register_run(db, both, model_name=name, model_version=2, **UNSCORED, client=client)
    promote_run(db, both, client=client)
    assert (aliases(client, name), aliases(client, elsewhere)) == ({"production": both}, {})
    assert client.get_registered_model(name).aliases == {"production": "2"}

    unlike = run(client, name)[0]
    register_run(db, unlike, model_name=name, model_version="2026.3", **UNSCORED, client=client)
    promote_run(db, unlike, client=client)
    assert aliases(client, name) == {}


def test_a_registered_model_that_is_a_model_here_has_its_own_alias(db: DatabaseManager, client: Any, name: str) -> None:
    before = run(client, name)[0]  # registered by a job that named no model
    register_run(db, before, **UNSCORED, client=client)
    promote_run(db, before, client=client)
    assert aliases(client, name) == {"production": before}

    (own,) = registered(db, client, name, 1)
    promote_run(db, own, client=client)
    tag_run(db, before, client=client)
    require_agreement(db, client, name)


def test_the_alias_can_be_another_or_none(db: DatabaseManager, client: Any, name: str) -> None:
    first, second = registered(db, client, name, 2)
    promote_run(db, first, alias="champion", client=client)
    promote_run(db, second, alias=None, client=client)
    assert aliases(client, name) == {"champion": first}
    tag_run(db, first, alias="champion", client=client)
    assert aliases(client, name) == {"champion": second}
    for alias in ("", 3, "\0"):
        refused: Any = alias
        with pytest.raises(InvalidValueError, match="alias"):
            promote_run(db, first, alias=refused, client=client)
    assert db.models.production(name) == db.models.get(second)


def test_versions_that_nobody_archived_keep_the_alias(db: DatabaseManager, client: Any, name: str) -> None:
    foreign, number = run(client, name)
    client.set_registered_model_alias(name, "production", number)
    (own,) = registered(db, client, name, 1)
    tag_run(db, own, client=client)
    assert aliases(client, name) == {"production": foreign}

    register_run(db, foreign, model_name=name, **UNSCORED, client=client)  # which was in production before this package
    assert aliases(client, name) == {"production": foreign}

    promote_run(db, own, client=client)
    assert aliases(client, name) == {"production": own}


def test_the_registry_may_be_on_another_server(
    db: DatabaseManager, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    client = MlflowClient(mlflow_server.uri, registry_uri=f"sqlite:///{tmp_path / 'registry.db'}")
    client.create_registered_model("churn")
    runs = []
    for _ in range(2):
        run_id = client.create_run("0").info.run_id
        client.create_model_version("churn", "s3://models/churn", run_id=run_id)
        register_run(db, run_id, model_name="churn", **UNSCORED, client=client)
        promote_run(db, run_id, client=client)
        runs.append(run_id)
    assert aliases(client, "churn") == {"production": runs[1]}
    require_agreement(db, client, "churn")


# Refusals


def refusal(code: str) -> str:
    return json.dumps({"error_code": code, "message": "refused"})


def test_a_refused_alias_leaves_database_and_tags_right(db: DatabaseManager, client: Any, name: str) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    first, second = registered(db, client, name, 2)
    with refusing_proxy(client.tracking_uri, "/registered-models/alias", 403, refusal("PERMISSION_DENIED")) as uri:
        proxied = MlflowClient(uri)
        with pytest.raises(AdapterError, match=r"PERMISSION_DENIED.*the database is up to date, the alias") as caught:
            promote_run(db, first, client=proxied)
        assert not isinstance(caught.value, RunNotFoundError)
        assert not caught.value.retryable
        assert "alias=None" in caught.value.hint
        assert db.models.production(name) == promote_run(db, first, alias=None, client=proxied)
    with pytest.raises(AdapterError, match=r"'latest' alias name .* is reserved.*the database is up to date"):
        promote_run(db, second, alias="latest", client=client)
    for run_id, status in ((first, "archived"), (second, "production")):
        assert client.get_run(run_id).data.tags["mlops_db.status"] == status
    tag_run(db, second, client=client)
    require_agreement(db, client, name)


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"])
def test_a_refused_tag_is_an_error_and_everything_else_is_in_step(
    db: DatabaseManager, client: Any, name: str, code: str
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    old, theirs, new = registered(db, client, name, 3)
    with (
        refusing_proxy(client.tracking_uri, "/runs/log-batch", 400, refusal(code), body=theirs) as uri,
        pytest.raises(AdapterError) as refused,
    ):
        promote_run(db, new, client=MlflowClient(uri))
    assert f"{code}: refused; the database is up to date, the tags of run {theirs} are not" in str(refused.value)
    assert type(refused.value) is AdapterError
    assert aliases(client, name) == {"production": new}
    assert client.get_run(old).data.tags["mlops_db.status"] == "staging"
    assert client.get_run(new).data.tags["mlops_db.status"] == "production"


@pytest.mark.parametrize("path", ["/runs/search", "/experiments/search", "/model-versions/search"])
def test_a_refused_search_is_an_error(db: DatabaseManager, client: Any, name: str, path: str) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415

    (run_id,) = registered(db, client, name, 1)
    with (
        refusing_proxy(client.tracking_uri, path, 400, refusal("INVALID_PARAMETER_VALUE")) as uri,
        pytest.raises(AdapterError) as refused,
    ):
        promote_run(db, run_id, client=MlflowClient(uri))
    assert "INVALID_PARAMETER_VALUE: refused; the database is up to date" in str(refused.value)
    assert type(refused.value) is AdapterError
