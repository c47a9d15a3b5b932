"""What differs between a database and what the revisions up to its own one make."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import unified_diff
from typing import TYPE_CHECKING

from mlops_db.errors import BehindHeadError, printable
from mlops_db.inspection.catalogue import Catalogue, Name, Properties, read_catalogue, reading
from mlops_db.inspection.obstructions import obstructions
from mlops_db.inspection.rendering import as_written_here, trying
from mlops_db.inspection.snapshot import expected_catalogue
from mlops_db.revisions.recorded import recorded_revision
from mlops_db.schema.objects import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.settings import Settings

LONG = 100
OUR_VIEWS = tuple(Name("view", "", f"public.{view}") for view in VIEWS)


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
        if self._is_long():
            return f"{name}: {self.property} {'differ' if self.property.endswith('s') else 'differs'}"
        expected, found = (
            "nothing" if text is None else printable(text.replace("\n", ", ")) for text in (self.expected, self.found)
        )
        return f"{name}: {self.property}: expected {expected}, found {found}"

    def details(self) -> list[str]:
        """Of texts that one line does not hold, what differs line by line, as a unified diff; otherwise nothing."""
        if not self._is_long():
            return []
        expected, found = ((text or "").splitlines() for text in (self.expected, self.found))
        return [printable(line) for line in unified_diff(expected, found, "expected", "found", n=1, lineterm="")]

    def _is_long(self) -> bool:
        texts = [text for text in (self.expected, self.found) if self.property and text is not None]
        return any(len(text) > LONG or ("\n" in text and self.property != "grants") for text in texts)


@dataclass(frozen=True)
class Drift:
    """A database beside what it should be.

    Attributes:
        revision: the revision that it is at.
        expected: what the revisions up to that one make.
        found: what is there.
        obstructions: why something of it is not repaired by a statement.
    """

    revision: str
    expected: Catalogue
    found: Catalogue
    obstructions: dict[Name, str] = field(default_factory=dict)

    @property
    def differences(self) -> list[Difference]:
        """Every difference; of a table that is missing or unexpected as a whole, not also each of its parts."""
        return differences(self.expected, self.found)


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
    """Compare the settings' database with what its revisions make; changes nothing in it.

    Raises:
        ConnectionFailedError: no connection.
        UnknownRevisionError: its revision is not one of ours.
        UnmanagedDatabaseError: its tables are there, made by hand.
        BehindHeadError: no revision has run yet, so there is nothing to compare.
        NotPermittedError: a scratch database is needed, and the role may not create databases.
    """
    with reading(settings) as cursor:
        revision = recorded_revision(cursor, settings.target)
        if revision is None:
            raise BehindHeadError(None, settings.target)
        found = read_catalogue(cursor)
    expected = expected_catalogue(settings, revision)
    for view in OUR_VIEWS:
        _expect_readers(expected, found, view)
    if expected != found:
        with trying(settings) as cursor:
            expected = as_written_here(cursor, expected, found)
            return Drift(revision, expected, found, obstructions(cursor, expected, found, with_rows=False))
    return Drift(revision, expected, found)


def _expect_readers(expected: Catalogue, found: Catalogue, view: Name) -> None:
    """Who may read a view is not for the revisions to say: `mlops-db grant-reader` does, and GRANT SELECT."""
    there = found.get(view, {}).get("grants", "")
    readers = {grant for grant in there.split("\n") if grant.startswith("SELECT TO ")}
    if view in expected and readers:
        grants = readers | set(filter(None, expected[view].get("grants", "").split("\n")))
        same = grants == set(there.split("\n"))  # which the server may sort otherwise
        expected[view] = {**expected[view], "grants": there if same else "\n".join(sorted(grants))}


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
