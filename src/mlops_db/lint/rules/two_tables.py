"""No transaction blocks the writers of two tables.

While it waits for the second table, the writers of the first one wait, too. If a job locks the two tables in
the other order, there is a deadlock.
"""

from functools import partial

from mlops_db.lint.lock_modes import LOCK_MODES
from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule

# These block writers.
_STRONG = set(LOCK_MODES[LOCK_MODES.index("SHARE") :])


@partial(
    RunRule,
    column="locks",
    remedy="Write a revision for each; op.validate_constraint and op.create_index_concurrently do not block writers;"
    " for a foreign key, which locks both, write `Accepted: two-tables, because ...` in the docstring.",
    may_be_accepted=True,
)
def check(run: Run) -> Findings:
    """Find a transaction that blocks the writers of two existing tables (SHARE or a stronger lock).

    Partitions count as their table. Views do not count: their readers lock the tables afterwards, as the revision does.
    """
    for step in run.steps:
        relations = step.before.relations
        for locks in step.transactions:
            locked = {
                relations[oid].root
                for oid, modes in locks.items()
                if oid in relations and relations[oid].is_table and modes & _STRONG
            } & step.after.relations.keys()
            if len(locked) > 1:
                names = ", ".join(sorted(relations[oid].shown for oid in locked))
                yield Finding(
                    f"{step.direction} blocks the writers of {len(locked)} tables at once: {names}",
                )
