"""Views for autogenerate, as an Alembic plugin: `metadata.info["views"]` against the views in the database.

`alembic revision --autogenerate` writes what differs, `alembic check` fails on it. Alembic itself sees tables only.
`metadata.info["view_comments"]` says which comments views and their columns have; without it, a view that has to be
dropped and made anew keeps those that it has.

Two definitions are the same if PostgreSQL says so: the wanted ones are created over the metadata's tables in a schema
that a rollback takes away again, and both sides are read back with pg_get_viewdef. That function's own output, created
once more, reads back a little differently (a list of varchar literals does), so both sides go through it twice. All of
this needs ACCESS SHARE on what is there, which keeps nobody from reading or writing, and CREATE on the database.

Plain `op.execute` is written, so that a revision stays what it is whatever becomes of this module.
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
from sqlalchemy import MetaData, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from mlops_db.errors import NotPermittedError, RefusedError, printable
from mlops_db.migration.made import made_by_revisions
from mlops_db.server.guests import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from alembic.autogenerate.api import AutogenContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    Comments = Mapping[str, str]  # by column, the view's own under ""
    Use = tuple[str, str, str]  # the view, what it reads, and the column of that, or ""

_log = logging.getLogger(__name__)

PLUGIN = "mlops_db.views"
INFO_KEY = "views"
COMMENTS_KEY = "view_comments"
_SHADOW = "mlops_db_shadow"
_AGAIN = "mlops_db_again"
INSUFFICIENT_PRIVILEGE = "42501"

# Not a guest's: to create it once more is to run what its constants call.
_LIVE = text(f"""
    SELECT c.relname, c.oid
      FROM pg_class AS c JOIN pg_roles AS role ON role.oid = c.relowner
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v' AND {TRUSTED}
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')
""")
# What is asked with public in the search path names all it calls with its schema: a guest may have put more there.
_DEFINITION = text("SELECT pg_catalog.pg_get_viewdef(CAST(CAST(:view AS pg_catalog.regclass) AS pg_catalog.oid), true)")
# Under "" the view's own.
_COMMENTS = text("""
    SELECT c.relname, coalesce(a.attname, ''), d.description
      FROM pg_class AS c
      JOIN pg_description AS d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
      LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'v'
     ORDER BY c.relname, d.objsubid
""")
# View by view what it reads in public: each relation, and each column of it that is used. Others' views too, which are
# named with their schema.
_USES = text("""
    SELECT DISTINCT v.oid, v.oid::regclass::text, used.relname, coalesce(a.attname, '')
      FROM pg_class AS v
      JOIN pg_rewrite AS r ON r.ev_class = v.oid
      JOIN pg_depend AS d
        ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
      JOIN pg_class AS used ON used.oid = d.refobjid AND used.oid <> v.oid
      LEFT JOIN pg_attribute AS a ON a.attrelid = used.oid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
     WHERE v.relkind IN ('v', 'm') AND used.relnamespace = 'public'::regnamespace
     ORDER BY 2, 3
""")
_SHAPE = text("""
    SELECT attname, pg_catalog.format_type(atttypid, atttypmod) FROM pg_catalog.pg_attribute
     WHERE attrelid OPERATOR(pg_catalog.=) CAST(CAST(:view AS pg_catalog.regclass) AS pg_catalog.oid)
       AND attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2
     ORDER BY attnum
""")


class CreateViewOp(ops.MigrateOperation):
    """CREATE VIEW with its comments, as autogenerate writes it; downgrade drops it."""

    def __init__(self, name: str, definition: str, comments: Comments) -> None:
        """Take the view's name, the query behind it, and the comments on it."""
        self.name = name
        self.definition = definition
        self.comments = comments

    def reverse(self) -> DropViewOp:
        """The operation that takes this one back."""
        return DropViewOp(self.name, self.definition, self.comments)

    def to_diff_tuple(self) -> tuple[str, str]:
        """How `alembic check` prints it."""
        return ("add_view", self.name)


class DropViewOp(ops.MigrateOperation):
    """DROP VIEW, as autogenerate writes it; downgrade creates it as it was."""

    def __init__(self, name: str, definition: str, comments: Comments) -> None:
        """Take the view's name, the query behind it and the comments on it, for the way back."""
        self.name = name
        self.definition = definition
        self.comments = comments

    def reverse(self) -> CreateViewOp:
        """The operation that takes this one back."""
        return CreateViewOp(self.name, self.definition, self.comments)

    def to_diff_tuple(self) -> tuple[str, str]:
        """How `alembic check` prints it."""
        return ("remove_view", self.name)


