"""`alembic check` and `alembic revision --autogenerate`: compare the code's tables and views with the database.

Objects of others in the same database are left alone: neither compared nor written into a revision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData

from mlops_db.migration.new_files import number_new_files
from mlops_db.server.guests import TABLES_IN_PUBLIC, TABLES_OF_OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext


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


def comparison_options(metadata: MetaData, compare: Callable[[Any, MigrationContext], Iterable[Any]]) -> dict[str, Any]:
    """The options of a context that compares the metadata with the database.

    Args:
        metadata: the schema at head, with its tables and views.
        compare: Alembic's function of the command.
    """
    from mlops_db.migration import revision_objects, views  # noqa: PLC0415  (other commands start without them)

    def compare_with_schemas(heads: Any, migration: MigrationContext) -> Iterable[Any]:
        """Compare tables under the name of their schema: SQLAlchemy would look for the others in the search path."""
        assert migration.connection is not None
        assert migration.script is not None
        dialect = migration.connection.dialect
        before, dialect.default_schema_name = dialect.default_schema_name, None
        try:
            others.update(migration.connection.exec_driver_sql(TABLES_OF_OTHERS).scalars())
            unknown = set(migration.connection.exec_driver_sql(TABLES_IN_PUBLIC).scalars()) - known
            if unknown:
                others.update(unknown - revision_objects.created_by_revisions(migration.script))
            return list(compare(heads, migration))
        finally:
            dialect.default_schema_name = before

    others: set[str] = set()
    known = {table.name for table in metadata.tables.values()} | {"alembic_version"}
    in_public = MetaData(naming_convention=metadata.naming_convention)
    in_public.info.update(metadata.info)
    for table in metadata.sorted_tables:
        table.to_metadata(in_public, schema=table.schema or "public")
    return {
        "fn": compare_with_schemas,
        "target_metadata": in_public,
        "include_schemas": True,
        "include_name": lambda name, kind, _: (
            name not in others if kind == "table" else kind != "schema" or name == "public"
        ),
        "compare_type": True,
        "compare_server_default": True,
        "autogenerate_plugins": ["alembic.autogenerate.*", views.PLUGIN],
    }
