"""What a session of ours relies on, whatever PGOPTIONS, the role or the database set, and how that reaches the server.

It comes with the connection instead of with a SET, so that it is what RESET goes back to, and a rollback does not take
it back. Everything else that they set holds.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlops_db.server.guests import SAFE_PATH

PINS = {
    # What names and SQL mean.
    "search_path": SAFE_PATH.replace(" ", ""),
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # How the server writes values, of a catalogue above all: the same thing has to come out the same.
    "timezone": "UTC",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
    # At READ COMMITTED, a lock holder's snapshot cannot hold up CREATE INDEX CONCURRENTLY.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # A session may pause, between two tries above all, and take as long as statement_timeout lets each statement.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
# The settings of a job's transactions; all other settings are those of the role and the database. READ COMMITTED lets a
# transaction that has waited for an advisory lock see what the lock's holder has committed.
_FOR_JOBS = ("timezone", "IntervalStyle", "extra_float_digits", "default_transaction_isolation")
JOB_PINS = {"search_path": "public"} | {name: PINS[name] for name in _FOR_JOBS}
# Those that older servers do not know: there, an option of that name would be refused with the connection.
NEWER_PINS = {"idle_session_timeout": ("0", 140000), "transaction_timeout": ("0", 170000)}
# Tells a session that was opened with our options from one that a pooler opened without.
MARK = "mlops_db.pinned"


def startup_options(values: Mapping[str, str]) -> str:
    """The values as libpq's connection parameter `options` has them."""
    return " ".join("-c " + re.sub(r"([\\\s])", r"\\\1", f"{name}={value}") for name, value in values.items())


def set_local(values: Mapping[str, str]) -> str:
    """The values as statements that set them for one transaction, each followed by a semicolon and a blank."""
    return "".join(f"SET LOCAL {name} = '{value}'; " for name, value in values.items())


def given_options(parameters: Mapping[str, str]) -> str:
    """The options that libpq would send by itself: the URL's, else the service's, else PGOPTIONS.

    Args:
        parameters: the settings' connection parameters.
    """
    if "options" in parameters:
        return parameters["options"]
    service = parameters.get("service", os.environ.get("PGSERVICE"))
    of_service = _of_service(service, parameters) if service else None
    return os.environ.get("PGOPTIONS", "") if of_service is None else of_service


def _of_service(service: str, parameters: Mapping[str, str]) -> str | None:
    """The options that a service file gives, None for none; what is wrong with the file is libpq's to say."""
    for path in _service_files(parameters):
        lines: list[str] = []
        with suppress(OSError):
            lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        section = None
        for line in lines:
            if line.startswith("["):
                section = line[1:].partition("]")[0]
            elif section == service and line.startswith("options="):
                return line.partition("=")[2]
        if f"[{service}]" in lines:
            return None
    return None


def _service_files(parameters: Mapping[str, str]) -> Iterator[Path]:
    """Where libpq looks (manual, "The Connection Service File"); its own folder of the system is not known to us."""
    file = parameters.get("servicefile", os.environ.get("PGSERVICEFILE"))
    with suppress(RuntimeError):  # a user without a home
        yield Path(file) if file else Path.home() / ".pg_service.conf"
    if "PGSYSCONFDIR" in os.environ:
        yield Path(os.environ["PGSYSCONFDIR"]) / "pg_service.conf"
