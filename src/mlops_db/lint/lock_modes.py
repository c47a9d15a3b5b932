"""PostgreSQL's lock modes for tables, and the ones that a docstring names."""

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
    named = -1
    for mode in sorted(LOCK_MODES, key=len, reverse=True):  # ACCESS SHARE before SHARE, which is a part of it
        if mode in declaration:
            named = max(named, LOCK_MODES.index(mode))
            declaration = declaration.replace(mode, "")
    return named
