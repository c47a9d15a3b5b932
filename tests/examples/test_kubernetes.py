"""examples/kubernetes: the manifests fit Kubernetes' published schemas, and their commands do what they are there for.

The commands run as processes with the environment of their containers; tests/image runs them in the image.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from mlops_db import DatabaseManager
from support import roles
from support.database import SCRIPTS, TIMEOUT_S, Database, clean_environment
from support.manifests import Pod, documents, pods

pytestmark = pytest.mark.one_postgresql

VERSIONS = ("1.31", "1.34", "1.37")
MANIFESTS = [pytest.param(each, id=f"{each['kind']} {each['metadata']['name']}") for each in documents()]
PODS = [pytest.param(pod, id=pod.name) for pod in pods()]
OWNER, WRITER, READER = "mlops_owner", "mlops_writer", "mlops_reader"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_fits_the_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)
    misspelt = deepcopy(manifest)
    misspelt["metadata"]["nmae"] = misspelt["metadata"].pop("name")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_each_file_has_a_header_and_is_read() -> None:
    assert {each["kind"] for each in documents()} == {"ConfigMap", "Secret", "Job", "Deployment", "CronJob"}


# What Kubernetes' Pod Security Standards call restricted, and a little more.
@pytest.mark.parametrize("pod", PODS)
def test_a_pod_has_no_rights_that_it_does_not_need(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["enableServiceLinks"] is False
    assert pod.spec["securityContext"]["runAsNonRoot"] is True
    assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_jobs_end_and_do_not_run_twice_at_once() -> None:
    for manifest in documents():
        if manifest["kind"] == "CronJob":
            assert manifest["spec"]["concurrencyPolicy"] == "Forbid"
            assert manifest["spec"]["timeZone"] == "Etc/UTC"
        job = manifest["spec"].get("jobTemplate", manifest)["spec"] if manifest["kind"] in ("Job", "CronJob") else None
        if job is not None:
            assert job["activeDeadlineSeconds"] > 0
            assert job["backoffLimit"] >= 0
            assert job["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("mlops-db-migrate", OWNER),
        ("mlops-db-maintain", OWNER),
        ("mlops-db-health", READER),
        ("churn-service", WRITER),
    ],
)
def test_each_pod_connects_as_its_own_role(name: str, role: str) -> None:
    (pod,) = (pod for pod in pods() if pod.name == name)
    assert {variables["POSTGRES_USER"] for variables in map(pod.environment, pod.containers)} == {role}


@pytest.fixture
def cluster(empty: Database) -> Iterator[Database]:
    """An empty database, and the three roles with the passwords of the Secrets."""
    with ExitStack() as stack:
        for name in (WRITER, READER):
            stack.enter_context(roles.role(empty, name))
        stack.enter_context(roles.owner(empty, OWNER))
        yield empty


def start(pod: Pod, container: dict[str, Any], database: Database, folder: Path) -> subprocess.Popen[str]:
    """Start what a container runs, in an empty folder, with the variables of the container and no others of ours."""
    variables = pod.environment(container)
    password = folder / pod.name
    password.write_text(pod.password, encoding="utf-8")
    mounts = [f"{mount['mountPath']}/password" for mount in container["volumeMounts"]]
    assert mounts == [variables["POSTGRES_PASSWORD_FILE"]]
    server = database.settings
    return subprocess.Popen(
        [SCRIPTS / "mlops-db", *container["args"]],
        env=clean_environment(
            **variables
            | {"POSTGRES_HOST": server.host, "POSTGRES_PORT": str(server.port), "MLOPS_DB_NAME": server.database}
            | {"POSTGRES_PASSWORD_FILE": str(password)}
        ),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@pytest.mark.slow
def test_the_commands_run_in_the_order_of_a_release(cluster: Database, tmp_path: Path) -> None:
    commands = {
        container["name"]: (pod, container) for pod in pods() for container in pod.containers if "args" in container
    }
    assert set(commands) == {"wait", "migrate", "maintain", "health"}

    def run(name: str) -> str:
        out, err = start(*commands[name], cluster, tmp_path).communicate(timeout=TIMEOUT_S)
        return out + err

    with start(*commands["wait"], cluster, tmp_path) as waiting:
        assert waiting.stderr is not None
        assert "has no tables yet" in waiting.stderr.readline()
        assert "✅ Database initialized successfully" in run("migrate")
        assert "permission denied" in waiting.stderr.readline()
        granted = cluster.run("mlops-db", "grant-writer", WRITER)
        assert granted.returncode == 0, granted.stderr
        out, _ = waiting.communicate(timeout=TIMEOUT_S)
    assert (waiting.returncode, " is ready" in out) == (0, True)
    assert "Nothing to do" in run("migrate")  # the next release
    assert "nothing to do" in run("maintain")

    granted = cluster.run("mlops-db", "grant-reader", READER)
    assert granted.returncode == 0, granted.stderr
    assert "has no series of metrics yet" in run("health")
    with DatabaseManager(replace(cluster.settings, user=WRITER, password=roles.PASSWORD)) as db:
        db.monitoring.log("coverage", "coverage_rate", 0.9, model_name="churn")
    assert "1 series is ok" in run("health")
    with DatabaseManager(cluster.settings) as db:
        db.monitoring.expect("coverage", "coverage_rate", lower=0.95, model_name="churn")
    assert "1 low" in run("health")
