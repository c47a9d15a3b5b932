"""Reads and checks the graph of a project's revisions before Alembic reads them.

Of two files with the same id, Alembic takes one and warns; a cycle or an unknown parent ends in a traceback.
"""

from __future__ import annotations

import traceback
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from alembic.script import Script
from alembic.util import CommandError, coerce_resource_to_filename, to_tuple

from mlops_db.errors import RefusedError
from mlops_db.project import revisions_folder
from mlops_db.revisions.graph import read_graph

if TYPE_CHECKING:
    from collections.abc import Collection

    from alembic.runtime.environment import EnvironmentContext
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from mlops_db.revisions.graph import Graph


def graph_of_command(context: EnvironmentContext) -> Graph:
    """Read and check the graph for a command of Alembic's.

    Raises:
        RefusedError: as `sound_graph`.
    """
    context.configure(dialect_name="postgresql")  # makes the command's options available
    migration = context.get_context()
    knows_its_head = _knows_its_head(migration)
    graph = sound_graph(context.script, second_head=knows_its_head)
    if not knows_its_head and "destination_rev" in migration.opts:
        refuse_several_heads(context.script, "Name `heads` for all, or the one that is meant")
    return graph


def refuse_several_heads(script: ScriptDirectory, remedy: str) -> None:
    """Refuse `head` where there are several: ours and those of a project beside ours.

    Raises:
        RefusedError: there are.
    """
    if len(heads := script.get_heads()) > 1:
        ours = our_folder(script)
        names = [
            (sorted(found.branch_labels) or [found.revision])[0]
            for found in script.get_revisions(heads)
            if Path(found.path).parent.resolve() != ours
        ]
        raise RefusedError(
            f"`head` is not clear, because there are {len(heads)}: {' and '.join(sorted(heads))}; nothing was changed",
            hint=f"{remedy}: {' or '.join(f'{name}@head' for name in names)}.",
        )


def sound_graph(script: ScriptDirectory, *, second_head: bool) -> Graph:
    """Read and check the revisions of a project: beside its env.py, and in other version locations.

    Args:
        script: Alembic's, of the project.
        second_head: whether the command works with several heads.

    Raises:
        RefusedError: the files are faulty; the message names them and the remedy.
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
    """Read the graph of a project, with its faults."""
    ours = our_folder(script)
    return read_graph(ours, *(folder for folder in _folders(script) if folder != ours))


def our_folder(script: ScriptDirectory) -> Path:
    """The folder of our revisions: the package's, or in a copy of them the one beside env.py."""
    folders = _folders(script)
    places = (revisions_folder(), Path(script.dir, "versions"))
    return next((folder for place in places for folder in folders if folder == place.resolve()), folders[0])


def checked_folders(script: ScriptDirectory) -> list[Path]:
    """The folders that `mlops-db lint` checks: beside the package's own revisions, those of the project."""
    folders, package = _folders(script), revisions_folder().resolve()
    return [folder for folder in folders if folder != package] or folders


def add_others(script: ScriptDirectory, graph: Graph, others: Collection[str], *, depend_on: Collection[str]) -> None:
    """Let Alembic and the graph know revisions of which there are no files: the last ones of a project beside ours."""
    heads = script.revision_map.heads
    graph.add_others(others, depend_on=depend_on)
    for revision in others:
        module = ModuleType(revision, "a revision of another project")
        # Their names have to be there for a plan; no run calls them.
        vars(module).update(down_revision=None, depends_on=tuple(depend_on), upgrade=None, downgrade=None)
        script.revision_map.add_revision(Script(module, revision, f"{revision}.py"))
    script.revision_map.heads = heads  # `head` means ours


def _folders(script: ScriptDirectory) -> list[Path]:
    # A location may be in a package, such as mlops_db:_alembic/migrations/versions.
    places = script.version_locations or (Path(script.dir, "versions"),)
    folders = [Path(coerce_resource_to_filename(str(place))).resolve() for place in places]
    if script.recursive_version_locations:
        inner = (sorted(path for path in folder.rglob("*") if path.is_dir()) for folder in folders)
        folders += chain.from_iterable(inner)
    return folders


def _knows_its_head(migration: MigrationContext) -> bool:
    """Whether the command names its head, merges heads, or only reads (`current`, `history`)."""
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
            hint="Fix the error, then run `mlops-db lint`.",
        ) from error
