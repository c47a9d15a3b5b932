"""What a revision makes is the same in a copy: pg_dump writes it as PostgreSQL tells it, and that has to mean itself.

PostgreSQL tells some expressions in other words than it was given, and takes those for yet another one: a list of texts
compared with a varchar column, or AT TIME ZONE. `mlops-db check` would never be clean on a restored copy.
"""

from __future__ import annotations

from os.path import commonprefix
from typing import TYPE_CHECKING

from mlops_db.drift.compare import differences
from mlops_db.lint.revision_files import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlops_db.drift.catalogue import Catalogue
    from mlops_db.drift.compare import Difference

RULE = "copy"


def check(made: Mapping[str, Catalogue], copied: Catalogue) -> Iterator[Finding]:
    """Find what differs in a copy, of the revision that first made it so.

    Args:
        made: what each revision made, by its file name, in order; the last one is what was copied.
        copied: what is in the copy.
    """
    *_, head = made.values()
    for difference in differences(head, copied):
        since = next((file for file, catalogue in made.items() if _has(catalogue, difference)), [*made][-1])
        yield Finding(
            since, RULE, f"after pg_dump and restore there is a difference, {difference}",
            "Write it as it is found there, or without what PostgreSQL rewrites: timezone('UTC', x) for x AT TIME ZONE"
            " 'UTC', x::text IN ('a', 'b') for x IN ('a', 'b').",
        )  # fmt: skip


def _has(catalogue: Catalogue, difference: Difference) -> bool:
    """Whether it holds what differs already: under another name perhaps, or of another table."""
    name, property_ = difference.name, difference.property
    if not property_ or difference.expected is None or difference.found is None:
        return name in catalogue
    own = _own_part(difference.expected, difference.found)
    return any(
        own in properties.get(property_, "") for other, properties in catalogue.items() if other.kind == name.kind
    )


def _own_part(text: str, other: str) -> str:
    """The text from where it differs from the other on, up to what both end with."""
    begin = len(commonprefix([text, other]))  # noqa: RUF071  (character by character is meant)
    end = len(commonprefix([text[begin:][::-1], other[begin:][::-1]]))  # noqa: RUF071  (the same)
    return text[begin : len(text) - end] or text
