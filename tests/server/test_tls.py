"""Encrypted connections: libpq's settings hold in every command and in jobs, and a refusal says what to look at."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlops_db import DatabaseManager
from mlops_db.settings import Settings
from support.cluster import embedded_programs, new_cluster, start, stop
from support.database import clean_environment, run_command
from support.process import assert_failed

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@dataclass(frozen=True)
class Server:
    """A server that listens on the loopback interface, and the certificate to know it by."""

    environment: dict[str, str]
    certificate: Path
    url: str


@contextmanager
def listening(programs: Path, *, certified: bool) -> Iterator[Server]:
    folder = new_cluster(programs)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    certificate, key = folder / "server.crt", folder / "data" / "server.key"
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(f"listen_addresses = '127.0.0.1'\nport = {port}\n")
        if certified:
            configuration.write(f"ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n")
    if certified:
        _make_certificate(certificate, key)
    start(programs, folder)
    environment = clean_environment(
        POSTGRES_HOST="localhost", POSTGRES_PORT=str(port), POSTGRES_USER="postgres", POSTGRES_PASSWORD=""
    )
    try:
        yield Server(environment, certificate, f"postgresql://postgres@localhost:{port}/mlops")
    finally:
        stop(programs, folder)
        shutil.rmtree(folder)


def _make_certificate(certificate: Path, key: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost",  # noqa: S607  (of PATH)
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    key.chmod(0o600)
    shutil.chown(key, *_owner(key.parent))


def _owner(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_uid, status.st_gid


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Server]:
    programs = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    if not programs or shutil.which("openssl") is None:
        pytest.skip("the embedded server has no TLS, and the system has neither a PostgreSQL nor openssl")
    with listening(programs[-1], certified=True) as server:
        yield server


def test_commands_runs_and_jobs_verify_the_server(encrypted: Server) -> None:
    variables = {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(encrypted.certificate)}
    done = run_command("mlops-db", "init", environment=encrypted.environment | variables)
    assert done.returncode == 0, done.stderr

    url = f"{encrypted.url}?sslmode=verify-full&sslrootcert={encrypted.certificate}"
    with DatabaseManager(Settings.from_environment({"MLOPS_DATABASE_URL": url})) as db:
        assert db.execute_query(ENCRYPTED) == [(True,)]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PGSSLROOTCERT": "/nowhere.crt"}, "root certificate file"),
        ({"PGSSLROOTCERT": "system"}, "certificate verify failed"),
    ],
)
def test_a_server_that_cannot_be_verified_is_refused(encrypted: Server, variables: dict[str, str], reason: str) -> None:
    environment = encrypted.environment | {"PGSSLMODE": "verify-full"} | variables
    for command in (("mlops-db", "status"), ("mlops-db", "init"), ("alembic", "current")):
        done = run_command(*command, environment=environment)
        assert_failed(done, "no encrypted connection", reason, "PGSSLROOTCERT")


def test_the_error_of_a_server_without_tls_names_the_settings() -> None:
    with listening(embedded_programs(), certified=False) as server:
        done = run_command("mlops-db", "status", environment=server.environment | {"PGSSLMODE": "require"})
    assert_failed(done, "no encrypted connection", "PGSSLMODE")
