"""An Alembic plugin for autogenerate: compares the views of `metadata.info["views"]` with those of the database.

`alembic revision --autogenerate` writes the differences, `alembic check` fails on them. Alembic itself compares only
tables. `metadata.info["view_comments"]` has the comments of views and their columns; without it, a view that is dropped
and created again keeps its comments.

A view of schema public has the key `name`, one of another schema `schema.name`. The database's views are looked for in
public and in the schemas of these keys. In a query, a view of another schema has its schema before it; tables and views
of public have none.

PostgreSQL decides whether two definitions are the same: the views of the metadata are created over its tables in
schemas that a rollback removes, and both sides are read back with pg_get_viewdef. The output of that function, created
once more, reads back a little differently (a list of varchar literals does), so both sides go through it twice. This
takes ACCESS SHARE locks, which block neither readers nor writers, and needs CREATE on the database.

A revision gets plain `op.execute`, so that later changes of this module do not change it.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from alembic.autogenerate import renderers
from alembic.operations import ops
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import MetaData, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import NotPermittedError, RefusedError, printable
from mlops_db.migration.revision_objects import created_by_revisions, key_of
from mlops_db.migration.statements import PART, has_text_on_several_lines, mask_texts, stored_name
from mlops_db.server.guests import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from alembic.autogenerate.api import AutogenContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    Use = tuple[str, str, str]  # the view, a relation that it reads, and a column of that, or ""

_log = logging.getLogger("mlops_db.autogenerate")

# Key of MetaData.info: the keys of the tables that are not ours, which no view of ours reads.
BESIDE_OURS = "beside ours"
PLUGIN = "mlops_db.views"
INFO_KEY = "views"
COMMENTS_KEY = "view_comments"
_SHADOW = "mlops_db_shadow"
_AGAIN = "mlops_db_again"
_QUALIFIED = re.compile(rf"({PART})\s*\.\s*({PART})")

_KEY = "CASE n.nspname WHEN 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END"
# Not those of other roles: creating one again would run the functions that its constants call.
_LIVE = text(f"""
    SELECT {_KEY} AS view, c.oid
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE n.nspname = ANY(:schemas) AND c.relkind = 'v' AND {TRUSTED}
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
""")
# With public in the search path, a query names the schema of all that it calls: others may have created more there.
_DEFINITION = text("SELECT pg_catalog.pg_get_viewdef(CAST(CAST(:view AS pg_catalog.regclass) AS pg_catalog.oid), true)")
# Under "" the comment of the view itself.
_COMMENTS = text(f"""
    SELECT {_KEY}, coalesce(a.attname, ''), d.description
      FROM pg_class AS c
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
      LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
     WHERE n.nspname = ANY(:schemas) AND c.relkind = 'v'
     ORDER BY 1, d.objsubid
""")
# The relations in these schemas that each view reads, and their columns. For views of others, too.
_USES = text(f"""
    SELECT DISTINCT v.oid, v.oid::regclass::text, {_KEY}, coalesce(a.attname, '')
      FROM pg_class AS v
      JOIN pg_rewrite AS r ON r.ev_class = v.oid
      JOIN pg_depend AS d
        ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
      JOIN pg_class AS c ON c.oid = d.refobjid AND c.oid <> v.oid
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
      LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
     WHERE v.relkind IN ('v', 'm') AND n.nspname = ANY(:schemas)
     ORDER BY 2, 3
""")
_SHAPE = text("""
    SELECT attname, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
     WHERE attrelid OPERATOR(pg_catalog.=) CAST(CAST(:view AS pg_catalog.regclass) AS pg_catalog.oid)
       AND attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
     ORDER BY attnum
