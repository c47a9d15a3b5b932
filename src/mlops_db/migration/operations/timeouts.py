"""Longer timeouts for the one statement of an operation that needs them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.operations import Operations

    from mlops_db.migration.options import Options

LONG = "6h"
OPTIONS = "mlops_db_options"  # key of MigrationContext.opts: the Options of the run or the script


def long_timeout(operations: Operations, timeout_ms: int) -> int:
    """The timeout of a long statement: the value of `-x statement-timeout`, or else the revision's `timeout_ms`."""
    options: Options | None = operations.get_context().opts.get(OPTIONS)
    return timeout_ms if options is None or options.long_timeout is None else options.long_timeout


@contextmanager
def session_timeout(operations: Operations, name: str, milliseconds: int) -> Iterator[None]:
    """Set a timeout of the session in the block, and reset it afterwards."""
    operations.execute(f"SET {name} = {milliseconds}")
    reset = f"SET {name} = {own_timeout(operations, name)}"
    try:
        yield
    except BaseException:
        # This works in autocommit mode. In a transaction that failed it cannot, and the rollback resets it.
        with suppress(SQLAlchemyError):
            operations.execute(reset)
        raise
    operations.execute(reset)


def own_timeout(operations: Operations, name: str) -> int | str:
    """The run's own value of a timeout, for SET; RESET would take that of the connection's start, which can differ."""
    options: Options | None = operations.get_context().opts.get(OPTIONS)
    return "DEFAULT" if options is None else int(getattr(options, name))
