"""`-x key=value`: the options of a single run. Everything else comes from the environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mlops_db.errors import SettingsError, UsageError
from mlops_db.settings import duration_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlops_db.settings import Settings

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Options:
    """The values of `-x`, with the settings as defaults. Times are in milliseconds.

    Each field is a key of `-x`, with underscores, except `long_timeout`.

    Attributes:
        lock_wait: how long to wait for another run of the migrations to end.
        lock_timeout: how long one statement may wait for a lock, and so how long others may have to wait behind it.
        statement_timeout: how long one statement may take.
        long_timeout: the same for a statement that reads or rewrites all rows of a table: the value of
            `-x statement-timeout`; None if it was not given, and then the revision decides.
        retry_for: how long to retry a revision that gets no lock.
        plan: print what would run, and stop.
        allow_data_loss: let a downgrade in production drop rows.
        show_queries: print the queries of blocking sessions, which can contain data.
        backup: the folder to write to what a downgrade loses; then a downgrade loses nothing else, in development
            neither.
        legacy_timezone: the zone in which timestamps without a time zone were written; for revisions 0005, 0006 and
            0015, and going down 0018, 0006 and 0005.
    """

    lock_wait: int
    lock_timeout: int
    statement_timeout: int
    retry_for: int
    plan: bool = False
    allow_data_loss: bool = False
    show_queries: bool = False
    backup: Path | None = None
    legacy_timezone: str = "UTC"
    long_timeout: int | None = None

    @classmethod
    def defaults(cls, settings: Settings) -> Options:
        """The options of a run without `-x`."""
        return cls(settings.lock_wait, settings.lock_timeout, settings.statement_timeout, settings.retry_for)

    @classmethod
    def parse(cls, arguments: Sequence[str], settings: Settings) -> Options:
        """Parse the values of `-x`, each `key=value`.

        Raises:
            UsageError: an unknown key, a value that does not fit its key, or two keys that contradict each other.
            SettingsError: the timeouts of the settings do not fit together.
        """
        values: dict[str, Any] = {}
        for argument in arguments:
            key, _, value = argument.partition("=")
            if key not in _PARSERS:
                raise UsageError(f"-x {key} is not known", hint=f"Known are: {', '.join(sorted(_PARSERS))}.")
            try:
                values[key.replace("-", "_")] = _PARSERS[key](value, f"-x {key}")
            except SettingsError as error:
                raise UsageError(str(error), hint=error.hint) from None
            if key == "statement-timeout":
                values["long_timeout"] = values["statement_timeout"]
        options = replace(cls.defaults(settings), **values)
        if not 0 < options.lock_timeout < options.statement_timeout:
            # If both are equal, PostgreSQL reports the statement_timeout, and the run does not see that it may retry.
            given_here = any("-timeout=" in argument for argument in arguments)
            raise (UsageError if given_here else SettingsError)(
                "lock-timeout has to be above 0 and below statement-timeout",
                hint="Raise statement-timeout, or lower lock-timeout: others wait behind a revision that waits.",
            )
        if options.backup is not None and options.allow_data_loss:
            raise UsageError(
                "-x backup keeps what a downgrade loses, and -x allow-data-loss=true lets it go",
                hint="Leave one of them out.",
            )
        return options


def _boolean(value: str, name: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise SettingsError(f"{name}: {value!r} is not a boolean", hint=f"Write {name}=true or {name}=false.")
    return _BOOLEANS[value.lower()]


def _folder(value: str, name: str) -> Path:
    if not value or not value.isprintable():  # the history holds the name, and UTF-8 cannot hold every one
        raise SettingsError(f"{name}: {value!r} is not a folder", hint=f"Write {name}=FOLDER, a folder that exists.")
    return Path(value).absolute()


def _timezone(value: str, name: str) -> str:
    try:
        return ZoneInfo(value).key
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise SettingsError(
            f"{name}: {value!r} is not a time zone", hint=f"Write its name in the tz database: {name}=Europe/Berlin."
        ) from None


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(("lock-wait", "lock-timeout", "statement-timeout", "retry-for"), duration_ms),
    **dict.fromkeys(("plan", "allow-data-loss", "show-queries"), _boolean),
    "backup": _folder,
    "legacy-timezone": _timezone,
}
