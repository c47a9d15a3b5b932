"""Every constraint and index has a name that the revision says.

PostgreSQL gives a name to what has none, and another one where that is taken: on a server with a history the same
revision makes another name, and the next revision's DROP CONSTRAINT fails there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlops_db.lint.revision_files import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.lint.observation import Step

RULE = "unnamed"

# What a partition has from its table has its name from there, too; a constraint's index has the constraint's.
_NAMED = """
    SELECT k.oid::bigint, k.conname,
           CASE k.contype WHEN 'c' THEN 'CHECK' WHEN 'f' THEN 'FOREIGN KEY' WHEN 'p' THEN 'PRIMARY KEY'
                          WHEN 'u' THEN 'UNIQUE' WHEN 'x' THEN 'EXCLUDE' END,
           coalesce(nullif(k.conrelid, 0)::regclass::text, k.contypid::regtype::text)
      FROM pg_constraint AS k JOIN pg_namespace AS n ON n.oid = k.connamespace
     WHERE n.nspname IN ('public', 'mlops_internal') AND k.contype IN ('c', 'f', 'u', 'p', 'x')
       AND k.conparentid = 0 AND k.coninhcount = 0
       AND k.conrelid IS DISTINCT FROM to_regclass('public.alembic_version')
     UNION ALL
    SELECT c.oid, c.relname, 'index', i.indrelid::regclass::text
      FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('public', 'mlops_internal') AND NOT c.relispartition
       AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
     ORDER BY 4, 2
"""

Named = dict[int, tuple[str, str, str]]


def read_names(cursor: Cursor) -> Named:
    """The name of each constraint and index, with its kind and what it is on, by its oid."""
    cursor.execute(_NAMED)
    return {oid: (name, kind, on) for oid, name, kind, on in cursor.fetchall()}


def check(step: Step, before: Named, after: Named) -> Iterator[Finding]:
    """Find what is new and has a name that no statement of the revision says."""
    sent = "\n".join(step.statements)
    there = {*before.values()}  # with a new oid: its column has got another type, or it was built anew
    for oid, (name, kind, on) in after.items():
        is_new = oid not in before and (name, kind, on) not in there
        if is_new and not re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", sent):
            yield Finding(
                step.file,
                RULE,
                f"its {kind} on {on} has no name, and PostgreSQL chose {name}",
                _REMEDIES.get(kind, _NAME),
            )


_NAME = "Name it: CONSTRAINT <name> in SQL, name=... in op.create_table and op.create_..._constraint."
_REMEDIES = {
    "CHECK": "Name it: ADD CONSTRAINT <name> CHECK (...) NOT VALID, then op.validate_constraint(<name>, <table>) in the"
    " next revision; in a new table sa.CheckConstraint(..., name=...).",
    "FOREIGN KEY": "Name it: ADD CONSTRAINT <name> FOREIGN KEY ... NOT VALID, then op.validate_constraint(<name>,"
    " <table>) in the next revision; in a new table sa.ForeignKeyConstraint(..., name=...).",
    "index": "Name it: op.create_index_concurrently(<name>, <table>, ...).",
}  # fmt: skip