class CommentViewOp(ops.MigrateOperation):
    """COMMENT ON, for a view of which nothing else differs; downgrade puts back what was there."""

    def __init__(self, name: str, before: Comments, after: Comments) -> None:
        """Take the view's name, and all comments on it as they are and as they shall be."""
        self.name = name
        self.before = before
        self.after = after

    def reverse(self) -> CommentViewOp:
        """The operation that takes this one back."""
        return CommentViewOp(self.name, self.after, self.before)

    def to_diff_tuple(self) -> tuple[str, str, list[str]]:
        """How `alembic check` prints it: with the columns whose comments differ, "" for the view's own."""
        return ("modify_view_comments", self.name, list(self.changed))

    @property
    def changed(self) -> dict[str, str | None]:
        """The comments that become other ones; None for one that goes."""
        return {
            column: self.after.get(column)
            for column in {**self.before, **self.after}
            if self.before.get(column) != self.after.get(column)
        }


@dataclass(frozen=True)
class _View:
    """A view as PostgreSQL describes it: the query it was made of, that query read back twice, and its columns."""

    source: str
    canonical: str
    columns: tuple[tuple[str, str], ...]

    def same_as(self, other: _View) -> bool:
        return (self.canonical, self.columns) == (other.canonical, other.columns)


def compare_views(autogen_context: AutogenContext, upgrade_ops: ops.UpgradeOps) -> PriorityDispatchResult:
    """Put what differs between the metadata's views and the database's around the other operations.

    Views that have to go come first, views that have to come are last. A view goes too if it reads a view that goes, or
    a column that the revision drops or gives another type; it comes back if the metadata still has it.

    Raises:
        RefusedError: PostgreSQL does not take a view of the metadata.
        NotPermittedError: the role may not create the schema that the comparison needs.
    """
    connection, metadata = autogen_context.connection, autogen_context.metadata
    assert connection is not None
    assert isinstance(metadata, MetaData)
    wanted = _wanted_views(connection, metadata)
    live, uses, others = _live_views(connection, wanted, autogen_context.migration_context.script)

    has = _live_comments(connection)
    gets = {name: _wanted_comments(name, view, metadata, has.get(name, {})) for name, view in wanted.items()}

    stale = {name for name, view in live.items() if name not in wanted or not wanted[name].same_as(view)}
    going = _with_readers(stale | _reading(uses, upgrade_ops), uses)
    for reader in sorted(_reading(others, upgrade_ops) | {reader for reader, used, _ in others if used in going}):
        _log.warning(
            "%s is somebody else's and reads what the revision drops: drop it before you run that", printable(reader)
        )
    drops = [
        DropViewOp(name, _way_back(live[name], wanted.get(name)), has.get(name, {}))
        for name in _readers_first(going, uses)
    ]
    creates = [
        CreateViewOp(name, view.source, gets[name])
        for name, view in wanted.items()
        if name in going or name not in live
    ]
    stays = [CommentViewOp(name, has.get(name, {}), gets[name]) for name in wanted if name in live.keys() - going]
    upgrade_ops.ops[:] = [*drops, *upgrade_ops.ops, *creates, *(operation for operation in stays if operation.changed)]
    return PriorityDispatchResult.CONTINUE


def _way_back(live: _View, wanted: _View | None) -> str:
    """The query that downgrade creates the view with: its author's, unless it is the query that changed."""
    return wanted.source if wanted is not None and wanted.canonical == live.canonical else live.source


def setup(plugin: Plugin) -> None:
    """Alembic's entry to a plugin."""
    plugin.add_autogenerate_comparator(
        compare_views, "autogenerate", qualifier="postgresql", priority=DispatchPriority.LAST
    )


def _live_views(
    connection: Connection, wanted: Mapping[str, _View], script: ScriptDirectory | None
) -> tuple[dict[str, _View], set[Use], set[Use]]:
    """The views in public that the metadata has or a revision made, what they read, and what others' views read."""
    views = {row.relname: str(row.oid) for row in connection.execute(_LIVE)}
    if script is not None and views.keys() - wanted.keys():
        ours = wanted.keys() | made_by_revisions(script)
        views = {name: oid for name, oid in views.items() if name in ours}
    names = {oid: name for name, oid in views.items()}
    uses, others = set(), set()
    for oid, reader, used, column in connection.execute(_USES):
        if str(oid) in names:
            uses.add((names[str(oid)], used, column))
        else:
            others.add((reader, used, column))
    with _rolled_back(connection, "public"):
        return {name: _described(connection, _definition(connection, oid)) for name, oid in views.items()}, uses, others


