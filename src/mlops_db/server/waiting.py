"""How psycopg2 waits for the server: with Control-C let through, or in its own way."""

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2
import psycopg2.extensions
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)


def wait_interruptibly() -> None:
    """Let Control-C and SIGTERM through while a statement waits: libpq's own wait sees them when it is over.

    For command lines only, since it holds for every psycopg2 connection of the process.
    """
    psycopg2.extensions.set_wait_callback(_wait)


@contextmanager
def wait_without_callback() -> Iterator[None]:
    """Let psycopg2 wait in its own way within the block, for connections opened in it: otherwise it cannot COPY."""
    callback = psycopg2.extensions.get_wait_callback()
    psycopg2.extensions.set_wait_callback(None)
    try:
        yield
    finally:
        psycopg2.extensions.set_wait_callback(callback)


def _wait(connection: Connection) -> None:
    """psycopg2's `extras.wait_select`, but for Control-C: that one goes on if the statement is just about done."""
    try:
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            reading = [connection.fileno()] if state == psycopg2.extensions.POLL_READ else []
            writing = [connection.fileno()] if state == psycopg2.extensions.POLL_WRITE else []
            select.select(reading, writing, [])
    except KeyboardInterrupt:
        with suppress(psycopg2.Error):
            connection.cancel()
        raise
