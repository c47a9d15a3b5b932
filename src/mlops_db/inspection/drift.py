"""What differs between a database and what the revisions up to its own one make."""

from __future__ import annotations

import secrets
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg2
from psycopg2 import sql

from mlops_db.errors import BehindHeadError, NotPermittedError, printable
from mlops_db.inspection import others
from mlops_db.inspection.catalogue import Catalogue, Name, Properties, read_catalogue
from mlops_db.inspection.owners import Owners, read_owners
from mlops_db.migration.commands import upgrade
from mlops_db.revisions.recorded import recorded_revision
from mlops_db.server.connection import SafeCursor, connect, explained_statement_failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.settings import Settings

SCRATCH_PREFIX = "mlops_scratch_"
STALE_AFTER_S = 3600


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the revisions make it.

    Attributes:
        name: the object.
        property: which of its properties differs; empty if the whole object is missing or unexpected.
        expected: what the revisions make; None for nothing.
        found: what is there; None for nothing.
    """

    name: Name
    property: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        """The difference in one line."""
        name = printable(str(self.name))
        if not self.property:
            return f"{name}: {'missing' if self.found is None else 'unexpected'}"
        expected, found = (
            _one_line(text if text is None or self.property != "grants" else text.replace("\n", ", "))
            for text in (self.expected, self.found)
        )
        return f"{name}: {self.property}: expected {printable(expected)}, found {printable(found)}"


@dataclass(frozen=True)
class Drift:
    """A database beside what it should be.

    Attributes:
        revision: the revision that it is at.
        expected: what the revisions up to that one make, with what others were granted on it.
        found: what of ours is there.
        owners: who owns it, and who should.
        theirs: what is somebody else's, one line a thing.
        dependents: what of theirs stands on ours.
    """

    revision: str
    expected: Catalogue
    found: Catalogue
    owners: Owners = field(default_factory=Owners)
    theirs: list[str] = field(default_factory=list)
    dependents: list[others.Dependent] = field(default_factory=list)

    @property
    def differences(self) -> list[Difference]:
        """Every difference; of a table that is missing or unexpected as a whole, not also each of its parts."""
        wrong = self.owners.wrong(self.expected)
        return [
            *differences(self.expected, self.found),
            *(Difference(name, "owner", self.owners.expected, owner) for name, owner in wrong.items()),
        ]


@dataclass(frozen=True)
class Reading:
    """What was read of a database, for `compare`."""

    catalogue: Catalogue
    owners: Owners
    dependents: list[others.Dependent]


def read_database(cursor: psycopg2.extensions.cursor, owner_role: str | None = None) -> Reading:
    """Read what is there, who owns it and what depends on it.

    Args:
        cursor: of a connection to the database. Sets the transaction's search path.
        owner_role: who should own what is ours, if a setting says so.
    """
    catalogue = read_catalogue(cursor)
    return Reading(catalogue, read_owners(cursor, owner_role), others.read_dependents(cursor))


def compare(revision: str, expected: Catalogue, reading: Reading) -> Drift:
    """Hold a database against what the revisions up to `revision` make; what is somebody else's is left out."""
    ours, theirs = others.divide(expected, reading.catalogue)
    wholes = {name.within or name.name for name in ours}
    return Drift(
        revision,
        others.with_their_grants(expected, ours),
        ours,
        reading.owners,
        others.lines(expected, ours, theirs),
        [dependent for dependent in reading.dependents if dependent.within not in wholes],
    )


def differences(expected: Catalogue, found: Catalogue) -> list[Difference]:
    """Compare two catalogues, object by object and property by property."""
    result = []
    reordered = {
        table for table in _tables(expected) if _order(table, expected, found) != _order(table, found, expected)
    }
    for name in [*expected, *(name for name in found if name not in expected)]:
        wanted, there = expected.get(name), found.get(name)
        if wanted is None or there is None:
            if not _goes_with_its_table(name, expected, found):
                result.append(Difference(name, "", _whole(wanted), _whole(there)))
            continue
        result.extend(
            Difference(name, property_, wanted.get(property_), there.get(property_))
            for property_ in {**wanted, **there}
            if wanted.get(property_) != there.get(property_)
            # What a view reads follows from its definition; a column that is missing moves all that come after it.
            and property_ != "reads"
            and (property_ != "position" or name.within in reordered)
        )
    return result


