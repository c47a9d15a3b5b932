"""`-x plan=true`: shows what a run would do, without doing it and without locks that others wait for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from mlops_db.migration.preview import describe, written_sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alembic.runtime.migration import RevisionStep, StampStep
    from sqlalchemy import Connection

# From the catalogue and the statistics only: pg_total_relation_size would wait for a lock on the table. So sizes are as
# old as the last VACUUM or ANALYZE of the table; the number of rows is as fresh as the statistics.
_TABLES = text("""
    SELECT c.relname,
           sum(greatest(part.reltuples, pg_stat_get_live_tuples(part.oid), 0))::bigint,
           pg_size_pretty(sum(pages.total)::bigint * current_setting('block_size')::bigint)
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_class AS part
        ON part.oid = c.oid OR part.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid)
     CROSS JOIN LATERAL (
         SELECT sum(piece.relpages) AS total FROM pg_class AS piece
          WHERE piece.oid IN (part.oid, part.reltoastrelid)
             OR piece.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN (part.oid, part.reltoastrelid))
     ) AS pages
     WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
       AND c.relname = ANY(:words)
     GROUP BY c.relname ORDER BY c.relname
""")


def step_name(step: RevisionStep) -> str:
    """The name of the step, from its file: `0003 retraining_decisions`."""
    revision = step.revision.revision
    return f"{revision} {Path(step.revision.path).stem.removeprefix(f'{revision}_')}"


def plan_lines(connection: Connection, steps: Sequence[RevisionStep], target: str) -> Iterator[str]:
    """The lines of the plan: each step with its title, what it declares, and the tables that it names."""
    if not steps:
        yield f"{target}: nothing to do"
        return
    direction = "upgrade" if steps[0].is_upgrade else "downgrade"
    yield f"{target}: {direction} in {len(steps)} {'step' if len(steps) == 1 else 'steps'}"
    for number, step in enumerate(steps, 1):
        description = describe(step.revision.module.__doc__ or "")
        yield f"[{number}/{len(steps)}] {step_name(step)}: {description.title}"
        yield f"      locks: {description.sections.get('Locks', 'not declared')}"
        if step.is_upgrade:
            yield f"      running code: {description.sections.get('Running code', 'not declared')}"
        else:
            yield f"      loss: {description.sections.get('Loss on downgrade', 'not declared')}"
        sql = written_sql(step.revision, direction)
        if sql is None:
            yield "      tables: not known before it runs"
            continue
        rows = connection.execute(_TABLES, {"words": sorted(set(re.findall(r"[\w$]+", sql)))}).all()
        tables = ", ".join(f"{name} (about {count:,} rows, {size})" for name, count, size in rows)
        yield f"      tables: {tables or 'none that exist yet'}"


def stamp_lines(recorded: Sequence[str], kept: Sequence[str], steps: Iterable[StampStep], target: str) -> Iterator[str]:
    """The lines of the plan of a stamp, which runs no revision: the rows of alembic_version afterwards.

    Args:
        recorded: its rows now.
        kept: those that Alembic keeps before it takes the steps.
        steps: those that Alembic takes.
        target: where the connection goes.
    """
    after = set(kept)
    for step in steps:
        after = after - set(step.from_revisions) | set(step.to_revisions)
    if after == set(recorded):
        yield f"{target}: nothing to do"
    else:
        before, then = (", ".join(sorted(revisions)) or "base" for revisions in (recorded, after))
        yield f"{target}: stamp records {then} in place of {before}, and runs no revision"
