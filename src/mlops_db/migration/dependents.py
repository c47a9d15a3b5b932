"""What depends on our relations, such as a view or a foreign key of others, and stops a run that drops them.

PostgreSQL would refuse the statement, but only when the steps before it are done and their rows are gone. A trigger or
a rule on one of them it would drop without a word.
"""

from __future__ import annotations

import re
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from psycopg2.errors import DependentObjectsStillExist
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import RefusedError
from mlops_db.migration.database_state import commands_that_revert
from mlops_db.migration.preview import written_sql
from mlops_db.migration.revision_graph import our_folder
from mlops_db.migration.revision_objects import Created, created_by_revisions, key_of
from mlops_db.migration.statements import NAME, PART, first_words, split_statements, stored_name, without_texts
from mlops_db.migration.step import direction_name
from mlops_db.project import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alembic.script import Script, ScriptDirectory
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  (psycopg2 names its classes like functions)
    from sqlalchemy import Connection

_DROPPED = re.compile(
    rf"\bDROP\s+(?:TABLE|(?:MATERIALIZED\s+)?VIEW|FUNCTION|ROUTINE)\s+(?:IF\s+EXISTS\s+)?({NAME}(?:\s*,\s*{NAME})*)",
    re.IGNORECASE,
)
_ALTERED = re.compile(rf"\bALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?({NAME})((?:{PART}|[^;\"])*)", re.IGNORECASE)
_COLUMN = re.compile(
    rf"\bDROP\s+(?:COLUMN\s+|CONSTRAINT\s+)?(?:IF\s+EXISTS\s+)?({PART})"
    rf"|\bALTER\s+(?:COLUMN\s+)?({PART})\s+(?:SET\s+DATA\s+)?TYPE\b",
    re.IGNORECASE,
)
# What is dropped or changed, such as the table that loses a key.
_CHANGED = re.compile(
    r"\b(?:DROP\s+(?:TABLE|(?:MATERIALIZED\s+)?VIEW|FUNCTION|ROUTINE|INDEX(?:\s+CONCURRENTLY)?|SEQUENCE)|ALTER\s+TABLE|ON)"
    rf"\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?({NAME}(?:\s*,\s*{NAME})*)",
    re.IGNORECASE,
)
_SCHEMAS_DROPPED = re.compile(rf"\bDROP\s+SCHEMA\s+(?:IF\s+EXISTS\s+)?({PART}(?:\s*,\s*{PART})*)", re.IGNORECASE)
_PART_DROPPED = re.compile(
    rf"\bDROP\s+(?:TRIGGER|RULE|POLICY)\s+(?:IF\s+EXISTS\s+)?({PART})\s+ON\s+({NAME})", re.IGNORECASE
)
_REFUSES = "RAISE dependent_objects_still_exist"


class Dependent(NamedTuple):
    """Something that keeps a relation, a column or a constraint from being dropped, or goes with it.

    Names are as SQL has them, quoted where they need it.

    Attributes:
        on: the qualified relation or function.
        part: the column or the constraint of it; empty for the relation itself.
        within: its qualified name, or that of the relation that it is a part of.
        what: its kind and name for people, such as `view public.report`.
    """

    on: str
    part: str
    within: str
    what: str

    @property
    def part_of_relation(self) -> str | None:
        """The name in the catalogue, if it is a trigger, a rule or a policy; these have none of their own in SQL."""
        match = re.match(rf"(?:trigger|rule|policy) ({PART}) on ", self.what)
        return match and stored_name(match[1])

    @property
    def is_policy_on_it(self) -> bool:
        """Whether it is a policy on the relation itself: a part of it, which only keeps its columns from going."""
        return self.within == self.on and self.what.startswith("policy ")

    @property
    def goes_silently(self) -> bool:
        """Whether PostgreSQL drops it together with the relation."""
        return self.part_of_relation is not None and self.within == self.on


def read_dependents(cursor: Cursor) -> list[Dependent]:
    """What depends on the relations and functions of our schemas, their columns and constraints, ours and others'."""
    cursor.execute(_DEPENDENTS)
    return [Dependent(*row) for row in cursor.fetchall()]


