"""Records in `mlops_internal.running_code` which code works with the database: jobs of older code read it.

The revisions declare it (`Running code:` in their docstrings), and older code does not have those of a newer database.
So each step records it in its transaction, downgrades and stamps, too. `mlops_db.revisions.running_code` reads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.revisions.tables import RUNNING_CODE_TABLE, VERSION_TABLE

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlops_db.revisions.graph import Graph

# SQL: whether the table is there, with the column that earlier code did not create.
HAS_OTHERS = f"""\
EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('{RUNNING_CODE_TABLE}') AND attname = 'others')"""
# Databases have the table from before the column, so only a run that lacks it adds it: the lock is on the table.
CREATE = f"""
CREATE TABLE IF NOT EXISTS {RUNNING_CODE_TABLE} (
    id boolean PRIMARY KEY DEFAULT true CHECK (id), -- so there is one row
    heads text[] NOT NULL,
    revisions text[] NOT NULL,
    works_from text[] NOT NULL
);
DO $others$
BEGIN
    IF NOT {HAS_OTHERS} THEN
        ALTER TABLE {RUNNING_CODE_TABLE} ADD COLUMN others text[] NOT NULL DEFAULT '{{}}';
    END IF;
END $others$;
COMMENT ON TABLE {RUNNING_CODE_TABLE} IS
    'Which code works with the database: one row, which each step of a migration run replaces.';
COMMENT ON COLUMN {RUNNING_CODE_TABLE}.heads IS 'The rows of alembic_version after that step.';
COMMENT ON COLUMN {RUNNING_CODE_TABLE}.revisions IS 'All revisions that are applied then.';
COMMENT ON COLUMN {RUNNING_CODE_TABLE}.others IS
    'Those of the heads that are not of mlops-db, but of a project beside it.';
COMMENT ON COLUMN {RUNNING_CODE_TABLE}.works_from IS
    'The revisions that code must know to work: the latest ones that break the code before them.';
"""

_INSERT = f"""
        INSERT INTO {RUNNING_CODE_TABLE} AS old (heads, revisions, works_from, others)
        VALUES (%(heads)s::text[], %(revisions)s::text[], %(works_from)s::text[], %(others)s::text[])
        ON CONFLICT (id) DO UPDATE
           SET (heads, revisions, works_from, others)
"""
RECORD = f"""{_INSERT.rstrip()}
             = (excluded.heads, excluded.revisions, excluded.works_from, excluded.others)
"""
# A script knows only the rows that it starts from. Those beside them that were recorded, and are still there, stay so;
# and if one of them is ours, what it stands for.
_ROWS = f"SELECT version_num::text FROM {VERSION_TABLE}"
_OURS_STAYS = f"""EXISTS (
                     SELECT FROM {VERSION_TABLE}
                      WHERE version_num = ANY(old.heads) AND version_num <> ALL(old.others || excluded.heads))"""
_RECORD_IN_SCRIPT = f"""{_INSERT.rstrip()}
             = (ARRAY(SELECT unnest(excluded.heads) UNION (SELECT unnest(old.heads) INTERSECT {_ROWS}) ORDER BY 1),
                ARRAY(SELECT unnest(excluded.revisions) UNION SELECT unnest(old.revisions) WHERE {_OURS_STAYS}
                      ORDER BY 1),
                ARRAY(SELECT unnest(excluded.works_from) UNION SELECT unnest(old.works_from) WHERE {_OURS_STAYS}
                      ORDER BY 1),
                ARRAY(SELECT unnest(old.others || excluded.others) INTERSECT {_ROWS} ORDER BY 1))
"""

# A role that may read alembic_version, such as one for jobs, needs the record as soon as a newer run has written it.
# Then it is too late to ask somebody for a grant. PUBLIC gets none.
_SCHEMA = RUNNING_CODE_TABLE.partition(".")[0]
_READERS = f"""
        SELECT role.rolname
          FROM pg_class AS version
         CROSS JOIN LATERAL aclexplode(version.relacl) AS acl
          JOIN pg_roles AS role ON role.oid = acl.grantee
          JOIN pg_class AS record ON record.oid = '{RUNNING_CODE_TABLE}'::regclass
          JOIN pg_namespace AS n ON n.oid = record.relnamespace
         WHERE version.oid = '{VERSION_TABLE}'::regclass AND acl.privilege_type = 'SELECT'
           AND pg_has_role(record.relowner, 'USAGE') AND pg_has_role(n.nspowner, 'USAGE')
           AND NOT (has_table_privilege(role.oid, record.oid, 'SELECT')
                    AND has_schema_privilege(role.oid, n.oid, 'USAGE'))"""
IS_UNSHARED = f"EXISTS ({_READERS})"
SHARE = f"""\
DO $share$
DECLARE
    reader name;
BEGIN
    FOR reader IN {_READERS}
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA {_SCHEMA} TO %I', reader);
        EXECUTE format('GRANT SELECT ON {RUNNING_CODE_TABLE} TO %I', reader);
    END LOOP;
END $share$;"""


def record_of(graph: Graph, heads: Collection[str]) -> dict[str, list[str]]:
    """The parameters of `RECORD` for a database at these revisions."""
    return {
        "heads": sorted(heads),
        "revisions": sorted(graph.ancestors(*heads) - graph.others),
        "works_from": list(graph.works_from(*heads)),
        "others": sorted(graph.others.intersection(heads)),
    }


def script_of(graph: Graph, heads: Collection[str]) -> str:
    """The same as SQL of a script, which keeps what is recorded of other rows."""
    # No id has a quote or a backslash.
    literals = {
        name: "'{{{}}}'".format(",".join(f'"{id_}"' for id_ in ids)) for name, ids in record_of(graph, heads).items()
    }
    return f"{_RECORD_IN_SCRIPT.strip() % literals};\n{SHARE}"
