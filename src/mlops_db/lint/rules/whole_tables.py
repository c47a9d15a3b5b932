"""No transaction changes every row of a table: who writes to a row that it changed waits until its end.

A few rows do not tell batches from one UPDATE. So where an upgrade has changed every row, its second run finds more
rows there than a batch may have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.lint.revision_files import Finding

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from mlops_db.lint.observation import Relation, Step

RULE = "whole-table"
BATCH = 10_000


def changed_whole(step: Step, before: dict[int, Counter[str]], after: dict[int, Counter[str]]) -> list[int]:
    """The tables of which no row is as it was, though their files are; a rewrite is another thing.

    Args:
        step: the upgrade.
        before: who had written the rows before it, by the table's oid.
        after: who has, after it.
    """
    return [
        oid
        for oid, count in before.items()
        if count and after.get(oid) and not count.keys() & after[oid].keys()
        and step.before.files(oid) == step.after.files(oid)
    ]  # fmt: skip


def check(file: str, table: Relation, before: Counter[str], after: Counter[str]) -> Iterator[Finding]:
    """Find a transaction that has changed more rows than a batch has."""
    most = max((count for writer, count in after.items() if writer not in before), default=0)
    if most > BATCH:
        yield Finding(
            file, RULE, f"upgrade changes every row of {table.shown} in one transaction, and their writers wait for it",
            f"Change them in batches of {BATCH:,} rows at most, each in a transaction of its own, in"
            " op.get_context().autocommit_block().",
        )  # fmt: skip
