"""What revisions have left in a database in which none is recorded."""

from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

from mlops_db.errors import RecordedRevisionError, UnmanagedDatabaseError
from mlops_db.revisions.graph import BASELINE, Graph
from mlops_db.revisions.tables import HISTORY_TABLE, VERSION_TABLE, reading_fault
from mlops_db.schema.objects import TABLES, VIEWS

# Of mlops_internal only the history of runs is there before the first revision, and after the last one was taken back.
_REMAINS = f"""
    SELECT c.relname, n.nspname,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                          WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
           format('%I.%I', n.nspname, c.relname)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
       AND CASE n.nspname
               WHEN 'public' THEN c.relname = ANY (ARRAY{[*TABLES, *VIEWS, *(f"{table}_id_seq" for table in TABLES)]})
               WHEN 'mlops_internal' THEN c.relname NOT IN ('migration_history', 'migration_history_id_seq')
           END
     UNION ALL
    SELECT p.proname, n.nspname, 'FUNCTION', NULL FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE n.nspname = 'mlops_internal'
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
_DROP = "DROP SCHEMA mlops_internal CASCADE;"
_AT_ONCE = 5  # as many names as a line takes


def refuse_remains(cursor: Cursor, graph: Graph, target: str) -> None:
    """Refuse a database without a recorded revision that holds what the first run would find in its way.

    Args:
        cursor: of a connection to the database.
        graph: the revisions that can have run there.
        target: how errors name the database.

    Raises:
        UnmanagedDatabaseError: our tables are there, and no run has been: they were made by hand.
        RecordedRevisionError: runs have been there; their record is lost, or schema public was dropped.
    """
    cursor.execute(_REMAINS)
    found = cursor.fetchall()
    internal = [(name, kind) for name, schema, kind, _ in found if schema != "public"]
    in_public = {name: f"DROP {kind} {qualified};" for name, schema, kind, qualified in found if schema == "public"}
    tables = [table for table in TABLES if table in in_public]
    if tables:
        last = _last_run(cursor, graph)
        if not internal and (last in (None, BASELINE) or BASELINE not in graph.ancestors(last)):
            raise UnmanagedDatabaseError(tables, target)  # up to the baseline, adopting it finds out
        at = last or graph.heads[0]
        raise RecordedRevisionError(
            f"{target} has {', '.join(tables)}, but no revision in alembic_version, where runs have recorded "
            f"{last or 'some'}; nothing was changed",
            hint=f"If it still is at revision {at}, run `alembic stamp {at}`; `mlops-db check` tells whether it is. If "
            f"the tables were made by hand since, run {_DROP} and then `mlops-db adopt`.",
        )
    if not found:
        return
    names = [name for name, kind in internal if kind != "FUNCTION"] + [*in_public]
    functions = len([kind for _, kind in internal if kind == "FUNCTION"])
    told = names[:_AT_ONCE] + [f"{len(names) - _AT_ONCE} more"] * (len(names) > _AT_ONCE)
    told += [f"{functions} functions"] * bool(functions)
    statements = [*in_public.values()] + [_DROP] * bool(internal)
    raise RecordedRevisionError(
        f"{target} has no revision in {VERSION_TABLE}, and yet of revisions that ran there {', '.join(told)}, as if "
        "schema public had been dropped; nothing was changed",
        hint=f"If nothing of it is wanted, run {' '.join(statements)}"
        + (
            " The history of runs goes with it; ALTER SCHEMA mlops_internal RENAME TO mlops_internal_old; keeps all."
            if internal
            else ""
        ),
    )


def _last_run(cursor: Cursor, graph: Graph) -> str | None:
    """Where the last run has left the database; None for base, and if nobody knows."""
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
