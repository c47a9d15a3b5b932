"""The graph of the revisions that a run was given, asked before Alembic makes its own of them.

Alembic takes one of two files with the same id and warns; of a circle or an unknown parent it ends in a traceback.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.util import CommandError, coerce_resource_to_filename, to_tuple

from mlops_db.errors import RefusedError
from mlops_db.revisions.graph import read_graph

if TYPE_CHECKING:
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from mlops_db.revisions.graph import Graph


def graph_of_command(context: EnvironmentContext) -> Graph:
    """The graph that a command of Alembic's is about.

    Raises:
        RefusedError: as `sound_graph`.
    """
    context.configure(dialect_name="postgresql")  # until then Alembic keeps the command to itself
    return sound_graph(context.script, second_head=_knows_its_head(context.get_context()))


def sound_graph(script: ScriptDirectory, *, second_head: bool) -> Graph:
    """Read the revisions of a project: those beside its env.py are ours, those of other version locations are not.

    Args:
        script: Alembic's, of the project.
        second_head: whether the command can do with several heads.

    Raises:
        RefusedError: nothing can rely on the files; names them and the way out.
    """
    graph = graph_of(script)
    graph.refuse_faults(second_head=second_head)
    _refuse_what_cannot_be_loaded(script, graph)
    for revision in script.walk_revisions():
        for name in ("upgrade", "downgrade"):
            if not callable(getattr(revision.module, name, None)):
                raise RefusedError(
                    f"{Path(revision.path).name} has no {name}()",
                    hint="Write it: docs/writing-a-revision.md has an example of each kind.",
                )
    return graph


def graph_of(script: ScriptDirectory) -> Graph:
    """The graph of a project; what is wrong with it is in it."""
    beside = Path(script.dir, "versions").absolute()
    # They may be of a package, such as mlops_db:_alembic/migrations/versions.
    folders = [Path(coerce_resource_to_filename(place)).absolute() for place in script.version_locations or ()] or [
        beside
    ]
    return read_graph(*sorted(folders, key=beside.__ne__))


def _knows_its_head(migration: MigrationContext) -> bool:
    """Whether the command says which head it means, or joins them (`merge`), or only looks (`current`, `history`)."""
    options = migration.opts
    if "destination_rev" in options:
        return "head" not in to_tuple(options["destination_rev"])
    revision = options.get("revision_context")
    return revision is None or revision.command_args["head"] not in (None, "head")


def _refuse_what_cannot_be_loaded(script: ScriptDirectory, graph: Graph) -> None:
    try:
        script.get_bases()  # runs every file
    except CommandError:
        raise
    except Exception as error:
        places = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        places += [error.filename or ""] if isinstance(error, SyntaxError) else []
        name = next((Path(place).name for place in reversed(places) if graph.has_file(Path(place))), None)
        if name is None:
            raise
        reason = str(error).partition("\n")[0] or "no reason given"
        raise RefusedError(
            f"{name} cannot be loaded: {type(error).__name__}: {reason}",
            hint="Mend it: `mlops-db check --revisions` tells when it is sound.",
        ) from error
