"""Refuses a database that holds objects of revisions although no revision is recorded."""

from collections.abc import Iterator
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import LostRecordError, RecordedRevisionError, UnmanagedDatabaseError
from mlops_db.project import BASELINE, REPORTING_VIEWS, TABLES, VIEWS
from mlops_db.revisions.graph import Graph
from mlops_db.revisions.tables import HISTORY_TABLE, RUN_TABLES, VERSION_TABLE, reading_fault
from mlops_db.server.guests import TRUSTED

# Before the first revision, and after the last one was taken back, mlops_internal holds only what runs keep there.
# Objects of guests are no remains: with them a guest could stop every command. A run refuses them anyway. What is in
# schema reporting alone is none either: somebody may have such a schema, and the revision that creates ours says so.
_OF_RUNS = (*RUN_TABLES, f"{HISTORY_TABLE}_id_seq")
_REMAINS = f"""
    SELECT c.relname, n.nspname,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                          WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {TRUSTED}
       AND CASE n.nspname
               WHEN 'public' THEN c.relname = ANY (ARRAY{[*TABLES, *VIEWS, *(f"{table}_id_seq" for table in TABLES)]})
               WHEN 'mlops_internal' THEN n.nspname || '.' || c.relname <> ALL (ARRAY{list(_OF_RUNS)})
               WHEN 'reporting' THEN c.relname = ANY (ARRAY{[*REPORTING_VIEWS]})
           END
     UNION ALL
    SELECT p.proname, n.nspname, 'FUNCTION'
      FROM pg_proc AS p
      JOIN pg_namespace AS n ON n.oid = p.pronamespace
      JOIN pg_roles AS role ON role.oid = p.proowner
     WHERE {TRUSTED} AND (n.nspname = 'mlops_internal' OR (n.nspname, p.proname) = ('reporting', 'metric_daily'))
     ORDER BY 2, 3, 1
"""
_HISTORY_IS_OPEN = f"""
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = '{HISTORY_TABLE}'
"""
_LAST_STEP = f"""
    SELECT revision, direction FROM {HISTORY_TABLE} WHERE outcome = 'applied' ORDER BY id DESC LIMIT 1
"""
_MOST_NAMES = 5


class _Remnant(NamedTuple):
    name: str
    schema: str
    kind: str


def refuse_remains(cursor: Cursor, graph: Graph, target: str) -> None:
    """Refuse a database without a recorded revision that holds objects of ours: the first run would fail on them.

    Args:
        cursor: of a connection to the database.
        graph: the revisions that can have run there.
        target: how errors name the database.

    Raises:
        UnmanagedDatabaseError: our tables are there, and no run has gone beyond the baseline: they were made by hand.
        LostRecordError: our tables are there, and runs have.
        RecordedRevisionError: other objects of ours are there.
    """
    cursor.execute(_REMAINS)
    found = [_Remnant(*row) for row in cursor.fetchall()]
    internal = [one for one in found if one.schema == "mlops_internal"]
    names = {one.name for one in found if one.schema == "public"}
    tables = [table for table in TABLES if table in names]
    if tables:
        last = _last_run(cursor, graph)
        if not internal and (last in (None, BASELINE) or BASELINE not in graph.ancestors(last)):
            raise UnmanagedDatabaseError(tables, target)
        # With months, the table of metrics is not the one that is made by hand, and the months hold its rows.
        has_months = any(one.name.startswith("monitoring_metrics_") for one in internal)
        drop = " ".join(_statements([one for one in found if one.schema != "public"]))
        by_hand = f" If the tables were made by hand since, run {drop} and then `mlops-db adopt`."
        raise LostRecordError(tables, target, at=last or graph.heads[0], instead="" if has_months else by_hand)
    if names or internal:
        beside = sorted({one.schema for one in found} - {"public"})
        keeping = " ".join(f"ALTER SCHEMA {schema} RENAME TO {schema}_old;" for schema in beside)
        raise RecordedRevisionError(
            f"{target} has no revision in {VERSION_TABLE}, but still {_describe(found)}, as if somebody had dropped "
            "schema public; nothing was changed",
            hint=f"If nothing of it is wanted, run {' '.join(_statements(found))}"
            + (f" To keep it, run {keeping} instead." if internal else ""),
        )


def _describe(found: list[_Remnant]) -> str:
    names = [one.name for one in found if one.kind != "FUNCTION"]
    functions = sum(one.kind == "FUNCTION" and one.schema == "mlops_internal" for one in found)
    names_shown = names[:_MOST_NAMES]
    if names[_MOST_NAMES:]:
        names_shown.append(f"{len(names) - _MOST_NAMES} more")
    if functions:
        names_shown.append(f"{functions} functions of mlops_internal")
    return ", ".join(names_shown)


def _statements(found: list[_Remnant]) -> Iterator[str]:
    """The statements that drop the remains, one for each kind, because views may read each other."""
    for schema in ("public", "reporting"):
        for kind in sorted({one.kind for one in found if one.schema == schema}, reverse=True):
            names = (f"{schema}.{one.name}" for one in found if one.schema == schema and one.kind == kind)
            yield f"DROP {kind} {', '.join(names)};"
    if any(one.schema == "reporting" for one in found):
        yield "DROP SCHEMA reporting;"
    if any(one.schema == "mlops_internal" for one in found):
        yield "DROP SCHEMA mlops_internal CASCADE;"


def _last_run(cursor: Cursor, graph: Graph) -> str | None:
    """The revision at which the last run left the database; None for base, and if it is not known."""
    cursor.execute(_HISTORY_IS_OPEN)
    if cursor.fetchone() != (True,):
        return None
    cursor.execute(reading_fault(HISTORY_TABLE))
    if cursor.fetchone() != (None,):
        return None
    cursor.execute(_LAST_STEP)
    for revision, direction in cursor.fetchall():
        if revision in graph and direction == "downgrade":
            left = graph.ancestors(revision) - {revision}
            return next((one.id for one in reversed(graph.revisions) if one.id in left), None)
        if revision in graph:
            return str(revision)
    return None