""")


@dataclass(frozen=True)
class View:
    """A view.

    Attributes:
        source: its query as written.
        canonical: its query as PostgreSQL reads it back the second time.
        columns: their names and types.
        comments: on its columns; under "" that on the view itself.
    """

    source: str
    canonical: str
    columns: tuple[tuple[str, str], ...]
    comments: Mapping[str, str]

    def same_as(self, other: View) -> bool:
        """Whether the two differ at most in their comments."""
        return (self.canonical, self.columns) == (other.canonical, other.columns)


@dataclass(frozen=True)
class ChangeViewOp(ops.MigrateOperation):
    """CREATE VIEW with its comments, DROP VIEW, or only the comments that differ.

    Attributes:
        name: the key of the view.
        before: the view as the database has it; None to create it.
        after: the view as the revision leaves it; None to drop it.
    """

    name: str
    before: View | None
    after: View | None

    def reverse(self) -> ChangeViewOp:
        """The operation for downgrade."""
        return ChangeViewOp(self.name, self.after, self.before)

    def to_diff_tuple(self) -> tuple[object, ...]:
        """What `alembic check` prints: for comments the columns, "" for the view itself."""
        if self.before is None:
            return ("add_view", self.name)
        if self.after is None:
            return ("remove_view", self.name)
        return ("modify_view_comments", self.name, list(self.changed_comments))

    @property
    def changed_comments(self) -> dict[str, str | None]:
        """The new comments; None for one that is removed."""
        before, after = (view.comments if view else {} for view in (self.before, self.after))
        return {column: after.get(column) for column in {**before, **after} if before.get(column) != after.get(column)}


def compare_views(autogen_context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Add the operations for views that differ between the metadata and the database.

    Views are dropped first and created last. A view is also dropped if it reads a view that is dropped, or a column
    that the revision drops or gives another type; it is created again if the metadata still has it.

    Raises:
        RefusedError: PostgreSQL refuses a view of the metadata.
        NotPermittedError: the role may not create the schema that the comparison needs.
    """
    connection, metadata = autogen_context.connection, autogen_context.metadata
    assert connection is not None
    assert isinstance(metadata, MetaData)
    schemas = sorted({"public", *(_place(name)[0] for name in metadata.info.get(INFO_KEY, {}))})
    comments = _live_comments(connection, schemas)
    wanted = _wanted_views(connection, metadata, schemas, comments)
    live, uses, others = _live_views(connection, schemas, wanted, comments, autogen_context.migration_context.script)

    stale = {name for name, view in live.items() if name not in wanted or not wanted[name].same_as(view)}
    dropped = _with_readers(stale | _reading(uses, upgrade_ops), uses)
    for reader in sorted(_reading(others, upgrade_ops) | {reader for reader, used, _ in others if used in dropped}):
        _log.warning(
            "%s is not ours and reads what the revision drops: drop it before you run the revision", printable(reader)
        )
    changes = {name: ChangeViewOp(name, live.get(name), view) for name, view in wanted.items()}
    upgrade_ops.ops[:] = [
        *(
            ChangeViewOp(name, _as_written(live[name], wanted.get(name)), None)
            for name in _readers_first(dropped, uses)
        ),
        *upgrade_ops.ops,
        *(replace(change, before=None) for name, change in changes.items() if name in dropped or name not in live),
        *(change for name, change in changes.items() if name in live.keys() - dropped and change.changed_comments),
    ]
    return PriorityDispatchResult.CONTINUE


def _as_written(live: View, wanted: View | None) -> View:
    """The live view with the query as its author wrote it, unless the query itself changed."""
    unchanged = wanted is not None and wanted.canonical == live.canonical
    return replace(live, source=wanted.source) if unchanged and wanted else live


def setup(plugin: Plugin) -> None:
    """Register the comparison; Alembic calls this for a plugin."""
    plugin.add_autogenerate_comparator(
        compare_views, "autogenerate", qualifier="postgresql", priority=DispatchPriority.LAST
    )


def _live_views(
    connection: Connection,
    schemas: list[str],
    wanted: Mapping[str, View],
    comments: Mapping[str, Mapping[str, str]],
    script: ScriptDirectory | None,
) -> tuple[dict[str, View], set[Use], set[Use]]:
    """The views there that the metadata has or a revision creates, what they read, and what other views read."""
    views = {row.view: str(row.oid) for row in connection.execute(_LIVE, {"schemas": schemas})}
    if script is not None and views.keys() - wanted.keys():
        ours = wanted.keys() | created_by_revisions(script, only_ours=True).relations
        views = {name: oid for name, oid in views.items() if name in ours}
    names = {oid: name for name, oid in views.items()}
    uses, others = set(), set()
    for oid, reader, used, column in connection.execute(_USES, {"schemas": schemas}):
        if str(oid) in names:
            uses.add((names[str(oid)], used, column))
        else:
            others.add((reader, used, column))
    with _rollback_afterwards(connection, "public"):
        described = {name: _describe(connection, _definition(connection, oid)) for name, oid in views.items()}
    live = {name: replace(view, comments=comments.get(name, {})) for name, view in described.items()}
    return live, uses, others


