"""The image, as a stack runs it: through its entry point and as its user, against a server on TCP with a password.

`uv run pytest tests/image -n 0 -m image -rfE --postgresql-host=none`; that host is for this process, which needs no
server.
"""

import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import Any

import psycopg
import pytest

from mlops_db.revisions.graph import revisions
from support.cluster import connect_superuser, embedded_programs, start, stop, throwaway_cluster
from support.image import Image, builder
from support.manifests import pods
from support.process import SECRET
from support.projects import copy_checkout

OWNER = "owner"
NO_BUILDER = "no image is built: it takes a Docker engine, or else root with buildah and debootstrap"
PLANTED = "planted-secret"
INITIALIZED = """\
✅ Database initialized successfully
{}
  - model_versions
  - monitoring_metrics
  - retraining_decisions
  - v_decision_history
  - v_model_timeline
  - v_recent_monitoring
"""
HEAD = revisions()[-1].id

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def image(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image of this checkout, built where files with secrets lie about."""
    build = builder()
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():  # or nobody would see it while it builds
        print(f"{build.__name__} takes a minute or two" if build else NO_BUILDER, end=" ... ", flush=True)  # noqa: T201
    if build is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NO_BUILDER)
    checkout = tmp_path_factory.mktemp("context") / "checkout"
    copy_checkout(checkout)
    for folder in (checkout, checkout / "src" / "mlops_db", checkout / "migrations"):
        (folder / ".env").write_text(f"POSTGRES_PASSWORD={PLANTED}\n", encoding="utf-8")
    with build(checkout) as built:
        yield built


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server on TCP that asks for the owner's password."""
    programs = embedded_programs()
    with throwaway_cluster(programs) as cluster:
        with connect_superuser(cluster) as connection:
            connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEDB PASSWORD '{SECRET}'")
        stop(programs, cluster)
        port = free_port()
        with (cluster / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(f"listen_addresses = '127.0.0.1'\nport = {port}\n")
        (cluster / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8")
        start(programs, cluster)
        yield port


@dataclass(frozen=True)
class Deployment:
    """The image beside a database of its own."""

    image: Image
    variables: Mapping[str, str]

    def run(self, *arguments: str, entrypoint: str | None = None, **variables: str) -> CompletedProcess[str]:
        done = self.image.run(*arguments, entrypoint=entrypoint, variables={**self.variables, **variables})
        assert SECRET not in done.stdout + done.stderr
        return done

    def mlops_db(self, *arguments: str, **variables: str) -> CompletedProcess[str]:
        return self.run(*arguments, **variables)

    def alembic(self, *arguments: str, **variables: str) -> CompletedProcess[str]:
        return self.run(*arguments, entrypoint="alembic", **variables)

    def shell(self, script: str) -> str:
        """What a shell of the image prints."""
        return self.run("-c", script, entrypoint="/bin/sh").stdout

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=self.variables["POSTGRES_HOST"],
            port=self.variables["POSTGRES_PORT"],
            user=OWNER,
            password=SECRET,
            dbname=self.variables["MLOPS_DB_NAME"],
            autocommit=True,
        )


@pytest.fixture
def empty(image: Image, port: int, request: pytest.FixtureRequest) -> Deployment:
    """With no database yet."""
    variables = {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(port),
        "POSTGRES_USER": OWNER,
        "POSTGRES_PASSWORD": SECRET,
        "MLOPS_DB_NAME": re.sub(r"\W", "_", request.node.name)[-60:],
    }
    return Deployment(image, variables)


@pytest.fixture
def head(empty: Deployment) -> Deployment:
    """With a database at head."""
    succeeded(empty.mlops_db("init"))
    return empty


def succeeded(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.mark.parametrize("arguments", [(), ("init",)])
def test_init_creates_the_database_and_a_second_one_finds_it(empty: Deployment, arguments: tuple[str, ...]) -> None:
    name = empty.variables["MLOPS_DB_NAME"]

    first, second = empty.mlops_db(*arguments), empty.mlops_db(*arguments)

    created = f"Creating database '{name}'...\n✅ Database '{name}' created successfully\n"
    assert succeeded(first) == created + INITIALIZED.format("Created 6 tables:")
    assert f"] {HEAD} " in first.stderr
    exists = f"Database '{name}' already exists\n"
    assert succeeded(second) == exists + INITIALIZED.format("Nothing to do, these 6 tables are there:")
    assert f"revision  {HEAD} (head)" in succeeded(empty.mlops_db("status"))


def test_alembic_goes_down_and_up_again(head: Deployment) -> None:
    assert f"{HEAD} (head)" in succeeded(head.alembic("current"))
    assert "No new upgrade operations detected" in succeeded(head.alembic("check"))

    succeeded(head.alembic("downgrade", "base"))
    behind, check = head.mlops_db("status"), head.alembic("check")
    succeeded(head.alembic("upgrade", "head"))

    assert behind.returncode == 1
    assert "revision  base" in behind.stdout
    assert check.returncode == 255
    assert "has no tables yet" in check.stdout
    assert f"{HEAD} (head)" in succeeded(head.alembic("current"))
    succeeded(head.alembic("check"))


def test_rows_are_protected_in_production(head: Deployment) -> None:
    with head.connect() as connection:
        connection.execute("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run', '1')")

        done = head.alembic("downgrade", "base", MLOPS_ENV="production")

        rows = connection.execute("SELECT mlflow_run_id FROM model_versions").fetchall()
    assert done.returncode == 255
    assert "MLOPS_ENV is production and this downgrade would lose 1 row of model_versions" in done.stdout
    assert rows == [("run",)]
    succeeded(head.mlops_db("status"))


@pytest.mark.parametrize("arguments", [("init",), ("status",)])
def test_a_server_that_is_not_there_is_exit_code_2(empty: Deployment, arguments: tuple[str, ...]) -> None:
    done = empty.mlops_db(*arguments, POSTGRES_PORT=str(free_port()))
    assert done.returncode == 2
    assert "error: " in done.stderr


def test_a_wrong_password_is_exit_code_2(empty: Deployment) -> None:
    done = empty.mlops_db("init", POSTGRES_PASSWORD="wrong")  # noqa: S106  (it is)
    assert done.returncode == 2
    assert f'password authentication failed for user "{OWNER}"' in done.stderr


def test_a_database_that_is_not_there_is_exit_code_1_and_alembics_255(empty: Deployment) -> None:
    status, current = empty.mlops_db("status"), empty.alembic("current")
    assert status.returncode == 1
    assert "does not exist" in status.stderr
    assert current.returncode == 255
    assert "does not exist" in current.stdout


def test_wrong_usage_is_exit_code_64(empty: Deployment) -> None:
    done = empty.mlops_db("nonsense")
    assert done.returncode == 64
    assert "error: " in done.stderr


def test_it_runs_as_a_user_without_rights(empty: Deployment) -> None:
    assert empty.shell("id -u; id -g") == "10001\n10001\n"
    assert empty.shell("touch /app/x /opt/mlops-db/x 2>&1 || echo refused").splitlines()[-1] == "refused"


def test_app_is_the_projects_folder(empty: Deployment) -> None:
    files = empty.shell("pwd; ls -A; ls -A migrations/versions | grep -c '^[0-9].*py$'; echo $ALEMBIC_CONFIG")
    assert files.split() == ["/app", "alembic.ini", "migrations", str(len(revisions())), "/app/alembic.ini"]


def test_no_secret_of_the_checkout_is_in_it(empty: Deployment) -> None:
    assert empty.shell("find / -xdev -name '.env*' 2>/dev/null") == ""
    assert empty.shell(f"grep -rl {PLANTED} /app /opt /build 2>/dev/null") == ""
    assert empty.shell("test -s /app/alembic.ini && grep -rl 'script_location' /opt | head -1")  # grep does find things


def test_the_commands_of_the_manifests_run_in_it(empty: Deployment) -> None:
    commands = {container["name"]: (pod, container) for pod in pods() for container in pod.containers}
    for name, code, message in (
        ("migrate", 0, "✅ Database initialized successfully"),
        ("wait", 0, " is ready"),
        ("maintain", 0, "nothing to do"),
        ("health", 1, "has no series of metrics yet"),
    ):
        pod, container = commands[name]
        kept = {"MLOPS_ENV": pod.environment(container)["MLOPS_ENV"]}  # the rest is about the server
        done = empty.mlops_db(*container["args"], **kept)
        assert done.returncode == code, done.stdout + done.stderr
        assert message in done.stdout + done.stderr
        assert empty.shell("id -u").strip() == str(pod.spec["securityContext"]["runAsUser"])
