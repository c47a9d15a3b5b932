"""`-x plan=true`: shows what a run would do, without doing it and without locks that others wait for."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from mlops_db.migration.distributed_tables import HINT, find_distributed, in_the_way, verb
from mlops_db.migration.preview import DISTRIBUTED_TABLES, RUNNING_CODE, describe, written_sql

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from alembic.runtime.migration import RevisionStep, StampStep
    from sqlalchemy import Connection

# From the catalogue and the statistics only: pg_total_relation_size would wait for a lock on the table. The number of
# rows is as fresh as the statistics. The pages are those of the last VACUUM or ANALYZE, in proportion to the rows since
# then; if there are rows and neither has run, the size is not known.
_TABLES = text("""
    SELECT schema, name, rows, bytes, coalesce(pg_size_pretty(bytes), 'size unknown') AS size
      FROM (SELECT n.nspname AS schema, c.relname AS name,
                   coalesce(sum(greatest(part.reltuples, live.rows, 0)), 0)::bigint AS rows,
                   CASE WHEN NOT coalesce(bool_or(live.rows > 0 AND part.reltuples <= 0), false)
                        THEN coalesce(sum(ceil(pages.total * greatest(live.rows / nullif(part.reltuples, 0), 1))), 0)
                             ::bigint * current_setting('block_size')::bigint
                   END AS bytes
              FROM pg_class AS c
              JOIN pg_namespace AS n ON n.oid = c.relnamespace
              LEFT JOIN pg_class AS part
                ON part.relkind <> 'p'
               AND (part.oid = c.oid OR part.oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid))
             CROSS JOIN LATERAL (SELECT pg_stat_get_live_tuples(part.oid) AS rows) AS live
             CROSS JOIN LATERAL (
                 SELECT sum(piece.relpages) AS total FROM pg_class AS piece
                  WHERE piece.oid IN (part.oid, part.reltoastrelid)
                     OR piece.oid IN (SELECT indexrelid FROM pg_index
                                       WHERE indrelid IN (part.oid, part.reltoastrelid))
             ) AS pages
             WHERE n.nspname IN ('public', 'mlops_internal') AND c.relkind IN ('r', 'p', 'm')
               AND NOT c.relispartition AND c.relname = ANY(:words)
             GROUP BY n.nspname, c.relname) AS found
     ORDER BY name
""")
IN_SHARDS = "in shards, see `mlops-db status`"
_MB = 1024**2
_TIMES = {
    "upgrade": re.compile(r"(\d+(?:\.\d+)?) times\b"),
    "downgrade": re.compile(r"(?:.*\bgoing down, )?(\d+(?:\.\d+)?) times\b"),
}


def step_name(step: RevisionStep) -> str:
    """The name of the step, from its file: `0003 retraining_decisions`."""
    revision = step.revision.revision
    return f"{revision} {Path(step.revision.path).stem.removeprefix(f'{revision}_')}"


def plan_lines(
    connection: Connection, steps: Sequence[RevisionStep], target: str, *, backup: bool = False
) -> Iterator[str]:
    """The lines of the plan: each step with its title, what it declares, and the tables that it names.

    With `backup`, also the tables that a downgrade would back up, as far as its SQL shows them and they exist now.
    """
    if not steps:
        yield f"{target}: nothing to do"
        return
    direction = "upgrade" if steps[0].is_upgrade else "downgrade"
    distributed = find_distributed(connection)
    yield f"{target}: {direction} in {len(steps)} {'step' if len(steps) == 1 else 'steps'}"
    for number, step in enumerate(steps, 1):
        description = describe(step.revision.module.__doc__ or "")
        yield f"[{number}/{len(steps)}] {step_name(step)}: {description.title}"
        yield f"      locks: {description.sections.get('Locks', 'not declared')}"
        if not step.is_upgrade:
            yield f"      loss: {description.sections.get('Loss on downgrade', 'not declared')}"
        elif code := description.sections.get(RUNNING_CODE):
            yield f"      running code: {code}"
        if names := in_the_way(step.revision.module.__doc__ or "", distributed):
            _, _, reason = description.sections[DISTRIBUTED_TABLES].partition(";")
            yield f"      refused: not while {' and '.join(names)} {verb(names)} distributed:{reason} {HINT}"
        if disk := description.sections.get("Disk"):
            yield f"      disk: {_needed(disk, direction, _find_tables(connection, disk), distributed)}: {disk}"
        sql = written_sql(step.revision, direction)
        if backup:
            yield f"      backup: {_backed_up(connection, step.revision.revision, sql)}"
        if sql is None:
            yield "      tables: not known before it runs"
            continue
        tables = ", ".join(
            f"{table.name} ({IN_SHARDS})"
            if _is_in(distributed, table)
            else f"{table.name} (about {table.rows:,} rows, {table.size})"
            for table in _find_tables(connection, sql)
        )
        yield f"      tables: {tables or 'none that exist yet'}"


def _backed_up(connection: Connection, revision: str, sql: str | None) -> str:
    from mlops_db.migration.backup import find_tables  # noqa: PLC0415  (other runs start without it)
    from mlops_db.migration.guard.sql_losses import find_losses  # noqa: PLC0415

    losses = find_losses(connection, {revision: sql})
    certain = {loss.table for loss in losses if loss.certain and loss.table is not None}
    maybe = {loss.table for loss in losses if loss.table is not None} - certain
    parts = [
        f"{', '.join(table.shown for table in find_tables(connection, oids) if table.asked)}{condition}"
        for oids, condition in ((certain, ""), (maybe, " if rows are lost"))
        if oids
    ]
    if any(loss.table is None for loss in losses):
        parts.append("what it turns out to lose")
    return "; ".join(parts) or "nothing"


def _find_tables(connection: Connection, named_in: str) -> Sequence[Any]:
    return connection.execute(_TABLES, {"words": sorted(set(re.findall(r"[\w$]+", named_in)))}).all()


def _is_in(distributed: Collection[str], table: Any) -> bool:
    """Whether a table's rows are in shards, of which the catalogue here has no statistics."""
    return f"{table.schema}.{table.name}" in distributed


def _needed(text: str, direction: str, tables: Sequence[Any], distributed: Collection[str]) -> str:
    """The size of the tables with their indexes; not known without statistics, which tell of no rows either.

    A text such as `1.5 times monitoring_metrics; going down, 0.8 times` multiplies it.
    """
    if not tables:
        return "unknown before the table exists"
    if any(_is_in(distributed, table) for table in tables):
        return f"unknown here, {IN_SHARDS}"
    if any(table.bytes is None for table in tables) or not any(table.rows for table in tables):
        return "unknown before VACUUM or ANALYZE"
    times = float(found[1]) if (found := _TIMES[direction].match(text)) else 1
    return f"about {math.ceil(times * sum(table.bytes for table in tables) / _MB):,} MB"


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
