"""`op.validate_constraint`: checks the rows that a constraint added NOT VALID has not checked."""

from __future__ import annotations

from alembic.operations import MigrateOperation, Operations

from mlops_db.migration.operations.timeouts import LONG, long_timeout, own_timeout, session_timeout
from mlops_db.settings import duration_ms


@Operations.register_operation("validate_constraint")
class ValidateConstraint(MigrateOperation):
    """ALTER TABLE ... VALIDATE CONSTRAINT, with the time that reading the whole table takes."""

    @classmethod
    def validate_constraint(
        cls,
        operations: Operations,
        constraint_name: str,
        table_name: str,
        *,
        schema: str | None = None,
        timeout: str = LONG,
    ) -> None:
        """Check the rows that a constraint added NOT VALID has not checked.

        It reads the whole table under SHARE UPDATE EXCLUSIVE, which blocks neither readers nor writers; lock_timeout
        stays short. Put it into a revision after the one that adds the constraint: in the same transaction it would run
        under the ACCESS EXCLUSIVE lock of that statement.

        Args:
            operations: given by Alembic.
            constraint_name: name of the constraint.
            table_name: its table.
            schema: the table's schema; default: the search path's, public.
            timeout: a duration such as `6h`: how long it may take, unless `-x statement-timeout` gives another.
        """
        quote = operations.get_context().dialect.identifier_preparer.quote
        table = ".".join(quote(name) for name in (schema, table_name) if name)
        validate = f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote(constraint_name)}"
        timeout_ms = long_timeout(operations, duration_ms(timeout, "timeout"))
        if operations.get_context().as_sql:
            with session_timeout(operations, "statement_timeout", timeout_ms):
                operations.execute(validate)
        else:
            # All in one message: the timeout holds for each statement of it (manual, "statement_timeout").
            own = own_timeout(operations, "statement_timeout")
            operations.execute(
                f"SET LOCAL statement_timeout = {timeout_ms}; {validate}; SET LOCAL statement_timeout = {own}"
            )
