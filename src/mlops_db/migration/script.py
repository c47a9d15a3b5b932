"""What `--sql` writes: the script of a run, for somebody else to run with psql."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import RevisionStep

from mlops_db.errors import UsageError
from mlops_db.migration import history, view_grants
from mlops_db.migration.operations import TIMEOUTS
from mlops_db.migration.session import LEGACY_TIMEZONE
from mlops_db.migration.transaction import revision_script
from mlops_db.schema.base import metadata
from mlops_db.schema.guests import REFUSE_GUESTS, SAFE_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext, MigrationInfo

    from mlops_db.migration.options import Options

# In the step's transaction, so that nothing of it happens to a database that is somewhere else, also where a script is
# run on after an error.
_REFUSE_ANOTHER_REVISION = """\
DO $at$
DECLARE
    wanted constant text[] := ARRAY[{revisions}]::text[];
    found constant text[] := ARRAY(SELECT version_num FROM public.alembic_version ORDER BY version_num);
BEGIN
    -- Beside another branch, there are more.
    IF NOT found @> wanted OR (wanted = '{{}}' AND found <> wanted) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('this database is at revision %s, and the script goes on from %s; nothing was changed',
                             coalesce(nullif(array_to_string(found, ', '), ''), 'base'),
                             coalesce(nullif(array_to_string(wanted, ', '), ''), 'base')),
            HINT = 'Write the script for it: alembic upgrade <its revision>:head --sql';
    END IF;
END $at$;"""


def write_script(context: EnvironmentContext, options: Options) -> None:
    """Write the SQL of the command that Alembic was given.

    Args:
        context: Alembic's, of an environment in offline mode.
        options: those of `-x`.

    Raises:
        UsageError: an option needs the database.
        TransactionControlError: a revision ends its transaction.
    """
    if options.plan:
        raise UsageError("-x plan=true looks at the database, and --sql must not", hint="Leave one of them out.")
    timeouts = {"lock_timeout": options.lock_timeout, "statement_timeout": options.statement_timeout}
    context.configure(dialect_name="postgresql")  # until then Alembic keeps to itself which steps it has
    alembics_steps = context.get_context().opts["fn"]

    def steps(heads: Any, migration: MigrationContext) -> Iterator[Any]:
        for step in alembics_steps(heads, migration):
            write(view_grants.SAVE)
            step.migration_fn = guarded(step, migration) if isinstance(step, RevisionStep) else stamped
            yield step

    def stamped(**_: Any) -> None:
        write(REFUSE_GUESTS)

    def guarded(step: RevisionStep, migration: MigrationContext) -> Callable[..., None]:
        migrate = step.migration_fn

        @wraps(migrate)
        def within(**arguments: Any) -> None:
            write(REFUSE_GUESTS)  # once more: the script may run on after an error
            write(_REFUSE_ANOTHER_REVISION.format(revisions=", ".join(map(repr, step.from_revisions_no_deps))))
            with revision_script(migration, step.revision.revision):
                migrate(**arguments)

        return within

    def before_commit(*, step: MigrationInfo, **_: Any) -> None:
        write(REFUSE_GUESTS)
        write(view_grants.RESTORE)
        write(history.scripted(step))

    further: dict[str, Any] = {TIMEOUTS: timeouts, "fn": steps, "on_version_apply": before_commit}
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        target_metadata=metadata,
        transaction_per_migration=True,
        version_table_schema="public",
        **further,
    )
    write = context.get_context().impl.static_output
    session = {
        "search_path": SAFE_PATH,
        "row_security": "off",
        "timezone": "'UTC'",
        LEGACY_TIMEZONE: f"'{options.legacy_timezone}'",
        **timeouts,
    }
    write("\n".join(f"SET {name} = {value};" for name, value in session.items()))
    write(REFUSE_GUESTS)
    write(history.CREATE.strip())
    with context.begin_transaction():
        context.run_migrations()
    write("\n".join(f"RESET {name};" for name in session))
