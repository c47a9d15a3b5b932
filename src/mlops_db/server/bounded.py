"""A connection that answers in time or is given up, to learn whether a server is there at all.

libpq waits without an end for a server that took a connection, or a statement, and says nothing. So this one never
blocks: it is psycopg2's asynchronous connection, waited for until its time is over. That also holds for each server of
several, and each address of one, in its share of the time; libpq would spend it all on the first.
"""

import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Connection  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import NoAnswerError
from mlops_db.server.connection import connection_parameters
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
        """Begin a transaction, in which the server gives up a statement soon after this connection is given up."""
        limit_ms = int(1000 * (max(0.0, self.until - time.monotonic()) + 1))
        with self.cursor() as cursor:
            cursor.execute_alone(f"BEGIN; SET LOCAL statement_timeout = {limit_ms}")

    def rollback(self) -> None:
        """End the transaction."""
        with self.cursor() as cursor:
            cursor.execute_alone("ROLLBACK")

    def wait(self) -> None:
        """Wait for what was asked.

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
        timeout: for how many seconds to wait for the connection and everything that is asked through it.

    Raises:
        NoAnswerError: the time was over before there was a connection.
        ConnectionFailedError: there is none for another reason; the subclass says which.
        PoolerError: a pooler takes no options.
    """
    given = connection_parameters(settings, connection_factory=BoundedConnection, async_=1)
    until = time.monotonic() + timeout
    refusals: list[str] = []
    in_vain = False
    with translate_connection_failures(settings, given["dbname"]):
        for place, until_then in _places(given, until, refusals):
            try:
                connection = _opened(given | place, until_then)
            except TimeoutError:  # noqa: PERF203  (the next one may answer)
                in_vain = True
            except psycopg2.OperationalError as error:
                # libpq, too, goes on to the next one only from a server that starts or stops.
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
    """What to raise when the time is over."""
    return NoAnswerError(
        f"{settings.target} gave no answer within {timeout:g} s",
        hint="It may be frozen or overloaded, or something on the way drops what is sent: look at the server, then "
        "repeat the call.",
    )


def _opened(given: dict[str, Any], until: float) -> BoundedConnection:
    connection: BoundedConnection = psycopg2.connect(**given)
    connection.until = until
    try:
        connection.wait()
    except BaseException:
        connection.close()
        raise
    return connection


def _places(given: dict[str, Any], until: float, refusals: list[str]) -> Iterator[tuple[dict[str, str], float]]:
    """Where to look, one after the other, and until when: each host by each of its addresses.

    What is wrong with a host's name is added to `refusals`.
    """
    hosts, ports = given["host"].split(","), str(given["port"]).split(",")
    addresses = given.get("hostaddr", os.environ.get("PGHOSTADDR", "")).split(",")
    counts = {len(hosts), len(ports), len(addresses)}
    if len(counts - {1}) > 1 or given.get("service", os.environ.get("PGSERVICE")):
        yield {}, until  # libpq says what is wrong; or the service may give an address
        return
    for number, host in enumerate(hosts):
        until_next = _part(until, len(hosts) - number)
        found = [addresses[number % len(addresses)]]
        if not found[0] and not host.startswith(("/", "@")):
            found = _resolved(host, until_next, refusals)
        for count, address in enumerate(found):
            place = {"host": host, "port": ports[number % len(ports)], "hostaddr": address}
            yield place, _part(until_next, len(found) - count)


def _part(until: float, parts: int) -> float:
    """When the first of so many equal parts of the time ends."""
    now = time.monotonic()
    return now + (until - now) / parts


def _resolved(host: str, until: float, refusals: list[str]) -> list[str]:
    """The addresses of a host; none if that takes too long. What looks them up cannot be stopped: it is left behind."""
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
