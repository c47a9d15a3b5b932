"""What do the run lock, the history and the checks cost an upgrade of an empty database?

`alembic upgrade head` is compared with an Alembic project that has the same revisions and the env.py of `alembic init`.
There, the operations of this project are plain statements. Whole processes are timed in turn; the ratio is the
median of the rounds' ratios. Exit code 0 if the bar holds.

    uv run python benchmarks/empty_upgrade.py
    uv run python benchmarks/empty_upgrade.py --rounds 21 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from mlops_db.project import alembic_ini
from mlops_db.settings import Settings
from throwaway_server import (
    connect,
    parser,
    print_bar,
    print_table,
    recreate_database,
    spread,
    throwaway_server,
    version,
)

BAR = 1.15
OURS = "this project"
PLAIN = "plain Alembic, one transaction"
PLAIN_BY_REVISION = "plain Alembic, a transaction each revision"
INI = """\
[alembic]
script_location = %(here)s
path_separator = os
[loggers]
keys = root,sqlalchemy,alembic
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = WARNING
handlers = console
qualname =
[logger_sqlalchemy]
level = WARNING
handlers =
qualname = sqlalchemy.engine
[logger_alembic]
level = INFO
handlers =
qualname = alembic
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
[formatter_generic]
format = %(levelname)-5.5s [%(name)s] %(message)s
datefmt = %H:%M:%S
"""
ENV = """\
import os
from logging.config import fileConfig
from pathlib import Path

from alembic import context
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import engine_from_config, pool, text


@Operations.register_operation("create_index_concurrently")
class CreateIndex(MigrateOperation):
    @classmethod
    def create_index_concurrently(
        cls, operations, name, table, columns, *, schema=None, unique=False, where=None, postgresql_include=()
    ):
        if postgresql_include:  # SQLAlchemy looks these columns up in the table, which it does not know here
            operations.execute(
                f"CREATE UNIQUE INDEX {name} ON {schema}.{table} ({', '.join(columns)})"
                f" INCLUDE ({', '.join(postgresql_include)})"
            )
            return
        operations.create_index(
            name, table, columns, schema=schema, unique=unique, postgresql_where=where and text(where)
        )


@Operations.register_operation("validate_constraint")
class ValidateConstraint(MigrateOperation):
    @classmethod
    def validate_constraint(cls, operations, name, table, *, schema):
        operations.execute(f"ALTER TABLE {schema}.{table} VALIDATE CONSTRAINT {name}")


@Operations.register_operation("execute_file")
class ExecuteFile(MigrateOperation):
    @classmethod
    def execute_file(cls, operations, name):
        statements = Path(config.get_main_option("script_location"), "versions", "sql", name).read_text("utf-8")
        operations.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})


@Operations.register_operation("stop_if_broken")
class StopIfBroken(MigrateOperation):
    @classmethod
    def stop_if_broken(cls, operations, table, broken, *, revision):
        rows = f"SELECT FROM public.{table} WHERE {' OR '.join(broken.values())}"
        if operations.get_bind().exec_driver_sql(f"SELECT EXISTS ({rows})").scalar_one():
            raise SystemExit(f"rows of {table} break rules of revision {revision}")


@Operations.register_operation("run_in_batches")
class RunInBatches(MigrateOperation):
    @classmethod
    def run_in_batches(cls, operations, statement, *, table, key, schema=None, target=None):
        operations.get_bind().execute(text(statement), {"after": -1, "upto": 2**31})


config = context.config
fileConfig(config.config_file_name)
config.set_main_option("sqlalchemy.url", os.environ["PLAIN_URL"])
connectable = engine_from_config(
    config.get_section(config.config_ini_section, {}), prefix="sqlalchemy.", poolclass=pool.NullPool
)
with connectable.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=None,
        version_table_schema="public",  # revisions from 0005 on leave it out of the search path
        transaction_per_migration="BY_REVISION" in os.environ,
    )
    with context.begin_transaction():
        context.run_migrations()
"""


def main() -> int:
    """Measure and print; 0 if the bar holds."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="empty-upgrade-") as name, throwaway_server(options.programs) as server:
        plain = _plain_project(Path(name))
        database = replace(server, database="upgrade")
        cases = {
            PLAIN: (plain, {}),
            OURS: (alembic_ini(), {}),
            PLAIN_BY_REVISION: (plain, {"BY_REVISION": "1"}),
        }
        times: dict[str, list[float]] = {case: [] for case in cases}
        for turn in range(options.rounds + 1):
            for case, (ini, variables) in cases.items():
                recreate_database(database)
                if case != OURS:
                    _create_schema(database)
                seconds = _upgrade(ini, _environment(database) | variables, Path(name))
                if turn:
                    times[case].append(seconds)
        print(f"{version(server)}; `alembic upgrade head` from empty, {options.rounds} rounds in turn\n")
    ratios = {
        case: median(mine / plain for mine, plain in zip(seconds, times[PLAIN], strict=True))
        for case, seconds in times.items()
    }
    print_table(
        ("project", "median ms", "min", "max", "ratio"),
        ([case, *spread(seconds), f"{ratios[case]:.2f}"] for case, seconds in times.items()),
    )
    print()
    return 0 if print_bar("this project against plain Alembic", ratios[OURS], BAR) else 1


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=11, help="how often each one runs (default 11)")
    return options.parse_args()


def _plain_project(folder: Path) -> Path:
    """Create a project with this project's revisions and nothing else of it; return its alembic.ini."""
    versions = alembic_ini().parent / "migrations" / "versions"
    shutil.copytree(versions, folder / "versions", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "env.py").write_text(ENV, encoding="utf-8")
    ini = folder / "alembic.ini"
    ini.write_text(INI, encoding="utf-8")
    return ini


def _create_schema(database: Settings) -> None:
    """Create the schema that the revisions rely on; in this project, the history creates it."""
    with connect(database) as connection:
        connection.execute("CREATE SCHEMA mlops_internal")


def _upgrade(ini: Path, environment: dict[str, str], folder: Path) -> float:
    """Run it, in a folder without .env; return the seconds."""
    command = [str(Path(sys.executable).parent / "alembic"), "-c", str(ini), "upgrade", "head"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=False, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return seconds


def _environment(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "MLOPS_", "PYTHON"))}
    return kept | {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": "",
        "MLOPS_DB_NAME": settings.database,
        "PLAIN_URL": f"postgresql+psycopg2://{settings.user}@/{settings.database}?host={settings.host}&port={settings.port}",
    }


if __name__ == "__main__":
    sys.exit(main())
