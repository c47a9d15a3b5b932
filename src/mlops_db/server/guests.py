"""Protects our statements from objects that guests create in our schemas.

A guest is a role that has neither the rights of the database's owner nor those of a superuser, and is not the role that
runs the statement.

An operator or function without its schema resolves to the best match in all schemas of the search path. So an object
that a guest creates in public can run with the rights of the role that runs the statement. Our own statements keep
public out of their path. The statements of revisions create and find tables in public, so they run only while no guest
has an object there that they could resolve to. Schema reporting is treated like public, as soon as it is ours: people
call its function by name.
"""

from mlops_db.project import REPORTING_VIEWS, TABLES, VIEWS

# The search path of our own statements. PostgreSQL's schema alone would not do: where pg_temp is not named, it comes
# first (manual, "Writing SECURITY DEFINER Functions Safely"). Nor would public behind it: an exact match there, such as
# =(varchar, varchar), which pg_catalog lacks, would still win.
SAFE_PATH = "pg_catalog, pg_temp"

# PostgreSQL before 15 grants this to everybody, and an upgrade of such a database keeps the grant.
EVERYBODY_MAY_CREATE = """
    EXISTS (SELECT FROM pg_namespace AS p CROSS JOIN aclexplode(coalesce(p.nspacl, acldefault('n', p.nspowner))) AS acl
             WHERE p.nspname = 'public' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE')
"""
REVOKE_CREATE = "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
EVERYBODY_NOTE = (
    "note: everybody may create tables, functions and operators in schema public, as was usual before PostgreSQL 15; "
    f"a superuser can revoke that: {REVOKE_CREATE};"
)

# SQL condition on a row `role` of pg_roles: it runs the statement, or has the rights of the database's owner or of a
# superuser.
TRUSTED = """
    (role.rolsuper OR role.rolname IN (current_user, 'pg_database_owner')
     OR pg_has_role(role.oid, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER'))
"""

TABLES_IN_PUBLIC = """
    SELECT c.relname FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'f')
"""
# autogenerate ignores these, although they may have a name of ours.
TABLES_OF_OTHERS = f"{TABLES_IN_PUBLIC} AND NOT {TRUSTED}"

# The same for the owner of alembic_version, because reading it can run code of its owner, such as through an index. A
# role that may not migrate trusts every role that may.
MAY_BE_READ = f"""
    ({TRUSTED} OR has_database_privilege(role.oid, current_database(), 'CREATE')
                  AND NOT has_database_privilege(current_database(), 'CREATE'))
"""

# What the revisions create, and what PostgreSQL creates for them. A guest may already use these names.
_NAMES = {
    "public": [*TABLES, *VIEWS, *(f"{table}_id_seq" for table in TABLES), "alembic_version"],
    "reporting": [*REPORTING_VIEWS],
}

_TRUSTED_ROLES = f"ARRAY(SELECT role.oid FROM pg_roles AS role WHERE {TRUSTED})"
# The objects of others in this database.
_THEIRS = """
    SELECT d.classid AS class, d.objid AS oid, d.refobjid AS owner
      FROM pg_shdepend AS d JOIN pg_database AS here ON here.oid = d.dbid AND here.datname = current_database()
     WHERE d.deptype = 'o' AND d.refobjid <> ALL ({trusted})
"""
# SQL condition: others have objects in this database. Mostly nobody has, and REFUSE_GUESTS need not be asked.
OTHERS_HAVE_OBJECTS = f"EXISTS ({_THEIRS.format(trusted=_TRUSTED_ROLES)})"

# A cast has no owner; the owner of one of its types has made it. An extension of a guest may hold objects, too. An
# object of ours may use an object that a guest has moved out of public since.
REFUSE_GUESTS = f"""\
DO $guests$
DECLARE
    path constant text := pg_catalog.current_setting('search_path');
    trusted oid[];
    open oid;
    mine oid;
    shown oid;
    found text[];
BEGIN
    PERFORM pg_catalog.set_config('search_path', '{SAFE_PATH}', true); -- a script may be within a revision
    trusted := {_TRUSTED_ROLES};
    open := to_regnamespace('public');
    mine := to_regnamespace('mlops_internal');
    shown := (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = 'reporting' AND n.nspowner = ANY (trusted));
    IF EXISTS ({_THEIRS.format(trusted="trusted")}) THEN
        found := ARRAY(
            WITH theirs AS ({_THEIRS.format(trusted="trusted")})
            SELECT DISTINCT format('%s %s of %s', named.type, named.identity, pg_get_userbyid(things.owner))
              FROM (
                  SELECT t.class, t.oid, t.owner
                    FROM theirs AS t
                    LEFT JOIN pg_proc AS p ON t.class = 'pg_proc'::regclass AND p.oid = t.oid
                    LEFT JOIN pg_operator AS o ON t.class = 'pg_operator'::regclass AND o.oid = t.oid
                    LEFT JOIN pg_class AS c ON t.class = 'pg_class'::regclass AND c.oid = t.oid
                   WHERE coalesce(p.pronamespace, o.oprnamespace) IN (open, mine, shown)
                      OR t.class IN ('pg_proc'::regclass, 'pg_operator'::regclass) AND EXISTS (
                             SELECT FROM pg_depend AS d
                               LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
                               LEFT JOIN pg_attrdef AS a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid
                               LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
                               LEFT JOIN pg_trigger AS g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
                               LEFT JOIN pg_policy AS y ON d.classid = 'pg_policy'::regclass AND y.oid = d.objid
                               LEFT JOIN pg_statistic_ext AS s
                                 ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid
                               JOIN pg_class AS ours ON ours.oid = coalesce(
                                       r.ev_class, a.adrelid, k.conrelid, g.tgrelid, y.polrelid, s.stxrelid, d.objid)
                              WHERE d.refclassid = t.class AND d.refobjid = t.oid
                                AND ours.relnamespace IN (open, mine, shown) AND ours.relowner = ANY (trusted))
                      OR c.relnamespace = mine AND c.relkind <> 'i'
                      OR c.relnamespace = open AND c.relname = ANY (ARRAY{_NAMES["public"]})
                      OR c.relnamespace = shown AND c.relname = ANY (ARRAY{_NAMES["reporting"]})
                      OR t.class = 'pg_namespace'::regclass AND t.oid = mine
                   UNION ALL
                  SELECT 'pg_cast'::regclass, c.oid, t.typowner FROM pg_type AS t
                    JOIN pg_cast AS c ON t.oid IN (c.castsource, c.casttarget)
                   WHERE t.typnamespace = open AND t.typowner <> ALL (trusted)
              ) AS things (class, oid, owner)
             CROSS JOIN LATERAL pg_identify_object(things.class, things.oid, 0) AS named
             WHERE NOT EXISTS (
                       SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                        WHERE d.classid = things.class AND d.objid = things.oid AND d.deptype = 'e'
                          AND d.refclassid = 'pg_extension'::regclass AND e.extowner = ANY (trusted))
             ORDER BY 1
        );
    END IF;
    IF found <> '{{}}' THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('roles other than the owner have objects that a run as %s could execute or read: %s%s; no'
                             ' further step was taken', current_user, array_to_string(found[:10], ', '),
                             CASE WHEN cardinality(found) > 10 THEN ', ...' ELSE '' END),
            HINT = format('Drop them, or give them to their rightful owner (ALTER ... OWNER TO). Then keep others from'
                          ' creating more: %s;', $revoke${REVOKE_CREATE}$revoke$);
    END IF;
    PERFORM set_config('search_path', path, true);
END $guests$;"""