def _wanted_views(connection: Connection, metadata: MetaData) -> dict[str, _View]:
    sources: Mapping[str, str] = metadata.info.get(INFO_KEY, {})
    if not sources:
        return {}
    with _rolled_back(connection, _SHADOW):
        try:
            connection.exec_driver_sql(f"CREATE SCHEMA {_SHADOW}")
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != INSUFFICIENT_PRIVILEGE:
                raise
            raise NotPermittedError(
                "comparing views needs a scratch schema, and this role may not create one",
                hint="Run it as the owner of the database, or let the owner GRANT CREATE ON DATABASE to this role.",
            ) from error
        shadow = MetaData(naming_convention=metadata.naming_convention)
        for table in metadata.sorted_tables:
            if table.schema in (None, "public"):
                table.to_metadata(shadow, schema=None)  # type: ignore[arg-type]  # None is documented, not typed
        # Where the database's default names its own tablespace, a partitioned table would be refused.
        connection.exec_driver_sql("SET LOCAL default_tablespace = ''")
        shadow.create_all(connection, checkfirst=False)
        # Behind it public, for the functions that a view may call.
        connection.exec_driver_sql(f"SET LOCAL search_path = {_SHADOW}, public")
        found = {}
        for name, source in sources.items():
            try:
                _execute(connection, f"CREATE VIEW {_quote(name)} AS {source}")
                read_back = _definition(connection, f"{_SHADOW}.{_quote(name)}")
            except DBAPIError as error:
                raise _view_refusal(name, str(error.orig)) from error
            found[name] = replace(_described(connection, read_back), source=source.strip())
        return found


def _view_refusal(view: str, reason: str) -> RefusedError:
    """The error for a view of the metadata that PostgreSQL does not take."""
    return RefusedError(
        f"view {view} of mlops_db.schema.views cannot be created: {reason.strip().partition(chr(10))[0]}",
        hint="Fix its query or its comments there, or the order of the views: a view comes after those that it reads.",
    )


def _live_comments(connection: Connection) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for view, column, comment in connection.execute(_COMMENTS):
        found.setdefault(view, {})[column] = comment
    return found


def _wanted_comments(name: str, view: _View, metadata: MetaData, live: Comments) -> Comments:
    """Those of the metadata; if it says nothing of comments, those that are there and still have their column."""
    columns = {"", *(column for column, _ in view.columns)}
    given: Mapping[str, Comments] | None = metadata.info.get(COMMENTS_KEY)
    if given is None:
        return {column: comment for column, comment in live.items() if column in columns}
    wanted = {column: comment for column, comment in given.get(name, {}).items() if comment}
    if strange := wanted.keys() - columns:
        raise _view_refusal(name, f"it has no column {min(strange)}, which has a comment")
    return wanted


def _definition(connection: Connection, view: str) -> str:
    """PostgreSQL's text of a view, given by its name or its oid; what is in the search path has no schema there."""
    return str(connection.execute(_DEFINITION, {"view": view}).scalar_one())


def _described(connection: Connection, definition: str) -> _View:
    """Create it once more, where it resolves as it does now, and read it back."""
    _execute(connection, f"CREATE TEMPORARY VIEW {_AGAIN} AS {definition}")
    view = f"pg_temp.{_AGAIN}"
    canonical = _definition(connection, view)
    columns = tuple((name, type_) for name, type_ in connection.execute(_SHAPE, {"view": view}))
    _execute(connection, f"DROP VIEW {view}")
    return _View(definition.strip().removesuffix(";"), canonical, columns)


@contextmanager
def _rolled_back(connection: Connection, search_path: str) -> Iterator[None]:
    """Leave nothing behind, and find unqualified names in that schema alone meanwhile."""
    with connection.begin_nested() as savepoint:
        connection.exec_driver_sql(f"SET LOCAL search_path = {search_path}")
        try:
            yield
        finally:
            savepoint.rollback()


