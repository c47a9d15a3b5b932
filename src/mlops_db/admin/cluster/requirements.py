"""What has to be there before the tables can be distributed: most of it only a superuser can do.

Everything that is missing is found at once, with the exact SQL.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_db.admin.cluster.layout import METRICS, SERIES, TREE
from mlops_db.errors import RefusedError
from mlops_db.server.citus import has_citus, list_nodes
from mlops_db.server.failures import quoted
from mlops_db.settings import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)

    from mlops_db.server.citus import Node
    from mlops_db.server.cursor import SafeCursor
    from mlops_db.settings import Settings

OLDEST = (13, 1)
# Whoever reads time_partitions crashes the server, because the months begin and end without a bound.
CRASHING = {
    "SELECT": ("pg_catalog.time_partitions", "REVOKE SELECT ON pg_catalog.time_partitions FROM {}"),
    "EXECUTE": (
        "pg_catalog.time_partition_range(regclass)",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.time_partition_range(regclass) FROM {}",
    ),
}
_EXTENSION = " ".join(["CREATE EXTENSION citus;", *(f"{revoke.format('PUBLIC')};" for _, revoke in CRASHING.values())])
# To ask again why a node was not reached.
_CONNECT_TIMEOUT = "5s"
_OPEN = """
    SELECT json_agg(json_build_array(acl.privilege_type, coalesce(quote_ident(role.rolname), 'PUBLIC')))
      FROM (SELECT c.relacl, c.relowner, acldefault('r', c.relowner) FROM pg_class AS c
             WHERE c.oid = to_regclass('pg_catalog.time_partitions')
             UNION ALL
            SELECT p.proacl, p.proowner, acldefault('f', p.proowner) FROM pg_proc AS p
             WHERE p.oid = to_regprocedure('pg_catalog.time_partition_range(regclass)')) AS o (acl, owner, usual)
     CROSS JOIN LATERAL aclexplode(coalesce(o.acl, o.usual)) AS acl
      LEFT JOIN pg_roles AS role ON role.oid = acl.grantee
     WHERE acl.privilege_type IN ('SELECT', 'EXECUTE') AND acl.grantee <> o.owner AND role.rolsuper IS NOT TRUE
"""
# The roles that the tables, and what is copied to the workers with them, name: Citus grants to them there.
_ROLES = f"""
    WITH {TREE}
    SELECT DISTINCT role.rolname::text, role.rolcanlogin
      FROM (SELECT c.relacl FROM pg_class AS c JOIN tree ON tree.oid = c.oid
             UNION ALL
            SELECT a.attacl FROM pg_attribute AS a JOIN tree ON tree.oid = a.attrelid
             UNION ALL
            SELECT c.relacl FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
             WHERE n.nspname IN ('public', 'mlops_internal', 'reporting') AND c.relkind IN ('S', 'v')
             UNION ALL
            SELECT n.nspacl FROM pg_namespace AS n WHERE n.nspname IN ('public', 'mlops_internal', 'reporting')
             UNION ALL
            SELECT p.proacl FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
             WHERE n.nspname IN ('mlops_internal', 'reporting')) AS o (acl)
     CROSS JOIN LATERAL aclexplode(o.acl) AS acl JOIN pg_roles AS role ON role.oid = acl.grantee
     WHERE NOT role.rolname LIKE 'pg\\_%'
     ORDER BY 1
"""
# Asked of each worker, as the role that distributes.
_WORKER = f"""
    SELECT json_build_object(
        'citus', (SELECT extversion FROM pg_extension WHERE extname = 'citus'),
        'group', (SELECT groupid FROM pg_catalog.pg_dist_local_group),
        'prepared', current_setting('max_prepared_transactions')::int,
        'create', has_schema_privilege('public', 'CREATE'),
        'open', ({_OPEN}),
        'roles', (SELECT json_agg(json_build_array(wanted.name, wanted.login, role.rolname IS NOT NULL))
                    FROM unnest({{names}}, {{logins}}) AS wanted (name, login)
                    LEFT JOIN pg_roles AS role ON role.rolname = wanted.name
                   WHERE role.rolname IS NULL OR (wanted.login AND NOT role.rolcanlogin)))
