"""No transaction changes every row of a table: it blocks everybody else who writes to these rows until it ends.

With a few rows, batches and one UPDATE look the same. So where an upgrade has changed every row, its second run finds
more rows than a batch may have. What reads or removes every row shows in its text: it has no WHERE.
"""

import re
from collections.abc import Iterator
from functools import partial

from mlops_db.lint.observation import BATCH, Run, Step
from mlops_db.lint.rule import Finding, Findings, RunRule
from mlops_db.migration.statements import PART, split_statements, stored_name, without_texts

_NAME = rf"(?:{PART}\.)?({PART})"
_CHANGES = re.compile(rf"\s*(UPDATE|DELETE\s+FROM)\s+(?:ONLY\s+)?{_NAME}", re.IGNORECASE)
_COPIES = re.compile(rf"\s*INSERT\s+INTO\s+(?P<into>{_NAME}).*?\bFROM\s+(?:ONLY\s+)?{_NAME}", re.IGNORECASE | re.DOTALL)
# It bounds the rows, or makes one of many.
_BOUNDS = re.compile(r"\b(?:WHERE|LIMIT|FETCH|DISTINCT|GROUP)\b", re.IGNORECASE)
_BRACKETS = re.compile(r"\([^()]*\)")


@partial(
    RunRule,
    column="rows",
    remedy='Run the statement with op.run_in_batches(..., table=..., key="id"), alone in its revision: docs/'
    "writing-a-revision.md.",
    may_be_accepted=True,
)
def check(run: Run) -> Findings:
    """Find an upgrade that changes, deletes or copies every row of a table in one transaction."""
    if run.steps:
        yield from _read(run.steps[0])
    if len(run.steps) < 3:  # noqa: PLR2004  (up, down, up)
        return
    upgrade, _, again = run.steps
    for oid in sorted({*upgrade.changed_whole()} & again.before.writers.keys() & again.after.writers.keys()):
        before, after = again.before.writers[oid], again.after.writers[oid]
        if max((count for writer, count in after.items() if writer not in before), default=0) > BATCH:
            yield _changes(upgrade.before.relations[oid].shown)


def _changes(table: str) -> Finding:
    return Finding(f"upgrade changes every row of {table} in one transaction, and blocks the writers of all rows")


def _read(step: Step) -> Iterator[Finding]:
    """What the statements say; tables that are made in this upgrade do not count."""
    tables = {relation.name: relation.shown for relation in step.before.relations.values()}
    for sent in step.statements:
        for statement in split_statements(without_texts(sent)):
            plain = _outermost(statement)
            if _BOUNDS.search(plain):
                continue
            if change := _CHANGES.match(plain):
                table = tables.get(stored_name(change[2]))
                if table and change[1].upper() == "UPDATE":
                    yield _changes(table)
                elif table:
                    yield Finding(f"upgrade deletes every row of {table} in one transaction")
            elif copy := _COPIES.match(plain):
                table = tables.get(stored_name(copy[3]))
                if table:
                    yield Finding(f"upgrade copies every row of {table} in one transaction")


def _outermost(statement: str) -> str:
    """The statement without what stands in brackets."""
    while (inner := _BRACKETS.sub(" ", statement)) != statement:
        statement = inner
    return statement
