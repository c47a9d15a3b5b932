"""`op.execute_file`: the statements of an SQL file that belongs to a revision.

Revisions import nothing of this package; they find the operation beside Alembic's own, because env.py loads this
module. The file is in the folder `sql` beside the revision: there it is found in a checkout, in an installed package
and in a version location of another project, and it comes along when the folder of the revisions is copied.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import DDL

from mlops_db.errors import RefusedError
from mlops_db.migration.statements import split_statements
from mlops_db.migration.step import STEP
from mlops_db.revisions.files import missing_sql_file, sql_folder

if TYPE_CHECKING:
    from pathlib import Path

    from alembic.runtime.migration import MigrationContext

    from mlops_db.migration.step import RunningStep

REVISION_FILE = "mlops_db_revision_file"  # key of MigrationContext.opts: the path of the revision that runs
# The comment at the top, up to an empty line: it is for readers of the file, not for the server.
_HEADER = re.compile(r"\A(?:--[^\n]*\n)+\n+")


@Operations.register_operation("execute_file")
class ExecuteFile(MigrateOperation):
    """The statements of an SQL file."""

    @classmethod
    def execute_file(cls, operations: Operations, name: str) -> None:
        """Execute the statements of a file.

        They are sent as they are written: nothing in them is a parameter. The comment at the top of the file is not
        sent. In a transaction without a guard of rows they are one message, because each costs a round trip.

        Args:
            operations: given by Alembic.
            name: the file in the folder `sql` beside the revision, such as `0022_v_model_timeline.sql`.

        Raises:
            RefusedError: the file is not there, or is not UTF-8; or no run of this package calls the revision.
        """
        revision: Path | None = operations.get_context().opts.get(REVISION_FILE)
        if revision is None:
            raise RefusedError(
                f"op.execute_file({name!r}) was called outside of a run of revisions",
                hint="Run the revision with `alembic` and an env.py like that of this project, or use op.execute.",
            )
        path = sql_folder(revision) / name
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            fault = missing_sql_file(revision, name)
            raise RefusedError(fault.message, hint=fault.remedy) from None
        except UnicodeDecodeError as error:
            raise RefusedError(f"{path} is not UTF-8: {error.reason}", hint="Save it as UTF-8.") from None
        text = _HEADER.sub("", text)
        statements = split_statements(text)
        if _may_send_all_at_once(operations.get_context()) and next(statements, None):
            execute_as_written(operations, text)
            return
        for statement in statements:
            execute_as_written(operations, statement)


def _may_send_all_at_once(migration: MigrationContext) -> bool:
    """Whether statements do the same in one message: not if the guard compares the rows after each, or each commits."""
    step: RunningStep | None = migration.opts.get(STEP)
    if step is None or migration.as_sql:
        return False
    return step.transaction.guard is None and not step.transaction.outside


def execute_as_written(operations: Operations, statement: str) -> None:
    """Execute a statement in which neither a colon nor a per cent sign means a parameter."""
    as_written = DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]  # SQLAlchemy has it untyped
    operations.execute(as_written)