def _tables(catalogue: Catalogue) -> set[str]:
    return {name.within for name in catalogue if name.kind == "column"}


def _order(table: str, catalogue: Catalogue, other: Catalogue) -> list[str]:
    """The columns of the table that both have, in the order of this one."""
    return [name.name for name in catalogue if name.kind == "column" and name.within == table and name in other]


def read_drift(settings: Settings) -> Drift:
    """Compare the settings' database with a scratch database on the same server, made by the revisions.

    Reads the database in one read-only transaction; creates the scratch database and drops it again.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
        BehindHeadError: no revision has run yet, so there is nothing to compare.
        NotPermittedError: the role may not create databases.
    """
    with _reading(settings) as cursor:
        revision = recorded_revision(cursor, settings.target)
        if revision is None:
            raise BehindHeadError(None, settings.target)
        reading = read_database(cursor, getattr(settings, "owner_role", None))
    return compare(revision, catalogue_of(settings, revision), reading)


def catalogue_of(settings: Settings, revision: str) -> Catalogue:
    """The catalogue that the revisions up to `revision` make, on the settings' server."""
    with scratch_database(settings) as scratch:
        upgrade(scratch, revision)
        with _reading(scratch) as cursor:
            return read_catalogue(cursor)


@contextmanager
def scratch_database(settings: Settings) -> Iterator[Settings]:
    """An empty database on the settings' server for the time of the block; the settings that reach it.

    What an earlier run had to leave behind, because it was killed, is dropped once it is an hour old.

    Raises:
        NotPermittedError: the role may not create databases.
    """
    name = f"{SCRATCH_PREFIX}{int(time.time())}_{secrets.token_hex(4)}"
    scratch = replace(settings, database=name, environment="development")  # nothing in it is worth protecting
    # From the database itself: it is the one that this role is known to reach.
    with closing(connect(settings)) as connection:
        connection.autocommit = True
        with connection.cursor(cursor_factory=SafeCursor) as cursor:
            try:
                _drop_stale(cursor)
                cursor.execute_alone(
                    sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name))
                )
                # Nobody else has anything to put into it, or to keep it open for.
                cursor.execute_alone(
                    sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
                )
            except psycopg2.errors.InsufficientPrivilege:
                raise NotPermittedError(
                    f'role "{settings.user}" may not create databases, and the comparison needs a scratch database',
                    hint=f'Let a superuser run ALTER ROLE "{settings.user}" CREATEDB, or run it as a role that has it.',
                ) from None
            except psycopg2.Error as error:
                raise explained_statement_failure(error, settings) from None
        try:
            yield scratch
        finally:
            with connection.cursor(cursor_factory=SafeCursor) as cursor:
                # FORCE, because what an interruption left open may still be connected.
                cursor.execute_alone(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _drop_stale(cursor: SafeCursor) -> None:
    cursor.execute(
        "SELECT datname FROM pg_database AS d WHERE starts_with(datname, %s) AND pg_has_role(datdba, 'USAGE')"
        " AND NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.datid = d.oid)",
        (SCRATCH_PREFIX,),
    )
    for (name,) in cursor.fetchall():
        begun = name.removeprefix(SCRATCH_PREFIX).partition("_")[0]
        if begun.isdigit() and time.time() - int(begun) > STALE_AFTER_S:
            cursor.execute_alone(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


@contextmanager
def _reading(settings: Settings) -> Iterator[psycopg2.extensions.cursor]:
    with closing(connect(settings)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        try:
            with connection.cursor(cursor_factory=SafeCursor) as cursor:
                yield cursor
        except psycopg2.Error as error:
            raise explained_statement_failure(error, settings) from None


def _goes_with_its_table(name: Name, expected: Catalogue, found: Catalogue) -> bool:
    if not name.within:
        return False
    table = Name("table", "", name.within)
    if ("partition bound" in expected.get(table, {})) != ("partition bound" in found.get(table, {})):
        return True  # a partition's parts are its table's; this one was attached, or detached
    return any((owner in expected) != (owner in found) for owner in _owners(name))


def _owners(name: Name) -> Iterator[Name]:
    for kind in ("table", "view", "materialized view"):
        yield Name(kind, "", name.within)


def _whole(properties: Properties | None) -> str | None:
    return None if properties is None else "there"


def _one_line(text: str | None) -> str:
    return "nothing" if text is None else " ".join(text.split())
