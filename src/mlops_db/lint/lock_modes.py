"""PostgreSQL's lock modes for tables, and the ones that a docstring names."""

import re

# From the weakest to the strongest, as the manual lists them (13.3.1 Table-Level Locks).
LOCK_MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)


def strongest_lock(declaration: str) -> int:
    """The strongest lock mode that the text names, as its place in LOCK_MODES; -1 for none."""
    longest_first = sorted(LOCK_MODES, key=len, reverse=True)  # SHARE is a part of ACCESS SHARE
    return max(map(LOCK_MODES.index, re.findall("|".join(longest_first), declaration)), default=-1)