def _execute(connection: Connection, statement: str) -> None:
    # As it stands: a view's text may hold what looks like a parameter, such as % or :name.
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _reading(uses: Iterable[Use], upgrade_ops: ops.UpgradeOps) -> set[str]:
    """The views that stand in the way of what the revision does to tables."""
    gone = {operation.table_name for operation in upgrade_ops.ops if isinstance(operation, ops.DropTableOp)}
    changed = {
        (change.table_name, change.column_name)
        for group in upgrade_ops.ops
        if isinstance(group, ops.ModifyTableOps)
        for change in group.ops
        if isinstance(change, ops.DropColumnOp)
        or (isinstance(change, ops.AlterColumnOp) and change.modify_type is not None)
    }
    return {view for view, table, column in uses if table in gone or (table, column) in changed}


def _with_readers(views: set[str], uses: Iterable[Use]) -> set[str]:
    """The views and, step by step, those that read them."""
    while more := {reader for reader, used, _ in uses if used in views} - views:
        views = views | more
    return views


def _readers_first(views: set[str], uses: Iterable[Use]) -> list[str]:
    """An order in which each can be dropped: nothing that still stands reads it."""
    readers = {view: {reader for reader, used, _ in uses if used == view} & views for view in sorted(views)}
    return list(TopologicalSorter(readers).static_order())


# What text() would take for a parameter of its own (sqlalchemy.sql.elements.TextClause), and op.execute() uses text().
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=[\w$]+(?!:))")
_QUOTED = re.compile(
    r"""
    --[^\n]* | /\*.*?\*/
    | (?P<quoted> (?<!\w)[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | (?<!\w)\$(\w*)\$.*?\$\2\$ )
    | (?P<stray> ['"] )
    """,
    re.VERBOSE | re.DOTALL,
)


@renderers.dispatch_for(CreateViewOp)
def _render_create(_: AutogenContext, operation: CreateViewOp) -> list[str]:
    create = _rendered(f"CREATE VIEW {_quote(operation.name)} AS\n{operation.definition}")
    return [create, *_rendered_comments(operation.name, operation.comments)]


@renderers.dispatch_for(DropViewOp)
def _render_drop(_: AutogenContext, operation: DropViewOp) -> str:
    return _rendered(f"DROP VIEW {_quote(operation.name)}")


@renderers.dispatch_for(CommentViewOp)
def _render_comments(_: AutogenContext, operation: CommentViewOp) -> list[str]:
    return _rendered_comments(operation.name, operation.changed)


def _rendered_comments(view: str, comments: Mapping[str, str | None]) -> list[str]:
    rendered = []
    for column, comment in comments.items():
        target = f"COLUMN {_quote(view)}.{_quote(column)}" if column else f"VIEW {_quote(view)}"
        literal = "NULL" if comment is None else "'{}'".format(comment.replace("'", "''"))
        rendered.append(_rendered(f"COMMENT ON {target} IS {literal}"))
    return rendered


def _rendered(statement: str) -> str:
    """The line of Python that executes exactly this statement, on several lines if nothing can change it there."""
    escaped = _PARAMETER.sub(r"\:", statement)
    if str(text(escaped).compile(dialect=_AS_WRITTEN)) != statement:
        # text() cannot say it, whatever one escapes; DDL knows no parameters, only the per cent sign.
        return f"op.execute(sa.DDL({statement.replace('%', '%%')!r}))"
    if "\n" not in statement or _changes_when_indented(statement):
        return f"op.execute({escaped!r})"
    return f'op.execute({"r" if chr(92) in escaped else ""}"""\n{escaped}\n""")'


def _changes_when_indented(statement: str) -> bool:
    """Whether it means something else, or cannot be written at all, on indented lines between triple quotes."""
    if '"""' in statement or any(not (character.isprintable() or character == "\n") for character in statement):
        return True
    return any(match["stray"] or (match["quoted"] and "\n" in match["quoted"]) for match in _QUOTED.finditer(statement))


def _quote(name: str) -> str:
    """Quote an identifier if need be. SQLAlchemy doubles per cent signs, for drivers; SQL has them as they are."""
    return _AS_WRITTEN.identifier_preparer.quote(name).replace("%%", "%")


_AS_WRITTEN = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # SQLAlchemy has it untyped


# Once for each process: env.py runs once for each command, and Alembic refuses to register a plugin twice.
Plugin.setup_plugin_from_module(sys.modules[__name__], PLUGIN)