def refuse_dependents(
    connection: Connection, script: ScriptDirectory, revisions: Sequence[Script], *, is_upgrade: bool
) -> None:
    """Stop before the first step of a run if others have something that depends on what one of the steps drops.

    Only reads. What the steps themselves drop or change is in nobody's way. The `upgrade` of a project beside ours is
    called for its SQL only if something is found: unlike ours, it may do more than write SQL.

    Args:
        connection: to the database.
        script: the revisions of the project.
        revisions: those of the steps, in their order.
        is_upgrade: the direction of the steps.

    Raises:
        RefusedError: names what depends on what.
        DBAPIError: a step has a check of its own that says so, or the connection broke.
    """
    folder, direction = our_folder(script), direction_name(is_upgrade=is_upgrade)
    are_ours = [Path(one.path).parent.resolve() == folder for one in revisions]
    written = [
        written_sql(one, direction) if is_ours or not is_upgrade else None
        for one, is_ours in zip(revisions, are_ours, strict=True)
    ]
    _ask_the_steps(connection, written[: [*are_ours, False].index(False)])
    dropped, columns = _read_drops(_joined(written))
    if not (dropped or columns):
        return
    with closing(cast("Cursor", connection.connection.cursor())) as cursor:
        found = [
            one
            for one in read_dependents(cursor)
            if (_stored(one.on) in dropped and not one.is_policy_on_it)
            or (_stored(one.on), stored_name(one.part)) in columns
        ]
    found = _left_by(_joined(written), found)
    if not found:
        return
    created = created_by_revisions(script, only_ours=True)
    found = [one for one in found if _is_in_the_way(one, created)]
    if found and is_upgrade and not all(are_ours):
        found = _left_by(_joined(written_sql(one, direction) for one in revisions), found)
    hint = "Nothing of others is dropped with ours: let their owner drop what is named, and create it again afterwards."
    theirs = {one: sql for one, sql, is_ours in zip(revisions, written, are_ours, strict=True) if not is_ours}
    if not is_upgrade and None in theirs.values():  # it asks the database, so nobody knows yet what it drops
        hint += f" If a downgrade of yours drops it, run that one first: {commands_that_revert([*theirs])}."
    in_the_way: dict[str, dict[str, None]] = {}
    for one in found:
        in_the_way.setdefault(one.on, {})[one.what] = None
    for on, names in in_the_way.items():
        verb = "depends" if len(names) == 1 else "depend"
        raise RefusedError(
            f"{' and '.join(names)} {verb} on {on}, which this {direction} drops or changes; nothing was changed",
            hint=hint,
        )


def _joined(written: Iterable[str | None]) -> str:
    return "; ".join(without_texts(sql) for sql in written if sql)


def _left_by(sql: str, found: Sequence[Dependent]) -> list[Dependent]:
    """Those that the SQL neither drops nor changes."""
    changed = {_stored(name) for names in _CHANGED.findall(sql) for name in re.findall(NAME, names)}
    dropped = [_stored(name) for names in _DROPPED.findall(sql) for name in re.findall(NAME, names)]
    schemas = {stored_name(name) for names in _SCHEMAS_DROPPED.findall(sql) for name in re.findall(PART, names)}
    parts = {(stored_name(part), _stored(name)) for part, name in _PART_DROPPED.findall(sql)}

    def is_left(one: Dependent) -> bool:
        within = _stored(one.within)
        if (one.part_of_relation, within) in parts:
            return False
        goes_too_late = within in dropped and _stored(one.on) in dropped[: dropped.index(within)]
        if one.goes_silently or (goes_too_late and one.what.startswith("policy ")):
            return True
        # An index goes by itself, or with its table.
        names = {within, *(_stored(name) for name in re.findall(rf"^index ({NAME})", one.what))}
        return within[0] not in schemas and changed.isdisjoint(names)

    return [one for one in found if is_left(one)]


def _is_in_the_way(one: Dependent, created: Created) -> bool:
    """Whether what depends on something that a run drops or changes is of others; `created` are our objects."""
    within = _stored(one.within)
    schema, name = within[0], within[-1]  # a cast has no name
    if schema == "mlops_internal":
        return False
    if key_of(schema, name) in created.relations:
        return one.part_of_relation is not None and not created.has_part(one.part_of_relation, name)
    return not one.goes_silently


def _ask_the_steps(connection: Connection, written: Sequence[str | None]) -> None:
    """Run the checks of our steps that look for dependents; not after steps of others, which may drop these."""
    for sql in written:
        if sql is None or _REFUSES not in sql:
            continue
        for statement in dict.fromkeys(split_statements(sql)):
            if first_words(statement) == ["DO"] and _REFUSES in statement:
                try:
                    with connection.begin_nested():
                        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
                except DBAPIError as error:
                    # The step runs it again, and by then what else it needs is there.
                    if error.connection_invalidated or isinstance(error.orig, DependentObjectsStillExist):
                        raise


