"""The session settings that our statements rely on, and the connection options that carry them to the server.

They win over PGOPTIONS and the settings of the role and the database. All other settings there still apply. They are
connection options, not SET statements, so that RESET returns to them and a rollback does not undo them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlops_db.server.guests import SAFE_PATH

PINS = {
    # They decide what names and SQL mean.
    "search_path": SAFE_PATH.replace(" ", ""),
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # How the server writes values: equal catalogues must read equal.
    "timezone": "UTC",
    "DateStyle": "ISO,MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
    # Shards of Citus are not tables beside those that they belong to; without Citus, nobody reads these.
    "citus.override_table_visibility": "on",
    "citus.show_shards_for_app_name_prefixes": "",
    # Our tables and schemas are plain ones until `mlops-db distribute` takes some of them.
    "citus.enable_schema_based_sharding": "off",
    "citus.use_citus_managed_tables": "off",
    # At READ COMMITTED, a lock holder's snapshot cannot hold up CREATE INDEX CONCURRENTLY.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # A session may pause, such as between two tries, and each statement has its own statement_timeout.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
# The settings of a job's transactions; all other settings come from the role and the database. READ COMMITTED lets a
# transaction that has waited for an advisory lock see what the lock's holder has committed.
_FOR_JOBS = ("timezone", "IntervalStyle", "extra_float_digits", "default_transaction_isolation")
JOB_PINS = {"search_path": "public"} | {name: PINS[name] for name in _FOR_JOBS}
# Older servers do not know these, and would refuse a connection with such an option.
NEWER_PINS = {"idle_session_timeout": ("0", 140000), "transaction_timeout": ("0", 170000)}
# Marks a session that was opened with our options; a pooler may open sessions without them.
MARK = "mlops_db.pinned"


def startup_options(values: Mapping[str, str]) -> str:
    """The values in the form of libpq's connection parameter `options`."""
    return " ".join("-c " + re.sub(r"([\\\s])", r"\\\1", f"{name}={value}") for name, value in values.items())


def set_local(values: Mapping[str, str]) -> str:
    """The values as statements that set them for one transaction, each followed by a semicolon and a blank."""
    return "".join(f"SET LOCAL {name} = '{value}'; " for name, value in values.items())


def find_options(parameters: Mapping[str, str]) -> str:
    """Find the options that libpq itself would send: the URL's, else the service's, else PGOPTIONS.

    Args:
        parameters: the settings' connection parameters.
    """
    if "options" in parameters:
        return parameters["options"]
    service = parameters.get("service", os.environ.get("PGSERVICE"))
    of_service = _read_service(service, parameters) if service else None
    return os.environ.get("PGOPTIONS", "") if of_service is None else of_service


def _read_service(service: str, parameters: Mapping[str, str]) -> str | None:
    """Read the options of a service from its file; None if it has none. libpq reports errors of the file."""
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
    """Where libpq looks (manual, "The Connection Service File"), except its system-wide folder, which is unknown."""
    file = parameters.get("servicefile", os.environ.get("PGSERVICEFILE"))
    with suppress(RuntimeError):  # a user without a home
        yield Path(file) if file else Path.home() / ".pg_service.conf"
    if "PGSYSCONFDIR" in os.environ:
        yield Path(os.environ["PGSYSCONFDIR"]) / "pg_service.conf"
