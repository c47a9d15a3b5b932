"""The settings: which environment variables there are, and what their values mean.

Each variable is declared once, at the attribute of `Settings` that it sets: its name, default, meaning and parser. A
test compares .env.example and the README's table with it.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mlops_db.env_file import read_env_file
from mlops_db.errors import SettingsError

EMBEDDED = "embedded"
ENVIRONMENTS = ("development", "production")
MAX_PORT = 65535
MAX_NAME_BYTES = 63
MAX_POOL = 1000  # more than any server takes, so a larger number is a typing error
_MILLISECONDS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
_MAX_DURATION_MS = 2**31 - 1  # what PostgreSQL's timeouts can hold
_MAX_DIGITS = len(str(_MAX_DURATION_MS))


def duration_ms(text: str, name: str, *, unit: str = "") -> int:
    """Read a duration such as `500ms`, `5s`, `2min` or `1h`; returns milliseconds.

    Args:
        text: a whole number with its unit.
        name: whose value it is, for the message.
        unit: that of a number without one. By default it needs one: for PostgreSQL's settings it would be ms.

    Raises:
        SettingsError: there is no unit, or it is not one of these, or PostgreSQL cannot hold the value.
    """
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :] or unit
    number = digits.strip()
    if not (number.isascii() and number.isdigit() and unit in _MILLISECONDS) or len(number) > _MAX_DIGITS:
        raise SettingsError(
            f"{name}: {text!r} is not a duration", hint="Write a whole number with its unit: 500ms, 5s, 2min or 1h."
        )
    duration = int(number) * _MILLISECONDS[unit]
    if duration > _MAX_DURATION_MS:
        raise SettingsError(f"{name}: {text!r} is too long", hint="PostgreSQL's timeouts end at 24 days.")
    return duration


def _role(name: str, variable: str) -> str:
    """Return `name` if a role can have it; PostgreSQL reserves some names, in this spelling."""
    if name in ("none", "public") or name.startswith("pg_"):
        raise SettingsError(
            f"{variable} is {name!r}, a name that PostgreSQL reserves", hint="Use a role with another name."
        )
    _refuse_long(name, variable)
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise SettingsError(
            f"{variable} holds a control character: {name!r}",
            hint="Write the name as pg_roles shows it, without quotes.",
        )
    return name


def _refuse_long(name: str, what: str) -> None:
    size = len(name.encode())
    if size > MAX_NAME_BYTES:
        raise SettingsError(
            f"{what} is {size} bytes long; PostgreSQL takes at most {MAX_NAME_BYTES}",
            hint="Choose a shorter name; letters outside ASCII take two to four bytes each.",
        )


def _connections(text: str, name: str, *, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_POOL)) and least <= int(text) <= MAX_POOL):
        raise SettingsError(
            f"{name}: {text!r} is not a number of connections", hint=f"Give a whole number from {least} to {MAX_POOL}."
        )
    return int(text)


_at_least_one = partial(_connections, least=1)


def _choice(text: str, name: str, *, choices: tuple[str, str]) -> str:
    if text not in choices:
        raise SettingsError(f"{name} is {text!r}", hint=f"Set it to {' or '.join(choices)}.")
    return text


_environment = partial(_choice, choices=ENVIRONMENTS)


def _switch(text: str, name: str) -> bool:
    return _choice(text, name, choices=("true", "false")) == "true"


def _text(text: str, _name: str) -> str:
    return text


class Variable(NamedTuple):
    """An environment variable.

    Attributes:
        name: its name.
        default: the value that counts if it is unset, as text.
        meaning: what it sets, as the README's table has it.
        parse: turns the text into the attribute, or raises a SettingsError that names the variable; None where several
            variables decide together.
    """

    name: str
    default: str
    meaning: str
    parse: Callable[[str, str], Any] | None = None


def _variable(name: str, default: str | int, meaning: str, parse: Callable[[str, str], Any] | None = None) -> Any:
    """Declare the variable of an attribute; without a default, the attribute is None."""
    value = parse(str(default), name) if parse and default else default or None
    variable = Variable(name, str(default), meaning, parse)
    return field(default=value, repr=name != "POSTGRES_PASSWORD", metadata={"variable": variable})


@dataclass(frozen=True)
class Settings:
    """The values of the environment variables, with the specification's defaults for unset ones.

    Attributes:
        host: host name, address or socket directory, or `embedded` for the pip-installed server; several are separated
            by commas, and libpq takes the first that answers as target_session_attrs asks.
        port: TCP port, or the number in a socket's file name; for hosts whose ports differ, text with all of them,
            separated by commas.
        user: role that connects.
        password: None means that libpq looks for one (PGPASSWORD, PGPASSFILE, peer authentication). Never part of a
            repr.
        password_file: the file that `password` was read from, which is read for each new connection; None if there is
            none, or if it can be read only once, as a pipe.
        database: name of the database, as PostgreSQL stores it: no quotes, no case folding.
        environment: `development` or `production`.
        parameters: further connection parameters of libpq, from MLOPS_DATABASE_URL's query. Never part of a repr,
            because sslpassword is one of them.
        owner_role: role that commands become and that owns what they make, as PostgreSQL stores its name; None for the
            role that connects. Jobs do not become it.
        lock_wait: how long a migration run waits for another one to end, in milliseconds, as the three that follow.
        lock_timeout: how long one statement of a revision may wait for a lock.
        statement_timeout: how long one statement of a revision may take.
        retry_for: how long to retry a revision that gets no lock.
        pool_size: how many connections a process of a job keeps open once it needed them.
        pool_overflow: how many more it may open for a while.
        pool_timeout: how long a job waits for a connection when all are in use, in milliseconds.
        pool_lock_timeout: how long one statement of a job may wait for a lock, in milliseconds; 0 sets no limit.
            Shorter limits of the role, the database or the connection's options hold, too.
        pool_statement_timeout: how long one statement of a job may take, in the same way.
        pool_recycle: how old a connection becomes before it is replaced, in milliseconds; 0 for any age.
        pool_pre_ping: whether to test a connection before use, and replace it if the server has closed it.
        pool_application_name: what the server shows in pg_stat_activity; None means PGAPPNAME, or else `mlops-db`.
    """

    host: str = _variable(
        "POSTGRES_HOST", "postgres", "host name, address, socket directory, or `embedded`; several with commas"
    )
    port: int | str = _variable("POSTGRES_PORT", 5432, "with several hosts: one for all, or one for each")
    user: str = _variable(
        "POSTGRES_USER", "airflow", "the role that connects; it owns the database unless MLOPS_OWNER_ROLE is set"
    )
    password: str | None = _variable(
        "POSTGRES_PASSWORD", "airflow", "if empty, libpq looks for one (PGPASSFILE, `~/.pgpass`)"
    )
    password_file: Path | None = _variable(  # noqa: RUF009  (it makes a dataclass's field)
        "POSTGRES_PASSWORD_FILE", "", "a file with the password, read for each connection"
    )
    database: str = _variable("MLOPS_DB_NAME", "mlops", "any name PostgreSQL allows")
    environment: str = _variable("MLOPS_ENV", "development", "`production` protects rows from downgrades", _environment)
    parameters: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}),
        repr=False,
        metadata={"variable": Variable("MLOPS_DATABASE_URL", "", "a whole URL; wins over the parts")},
    )
    owner_role: str | None = _variable(
        "MLOPS_OWNER_ROLE", "", "the role that commands become, and that owns what they make", _role
    )
    lock_wait: int = _variable(
        "MLOPS_LOCK_WAIT", "60s", "how long a run waits for another run, and a job for its turn", duration_ms
    )
    lock_timeout: int = _variable(
        "MLOPS_LOCK_TIMEOUT", "1s", "how long a statement of a revision may wait for a lock", duration_ms
    )
    statement_timeout: int = _variable(
        "MLOPS_STATEMENT_TIMEOUT", "30s", "how long a statement of a revision may take", duration_ms
    )
    retry_for: int = _variable("MLOPS_RETRY_FOR", "2min", "how long to retry a revision that gets no lock", duration_ms)
    pool_size: int = _variable("MLOPS_POOL_SIZE", "5", "connections that a process of a job keeps", _at_least_one)
    pool_overflow: int = _variable("MLOPS_POOL_OVERFLOW", "5", "how many more it may open for a while", _connections)
    pool_timeout: int = _variable(
        "MLOPS_POOL_TIMEOUT", "30s", "how long a job waits for a free connection", duration_ms
    )
    pool_lock_timeout: int = _variable(
        "MLOPS_POOL_LOCK_TIMEOUT",
        "60s",
        "how long a statement of a job may wait for a lock; 0s: the server's limit",
        duration_ms,
    )
    pool_statement_timeout: int = _variable(
        "MLOPS_POOL_STATEMENT_TIMEOUT",
        "0s",
        "how long a statement of a job may take; 0s: the server's limit",
        duration_ms,
    )
    pool_recycle: int = _variable(
        "MLOPS_POOL_RECYCLE", "30min", "the age at which to replace a connection; 0s: never", duration_ms
    )
    pool_pre_ping: bool = _variable("MLOPS_POOL_PRE_PING", "true", "test a connection before use", _switch)
    pool_application_name: str | None = _variable(
        "MLOPS_POOL_APPLICATION_NAME", "", "the name in pg_stat_activity; if empty: PGAPPNAME, else mlops-db", _text
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, *, env_file: Path = Path(".env")) -> "Settings":
        """Read the variables of `environ` (default: the process's), then those of `env_file` that it lacks.

        Raises:
            SettingsError: a value cannot be used, or `env_file` is there and cannot be read whole. The message names
                the variable, or the file and the line, and never holds a password.
        """
        given = _variables(os.environ if environ is None else environ, env_file)
        url = _parse_url(given.get("MLOPS_DATABASE_URL", ""))
        default_password = None if url else cls.password
        host, port = _addresses(given, url.pop("host", ""), url.pop("port", ""))
        in_url = url.pop("password", "")
        password, password_file = (in_url, None) if in_url else _password(given, default=default_password)
        return cls(
            host=host,
            port=port,
            user=url.pop("user", "") or _not_empty(given, "POSTGRES_USER", cls.user),
            password=password,
            password_file=password_file,
            database=check_database_name(url.pop("dbname"), "MLOPS_DATABASE_URL")
            if url.get("dbname")
            else check_database_name(given.get("MLOPS_DB_NAME", cls.database)),
            parameters=MappingProxyType(url),
            **_parse(given),
        )

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """Each host with its port."""
        hosts, ports = self.host.split(","), str(self.port).split(",")
        return list(zip(hosts, ports if len(ports) > 1 else ports * len(hosts), strict=False))

    @property
    def target(self) -> str:
        """Where this connects, for people to read: `user@host:port/database`, without the password."""
        if self.host == EMBEDDED:
            return f"{self.user}@{EMBEDDED}/{self.database}"
        where = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        return f"{self.user}@{where}/{self.database}"


VARIABLES: tuple[Variable, ...] = tuple(item.metadata["variable"] for item in fields(Settings))
_NAMES = [variable.name for variable in VARIABLES]

# The embedded server, even if .env names another. Empty options, because PGOPTIONS may name roles of another server.
EMBEDDED_SERVER = Settings(host=EMBEDDED, database="postgres", parameters=MappingProxyType({"options": ""}))


def check_database_name(name: str, variable: str = "MLOPS_DB_NAME") -> str:
    """Return `name` if PostgreSQL can store it.

    PostgreSQL cuts a longer identifier silently (manual, 4.1.1: NAMEDATALEN - 1 = 63 bytes), so that two long names
    would meet in one database.

    Raises:
        SettingsError: the name is empty, over 63 bytes long in UTF-8, or begins or ends with an invisible character.
    """
    if not name:
        raise SettingsError(
            f"the database name ({variable}) is empty", hint="Unset it for the default, mlops, or give a name."
        )
    _refuse_long(name, f"the database name ({variable})")
    _refuse_ends(name, variable)
    return name


def _parse(given: Mapping[str, str]) -> dict[str, Any]:
    """The attributes that one variable alone decides; an empty variable counts as unset."""
    return {
        item.name: variable.parse(given[variable.name], variable.name)
        for item, variable in zip(fields(Settings), VARIABLES, strict=True)
        if variable.parse and given.get(variable.name)
    }


def _variables(environ: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """Merge our variables of the environment over those of the file."""
    real = {name: environ[name] for name in _NAMES if name in environ}
    merged = read_env_file(env_file, _NAMES) | real
    # A variable of the environment wins over its rival in the file: `POSTGRES_HOST=embedded mlops-db init` must not
    # connect to the URL of a .env.
    for name, rival in (
        ("POSTGRES_HOST", "MLOPS_DATABASE_URL"),
        ("POSTGRES_PORT", "MLOPS_DATABASE_URL"),
        ("POSTGRES_USER", "MLOPS_DATABASE_URL"),
        ("MLOPS_DB_NAME", "MLOPS_DATABASE_URL"),
        ("POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"),
        ("POSTGRES_PASSWORD_FILE", "POSTGRES_PASSWORD"),
    ):
        if name in real and rival not in real:
            merged.pop(rival, None)
    if "POSTGRES_PASSWORD" not in merged and (environ.get("PGPASSWORD") or environ.get("PGPASSFILE")):
        merged["POSTGRES_PASSWORD"] = ""
    for name, value in merged.items():
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise SettingsError(f"{name} holds a NUL character or is not UTF-8", hint=f"Set {name} to text in UTF-8.")
        if name != "POSTGRES_PASSWORD":
            _refuse_ends(value, name)
    return merged


def _refuse_ends(value: str, what: str) -> None:
    """Refuse an invisible character at either end of a value: it would name another database, host or file.

    The message leaves the value out, because a URL holds a password.
    """
    for verb, end in (("begins", value[:1]), ("ends", value[-1:])):
        kind = end and _invisible(end)
        if kind:
            raise SettingsError(
                f"{what} {verb} with {kind} (U+{ord(end):04X})",
                hint="Remove it. Copied text, and the output of `echo`, often end with one.",
            )


def _invisible(character: str) -> str:
    named = {"\n": "a line break", "\r": "a line break", "\t": "a tab", "\ufeff": "a byte order mark"}
    categories = {"Cc": "a control character", "Cf": "an invisible character"}
    blank = "a blank" if character.isspace() else ""
    return named.get(character) or categories.get(unicodedata.category(character), blank)


def _not_empty(given: Mapping[str, str], name: str, default: str) -> str:
    value = given.get(name, default)
    if not value:
        raise SettingsError(f"{name} is empty", hint=f"Unset it for the default, {default}, or give it a value.")
    return value


def _addresses(given: Mapping[str, str], url_host: str, url_port: str) -> tuple[str, int | str]:
    """The hosts and ports as libpq takes them; POSTGRES_HOST and POSTGRES_PORT fill in what the URL leaves out."""
    host = url_host or _not_empty(given, "POSTGRES_HOST", Settings.host)
    hosts, source = host.split(","), "MLOPS_DATABASE_URL" if url_host else "POSTGRES_HOST"
    if len(hosts) > 1:
        for each in hosts:
            if each in ("", EMBEDDED):
                raise SettingsError(
                    f"{source}: one of its hosts is {'`embedded`, which must stand alone' if each else 'empty'}",
                    hint="Give each server's host name, address or socket directory, with commas between them.",
                )
            _refuse_ends(each, f"{source}: one of its hosts")
    ports = _for_each(hosts, url_port.split(","), "MLOPS_DATABASE_URL")
    if "" in ports:
        of_parts = _for_each(hosts, _ports_of_parts(given), "POSTGRES_PORT")
        ports = [port or of_part for port, of_part in zip(ports, of_parts, strict=True)]
    checked = [_port(port, "MLOPS_DATABASE_URL") for port in ports]
    return host, checked[0] if len(set(checked)) == 1 else ",".join(map(str, checked))


def _for_each(hosts: list[str], ports: list[str], name: str) -> list[str]:
    if len(ports) not in (1, len(hosts)):
        raise SettingsError(
            f"{name}: there are {len(ports)} ports for {len(hosts)} host{'s' if len(hosts) > 1 else ''}",
            hint="Give one port for all hosts, or each host its own.",
        )
    return ports if len(ports) > 1 else ports * len(hosts)


def _ports_of_parts(given: Mapping[str, str]) -> list[str]:
    value = _not_empty(given, "POSTGRES_PORT", str(Settings.port))
    if value.startswith("tcp://"):
        raise SettingsError(
            "POSTGRES_PORT holds an address, not a port: Kubernetes sets it so for a service named postgres",
            hint="Set POSTGRES_PORT in the pod, or enableServiceLinks: false.",
        )
    ports = value.split(",")
    for port in ports:
        _port(port, "POSTGRES_PORT")
    return ports


def _port(value: str, name: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(MAX_PORT)) and 1 <= int(value) <= MAX_PORT):
        # A URL with a special character in its password can leave a piece of that password here: do not show it.
        shown = f"{value!r} is" if name == "POSTGRES_PORT" else "its port is"
        raise SettingsError(
            f"{name}: {shown} not a port number",
            hint=f"Give a whole number from 1 to {MAX_PORT}; PostgreSQL's own is 5432.",
        )
    return int(value)


def _password(given: Mapping[str, str], *, default: str | None) -> tuple[str | None, Path | None]:
    """The password, and the file to read it from again."""
    name = given.get("POSTGRES_PASSWORD_FILE")
    if not name:
        return given.get("POSTGRES_PASSWORD", default) or None, None
    if given.get("POSTGRES_PASSWORD"):
        raise SettingsError(
            "POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are both set", hint="Keep the one that holds the password."
        )
    file = Path(name)
    # A pipe can be read only once. And the working directory may have changed by the next connection.
    return read_password_file(file), file.absolute() if file.is_file() else None


def read_password_file(
    file: Path, source: str = "POSTGRES_PASSWORD_FILE", otherwise: str = "set POSTGRES_PASSWORD"
) -> str:
    """Read the password that a file holds.

    Args:
        file: the file.
        source: what names it, for the message.
        otherwise: another way to give the password, for the hint.

    Raises:
        SettingsError: it cannot be read, or holds none.
    """
    try:
        # As bytes, because text mode changes line ends. The one at the end is the editor's.
        password = re.sub(r"\r?\n\Z", "", file.read_bytes().decode())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"{source}: {str(file)!r} cannot be read: {reason}",
            hint=f"Mount the secret there, or {otherwise}.",
        ) from error
    if not password or "\0" in password:
        raise SettingsError(
            f"{source}: {str(file)!r} holds no password",
            hint="Write the password into it, as text on one line.",
        )
    return password


def _parse_url(url: str) -> dict[str, str]:
    """Split a URL the way libpq does, which also takes SQLAlchemy's `postgresql+psycopg2://`."""
    if not url:
        return {}
    import psycopg2.extensions  # noqa: PLC0415  (only a URL needs libpq's parser)

    problem = SettingsError(
        "MLOPS_DATABASE_URL is not a URL of one PostgreSQL database",
        hint="Write postgresql://user:password@host:port/database, with @ : / % # ? of the password percent-encoded.",
    )
    scheme, separator, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    # libpq would take what follows an unencoded @ or / of the password for the host or the database, and show it.
    unencoded = authority.count("@") > 1 or "@" in path.partition("?")[0] or "#" in rest
    if scheme.partition("+")[0] not in ("postgresql", "postgres") or not separator or unencoded:
        raise problem
    try:
        parsed: dict[str, str] = psycopg2.extensions.parse_dsn(f"postgresql://{rest}")
    except (psycopg2.ProgrammingError, UnicodeDecodeError):
        raise problem from None  # its message quotes the URL, password included
    for key, value in parsed.items():
        if key not in ("password", "sslpassword", "port"):
            _refuse_ends(value, f"MLOPS_DATABASE_URL: its {key}")
    return parsed