def _wanted_views(
    connection: Connection,
    metadata: MetaData,
    schemas: list[str],
    live_comments: Mapping[str, Mapping[str, str]],
) -> dict[str, View]:
    sources: Mapping[str, str] = metadata.info.get(INFO_KEY, {})
    if not sources:
        return {}
    shadows = {schema: f"{_SHADOW}_{number}" for number, schema in enumerate(schemas)} | {"public": _SHADOW}
    with _rollback_afterwards(connection, _SHADOW):
        try:
            for name in shadows.values():
                connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        except DBAPIError as error:
            if not isinstance(error.orig, InsufficientPrivilege):
                raise
            raise NotPermittedError(
                "comparing views needs a scratch schema, and this role may not create one",
                hint="Run it as the owner of the database, or let the owner GRANT CREATE ON DATABASE to this role.",
            ) from error
        shadow = MetaData(naming_convention=metadata.naming_convention)
        for table in metadata.sorted_tables:
            if table.schema in (None, "public") and table.key not in metadata.info.get(BESIDE_OURS, ()):
                table.to_metadata(shadow, schema=None)  # type: ignore[arg-type]  # None is documented, not typed
        # PostgreSQL refuses a partitioned table if default_tablespace is the database's own.
        connection.exec_driver_sql("SET LOCAL default_tablespace = ''")
        shadow.create_all(connection, checkfirst=False)
        # Then public, for the functions that a view may call.
        connection.exec_driver_sql(f"SET LOCAL search_path = {_SHADOW}, public")
        found = {}
        for name, source in sources.items():
            schema, plain = _place(name)
            there = f"{shadows[schema]}.{_quote(plain)}"
            try:
                _execute(connection, f"CREATE VIEW {there} AS {_into_shadows(source, sources, shadows)}")
                read_back = _definition(connection, there)
            except DBAPIError as error:
                raise _view_refusal(name, str(error.orig)) from error
            view = _out_of_shadows(_describe(connection, read_back), shadows)
            comments = _wanted_comments(name, view, metadata, live_comments.get(name, {}))
            found[name] = replace(view, source=source.strip(), comments=comments)
        return found


def _into_shadows(source: str, views: Iterable[str], shadows: Mapping[str, str]) -> str:
    """The query with the shadow of each other schema before the views of the metadata that it reads there."""
    masked = mask_texts(source)

    def moved(name: re.Match[str]) -> str:
        schema, view = stored_name(name[1]), stored_name(name[2])
        is_name = masked[name.start()] == ("x" if name[0].startswith('"') else name[0][0])
        return f"{shadows[schema]}.{name[2]}" if is_name and key_of(schema, view) in views else name[0]

    return _QUALIFIED.sub(moved, source)


def _out_of_shadows(view: View, shadows: Mapping[str, str]) -> View:
    """The view as it is read back where the schemas have their own names."""

    def moved(text: str) -> str:
        for schema, shadow in shadows.items():
            text = text.replace(f"{shadow}.", f"{_quote(schema)}.")
        return text

    return replace(
        view, canonical=moved(view.canonical), columns=tuple((name, moved(type_)) for name, type_ in view.columns)
    )


def _view_refusal(view: str, reason: str) -> RefusedError:
    """The error for a view of the metadata that PostgreSQL does not take."""
    return RefusedError(
        f"view {view} of mlops_db.schema cannot be created: {reason.strip().partition(chr(10))[0]}",
        hint="Fix its query or its comments there, or the order of the views: a view comes after those that it reads.",
    )


