"""`--sql`: writes the SQL of a run as a script, which somebody else runs with psql."""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.runtime.migration import RevisionStep
from alembic.util import CommandError
from sqlalchemy.schema import CreateTable

from mlops_db.errors import MlopsDbError, UsageError
from mlops_db.migration import history, running_code, view_grants
from mlops_db.migration.batches import positions
from mlops_db.migration.distributed_tables import refuse_in_script
from mlops_db.migration.operations import OPTIONS, REVISION_FILE
from mlops_db.migration.session import run_pins
from mlops_db.migration.step import STEP, RunningStep, direction_name
from mlops_db.migration.transaction import SCRIPT_ENTERS, revision_script, unfinished_refusal
from mlops_db.server.guests import REFUSE_GUESTS
from mlops_db.server.pins import NEWER_PINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext, MigrationInfo
    from sqlalchemy import MetaData

    from mlops_db.migration.options import Options
    from mlops_db.revisions.graph import Graph
    from mlops_db.settings import Settings

# In the step's transaction, so that it changes nothing in a database at another revision, even if psql continues
# after an error.
_REFUSE_ANOTHER_REVISION = """\
DO $at$
DECLARE
    wanted constant text[] := ARRAY[{revisions}]::text[];
    found constant text[] := ARRAY(SELECT version_num FROM public.alembic_version ORDER BY version_num);
BEGIN
    -- Beside another branch, there are more.
    IF NOT found @> wanted OR (wanted = '{{}}' AND found <> wanted) THEN
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('this database is at revision %s, but the script starts from %s; nothing was changed',
                             coalesce(nullif(array_to_string(found, ', '), ''), 'base'),
                             coalesce(nullif(array_to_string(wanted, ', '), ''), 'base')),
            HINT = 'Write the script for it: alembic upgrade <its revision>:head --sql';
    END IF;
END $at$;"""

# Older servers do not know these.
_PIN_NEWER = """\
DO $pin$ BEGIN
    PERFORM set_config(pin.name, pin.value, false)
       FROM (VALUES {pins}) AS pin (name, value) JOIN pg_settings AS known ON known.name = pin.name;
END $pin$;""".format(pins=", ".join(f"('{name}', '{value}')" for name, (value, _) in NEWER_PINS.items()))
_RESET_NEWER = f"""\
DO $pin$ BEGIN
    PERFORM set_config(name, reset_val, false) FROM pg_settings WHERE name IN {tuple(NEWER_PINS)};
END $pin$;"""


def write_script(  # noqa: C901, PLR0915  (the parts of a step share the script)
    context: EnvironmentContext, graph: Graph, target_metadata: MetaData, settings: Settings, options: Options
) -> None:
    """Write the SQL of the command that Alembic was given.

    Args:
        context: Alembic's, of an environment in offline mode.
        graph: the revisions of the project.
        target_metadata: the schema at head, for its naming convention.
        settings: they and `options` give the settings of the script's session.
        options: those of `-x`.

    Raises:
        UsageError: an option, or a revision, needs the database.
        RefusedError: a revision ends its transaction, or has no statements yet.
    """
    for key, given in (("plan=true", options.plan), ("backup", options.backup)):
        if given:
            raise UsageError(f"-x {key} reads the database, and --sql must not", hint="Leave one of them out.")
    context.configure(dialect_name="postgresql")  # makes Alembic's steps available
    alembics_steps = context.get_context().opts["fn"]
    rows: list[str] = []  # of alembic_version, where the next step begins

    def steps(heads: Any, migration: MigrationContext) -> Iterator[Any]:
        rows[:] = sorted(heads)
        found = list(alembics_steps(heads, migration))  # or refuses the revisions, before the script begins
        write("\n".join(f"SET {name} = {_literal(name, value)};" for name, value in pins.items()))
        write(_PIN_NEWER)
        write(REFUSE_GUESTS)
        write(history.CREATE.strip())
        for check in dict.fromkeys(map(distributed_check, found)):  # before the first step
            write(check)
        for step in found:
            write(view_grants.SAVE)
            step.migration_fn = guard(step, migration) if isinstance(step, RevisionStep) else stamp
            yield step

    def distributed_check(step: Any) -> str:
        return refuse_in_script(step.revision.module.__doc__ or "") if isinstance(step, RevisionStep) else ""

    def stamp(**_: Any) -> None:
        write(REFUSE_GUESTS)

    def guard(step: RevisionStep, migration: MigrationContext) -> Callable[..., None]:
        revision, migrate = step.revision.revision, step.migration_fn

        @wraps(migrate)
        def migrate_guarded(**arguments: Any) -> None:
            migration.opts[REVISION_FILE] = Path(step.revision.path)
            write(SCRIPT_ENTERS)  # in each step: psql may continue after an error
            write(distributed_check(step))
            # One of them may stand for the revision that this step follows.
            write(_REFUSE_ANOTHER_REVISION.format(revisions=", ".join(map(repr, rows))))
            with revision_script(migration, revision) as transaction, _explain_failures(revision):
                migration.opts[STEP] = RunningStep(revision, direction_name(is_upgrade=step.is_upgrade), transaction)
                migrate(**arguments)

        return migrate_guarded

    def before_commit(*, step: MigrationInfo, heads: set[str], **_: Any) -> None:
        rows[:] = sorted(heads)
        write(REFUSE_GUESTS)
        write(view_grants.RESTORE)
        write(history.insert_finished(step))
        write(running_code.script_of(graph, heads))
        if step.is_stamp:
            write(positions.forget(graph.between(step)))

    further: dict[str, Any] = {OPTIONS: options, "fn": steps, "on_version_apply": before_commit}
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
        target_metadata=target_metadata,
        transaction_per_migration=True,
        version_table_schema="public",
        **further,
    )
    migration = context.get_context()
    static_output = migration.impl.static_output

    def write(text: str) -> None:
        if text:
            static_output(text)

    # After a downgrade to base, the table is still there, without a row.
    create = CreateTable(migration._version, if_not_exists=True)  # noqa: SLF001  (it has no other name)
    migration._version.create = lambda connection, **_: connection.execute(create)  # type: ignore[method-assign]  # noqa: SLF001
    pins = {"client_encoding": "UTF8", **run_pins(settings, options)}
    pins = {name: value for name, value in pins.items() if value}
    with context.begin_transaction():
        context.run_migrations()
    write(_RESET_NEWER)
    write("\n".join(f"RESET {name};" for name in pins))


@contextmanager
def _explain_failures(revision: str) -> Iterator[None]:
    """Explain why a revision cannot be written."""
    try:
        yield
    except NotImplementedError as error:
        raise unfinished_refusal(revision) from error
    except (MlopsDbError, CommandError):
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or "no reason given"
        raise UsageError(
            f"revision {revision} cannot be written as a script: {type(error).__name__}: {reason}",
            hint="If it reads rows, it needs the database: run it without --sql. Otherwise fix the error.",
        ) from error


def _literal(name: str, value: str) -> str:
    if name == "search_path":
        return value  # in quotes, it would be one name
    return "'{}'".format(value.replace("'", "''"))
