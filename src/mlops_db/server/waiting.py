"""Sets how psycopg2 waits for the server: with a callback that lets Control-C through, or without one."""

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)


def wait_interruptibly() -> None:
    """Let Control-C and SIGTERM interrupt a waiting statement; libpq alone would notice them only afterwards.

    For command lines only: it applies to every psycopg2 connection of the process.
    """
    psycopg2.extensions.set_wait_callback(_wait)


@contextmanager
def wait_without_callback() -> Iterator[None]:
    """Remove the wait callback for connections that the block opens: with a callback psycopg2 cannot COPY."""
    callback = psycopg2.extensions.get_wait_callback()
    psycopg2.extensions.set_wait_callback(None)
    try:
        yield
    finally:
        psycopg2.extensions.set_wait_callback(callback)


def _wait(connection: Connection) -> None:
    """Like psycopg2's `extras.wait_select`, which however ignores Control-C if the statement is about to end."""
    try:
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            reading = [connection.fileno()] if state == psycopg2.extensions.POLL_READ else []
            writing = [connection.fileno()] if state == psycopg2.extensions.POLL_WRITE else []
            select.select(reading, writing, [])
    except KeyboardInterrupt:
        with suppress(psycopg2.Error):
            connection.cancel()
        raise
