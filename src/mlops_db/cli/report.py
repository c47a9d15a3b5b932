"""Write a report with pictures of the metrics, versions and decisions: one HTML file, which opens without a network.

It needs no more than the privileges of `mlops-db grant-reader`, and the packages of `pip install 'mlops-db[report]'`.
"""

import io
import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

from mlops_db.cli.output import print_line
from mlops_db.cli.parser import whole_number
from mlops_db.errors import RefusedError
from mlops_db.migration.progress import Progress
from mlops_db.reporting.report.build import build_report
from mlops_db.settings import Settings

STDOUT = "-"
_MAX_DAYS = 3650
_ORDINARY_MODE = 0o666


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--out",
        default="mlops-report.html",
        metavar="FILE",
        help="where to write it; - is standard output (default: mlops-report.html)",
    )
    parser.add_argument(
        "--days",
        type=whole_number(1, _MAX_DAYS),
        default=90,
        metavar="N",
        help=f"how many days before now it reaches back, 1 to {_MAX_DAYS} (default: 90)",
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="only this model; may be repeated")


def run(options: Namespace) -> int:
    """Write the report, and say where it is."""
    settings = Settings.from_environment()
    # A link stays, and its file is replaced.
    out = None if options.out == STDOUT else Path(os.path.realpath(options.out))
    if out is not None:
        _refuse_unwritable(out)
    progress = Progress(sys.stderr)

    def show(done: int, total: int) -> None:
        if done == 0:
            progress.begin("Writing the report")
        progress.report("parts", done, total)

    try:
        page = build_report(settings, days=options.days, models=options.model, progress=show)
        content = page.encode()
        if out is not None:
            _write(out, content)
        progress.done()
    finally:
        progress.stop()
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as the page says of itself
        print(page, end="")
        return 0
    days = "day" if options.days == 1 else f"{options.days} days"
    print_line(
        f"{options.out}: the last {days} of {settings.target}, {len(content) / 1e6:.1f} MB; open it in a browser"
    )
    return 0


def _refuse_unwritable(out: Path) -> None:
    """Refuse a file that cannot be written, before the work.

    Raises:
        RefusedError: it is no file, or its directory is missing or not writable.
    """
    folder = out.parent
    reason = None
    try:
        if out.exists() and not out.is_file():
            reason = "it is a directory" if out.is_dir() else "it is not a file"
        elif not folder.is_dir():
            reason = f"there is no directory {folder}"
        elif not os.access(folder, os.W_OK | os.X_OK):
            reason = f"this user may not write in {folder}"
    except OSError as error:  # a name that is too long, a folder that this user cannot enter
        reason = error.strerror
    if reason:
        raise _not_written(out, reason)


def _not_written(out: Path, reason: str) -> RefusedError:
    return RefusedError(f"cannot write {out}: {reason}", hint="Name another file with --out.")


def _write(out: Path, content: bytes) -> None:
    """Write the page beside its place and move it there, so that nobody opens half of it.

    Raises:
        RefusedError: the file cannot be written.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=".mlops-report.", dir=out.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(_ORDINARY_MODE & ~mask)
        temporary.replace(out)
    except OSError as error:
        raise _not_written(out, error.strerror or str(error)) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
