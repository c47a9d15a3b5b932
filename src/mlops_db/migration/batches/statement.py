"""A statement with the bounds of a batch: `:after`, which is exclusive, and `:upto`, which is inclusive."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlops_db.errors import RefusedError
from mlops_db.migration.statements import NAME, mask_texts, split_statements

BOUNDS = ("after", "upto")
_EXAMPLE = "UPDATE public.t SET n = n + 1 WHERE id > :after AND id <= :upto"
_CHANGES = re.compile(rf"\s*(UPDATE|DELETE\s+FROM|INSERT\s+INTO)\s+(?:ONLY\s+)?({NAME})", re.IGNORECASE)
_SELECTS = re.compile(r"\bSELECT\b", re.IGNORECASE)
# Not a cast (`::`), and not the second half of an array's slice (`[1:n]`).
_PARAMETER = re.compile(r"(?<![:\w]):([^\W\d]\w*)")


@dataclass(frozen=True)
class BatchStatement:
    """An UPDATE, DELETE or INSERT ... SELECT with the bounds of a batch.

    Attributes:
        text: as it is written in the revision.
        target: the name of the table that it changes, as it is written there.
    """

    text: str
    target: str

    @classmethod
    def parse(cls, text: str) -> BatchStatement:
        """Read a statement.

        Raises:
            RefusedError: it is another statement, or several; or it has not exactly the two bounds.
        """
        text = text.strip().removesuffix(";").rstrip()
        masked = mask_texts(text)
        change = _CHANGES.match(masked)
        if (
            change is None
            or len(list(split_statements(text))) != 1
            or (change[1][:6].upper() == "INSERT" and not _SELECTS.search(masked))
        ):
            raise RefusedError(
                f"run_in_batches takes one UPDATE, DELETE or INSERT ... SELECT, not: {_begin(text)}",
                hint=f"Write it as in: {_EXAMPLE}",
            )
        found = {name for name, _ in _parameters(text)}
        if missing := [f":{name}" for name in BOUNDS if name not in found]:
            raise RefusedError(
                f"the statement of run_in_batches lacks {' and '.join(missing)}: {_begin(text)}",
                hint=f"Bound the rows of a batch by its key, as in: {_EXAMPLE}",
            )
        if others := sorted(f":{name}" for name in found.difference(BOUNDS)):
            raise RefusedError(
                f"the statement of run_in_batches has {', '.join(others)} beside :after and :upto",
                hint="Write the value itself. In an array's slice, write a blank after the colon.",
            )
        return cls(text, text[change.start(2) : change.end(2)])

    def bind(self, after: str, upto: str) -> str:
        """The statement with SQL in place of its bounds."""
        values = {"after": after, "upto": upto}
        bound, place = "", 0
        for name, start in _parameters(self.text):
            bound += self.text[place:start] + values[name]
            place = start + 1 + len(name)
        return bound + self.text[place:]


def _parameters(text: str) -> list[tuple[str, int]]:
    """Each parameter, and where its colon is."""
    return [(match[1], match.start()) for match in _PARAMETER.finditer(mask_texts(text))]


def _begin(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:77]}..."  # noqa: PLR2004
