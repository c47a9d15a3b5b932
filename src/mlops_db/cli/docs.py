"""Write the generated files: docs/schema.md, and in a checkout the others.

These are docs/api.md, Grafana's dashboards and alert rules, and the snapshot of `mlops-db check`. Without a checkout,
docs/schema.md is written below the working directory.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mlops_db.admin import api_docs, schema_docs
from mlops_db.cli.output import print_json, print_line, state
from mlops_db.cli.parser import add_json
from mlops_db.drift.snapshot import SNAPSHOT, read_catalogues, snapshot_text
from mlops_db.errors import RefusedError, require_extra
from mlops_db.migration.new_files import is_in_package
from mlops_db.project import alembic_ini
from mlops_db.revisions.graph import revisions
from mlops_db.settings import EMBEDDED_SERVER


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    add_json(parser)


def run(options: Namespace) -> int:
    """Write the stale pages, or only list them."""
    folder = Path() if is_in_package(alembic_ini()) else alembic_ini().parent
    stale = {path: text for path, text in _pages(folder).items() if not _holds(path, text)}
    if not options.check:
        for path, text in stale.items():
            _write(path, text)
    outcome = "stale" if options.check else "written"
    names = [str(path.relative_to(folder)) for path in stale]
    if options.json:
        print_json({outcome: names})
    else:
        for name in names:
            print_line(state(outcome), f": {name}")
        if options.check and stale:
            print_line("Run `mlops-db docs` and commit what it writes.")
    return 1 if options.check and stale else 0


def _pages(folder: Path) -> dict[Path, str]:
    head = revisions()[-1].id
    made = read_catalogues(EMBEDDED_SERVER)
    pages = {folder / "docs" / "schema.md": schema_docs.markdown(made[head], head)}
    package = folder / "src" / "mlops_db"
    if package.is_dir():  # in a checkout
        pages[folder / "docs" / "api.md"] = api_docs.markdown()
        pages[package / "drift" / SNAPSHOT.name] = snapshot_text(made)
        pages |= {folder / "grafana" / path: text for path, text in _grafana().items()}
    return pages


def _grafana() -> dict[str, str]:
    """The files below grafana/; none if this Python has no SDK for them."""
    if sys.version_info < (3, 11):
        print_line("grafana/ is left out: its SDK needs Python 3.11", file=sys.stderr)
        return {}
    missing = "grafana/ is written with grafana-foundation-sdk, which is not installed"
    with require_extra("check", missing, otherwise=" (in a checkout: `uv sync`)"):
        from mlops_db.reporting.dashboards.files import files  # noqa: PLC0415  (optional)
    return files()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}", hint="Run it in a folder that this user may write to."
        ) from None


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
