"""The graph of the revisions that a run was given, asked before Alembic makes its own of them.

Alembic takes one of two files with the same id and warns; of a circle or an unknown parent it ends in a traceback.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.util import CommandError, to_tuple

from mlops_db.errors import RevisionFilesError
from mlops_db.revisions.graph import read_graph

if TYPE_CHECKING:
    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from mlops_db.revisions.graph import Graph


def sound_graph(context: EnvironmentContext) -> Graph:
    """Read the revisions of the command's project: those beside its env.py are ours, other version locations are not.

    Raises:
        RevisionFilesError: the command cannot rely on the files; names them and the way out.
    """
    script = context.script
    graph = graph_of(script)
    context.configure(dialect_name="postgresql")  # until then Alembic keeps the command to itself
    graph.refuse_faults(second_head=_knows_its_head(context.get_context()))
    _refuse_what_cannot_be_loaded(script, graph)
    return graph


def graph_of(script: ScriptDirectory) -> Graph:
    """The graph of a project of Alembic's; what is wrong with it is in it."""
    beside = Path(script.dir, "versions").absolute()
    folders = [Path(folder).absolute() for folder in script.version_locations] or [beside]
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
        raise RevisionFilesError(
            f"{name} cannot be loaded: {type(error).__name__}: {reason}",
            hint="Mend it: `mlops-db check --revisions` tells when it is sound.",
        ) from error
