"""No transaction keeps the users of two tables waiting.

While it waits for the second one, the users of the first wait as well; and a job that takes the two in the other order
makes a deadlock of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.lint.revision_files import LOCK_MODES, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlops_db.lint.observation import Step

RULE = "two-tables"
# From here on a lock keeps writers waiting.
_STRONG = set(LOCK_MODES[LOCK_MODES.index("SHARE") :])


def check(step: Step) -> Iterator[Finding]:
    """Find transactions that held a lock which keeps writers out on two tables that are there before and after.

    Partitions are their table. Views do not count: who reads one comes to its tables afterwards, as the revision does.
    """
    for locks in step.transactions:
        relations = step.before.relations
        locked = {
            relations[oid].root
            for oid, modes in locks.items()
            if oid in relations and relations[oid].is_table and modes & _STRONG
        } & step.after.relations.keys()
        if len(locked) > 1:
            names = ", ".join(sorted(relations[oid].shown for oid in locked))
            yield Finding(
                step.file, RULE, f"{step.direction} keeps the writers of {len(locked)} tables waiting at once: {names}",
                "Write a revision for each; op.validate_constraint and op.create_index_concurrently let writers go on;"
                f" for a foreign key, which locks both, say `Accepted: {RULE}, because ...` in the docstring.",
            )  # fmt: skip
