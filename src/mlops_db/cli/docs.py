"""Write the generated pages: docs/schema.md, and in a checkout docs/api.md and what `mlops-db check` compares with.

Without a checkout, docs/schema.md is written below the working directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlops_db.admin import api_docs
from mlops_db.admin.schema_docs import markdown, svg
from mlops_db.drift.snapshot import SNAPSHOT, catalogues, written_down
from mlops_db.errors import RefusedError
from mlops_db.migration.new_files import is_in_package
from mlops_db.project import alembic_ini
from mlops_db.revisions.graph import revisions
from mlops_db.settings import EMBEDDED_SERVER

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--check", action="store_true", help="write nothing, list the stale files, exit 1 if there are any"
    )


def run(options: Namespace) -> int:
    """Write the documents beside the checkout's alembic.ini, or tell whether they are stale.

    Where pip installed the project, they are in the working directory instead.
    """
    ini = alembic_ini()
    folder = (Path() if is_in_package(ini) else ini.parent) / "docs"
    documents = {}
    package = folder.parent / "src" / "mlops_db" / "drift"
    if package.is_dir():  # in a checkout
        documents[folder / "api.md"] = api_docs.markdown()
    head = revisions()[-1].id
    made = catalogues(EMBEDDED_SERVER)
    documents |= {folder / "schema.md": markdown(made[head], head), folder / "schema.svg": svg(made[head])}
    if package.is_dir():
        documents[package / SNAPSHOT.name] = written_down(made)
    stale = [path for path, text in documents.items() if not _holds(path, text)]
    if not options.check:
        for path in stale:
            _write(path, documents[path])
    for path in stale:
        print(f"{'stale' if options.check else 'written'}: {path.relative_to(folder.parent)}")
    if options.check and stale:
        print("run `mlops-db docs` and commit what it writes")
        return 1
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}", hint="Call it in a folder that this user may write to."
        ) from None


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
