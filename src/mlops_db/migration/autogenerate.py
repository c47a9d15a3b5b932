"""`alembic check` and `alembic revision --autogenerate`: compare the code's tables and views with the database.

Objects of others in the same database are left alone: neither compared nor written into a revision.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, Table

from mlops_db.migration.new_files import number_new_files, place_of_new_file
from mlops_db.migration.revision_graph import our_folder
from mlops_db.server.guests import TABLES_OF_OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.schema import SchemaItem


def only_writes_a_file(context: EnvironmentContext) -> bool:
    """Whether the command is `revision` without autogenerate, or `merge`: both need no database."""
    context.configure(dialect_name="postgresql", as_sql=True)
    migration = context.get_context()
    options = migration.opts
    revision = options.get("revision_context")
    arguments = revision.command_args if revision else {}
    assert migration.script is not None
    number_new_files(migration.script, rev_id=arguments.get("rev_id"))
    # Of the other commands, only `merge` has template_args.
    needs_database = arguments["autogenerate"] if revision else "template_args" not in options
    options["as_sql"] = not needs_database
    return not needs_database


def comparison_options(
    metadatas: Sequence[MetaData],
    compare: Callable[[Any, MigrationContext], Iterable[Any]],
    migration: MigrationContext,
) -> dict[str, Any]:
    """The options of a context that compares the metadata with the database.

    A new revision of ours gets what differs in our tables, and one in a folder beside ours what differs in theirs;
    `alembic check` compares both.

    Args:
        metadatas: the schema at head, with its tables and views; then those of a project beside ours.
        compare: Alembic's function of the command.
        migration: the context of the command.
    """
    from mlops_db.migration import revision_objects, views  # noqa: PLC0415  (other commands start without them)

    script = migration.script
    assert script is not None
    ours, is_check = metadatas[0], compare.__qualname__.startswith("check.")
    arguments = migration.opts["revision_context"].command_args
    place = None if is_check else place_of_new_file(script, arguments["head"], arguments["version_path"])

    def compare_with_schemas(heads: Any, migration: MigrationContext) -> Iterable[Any]:
        """Compare tables under the name of their schema: SQLAlchemy would look for the others in the search path."""
        assert migration.connection is not None
        dialect = migration.connection.dialect
        before, dialect.default_schema_name = dialect.default_schema_name, None
        try:
            of_guests.update(migration.connection.exec_driver_sql(TABLES_OF_OTHERS).scalars())
            return list(compare(heads, migration))
        finally:
            dialect.default_schema_name = before

    @cache
    def created(*, only_ours: bool) -> set[str]:
        return revision_objects.created_by_revisions(script, only_ours=only_ours).relations

    @cache
    def schemas_of_others() -> set[str]:
        """Where revisions beside ours create tables: their metadata may have no table there any more."""
        theirs = created(only_ours=False) - created(only_ours=True)
        return {key.partition(".")[0] for key in theirs if "." in key}

    def is_compared(name: str | None, kind: str, parents: Any) -> bool:
        """Leave out what neither the metadata has nor a revision creates."""
        if kind == "schema":
            return name in schemas or name in schemas_of_others()
        if kind != "table" or name is None:
            return True
        schema = parents["schema_name"]
        if schema == "public" and name in of_guests:
            return False
        return f"{schema}.{name}" in qualified.tables or revision_objects.key_of(schema, name) in created(
            only_ours=False
        )

    def is_of_this_line(item: SchemaItem, _: Any, kind: str, *__: Any) -> bool:
        if kind != "table" or place is None:
            return True
        assert isinstance(item, Table)
        is_ours = item.key in our_tables or (
            item.key not in qualified.tables and item.key.removeprefix("public.") in created(only_ours=True)
        )
        return is_ours == (place == our_folder(script))

    of_guests: set[str] = set()
    qualified = _with_schemas(metadatas)
    our_tables = {f"{table.schema or 'public'}.{table.name}" for table in ours.tables.values()}
    qualified.info[views.BESIDE_OURS] = {*qualified.tables} - our_tables
    schemas = {"public", *(table.schema for table in qualified.tables.values())}
    return {
        "fn": compare_with_schemas,
        "target_metadata": qualified,
        "include_schemas": True,
        "include_name": is_compared,
        "include_object": is_of_this_line,
        "compare_type": True,
        "compare_server_default": True,
        "autogenerate_plugins": [
            "alembic.autogenerate.*", *([views.PLUGIN] if place in (None, our_folder(script)) else [])
        ],
    }  # fmt: skip


def _with_schemas(metadatas: Sequence[MetaData]) -> MetaData:
    """All tables in one MetaData, each with the name of its schema; the first one has the names and the views."""
    first = metadatas[0]
    qualified = MetaData(naming_convention=first.naming_convention)
    qualified.info.update(first.info)
    for table in chain.from_iterable(metadata.tables.values() for metadata in metadatas):
        schema = table.schema or "public"
        if f"{schema}.{table.name}" not in qualified.tables:  # a project may have copies of ours, for its keys
            table.to_metadata(qualified, schema=schema, referred_schema_fn=lambda *given: given[-1] or "public")
    return qualified