def _read_drops(sql: str) -> tuple[set[tuple[str, ...]], set[tuple[tuple[str, ...], str]]]:
    """The relations that the SQL drops, and the columns that it drops or gives another type, with their relation."""
    dropped = {_stored(name) for names in _DROPPED.findall(sql) for name in re.findall(NAME, names)}
    columns = {
        (_stored(table), stored_name(column))
        for table, changes in _ALTERED.findall(sql)
        for column in filter(None, chain.from_iterable(_COLUMN.findall(changes)))
    }
    return dropped, columns


def _stored(written: str) -> tuple[str, ...]:
    """The schema and the name, as the catalogue has them, of the name that the SQL begins with."""
    match = re.match(NAME, written)
    parts = [stored_name(part) for part in re.findall(PART, match[0])] if match else []
    return tuple(parts if len(parts) > 1 else ["public", *parts])


_QUALIFIED = "{0}.relnamespace::regnamespace || '.' || quote_ident({0}.relname)"
# A view depends on what its rule reads; a foreign key on the index of the constraint that it refers to. A trigger or
# a rule goes with its relation ('a').
_DEPENDENTS = f"""
    WITH targets AS (
        SELECT 'pg_class'::regclass AS class, c.oid, c.oid AS relation, NULL AS part FROM pg_class AS c
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
         UNION ALL
        SELECT 'pg_class'::regclass, d.objid, d.refobjid, NULL FROM pg_depend AS d JOIN pg_class AS s ON s.oid = d.objid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND s.relkind = 'S'
           AND d.deptype IN ('a', 'i')
         UNION ALL
        SELECT 'pg_type'::regclass, row.oid, c.oid, NULL FROM pg_class AS c JOIN pg_type AS t ON t.oid = c.reltype
         CROSS JOIN LATERAL unnest(ARRAY[t.oid, t.typarray]) AS row (oid)
         UNION ALL
        SELECT 'pg_class'::regclass, k.conindid, k.conrelid, quote_ident(k.conname) FROM pg_constraint AS k
         WHERE k.contype IN ('p', 'u', 'x')
         UNION ALL
        SELECT 'pg_constraint'::regclass, k.oid, k.conrelid, quote_ident(k.conname) FROM pg_constraint AS k
         WHERE k.conrelid <> 0
         UNION ALL
        SELECT 'pg_proc'::regclass, p.oid, NULL, NULL FROM pg_proc AS p
    )
    SELECT DISTINCT coalesce({_QUALIFIED.format("c")}, quote_ident(n.nspname) || '.' || quote_ident(f.proname)),
           coalesce(target.part, quote_ident(a.attname), ''),
           coalesce({_QUALIFIED.format("holder")}, o.identity),
           CASE WHEN r.rulename = '_RETURN'
                THEN CASE holder.relkind WHEN 'm' THEN 'materialized view ' ELSE 'view ' END
                     || {_QUALIFIED.format("holder")}
                ELSE replace(o.type, 'table constraint', 'constraint') || ' ' || o.identity END
      FROM targets AS target
      LEFT JOIN pg_class AS c ON c.oid = target.relation
      LEFT JOIN pg_proc AS f ON target.class = 'pg_proc'::regclass AND f.oid = target.oid
      JOIN pg_namespace AS n ON n.oid = coalesce(c.relnamespace, f.pronamespace) AND n.nspname = ANY(ARRAY{[*SCHEMAS]})
      JOIN pg_depend AS d ON d.refclassid = target.class AND d.refobjid = target.oid
       AND (d.deptype = 'n' OR d.deptype = 'a' AND d.classid = ANY (ARRAY[
               'pg_trigger'::regclass, 'pg_rewrite'::regclass]))
      LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
                                 AND d.refclassid = 'pg_class'::regclass
      LEFT JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
      LEFT JOIN pg_constraint AS k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
      LEFT JOIN pg_policy AS y ON d.classid = 'pg_policy'::regclass AND y.oid = d.objid
      LEFT JOIN pg_attrdef AS e ON d.classid = 'pg_attrdef'::regclass AND e.oid = d.objid
      LEFT JOIN pg_trigger AS g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
      LEFT JOIN pg_class AS holder ON holder.oid = coalesce(
               r.ev_class, k.conrelid, y.polrelid, e.adrelid, g.tgrelid,
               CASE WHEN d.classid = 'pg_class'::regclass
                    THEN coalesce((SELECT i.indrelid FROM pg_index AS i WHERE i.indexrelid = d.objid), d.objid) END)
     CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS o
     WHERE g.tgisinternal IS NOT TRUE AND coalesce(g.tgparentid, 0) = 0
     ORDER BY 1, 2, 4
"""
