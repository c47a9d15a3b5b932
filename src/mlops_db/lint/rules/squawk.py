"""Squawk finds nothing in the SQL of an upgrade; where we have a helper for its advice, the finding names it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from mlops_db.errors import MissingExtraError
from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule
from mlops_db.migration.preview import written_sql

OLDEST_SERVER = "13"

_NOT_VALID = (
    "Here: ADD CONSTRAINT <name> ... NOT VALID, then op.validate_constraint(<name>, <table>) in the next revision."
)
_BATCHES = "Here: op.run_in_batches(...), alone in its revision."
_INDEX = "Here: op.create_index_concurrently(<name>, <table>, [...]), alone in its revision."
_UNIQUE = (
    "Here: op.create_index_concurrently(..., unique=True), alone in its revision, then ADD CONSTRAINT ... USING INDEX"
    " in the next one."
)
_HELPERS = {
    "adding-field-with-default": f"Add the column without the default, then fill it. {_BATCHES}",
    "adding-foreign-key-constraint": _NOT_VALID,
    "adding-not-nullable-field": "Here: ADD CONSTRAINT <name> CHECK (... IS NOT NULL) NOT VALID, then"
    " op.validate_constraint(<name>, <table>) and SET NOT NULL in the next revision, as 0008 does.",
    "adding-primary-key-constraint": _UNIQUE,
    "adding-required-field": "Give it a constant default, or fill it first.",
    "ban-concurrent-index-creation-in-transaction": _INDEX,
    "changing-column-type": f"Add a column, fill it, and swap the names in a last revision. {_BATCHES}",
    "constraint-missing-not-valid": _NOT_VALID,
    "disallowed-unique-constraint": _UNIQUE,
    "require-concurrent-index-creation": _INDEX,
    "require-concurrent-index-deletion": 'Here: op.execute("DROP INDEX CONCURRENTLY ...") in'
    " op.get_context().autocommit_block().",
}


@partial(RunRule, column="squawk", remedy="squawk's documentation has the remedy.", needs=lambda run: run.error is None)
def check(run: Run) -> Findings:
    """Find what squawk finds in the upgrade's SQL, with our helper for it."""
    # On its own: together with others, one revision can hide another's faults.
    written = written_sql(run.script, "upgrade")
    if written is None:
        yield Finding("it writes no SQL without a database", "Make it work in --sql mode.")
        return
    for warning in _warnings(f"SET lock_timeout = '1s';\nSET statement_timeout = '30s';\nBEGIN;\n{written}\nCOMMIT;\n"):
        rule = warning["rule_name"]
        remedies = filter(None, (warning.get("help"), _HELPERS.get(rule)))
        yield Finding(f"{rule}: {warning['message'].rstrip('.')}", " ".join(remedies))


def _warnings(script: str) -> list[dict[str, str]]:
    """Squawk's findings in a script."""
    beside = Path(sys.executable).with_name("squawk")
    program = str(beside) if beside.exists() else shutil.which("squawk")
    if program is None:
        raise MissingExtraError(
            "the checks of the revisions need squawk, which is not installed",
            hint="Run `pip install 'mlops-db[check]'` (in a checkout: `uv sync`).",
        )
    with tempfile.NamedTemporaryFile("w", suffix=".sql", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(  # noqa: S603  (the linter)
            [
                *(program, "--reporter", "json", "--pg-version", OLDEST_SERVER, "--config", os.devnull),
                # The one asks for IF NOT EXISTS, which takes an invalid index for a good one; our operation looks. The
                # other warns of dropping a view, which holds no rows: its columns cannot change in another way.
                *("--exclude", "prefer-robust-stmts,ban-drop-view", file.name),
            ],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found