"""
# What is in the way on the two tables and their months, and would not work over shards as it does now.
_OBSTACLES = f"""
    WITH {TREE}
    SELECT found.what || ' on ' || found.oid::regclass FROM (
        SELECT 'trigger ' || quote_ident(t.tgname), t.tgrelid FROM pg_trigger AS t
         WHERE NOT t.tgisinternal AND t.tgfoid NOT IN (
                   SELECT to_regprocedure(name)::oid FROM (VALUES ('mlops_internal.register_new_series()'),
                                                           ('pg_catalog.citus_truncate_trigger()')) AS known (name)
                    WHERE to_regprocedure(name) IS NOT NULL)
         UNION ALL
        SELECT 'foreign key ' || quote_ident(k.conname), k.conrelid FROM pg_constraint AS k WHERE k.contype = 'f'
         UNION ALL
        SELECT 'foreign key ' || quote_ident(k.conname) || ' of ' || k.conrelid::regclass, k.confrelid
          FROM pg_constraint AS k WHERE k.contype = 'f'
         UNION ALL
        SELECT 'policy ' || quote_ident(p.polname), p.polrelid FROM pg_policy AS p
         UNION ALL
        SELECT 'row level security', c.oid FROM pg_class AS c WHERE c.relrowsecurity OR c.relforcerowsecurity
         UNION ALL
        SELECT 'rule ' || quote_ident(r.rulename), r.ev_class FROM pg_rewrite AS r WHERE r.rulename <> '_RETURN'
         UNION ALL
        SELECT 'publication ' || quote_ident(p.pubname), (quote_ident(p.schemaname) || '.' || quote_ident(p.tablename))
               ::regclass FROM pg_publication_tables AS p
         UNION ALL
        SELECT 'subscription', s.srrelid FROM pg_subscription_rel AS s
         UNION ALL
        SELECT 'unique index ' || quote_ident(c.relname) || ' without model_name', i.indrelid
          FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
         WHERE (i.indisunique OR i.indisexclusion) AND NOT EXISTS (
                   SELECT FROM pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attname = 'model_name'
                      AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
         UNION ALL
        SELECT 'child table ' || h.inhrelid::regclass, h.inhparent FROM pg_inherits AS h
         WHERE h.inhparent = '{SERIES}'::regclass
         UNION ALL
        SELECT 'parent table ' || h.inhparent::regclass, h.inhrelid FROM pg_inherits AS h
         WHERE h.inhrelid IN ('{SERIES}'::regclass, '{METRICS}'::regclass)
    ) AS found (what, oid)
    JOIN tree ON tree.oid = found.oid
    ORDER BY found.oid <> ALL (ARRAY['{METRICS}', '{SERIES}']::regclass[]), 1
"""


@dataclass(frozen=True)
class Missing:
    """Something that has to be done first.

    Attributes:
        what: what is missing, for a message.
        where: the server where to do it.
        remedy: SQL for a superuser, or what else to do.
    """

    what: str
    where: str
    remedy: str


def refuse_obstacles(cursor: Cursor, words: str) -> None:
    """Refuse what others have on the tables, and what would not work in shards as it does now.

    Args:
        cursor: of the coordinator.
        words: what cannot be done with them, such as `cannot be carried to shards`.

    Raises:
        RefusedError: there is something; the message names all of it.
    """
    cursor.execute(_OBSTACLES)
    found = [name for (name,) in cursor.fetchall()]
    if found:
        raise RefusedError(
            f"{', '.join(found)} {words}; nothing was changed",
            hint="Drop it first. Of a publication: ALTER PUBLICATION ... DROP TABLE; if it is of all tables, make it "
            "anew with the others.",
        )


def find_missing(cursor: SafeCursor, settings: Settings) -> list[Missing]:
    """Find everything that has to be done before the tables can be distributed; nothing if all is done."""
    here = f"the coordinator, {settings.target}"
    nodes = list_nodes(cursor)
    is_local = settings.host.startswith("/") or settings.host == EMBEDDED
    host, port = "localhost" if is_local else settings.host, cursor.value("SHOW port")
    set_host = f"SELECT citus_set_coordinator_host('{host}', {port});"
    for node in nodes:
        if node.is_coordinator:
            host, port = node.host, node.port
    shards_here = f"SELECT citus_set_node_property('{host}', {port}, 'shouldhaveshards', true);"
    no_node = Missing(
        "no node may have shards",
        here,
        f"SELECT citus_add_node('WORKER', 5432); for each worker; or, to keep the shards on this server: {shards_here}",
    )
    no_host = Missing(
        "Citus does not know the host of the coordinator", here, f"{set_host} with the host as workers connect to it"
    )
    loaded = cursor.value("SELECT current_setting('citus.shard_count', true)") is not None
    missing = []
    if not loaded:
        if not cursor.value("SELECT 1 FROM pg_available_extensions WHERE name = 'citus'"):
            how = 'install it, and set it up by docs/scaling.md, "Past one server: Citus"; it says when it is worth it.'
            return [Missing("the server has no Citus", here, how)]
        missing.append(
            Missing(
                "shared_preload_libraries lacks citus",
                here,
                "ALTER SYSTEM SET shared_preload_libraries = 'citus'; followed by what it has now; restart the server",
            )
        )
    if not has_citus(cursor):
        missing += [
            Missing("the database has no extension citus", here, _EXTENSION),
            no_host,
            no_node,
        ]
        return missing
    if not loaded:
        return missing
    missing += _missing_here(cursor, here)
    if not any(node.is_coordinator for node in nodes):
        missing.append(no_host)
    if not any(node.is_active and node.has_shards for node in nodes):
        missing.append(no_node)
    missing += _missing_on_nodes(cursor, settings, nodes, here)
    return missing


def refuse_missing(missing: list[Missing]) -> None:
    """Refuse to go on until a superuser has done that.

    Raises:
        RefusedError: something is missing; the hint has what to do on each server.
    """
    if not missing:
        return
    servers: dict[str, list[str]] = {}
    for one in missing:
        remedies = servers.setdefault(one.where, [])
        if one.remedy not in remedies:
            remedies.append(one.remedy)
    raise RefusedError(
        f"{'; '.join(dict.fromkeys(one.what for one in missing))}; nothing was changed",
        hint=" ".join(f"On {where} a superuser does: {' '.join(remedies)}" for where, remedies in servers.items()),
    )


def _missing_here(cursor: SafeCursor, here: str) -> Iterator[Missing]:
    version: str = cursor.value("SELECT extversion FROM pg_extension WHERE extname = 'citus'")
    if _too_old(version):
        yield Missing(f"Citus {version} is too old", here, f"install {OLDEST[0]}.{OLDEST[1]} or newer on all nodes")
    available = cursor.value("SELECT default_version FROM pg_available_extensions WHERE name = 'citus'")
    if available != version:
        yield Missing(
            f"the extension citus is {version} and the installed library is for {available}",
            here,
            "ALTER EXTENSION citus UPDATE; on all nodes",
        )
    if cursor.value("SHOW max_prepared_transactions") == "0":
        yield _no_prepared_transactions(here)
    yield from _open_privileges(cursor.value(_OPEN) or [], here)


def _missing_on_nodes(cursor: SafeCursor, settings: Settings, nodes: list[Node], here: str) -> Iterator[Missing]:
    cursor.execute(
        "SELECT nodename || ':' || nodeport, groupid, hasmetadata AND metadatasynced FROM pg_catalog.pg_dist_node"
        " WHERE noderole = 'primary' AND groupid > 0"
    )
    rows = cursor.fetchall()
    groups = {address: group for address, group, _ in rows}
    unsynced = {address for address, _, synced in rows if not synced}
    workers = [node for node in nodes if not node.is_coordinator]
    for node in workers:
        if not node.is_active:
            yield Missing(
                f"worker {node.address} is not active",
                here,
                f"SELECT citus_activate_node('{node.host}', {node.port}); or, if it is gone, "
                f"SELECT citus_remove_node('{node.host}', {node.port});",
            )
        elif node.address in unsynced:
            yield Missing(
                f"the catalogue of worker {node.address} is not synchronised",
                here,
                f"SELECT start_metadata_sync_to_node('{node.host}', {node.port});",
            )
    owner: str = cursor.value("SELECT current_user::text")  # MLOPS_OWNER_ROLE is not all that can set it
    yield from _unconnected_here(cursor, nodes, owner, here)
    if not any(node.is_active for node in workers):
        return
    cursor.execute(_ROLES)
    names, logins = [], []
    for name, login in cursor.fetchall():
        names.append(name)
        logins.append(login)
    question = _WORKER.format(
        names=cursor.mogrify("%s::text[]", (names,)).decode(),
        logins=cursor.mogrify("%s::boolean[]", (logins,)).decode(),
    )
    cursor.execute(
        "SELECT nodename || ':' || nodeport, success, result FROM pg_catalog.run_command_on_workers(%s)", (question,)
    )
    for address, success, result in cursor.fetchall():
        if success:
            # A worker that is not synchronised does not know its group.
            group = None if address in unsynced else groups[address]
            yield from _missing_on(address, json.loads(result), group, owner, here)
        else:
            reason = _why_unreachable(cursor, address) or result
            yield _unusable(f"worker {address}", reason, settings.database, owner, here)


def _why_unreachable(cursor: SafeCursor, address: str) -> str | None:
    """Why the coordinator cannot connect to a node as the role that asks; None if it can.

    Citus says that in a warning, and `run_command_on_workers` does not say it at all.
    """
    cursor.execute("SET LOCAL client_min_messages = warning")
    cursor.execute("SET LOCAL citus.node_connection_timeout = %s", (_CONNECT_TIMEOUT,))
    notices = cursor.connection.notices
    notices.clear()
    host, _, port = address.rpartition(":")
    if cursor.value("SELECT pg_catalog.citus_check_connection_to_node(%s, %s)", (host, int(port))):
        return None
    said = " ".join(notices[-1].split()) if notices else f"failed to connect to {address}"
    return said.rpartition("the following error: ")[2].removeprefix("FATAL:").strip()


def _unconnected_here(cursor: SafeCursor, nodes: list[Node], owner: str, here: str) -> Iterator[Missing]:
    """What the coordinator lacks to connect to itself, which status and others do."""
    if not cursor.value("SELECT rolcanlogin FROM pg_roles WHERE rolname = current_user"):
        yield Missing(
            f'role "{owner}" may not log in, and Citus connects to all nodes, this one included, as the role that asks',
            here,
            f"ALTER ROLE {quoted(owner)} LOGIN;",
        )
        return
    for node in nodes:
        if node.is_coordinator and (reason := _why_unreachable(cursor, node.address)):
            yield Missing(
                f'the coordinator cannot connect to itself, as {node.address}, as role "{owner}": {reason}',
                here,
                "see that this address is right, and that its pg_hba.conf and its own .pgpass let the role in",
            )


def _missing_on(address: str, state: dict[str, Any], group: int | None, owner: str, here: str) -> Iterator[Missing]:
    """What a worker lacks, by its answer."""
    where = f"worker {address}"
    if group is not None and state["group"] != group:
        yield Missing(
            f"{where} is another node than the one that was added with this address",
            here,
            f"SELECT citus_update_node(nodeid, 'HOST', PORT) FROM pg_dist_node WHERE groupid = {group};",
        )
    if _too_old(state["citus"]):
        yield Missing(
            f"Citus {state['citus']} on {where} is too old", where, f"install {OLDEST[0]}.{OLDEST[1]} or newer"
        )
    if state["prepared"] == 0:
        yield _no_prepared_transactions(where)
    if not state["create"]:
        yield Missing(
            f'role "{owner}" may not create tables in schema public of {where}',
            where,
            f"GRANT CREATE ON SCHEMA public TO {quoted(owner)};",
        )
    for role, login, exists in state["roles"] or []:
        if exists:
            login_there = f"ALTER ROLE {quoted(role)} LOGIN;"
            yield Missing(f'role "{role}" may log in on the coordinator, and not on {where}', where, login_there)
        else:
            create = f"CREATE ROLE {quoted(role)}{' LOGIN' if login else ''};"
            yield Missing(f'{where} has no role "{role}", which has grants here', where, create)
    yield from _open_privileges(state["open"] or [], where)


def _unusable(where: str, result: str, database: str, owner: str, here: str) -> Missing:
    """What a worker lacks that did not answer the question."""
    reason = " ".join(result.split()).removeprefix("ERROR: ").strip()
    if re.search(r'role "[^"]*" does not exist', reason):
        return Missing(f'{where} has no role "{owner}"', where, f"CREATE ROLE {quoted(owner)} LOGIN;")
    if "is not permitted to log in" in reason:
        return Missing(f'role "{owner}" may not log in on {where}', where, f"ALTER ROLE {quoted(owner)} LOGIN;")
    if re.search(r'database "[^"]*" does not exist', reason):
        return Missing(
            f'{where} has no database "{database}"',
            where,
            f"CREATE DATABASE {quoted(database)} OWNER {quoted(owner)}; and in it: {_EXTENSION}",
        )
    if "pg_dist_local_group" in reason:
        return Missing(f"the database on {where} has no extension citus", where, _EXTENSION)
    return Missing(
        f'the coordinator cannot connect to {where} as role "{owner}": {reason}',
        here,
        "see that the worker runs, that its address in pg_dist_node is right, that it has the database, that the role "
        "may log in there (LOGIN), and that its pg_hba.conf and this server's .pgpass let it in; a node that is gone: "
        "SELECT citus_remove_node(HOST, PORT);",
    )


def _open_privileges(found: list[list[str]], where: str) -> list[Missing]:
    return [
        Missing(
            f"{role} has {privilege} on {CRASHING[privilege][0]}, which crashes a server with our months",
            where,
            f"{CRASHING[privilege][1].format(role)};",
        )
        for privilege, role in found
    ]


def _no_prepared_transactions(where: str) -> Missing:
    return Missing(
        f"max_prepared_transactions is 0 on {where}",
        where,
        "ALTER SYSTEM SET max_prepared_transactions = 200; restart the server",
    )


def _too_old(version: str) -> bool:
    numbers = re.findall(r"\d+", version)
    return (int(numbers[0]), int(numbers[1])) < OLDEST
