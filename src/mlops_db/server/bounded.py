"""A connection with a time limit on every answer, to find out whether a server is there at all.

libpq waits without a limit for a server that accepts a connection, or a statement, and does not answer. So this is
psycopg2's asynchronous connection, which never blocks. If there are several servers, or several addresses of one, each
gets its share of the time; libpq would spend all of it on the first.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import NoAnswerError
from mlops_db.server.connection import LIMIT_PATIENCE_S, connection_parameters, open_below_limits
from mlops_db.server.cursor import SafeCursor
from mlops_db.server.failures import translate_connection_failures
from mlops_db.settings import Settings


class BoundedConnection(Connection):
    """A connection in autocommit whose every wait ends at `until`, by the monotonic clock."""

    until = 0.0

    def cursor(self, *_: Any, **__: Any) -> Any:
        """Make a cursor for statements of our own."""
        return super().cursor(cursor_factory=_BoundedCursor)

    def begin(self) -> None:
        """Begin a transaction with a statement_timeout that ends soon after this connection's own limit."""
        limit_ms = int(1000 * (max(0.0, self.until - time.monotonic()) + 1))
        with self.cursor() as cursor:
            cursor.execute_alone(f"BEGIN; SET LOCAL statement_timeout = {limit_ms}")

    def rollback(self) -> None:
        """End the transaction."""
        with self.cursor() as cursor:
            cursor.execute_alone("ROLLBACK")

    def wait(self) -> None:
        """Wait for the answer.

        Raises:
            TimeoutError: the time is over.
        """
        while (state := self.poll()) != POLL_OK:
            event = selectors.EVENT_READ if state == POLL_READ else selectors.EVENT_WRITE
            with selectors.DefaultSelector() as selector:  # select() takes no descriptor above 1,023
                selector.register(self.fileno(), event)
                if not selector.select(max(0.0, self.until - time.monotonic())):
                    raise TimeoutError


class _BoundedCursor(SafeCursor):
    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
        super().execute(query, vars)
        self.connection.wait()  # type: ignore[attr-defined]  # a BoundedConnection

    def execute_alone(self, query: Any) -> None:
        super().execute_alone(query)
        self.connection.wait()  # type: ignore[attr-defined]  # a BoundedConnection


def open_bounded(settings: Settings, timeout: float) -> BoundedConnection:
    """Connect.

    Args:
        settings: the database.
        timeout: how many seconds the connection and all its statements may take.

    Raises:
        NoAnswerError: the time was over before there was a connection.
        ConnectionFailedError: there is no connection for another reason; the subclass says which.
        PoolerError: a pooler takes no options.
    """
    given = connection_parameters(settings, connection_factory=BoundedConnection, async_=1)
    until = time.monotonic() + timeout
    refusals: list[str] = []
    in_vain = False
    with translate_connection_failures(settings, given["dbname"]):
        for place, until_then in _addresses(given, until, refusals):
            try:
                patience = min(until_then, time.monotonic() + LIMIT_PATIENCE_S)
                connection = open_below_limits(partial(_open, given | place, until_then), patience)
            except TimeoutError:  # noqa: PERF203  (the next one may answer)
                in_vain = True
            except psycopg2.OperationalError as error:
                # Like libpq: only a server that starts or stops is passed over for the next one.
                if "FATAL" in str(error) and "the database system is" not in str(error):
                    raise
                refusals.append(str(error))
            else:
                connection.until = until
                return connection
        if in_vain or not refusals:
            raise no_answer(settings, timeout)
        raise psycopg2.OperationalError("\n".join(refusals))


def no_answer(settings: Settings, timeout: float) -> NoAnswerError:
    """The error to raise when the time is over."""
    return NoAnswerError(
        f"{settings.target} gave no answer within {round(timeout, 3):g} s",
        hint="The server may be frozen or overloaded, or the network may drop packets. Look at the server, then "
        "repeat the call.",
    )


def _open(given: dict[str, Any], until: float) -> BoundedConnection:
    connection: BoundedConnection = psycopg2.connect(**given)
    connection.until = until
    try:
        connection.wait()
    except BaseException:
        connection.close()
        raise
    return connection


def _addresses(given: dict[str, Any], until: float, refusals: list[str]) -> Iterator[tuple[dict[str, str], float]]:
    """Each address of each host, one after the other, with the time at which to give it up.

    A host name that cannot be resolved is added to `refusals`.
    """
    hosts, ports = given["host"].split(","), str(given["port"]).split(",")
    addresses = given.get("hostaddr", os.environ.get("PGHOSTADDR", "")).split(",")
    counts = {len(hosts), len(ports), len(addresses)}
    if len(counts - {1}) > 1 or given.get("service", os.environ.get("PGSERVICE")):
        yield {}, until  # libpq reports the error; or the service may give an address
        return
    for number, host in enumerate(hosts):
        until_next = _end_of_first(until, len(hosts) - number)
        found = [addresses[number % len(addresses)]]
        if not found[0] and not host.startswith(("/", "@")):
            found = _look_up(host, until_next, refusals)
        for count, address in enumerate(found):
            place = {"host": host, "port": ports[number % len(ports)], "hostaddr": address}
            yield place, _end_of_first(until_next, len(found) - count)


def _end_of_first(until: float, parts: int) -> float:
    """The end of the first of so many equal parts of the time that is left."""
    now = time.monotonic()
    return now + (until - now) / parts


def _look_up(host: str, until: float, refusals: list[str]) -> list[str]:
    """Look up the addresses of a host; none if that takes too long. Its thread cannot be stopped and is left."""
    found: list[str] = []

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no host name"
            refusals.append(f'could not translate host name "{host}" to address: {reason}')
        else:
            found.extend(dict.fromkeys(str(info[4][0]) for info in infos))

    thread = threading.Thread(target=look_up, daemon=True, name="mlops-db looks up a host")
    thread.start()
    thread.join(max(0.0, until - time.monotonic()))
    return list(found)
