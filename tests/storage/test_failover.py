"""Another server becomes the primary: jobs find it, and write to no standby for long."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlops_db import DatabaseManager
from mlops_db.errors import StandbyError
from mlops_db.migration.commands import upgrade
from mlops_db.settings import Settings
from support.cluster import connect_superuser, embedded_programs, new_cluster, promote, standby_of, start, stop
from support.database import clean_environment, run_command
from support.sessions import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.libraries]


@dataclass
class Pair:
    """Two servers with the same data, of which one is the primary; each in its folder."""

    programs: Path
    primary: Path
    standby: Path

    def fail_over(self) -> None:
        """Let them change places."""
        stop(self.programs, self.primary, mode="fast")
        (self.primary / "data" / "standby.signal").touch()
        start(self.programs, self.primary)
        promote(self.programs, self.standby)
        self.primary, self.standby = self.standby, self.primary


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    programs = embedded_programs()
    one = new_cluster(programs)
    start(programs, one)
    upgrade(settings_of(one))
    stop(programs, one, mode="fast")
    pair = Pair(programs, one, standby_of(one))
    folders = (pair.primary, pair.standby)
    for folder in folders:
        start(programs, folder)
    yield pair
    for folder in folders:
        stop(programs, folder)
        shutil.rmtree(folder)


def settings_of(*folders: Path, **parameters: str) -> Settings:
    hosts = ",".join(map(str, folders))
    return Settings(host=hosts, user="postgres", password=None, database="postgres", parameters=parameters)


def runs_of(folder: Path) -> set[str]:
    with connect_superuser(folder) as connection:
        return {run for (run,) in connection.execute("SELECT mlflow_run_id FROM model_versions")}


def test_jobs_and_init_go_to_the_primary_among_the_servers(servers: Pair) -> None:
    both = settings_of(servers.standby, servers.primary, target_session_attrs="read-write")
    with DatabaseManager(both) as db:
        db.models.register("before", "1")
        assert "before" in runs_of(servers.primary)
        servers.fail_over()
        db.ping()
        db.models.register("after", "1")
        assert "after" in runs_of(servers.primary)
    url = f"postgresql://postgres@/new?host={both.host}&target_session_attrs=read-write"
    done = run_command("mlops-db", "init", environment=clean_environment(MLOPS_DATABASE_URL=url))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("pre_ping", [True, False])
def test_a_standby_is_left_for_the_primary(servers: Pair, tmp_path_factory: Any, pre_ping: bool) -> None:  # noqa: FBT001
    name = tmp_path_factory.mktemp("cluster") / "db"  # as an address that follows the primary
    name.symlink_to(servers.standby)
    run = f"left {pre_ping}"
    with DatabaseManager(settings_of(name)) as db:
        with ThreadPoolExecutor(3) as threads:  # several sessions
            list(threads.map(lambda _: db.execute_query("SELECT pg_sleep(0.1)"), range(3)))
        with pytest.raises(StandbyError, match="takes no writes, as a standby: cannot execute INSERT") as caught:
            db.models.register(run, "1")
        assert caught.value.retryable
        name.unlink()
        name.symlink_to(servers.primary)
        with ThreadPoolExecutor(3) as threads:
            asked = threads.map(lambda _: db.execute_query("SELECT pg_is_in_recovery() FROM pg_sleep(0.1)"), range(3))
            assert list(asked) == [[(False,)]] * 3
        db.models.register(run, "1")
    assert run in runs_of(servers.primary)


def test_every_write_on_a_standby_raises_standby_error(servers: Pair) -> None:
    with DatabaseManager(settings_of(servers.standby)) as db:
        for statement in (
            "INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('x', '1')",
            "LOCK TABLE model_versions",
            "CREATE TEMPORARY TABLE t ()",
            "SELECT FROM model_versions FOR UPDATE",
        ):
            with pytest.raises(StandbyError) as caught:
                db.execute_query(statement)
            assert caught.value.retryable
        assert db.models.production() is None


def test_a_primary_that_was_set_to_take_no_writes_is_reported_as_a_standby(servers: Pair) -> None:
    def set_to(value: str) -> None:
        with connect_superuser(servers.primary) as admin:
            admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            admin.execute("SELECT pg_reload_conf()")

    with DatabaseManager(settings_of(servers.primary)) as db:
        pid = db.execute_query("SELECT pg_backend_pid()")
        set_to("on")
        try:
            wait_until(lambda: db.execute_query("SHOW default_transaction_read_only") == [("on",)], "the reload")
            with pytest.raises(StandbyError) as caught:
                db.models.register("read only", "1")
            assert caught.value.retryable
        finally:
            set_to("off")
        assert db.execute_query("SELECT pg_backend_pid()") != pid


def test_a_standby_that_is_promoted_takes_the_repetition(servers: Pair) -> None:
    with DatabaseManager(settings_of(servers.standby)) as db:
        with pytest.raises(StandbyError):
            db.models.register("promoted", "1")
        servers.fail_over()
        db.models.register("promoted", "1")
    assert "promoted" in runs_of(servers.primary)
