"""`mlops-db docs`: write down what the revisions make, for readers and for what `mlops-db check` compares with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlops_db.inspection.schema_docs import markdown, svg
from mlops_db.inspection.snapshot import SNAPSHOT, catalogues, written_down
from mlops_db.revisions.graph import alembic_ini, revisions
from mlops_db.settings import EMBEDDED, Settings

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path


def run(options: Namespace) -> int:
    """Write the documents beside the project's alembic.ini, or tell whether they are stale."""
    head = revisions()[-1].id
    made = catalogues(Settings(host=EMBEDDED, database="postgres"))
    folder = alembic_ini().parent / "docs"
    documents = {folder / "schema.md": markdown(made[head], head), folder / "schema.svg": svg(made[head])}
    package = folder.parent / "src" / "mlops_db" / "inspection"
    if package.is_dir():  # in a checkout
        documents[package / SNAPSHOT.name] = written_down(made)
    stale = [path for path, text in documents.items() if not _holds(path, text)]
    if not options.check:
        for path in stale:
            path.parent.mkdir(exist_ok=True)
            path.write_text(documents[path], encoding="utf-8")
    for path in stale:
        print(f"{'stale' if options.check else 'written'}: {path.relative_to(folder.parent)}")
    if options.check and stale:
        print("run `mlops-db docs` and commit what it writes")
        return 1
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
