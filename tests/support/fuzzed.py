"""Nonsense input for the two commands: command lines and environments. A seed always gives the same ones."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from support.process import SECRET

# These take milliseconds. Commands with a scratch database or a server of their own have other tests.
READER = "mlops_test_reader"  # the role that the test makes
COMMANDS = (
    ("mlops-db",),
    ("mlops-db", "--help"),
    ("mlops-db", "--version"),
    ("mlops-db", "create"),
    ("mlops-db", "init"),
    ("mlops-db", "status"),
    ("mlops-db", "status", "--json"),
    ("mlops-db", "history"),
    ("mlops-db", "history", "--limit", "2"),
    ("mlops-db", "history", "--json"),
    ("mlops-db", "adopt", "--dry-run"),
    ("mlops-db", "maintain", "--dry-run"),
    ("mlops-db", "maintain", "--keep", "90d"),
    ("mlops-db", "grant-reader", READER),
    ("mlops-db", "demo", "--days", "1000", "--seed", "7"),
    ("mlops-db", "check"),
    ("mlops-db", "check", "--sql", "--revisions"),
    ("mlops-db", "alembic"),
    ("mlops-db", "alembic", "--help"),
    ("mlops-db", "alembic", "upgrade", "head"),
    ("mlops-db", "alembic", "upgrade", "0003:0005", "--sql"),
    ("mlops-db", "alembic", "downgrade", "-1"),
    ("mlops-db", "alembic", "stamp", "head"),
    ("mlops-db", "alembic", "current"),
    ("mlops-db", "alembic", "heads"),
    ("mlops-db", "alembic", "history", "-r", "0019:"),
    ("mlops-db", "alembic", "show", "0004"),
    ("mlops-db", "alembic", "branches"),
    ("mlops-db", "alembic", "merge", "0004", "-m", "x"),
    ("mlops-db", "alembic", "-x", "plan=true", "upgrade", "head"),
    ("mlops-db", "alembic", "-x", "plan=true", "downgrade", "base"),
    ("alembic", "upgrade", "head"),
    ("alembic", "-x", "plan=true", "downgrade", "base"),
    ("alembic", "current"),
)
# For these argparse prints its own message, in another form than ours.
OF_ALEMBIC = "alembic"
VARIABLES = (
    "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "MLOPS_DB_NAME",
    "MLOPS_OWNER_ROLE", "MLOPS_DATABASE_URL", "MLOPS_ENV", "MLOPS_LOCK_WAIT", "MLOPS_LOCK_TIMEOUT",
    "MLOPS_STATEMENT_TIMEOUT", "MLOPS_RETRY_FOR", "MLOPS_POOL_SIZE", "MLOPS_POOL_OVERFLOW", "MLOPS_POOL_TIMEOUT",
    "MLOPS_POOL_LOCK_TIMEOUT", "MLOPS_POOL_STATEMENT_TIMEOUT",
    "MLOPS_POOL_RECYCLE", "MLOPS_POOL_PRE_PING", "MLOPS_POOL_APPLICATION_NAME",
    "PGAPPNAME", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGHOSTADDR", "PGOPTIONS", "PGPASSFILE", "PGSERVICE",
    "PGSSLMODE", "PGSSLROOTCERT", "PGTARGETSESSIONATTRS", "PGTZ",
)  # fmt: skip
OPTIONS = (
    "plan", "allow-data-loss", "legacy-timezone", "lock-timeout", "lock-wait", "retry-for", "show-queries",
    "backup", "statement-timeout", "tenant",
)  # fmt: skip
JUNK = (
    "", " ", "\t", "a b", "x" * 300, "0", "-1", "+1", "1", "90", "1.5", "1e9", "9" * 30, "٣", "½", "0x10", "1_0",
    "true", "null", "NaN", "base", "head", "heads", "current", "0004", "0004:0005", ":", "a:b:c", "head-99", "@",
    "x@head", "5s", "0s", "25d", "-5s", "500ms", "1min", "10 s", "'; DROP TABLE model_versions; --", '"', "$(id)",
    "`id`", "..", "/dev/null", "/", "%", "%s", "%(here)s", "{0}", "[red]x", "\x1b[31m", "a\nb", "ends\n", "\udcff",
    "caf\u00e9", "🔑", "\u202e", "\ufeff", "Europe/Berlin", "production", "-c role=nobody", "-c statement_timeout=x",
    "UTF8", "-", "--", "--nope", "--sql", "-x", "-c", "-n", "--keep", "--json", "stat", "upgrade",
)  # fmt: skip
HOSTS = ("no..host", "127.0.0.1", "/no/such/folder", "a,b", "@abstract")  # no name server is asked for any of them


@dataclass(frozen=True)
class Input:
    """A command line and its environment, without the variables of the test's database."""

    arguments: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


def inputs(seed: int, *, database: str, host: str, port: int) -> Iterator[Input]:
    """An endless series of distinct inputs. About half of them are right."""
    chance = random.Random(seed)  # noqa: S311  (not for secrets)
    seen = set()
    while True:
        arguments = list(chance.choice(COMMANDS))
        variables = {"POSTGRES_PASSWORD": SECRET}
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            kind = chance.choice(("argument", "variable", "variable", "option", "url"))
            if kind == "argument" and arguments[0] != OF_ALEMBIC:
                _misspell(chance, arguments)
            elif kind == "option" and OF_ALEMBIC in arguments[:2]:
                place = arguments.index(OF_ALEMBIC) + 1
                arguments[place:place] = ["-x", f"{chance.choice(OPTIONS)}={chance.choice(JUNK)}"]
            elif kind == "url":
                variables["MLOPS_DATABASE_URL"] = _url(chance, database, host, port)
            else:
                name = chance.choice(VARIABLES)
                variables[name] = chance.choice(HOSTS if "HOST" in name else JUNK)
        found = Input(tuple(arguments), tuple(sorted(variables.items())))
        if found not in seen:
            seen.add(found)
            yield found


def _misspell(chance: random.Random, arguments: list[str]) -> None:
    place = chance.randrange(1, len(arguments) + 1)
    junk = chance.choice((*JUNK, f"postgresql://airflow:{SECRET}@db/mlops"))
    if chance.random() < 0.5:
        arguments[place : place + 1] = [junk]
    else:
        arguments[place:place] = [junk]


def _url(chance: random.Random, database: str, host: str, port: int) -> str:
    password = chance.choice((quote(SECRET), SECRET, f"{SECRET}@", f"{SECRET}/x", f"%zz{SECRET}", f"a:{SECRET}#"))
    scheme = chance.choice(("postgresql", "postgresql", "postgres", "postgresql+psycopg2", "mysql", ""))
    where = chance.choice(
        (f"{quote(host, safe='')}:{port}", "", "127.0.0.1:1", "127.0.0.1:x", "[::1", "a,b", "no..host")
    )
    name = chance.choice((database, database, quote(chance.choice(JUNK), safe="", errors="surrogateescape")))
    query = chance.choice(
        ("", "", "?sslmode=x", "?connect_timeout=x", "?nope=1", "?options=-c%20x", "?password=", "?a")
    )
    return f"{scheme}://airflow:{password}@{where}/{name}{query}"
