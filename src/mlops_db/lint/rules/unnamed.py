"""Every constraint and index has a name that the revision gives.

PostgreSQL chooses a name where a revision gives none. If that name is taken, it chooses another one: then the same
revision creates another name on another server, and the next revision's DROP CONSTRAINT fails there.
"""

import re
from functools import partial

from mlops_db.lint.observation import Run
from mlops_db.lint.rule import Finding, Findings, RunRule

_REMEDIES = {
    "CHECK": "Name it: ADD CONSTRAINT <name> CHECK (...) NOT VALID, then op.validate_constraint(<name>, <table>) in the"
    " next revision; in a new table sa.CheckConstraint(..., name=...).",
    "FOREIGN KEY": "Name it: ADD CONSTRAINT <name> FOREIGN KEY ... NOT VALID, then op.validate_constraint(<name>,"
    " <table>) in the next revision; in a new table sa.ForeignKeyConstraint(..., name=...).",
    "index": "Name it: op.create_index_concurrently(<name>, <table>, ...).",
}


@partial(
    RunRule,
    column="names",
    remedy="Name it: CONSTRAINT <name> in SQL, name=... in op.create_table and op.create_..._constraint.",
)
def check(run: Run) -> Findings:
    """Find a new CHECK, key, EXCLUDE or index whose name no statement of the upgrade gives."""
    for upgrade in run.steps[:1]:
        sent = "\n".join(upgrade.statements)
        existing = {*upgrade.before.names.values()}  # with a new oid: its column changed its type, or it was rebuilt
        for oid, named in upgrade.after.names.items():
            is_new = oid not in upgrade.before.names and named not in existing
            name, kind, on = named
            if is_new and not re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", sent):
                yield Finding(f"its {kind} on {on} has no name, and PostgreSQL chose {name}", _REMEDIES.get(kind, ""))
