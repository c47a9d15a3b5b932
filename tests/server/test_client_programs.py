"""Which psql is run; test_backup.py has pg_dump."""

from pathlib import Path

import pytest

from mlops_db.errors import MissingExtraError
from mlops_db.server import client_programs
from mlops_db.server.client_programs import find_psql
from mlops_db.settings import Settings

pytestmark = pytest.mark.one_postgresql

ANY, WITH_TLS = Settings(), Settings(parameters={"sslmode": "verify-full"})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH, on a machine without PostgreSQL's packages."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(client_programs, "VERSIONS", tmp_path / "versions")
    return tmp_path


def test_psql_is_the_machines_or_else_the_embedded_servers(path: Path) -> None:
    assert find_psql(ANY) == client_programs.client_program("psql")
    (path / "psql").touch(mode=0o755)
    assert find_psql(ANY) == find_psql(WITH_TLS) == path / "psql"


def test_the_embedded_servers_psql_is_not_asked_for_tls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingExtraError, match="no psql on this machine that can connect with sslmode=verify-full"):
        find_psql(WITH_TLS)
    monkeypatch.setenv("PGSSLMODE", "require")
    with pytest.raises(MissingExtraError, match="sslmode=require"):
        find_psql(ANY)
    assert find_psql(Settings(parameters={"sslmode": "prefer"})).exists()
    assert list(path.iterdir()) == []


def test_without_any_psql_the_hint_says_what_brings_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Path:
        raise MissingExtraError(name, hint="")

    monkeypatch.setattr(client_programs, "client_program", missing)
    with pytest.raises(MissingExtraError, match="there is no psql on this machine") as none:
        find_psql(ANY)
    assert "mlops-db[embedded]" in none.value.hint
    assert list(path.iterdir()) == []
