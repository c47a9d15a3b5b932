"""Compares a database with what the revisions up to its own one create."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import unified_diff
from typing import TYPE_CHECKING

from mlops_db.drift import others
from mlops_db.drift.catalogue import Catalogue, Name, read_catalogue, reading
from mlops_db.drift.obstructions import obstructions
from mlops_db.drift.owners import Owners, read_owners
from mlops_db.drift.rendering import as_written_here, trying
from mlops_db.drift.snapshot import expected_catalogue
from mlops_db.errors import BehindHeadError, printable
from mlops_db.migration.dependents import Dependent, read_dependents
from mlops_db.revisions.gate import find_head

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.settings import Settings

LONG = 100


@dataclass(frozen=True)
class Difference:
    """One difference between a database and what its revisions make.

    Attributes:
        name: the object.
        property: which of its properties differs; empty if the whole object is missing or unexpected.
        expected: what the revisions make; None for nothing.
        found: what the database has; None for nothing.
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
        if self._is_long():
            return f"{name}: {self.property} {'differ' if self.property.endswith('s') else 'differs'}"
        if self.property == "not null":
            expected, found = ("NULL allowed" if text is None else "NOT NULL" for text in (self.expected, self.found))
            return f"{name}: expected {expected}, found {found}"
        expected, found = (
            "nothing" if text is None else printable(text.replace("\n", ", ")) for text in (self.expected, self.found)
        )
        return f"{name}: {self.property}: expected {expected}, found {found}"

    def details(self) -> list[str]:
        """A unified diff, if the texts do not fit into one line; otherwise nothing."""
        if not self._is_long():
            return []
        expected, found = ((text or "").splitlines() for text in (self.expected, self.found))
        return [printable(line) for line in unified_diff(expected, found, "expected", "found", n=1, lineterm="")]

    def _is_long(self) -> bool:
        texts = [text for text in (self.expected, self.found) if self.property and text is not None]
        return any(len(text) > LONG or ("\n" in text and self.property != "grants") for text in texts)


@dataclass(frozen=True)
class Drift:
    """A database compared with what its revisions make.

    Attributes:
        revision: the revision that it is at.
        expected: what the revisions up to that one make, with the grants to others.
        found: our objects in the database.
        owners: who owns them, and who should.
        theirs: the objects of others, one line each.
        dependents: the objects of others that depend on ours.
        obstructions: why no statement can repair an object.
    """

    revision: str
    expected: Catalogue
    found: Catalogue
    owners: Owners = field(default_factory=Owners)
    theirs: list[str] = field(default_factory=list)
    dependents: list[Dependent] = field(default_factory=list)
    obstructions: dict[Name, str] = field(default_factory=dict)

    @property
    def differences(self) -> list[Difference]:
        """Every difference; if a whole table is missing or unexpected, its parts are not listed."""
        wrong = self.owners.wrong(self.expected)
        return [
            *differences(self.expected, self.found),
            *(Difference(name, "owner", self.owners.expected, owner) for name, owner in wrong.items()),
        ]


def read_database(cursor: Cursor, owner_role: str | None = None) -> tuple[Catalogue, Owners, list[Dependent]]:
    """Read the objects of our schemas, their owners and dependents, for `compare`.

    Args:
        cursor: of a connection to the database. Sets the transaction's search path.
        owner_role: the role that should own our objects, from the settings.
    """
    catalogue = read_catalogue(cursor)
    return catalogue, read_owners(cursor, owner_role), read_dependents(cursor)


def compare(
    revision: str, expected: Catalogue, catalogue: Catalogue, owners: Owners, dependents: list[Dependent]
) -> Drift:
    """Compare a database with what the revisions up to `revision` make, without the objects of others."""
    ours, theirs = others.divide(expected, catalogue)
    wholes = {name.within or name.name for name in ours}
    return Drift(
        revision,
        others.with_their_grants(expected, ours),
        ours,
        owners,
        others.lines(expected, ours, theirs),
        [dependent for dependent in dependents if dependent.within not in wholes],
    )


def differences(expected: Catalogue, found: Catalogue) -> list[Difference]:
    """Compare two catalogues, object by object and property by property."""
    result = []
    tables = {name.within for name in expected if name.kind == "column"}
    reordered = {table for table in tables if _order(table, expected, found) != _order(table, found, expected)}
    for name in [*expected, *(name for name in found if name not in expected)]:
        wanted, there = expected.get(name), found.get(name)
        if wanted is None or there is None:
            if not _goes_with_its_table(name, expected, found):
                whole = (None if properties is None else "there" for properties in (wanted, there))
                result.append(Difference(name, "", *whole))
            continue
        result.extend(
            Difference(name, property_, wanted.get(property_), there.get(property_))
            for property_ in {**wanted, **there}
            if wanted.get(property_) != there.get(property_)
            # The relations that a view reads follow from its definition. A missing column moves all later ones.
            and property_ != "reads"
            and (property_ != "position" or name.within in reordered)
        )
    return result


def _order(table: str, catalogue: Catalogue, other: Catalogue) -> list[str]:
    """The columns of the table that both catalogues have, in the order of the first one."""
    return [name.name for name in catalogue if name.kind == "column" and name.within == table and name in other]


def read_drift(settings: Settings) -> Drift:
    """Compare the settings' database with what its revisions make; changes nothing in it.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
        BehindHeadError: no revision has run yet, so there is nothing to compare.
        NotPermittedError: a scratch database is needed, and the role may not create databases.
    """
    with reading(settings) as cursor:
        revision = find_head(cursor, settings.target)
        if revision is None:
            raise BehindHeadError(None, settings.target)
        there = read_database(cursor, settings.owner_role)
    drift = compare(revision, expected_catalogue(settings, revision), *there)
    if drift.expected == drift.found:
        return drift
    with trying(settings) as cursor:
        expected = as_written_here(cursor, drift.expected, drift.found)
        reasons = obstructions(cursor, expected, drift.found, with_rows=False)
        return replace(drift, expected=expected, obstructions=reasons)


def _goes_with_its_table(name: Name, expected: Catalogue, found: Catalogue) -> bool:
    if not name.within:
        return False
    bound = "partition bound"
    if (bound in expected.get(name.table, {})) != (bound in found.get(name.table, {})):
        return True  # it was attached or detached, and the parts of a partition are its table's
    return any((whole in expected) != (whole in found) for whole in name.wholes)
