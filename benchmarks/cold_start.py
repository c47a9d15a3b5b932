"""How long does a command take as a new process, if there is little or nothing to do?

Containers run `mlops-db init` at every start. Whole processes are timed in turn (A B C A B C ...), after one round that
is not counted. psql and an Alembic project without this project's code are timed beside them. Exit code 0 if create,
init and status take at most 0.3 times `alembic upgrade head` with nothing to do.

    uv run python benchmarks/cold_start.py
    uv run python benchmarks/cold_start.py --rounds 9 --host db.example.com --user postgres
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from psycopg2 import sql

from mlops_db.errors import MissingExtraError
from mlops_db.project import alembic_ini
from mlops_db.server.connection import connect
from mlops_db.server.embedded import client_program
from mlops_db.settings import Settings
from throwaway_server import throwaway_server

BAR = 0.3
AT_HEAD = "mlops_bench_head"
EMPTY = "mlops_bench_empty"
REFERENCE = "alembic upgrade head, nothing to do"

# The essence of what `alembic init` writes: connect, configure, run.
BARE_INI = "[alembic]\nscript_location = %(here)s\npath_separator = os\n"
BARE_ENV = """\
import os

from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine(os.environ["BARE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


@dataclass(frozen=True)
class Case:
    """A process to time.

    Attributes:
        name: its name in the table.
        command: its command line.
        database: the settings for its environment.
        prepare: called before each run, untimed.
        barred: whether the bar applies.
    """

    name: str
    command: list[str]
    database: Settings
    prepare: Callable[[], None] = lambda: None
    barred: bool = False


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="cold-start-") as name, _server(options) as server:
        folder = Path(name)
        try:
            cases = _cases(server, folder)
            times: dict[str, list[float]] = {case.name: [] for case in cases}
            for turn in range(options.rounds + 1):
                for case in cases:
                    seconds = _run(case, folder)
                    if turn:
                        times[case.name].append(seconds)
        finally:
            for database in (AT_HEAD, EMPTY):
                _drop(replace(server, database=database))
        print(f"{_versions(server)}; whole processes, {options.rounds} rounds in turn\n")
    return _report(cases, times)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time whole processes beside psql and bare Alembic.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each one runs (default 5)")
    parser.add_argument("--host", help="a server of yours; default: a temporary embedded one")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", default="postgres", help="may create databases; its password is PGPASSWORD's")
    return parser.parse_args()


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[Settings]:
    """The settings of a server that is already running when the first process starts."""
    if options.host:
        yield Settings(host=options.host, port=options.port, user=options.user, password=None)
        return
    with throwaway_server(None) as server:
        yield server


def _cases(server: Settings, folder: Path) -> list[Case]:
    head, empty = replace(server, database=AT_HEAD), replace(server, database=EMPTY)
    mlops_db, alembic = _script("mlops-db"), [*_script("alembic"), "-c", str(alembic_ini())]
    psql = [_psql(), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *_psql_target(server)]

    def recreate() -> None:
        _drop(empty)
        _maintain(server, "CREATE DATABASE {}", EMPTY)

    _drop(head)
    _run(Case("", [*mlops_db, "init"], head), folder)
    ddl = folder / "head.sql"
    ddl.write_text(_output([*alembic, "upgrade", "head", "--sql"], _environment(head), folder), encoding="utf-8")
    bare = [*_script("alembic"), "-c", str(_bare_project(folder / "bare"))]
    return [
        Case("psql, the same DDL from empty", [*psql, f"--dbname={EMPTY}", f"--file={ddl}"], empty, recreate),
        Case("psql, select 1", [*psql, f"--dbname={AT_HEAD}", "--command=SELECT 1"], head),
        Case("alembic upgrade head, from empty", [*alembic, "upgrade", "head"], empty, recreate),
        Case(REFERENCE, [*alembic, "upgrade", "head"], head),
        Case("bare Alembic project, nothing to do", [*bare, "upgrade", "head"], head),
        Case("mlops-db create, database is there", [*mlops_db, "create"], head, barred=True),
        Case("mlops-db init, at head", [*mlops_db, "init"], head, barred=True),
        Case("mlops-db status, at head", [*mlops_db, "status"], head, barred=True),
    ]


def _run(case: Case, folder: Path) -> float:
    """Run it once, in an empty folder so that no .env is read; return the seconds."""
    case.prepare()
    environment = _environment(case.database)
    started = time.perf_counter()
    _output(case.command, environment, folder)
    return time.perf_counter() - started


def _output(command: list[str], environment: Mapping[str, str], folder: Path) -> str:
    done = subprocess.run(
        command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment(settings: Settings) -> dict[str, str]:
    # Without PYTHONDONTWRITEBYTECODE, too: compiling SQLAlchemy at every start makes Alembic three times as slow.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_", "PYTHON"))}
    return kept | {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": "",
        "MLOPS_DB_NAME": settings.database,
        "BARE_URL": f"postgresql+psycopg2://{settings.user}@/{settings.database}?host={settings.host}&port={settings.port}",
        "PYTHONUTF8": "1",
    }


def _script(name: str) -> list[str]:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        sys.exit(f"{name} is not installed beside {sys.executable}")
    return [found]


def _psql() -> str:
    """The psql of the embedded server, or else of PATH. On Debian that one is a Perl script around psql."""
    try:
        return str(client_program("psql"))
    except MissingExtraError:
        return shutil.which("psql") or sys.exit("psql is not installed")


def _psql_target(server: Settings) -> list[str]:
    return [f"--host={server.host}", f"--port={server.port}", f"--username={server.user}"]


def _bare_project(folder: Path) -> Path:
    """Create a project with this project's revisions and nothing else of it; return its alembic.ini."""
    shutil.copytree(alembic_ini().parent / "migrations" / "versions", folder / "versions")
    (folder / "env.py").write_text(BARE_ENV, encoding="utf-8")
    ini = folder / "alembic.ini"
    ini.write_text(BARE_INI, encoding="utf-8")
    return ini


def _drop(settings: Settings) -> None:
    _maintain(settings, "DROP DATABASE IF EXISTS {} WITH (FORCE)", settings.database)


def _maintain(server: Settings, statement: str, database: str) -> None:
    with closing(connect(replace(server, database="postgres"))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL(statement).format(sql.Identifier(database)))


def _versions(server: Settings) -> str:
    with closing(connect(replace(server, database="postgres"))) as connection:
        version = connection.info.server_version
    return f"PostgreSQL {version // 10000}.{version % 10000}, Python {platform.python_version()}"


def _report(cases: list[Case], times: Mapping[str, list[float]]) -> int:
    medians = {name: median(seconds) for name, seconds in times.items()}
    print(f"{'process':<38}{'median s':>10}{'min':>8}{'max':>8}{'ratio':>8}")
    for name, seconds in times.items():
        ratio = medians[name] / medians[REFERENCE]
        print(f"{name:<38}{medians[name]:>10.3f}{min(seconds):>8.3f}{max(seconds):>8.3f}{ratio:>8.2f}")
    above = [case.name for case in cases if case.barred and medians[case.name] > BAR * medians[REFERENCE]]
    print(f"\nbar: create, init and status at most {BAR} times `{REFERENCE}`: ", end="")
    print(f"missed by {', '.join(above)}" if above else "holds")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
