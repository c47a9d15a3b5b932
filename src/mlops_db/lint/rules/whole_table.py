"""No transaction changes every row of a table: it blocks everybody else who writes to these rows until it ends.

With a few rows, batches and one UPDATE look the same. So where an upgrade has changed every row, its second run finds
more rows than a batch may have.
"""

from functools import partial

from mlops_db.lint.observation import BATCH, Run
from mlops_db.lint.rule import Finding, Findings, RunRule


@partial(
    RunRule,
    column="rows",
    remedy=f"Change them in batches of {BATCH:,} rows at most, each in a transaction of its own, in"
    " op.get_context().autocommit_block().",
    may_be_accepted=True,
)
def check(run: Run) -> Findings:
    """Find an upgrade that changes every row of a table in one transaction."""
    if len(run.steps) < 3:  # noqa: PLR2004  (up, down, up)
        return
    upgrade, _, again = run.steps
    for oid in sorted({*upgrade.changed_whole()} & again.before.writers.keys() & again.after.writers.keys()):
        before, after = again.before.writers[oid], again.after.writers[oid]
        if max((count for writer, count in after.items() if writer not in before), default=0) > BATCH:
            table = upgrade.before.relations[oid].shown
            yield Finding(
                f"upgrade changes every row of {table} in one transaction, and blocks the writers of all rows"
            )