def _live_comments(connection: Connection, schemas: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for view, column, comment in connection.execute(_COMMENTS, {"schemas": schemas}):
        found.setdefault(view, {})[column] = comment
    return found


def _wanted_comments(name: str, view: View, metadata: MetaData, live: Mapping[str, str]) -> Mapping[str, str]:
    """The comments of the metadata; if it has none for any view, the live ones whose columns are left."""
    columns = {"", *(column for column, _ in view.columns)}
    of_metadata: Mapping[str, Mapping[str, str]] | None = metadata.info.get(COMMENTS_KEY)
    if of_metadata is None:
        return {column: comment for column, comment in live.items() if column in columns}
    wanted = {column: comment for column, comment in of_metadata.get(name, {}).items() if comment}
    if unknown := wanted.keys() - columns:
        raise _view_refusal(name, f"it has no column {min(unknown)}, which has a comment")
    return wanted


def _definition(connection: Connection, view: str) -> str:
    """PostgreSQL's text of a view, by its name or oid; names in the search path have no schema in it."""
    return str(connection.execute(_DEFINITION, {"view": view}).scalar_one())


def _describe(connection: Connection, definition: str) -> View:
    """Create the view once more, on the search path that its names need, and read it back."""
    _execute(connection, f"CREATE TEMPORARY VIEW {_AGAIN} AS {definition}")
    view = f"pg_temp.{_AGAIN}"
    canonical = _definition(connection, view)
    columns = tuple((name, type_) for name, type_ in connection.execute(_SHAPE, {"view": view}))
    # By the schema's own name: Citus finds no schema pg_temp, and without one public may come first.
    drop = f"format('DROP VIEW %I.{_AGAIN}', pg_my_temp_schema()::regnamespace)"
    _execute(connection, f"DO $drop$ BEGIN EXECUTE {drop}; END $drop$")
    return View(definition.strip().removesuffix(";"), canonical, columns, comments={})


@contextmanager
def _rollback_afterwards(connection: Connection, search_path: str) -> Iterator[None]:
    """Roll the block back at its end; within it, names without a schema are found in this one."""
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql(f"SET LOCAL search_path = {search_path}")
        try:
            yield
        finally:
            savepoint.rollback()


def _execute(connection: Connection, statement: str) -> None:
    # Without parameters: a view's text may contain % or :name.
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _reading(uses: Iterable[Use], upgrade_ops: ops.UpgradeOps) -> set[str]:
    """The views that read a table or a column that the revision changes or drops."""
    gone = {
        key_of(operation.schema, operation.table_name)
        for operation in upgrade_ops.ops
        if isinstance(operation, ops.DropTableOp)
    }
    changed = {
        (key_of(change.schema, change.table_name), change.column_name)
        for group in upgrade_ops.ops
        if isinstance(group, ops.ModifyTableOps)
        for change in group.ops
        if isinstance(change, ops.DropColumnOp)
        or (isinstance(change, ops.AlterColumnOp) and change.modify_type is not None)
    }
    return {view for view, table, column in uses if table in gone or (table, column) in changed}


def _with_readers(views: set[str], uses: Iterable[Use]) -> set[str]:
    """The views and all that read them, directly or through others."""
    while more := {reader for reader, used, _ in uses if used in views} - views:
        views = views | more
    return views


def _readers_first(views: set[str], uses: Iterable[Use]) -> list[str]:
    """An order in which each view can be dropped: after its readers."""
    readers = {view: {reader for reader, used, _ in uses if used == view} & views for view in sorted(views)}
    return list(TopologicalSorter(readers).static_order())


@renderers.dispatch_for(ChangeViewOp)
def _render(_: AutogenContext, operation: ChangeViewOp) -> list[str]:
    schema, name = _place(operation.name)
    view = _quote(name) if schema == "public" else f"{_quote(schema)}.{_quote(name)}"
    if operation.after is None:
        return [_render_execute(f"DROP VIEW {view}")]
    rendered = [] if operation.before else [_render_execute(f"CREATE VIEW {view} AS\n{operation.after.source}")]
    for column, comment in operation.changed_comments.items():
        target = f"COLUMN {view}.{_quote(column)}" if column else f"VIEW {view}"
        literal = "NULL" if comment is None else "'{}'".format(comment.replace("'", "''"))
        rendered.append(_render_execute(f"COMMENT ON {target} IS {literal}"))
    return rendered


def _render_execute(statement: str) -> str:
    """The Python that executes exactly this statement."""
    doubled = statement.replace("%", "%%")
    if str(text(statement).compile(dialect=_DIALECT)) == doubled:
        return f"op.execute({_render_text(statement)})"
    # op.execute() would find parameters in it, such as :name; DDL has none, and undoes the doubling of per cent signs.
    return f"op.execute(sa.DDL({_render_text(doubled)}))"


def _render_text(statement: str) -> str:
    """The Python literal of a statement: on several lines, unless Alembic's indentation would change its meaning."""
    printable = all(character.isprintable() or character == "\n" for character in statement)
    if "\n" not in statement or not printable or '"""' in statement or has_text_on_several_lines(statement):
        return repr(statement)
    return f'{"r" if chr(92) in statement else ""}"""\n{statement}\n"""'


def _place(key: str) -> tuple[str, str]:
    """The schema and the name of the view with this key."""
    schema, _, name = key.rpartition(".")
    return schema or "public", name


def _quote(name: str) -> str:
    """Quote an identifier if need be; SQLAlchemy doubles its per cent signs for drivers, and SQL does not."""
    return _DIALECT.identifier_preparer.quote(name).replace("%%", "%")


_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has it untyped


# Here, once in a process: env.py runs for each command, and Alembic refuses to register a plugin twice.
Plugin.setup_plugin_from_module(sys.modules[__name__], PLUGIN)
