"""What does the guard of downgrades in production cost: how long does it take, and how long do other clients wait?

`alembic downgrade 0015` with many metrics, with and without MLOPS_ENV=production. Two of its steps remove something
from the metrics. A revision of this script drops a column that has its default in every row, by dynamic SQL that the
guard cannot read beforehand. Revision 0016 puts a copy in the place of the table, and drops that. Production refuses
two more downgrades: of the column, if one row has another value, and of everything. Meanwhile a writer inserts
single rows into the three tables, and a reader queries them and their views. Exit code 0 if production allowed what
loses nothing, refused the other two downgrades, and no client got an error.

    uv run python benchmarks/guarded_downgrade.py
    uv run python benchmarks/guarded_downgrade.py --rows 10000000 --programs /usr/lib/postgresql/15/bin
"""

import argparse
import datetime as dt
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from concurrent_clients import DECISIONS, FILL, MONTHS, READS, WRITES, Client, alembic, steps
from mlops_db.migration.commands import upgrade
from mlops_db.project import BASELINE, alembic_ini
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings
from throwaway_server import connect, parser, print_table, recreate_database, throwaway_server, version

TARGET = "0015"
COLUMN = "9001"
ADD_COLUMN = '''"""Add a column to the metrics."""

from alembic import op

revision = "{revision}"
down_revision = "{head}"


def upgrade():
    op.execute("ALTER TABLE public.monitoring_metrics ADD COLUMN unit text NOT NULL DEFAULT 'ratio'")


def downgrade():
    op.execute("DO $$ BEGIN EXECUTE 'ALTER TABLE public.monitoring_metrics DROP ' || 'COLUMN unit'; END $$")
'''
OTHER_VALUE = """
INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value, unit) VALUES ('drift', 'psi', 1, 'percent')
"""
SHOWN = {COLUMN: "the column with its default", "0016": "0016, the swap"}


@dataclass(frozen=True)
class Run:
    """A run of Alembic, and the waits and errors of the clients meanwhile."""

    exit_code: int
    output: str
    waits: dict[str, tuple[float, float, float]]
    whole: tuple[float, float, float]
    errors: list[str]

    @property
    def last_line(self) -> str:
        """The line that says why the downgrade was refused."""
        return next(line for line in self.output.splitlines() if line.startswith("FAILED"))


def main() -> int:
    """Measure and print; 0 if everything is as expected."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="guarded-") as name, throwaway_server(options.programs) as server:
        ini = _project(Path(name))
        filled = replace(server, database="filled")
        recreate_database(filled)
        upgrade(filled, BASELINE)
        with connect(filled) as connection:
            connection.execute(FILL.format(rows=options.rows, months=MONTHS, decisions=DECISIONS))
        alembic(filled, "upgrade", "head", ini=ini).check_returncode()
        with connect(filled) as connection:
            connection.execute("VACUUM (ANALYZE)")
        plain = _downgrade(filled, ini, TARGET, "development")
        judged = _downgrade(filled, ini, TARGET, "production")
        with connect(filled) as connection:
            connection.execute(OTHER_VALUE)
        refused = {
            "the column with one other value": _downgrade(filled, ini, "-1", "production"),
            "everything": _downgrade(filled, ini, "base", "production"),
        }
        print(f"{version(server)}; {options.rows:,} metrics\n")
    return _report(plain, judged, refused)


def _options() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--rows", type=int, default=1_000_000, help="how many metrics (default 1 million)")
    return options.parse_args()


def _project(folder: Path) -> Path:
    """Create a copy of this project with one more revision; return its alembic.ini."""
    migrations = alembic_ini().parent / "migrations"
    shutil.copytree(migrations, folder / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "migrations" / "versions" / f"{COLUMN}_unit.py").write_text(
        ADD_COLUMN.format(revision=COLUMN, head=revisions()[-1].id), encoding="utf-8"
    )
    return Path(shutil.copy(alembic_ini(), folder))


def _downgrade(filled: Settings, ini: Path, target: str, environment: str) -> Run:
    """Downgrade a copy of the filled database."""
    settings = replace(filled, database="downgrade")
    recreate_database(settings, template=filled.database)
    with connect(settings) as connection:
        connection.execute("CHECKPOINT")
    clients = Client(WRITES), Client(READS)
    with clients[0].running(settings), clients[1].running(settings):
        started = dt.datetime.now(dt.timezone.utc)
        done = alembic(settings, "downgrade", target, ini=ini, MLOPS_ENV=environment)
        finished = dt.datetime.now(dt.timezone.utc)

    def took(since: dt.datetime, until: dt.datetime) -> tuple[float, float, float]:
        writer, reader = (client.longest(since, until) for client in clients)
        return (until - since).total_seconds(), writer, reader

    waits = {step.revision: took(step.started, step.finished) for step in steps(settings, "downgrade")}
    errors = [error for client in clients for error in client.errors]
    return Run(done.returncode, done.stdout + done.stderr, waits, took(started, finished), errors)


def _report(plain: Run, judged: Run, refused: dict[str, Run]) -> int:
    holds = (plain.exit_code, judged.exit_code) == (0, 0)
    if not holds:
        sys.exit(plain.output + judged.output)
    head = ("downgrade of", "environment", "s", "longest write s", "longest read s")
    table = []
    for revision, shown in SHOWN.items():
        table += [[shown, "development", *_seconds(plain.waits[revision])]]
        table += [[shown, "production", *_seconds(judged.waits[revision])]]
    table += [["all", "development", *_seconds(plain.whole)], ["all", "production", *_seconds(judged.whole)]]
    table += [[what, "production: refused", *_seconds(run.whole)] for what, run in refused.items()]
    print_table(head, table)
    print()
    for what, run in refused.items():
        print(f"{what}: {run.last_line}")
        holds &= run.exit_code != 0
    errors = sorted({error for run in (plain, judged, *refused.values()) for error in run.errors})
    print(f"errors of the writer and the reader: {', '.join(errors) or 'none'}")
    holds &= not errors
    print(f"\nthe same in production, the last two refused, no errors: {'holds' if holds else 'MISSED'}")
    return 0 if holds else 1


def _seconds(values: tuple[float, float, float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


if __name__ == "__main__":
    sys.exit(main())
