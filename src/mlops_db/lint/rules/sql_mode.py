"""The script that `--sql` writes does what the online run does."""

import io
from collections.abc import Callable
from functools import partial

from alembic import command
from alembic.config import Config

from mlops_db.drift.compare import differences
from mlops_db.lint.observation import Run, read_schema
from mlops_db.lint.rule import Finding, Findings, RunRule, first_line
from mlops_db.migration.commands import run_command
from mlops_db.revisions.tables import VERSION_TABLE
from mlops_db.server.client_programs import run_script
from mlops_db.server.connection import open_cursor
from mlops_db.settings import Settings


@partial(
    RunRule,
    column="--sql",
    remedy="Let --sql write what the online run does.",
    baseline=True,
    needs=lambda run: run.error is None and len(run.parents) == 1,  # --sql cannot start from two
)
def check(run: Run) -> Findings:
    """Find a script of `--sql` that fails, or whose result is not that of the online run."""
    (before,) = run.parents
    try:
        # A script that begins at base creates Alembic's table, and one that ends there leaves it.
        clear = f"DROP TABLE IF EXISTS {VERSION_TABLE};\n" if before == "base" else ""
        upgrade = clear + _script(run.config, command.upgrade, f"{before}:{run.script.revision}")
        downgrade = _script(run.config, command.downgrade, f"{run.script.revision}:{before}")
    except Exception as error:  # noqa: BLE001  (a revision can raise anything)
        yield Finding(f"--sql fails: {first_line(error)}", "Write it so that it needs no database.")
        return
    _start_at(before, run.scripted)
    for script, step in zip((upgrade, downgrade, upgrade), run.steps, strict=True):
        failure = run_script(run.scripted, script, "-v", "ON_ERROR_STOP=1")
        if failure:
            message = f"the script of its {step.direction} fails: {failure}"
            yield Finding(message, "Fix what --sql writes.")
            return
        for difference in differences(step.after.catalogue, read_schema(run.scripted)):
            yield Finding(f"the script of its {step.direction} makes a difference, {difference}")


def _script(config: Config, function: Callable[..., object], target: str) -> str:
    config.output_buffer = buffer = io.StringIO()
    try:
        run_command(function, config, target, sql=True)
    finally:
        config.output_buffer = None
    return buffer.getvalue()


def _start_at(revision: str, scripted: Settings) -> None:
    """Record the revision that the script starts from: the script before may have failed, or be of another branch."""
    with open_cursor(scripted) as cursor:
        cursor.execute("SELECT to_regclass(%s)", (VERSION_TABLE,))
        if revision != "base" and cursor.fetchone() != (None,):
            cursor.execute(f"DELETE FROM {VERSION_TABLE}")
            cursor.execute(f"INSERT INTO {VERSION_TABLE} VALUES (%s)", (revision,))
