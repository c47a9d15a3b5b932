"""Chooses where the data is, and which user runs the server there.

PostgreSQL refuses to run as root, so a user of its own runs root's servers. The folders above the data are not
changed: if that user cannot enter them, the data is below `/var/lib/mlops-db`.
"""

import hashlib
import os
import re
import stat
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mlops_db.errors import EmbeddedServerError
from mlops_db.server.embedded.account import Account, ensure_server_account, run_as
from mlops_db.terminal import print_line

DATA_DIRECTORY = Path(".mlops-db")
ELSEWHERE = Path("/var/lib/mlops-db")
# Prints the first folder that the user cannot enter.
FIRST_CLOSED = 'for folder in "$@"; do cd "$folder" || { printf %s "$folder"; exit; }; done'


class Place(NamedTuple):
    """The folder of the data, and the account that runs its server; None for the caller's."""

    data: Path
    account: Account | None


@cache
def choose_place(here: Path) -> Place:
    """Choose the place of this folder's data; if it is elsewhere, note that on standard error, once in a process.

    Raises:
        EmbeddedServerError: the path cannot be used, the folder elsewhere is not safe, or there is no user to run it.
    """
    if "\n" in str(here):
        raise EmbeddedServerError(
            f"the embedded server cannot work in a path with a line break: {str(here)!r}",
            hint="Work in a folder of another name, or set POSTGRES_HOST to a server.",
        )
    if os.geteuid() != 0:
        return Place(here, None)
    account = _ensure_account(here)
    closed = os.fsdecode(run_as(account, FIRST_CLOSED, *reversed(here.parents)).stdout)
    away = ELSEWHERE / _name_for(here.parent)
    if not closed and (holds_data(here) or not holds_data(away)):
        return Place(here, account)
    make_elsewhere()
    account = _ensure_account(away)
    why = f"{closed} is" if closed else f"{here.parent} was"
    note(f"{why} closed to the user {account.name}, whom the server runs as; its data is in {away}")
    return Place(away, account)


def note_new_data(here: Path) -> None:
    """Note on standard error where new data is, and where an older server has data that the user may expect."""
    older = (folder / here.name for folder in here.parent.parents)
    found = next((data for data in older if os.access(data / "PG_VERSION", os.F_OK)), None)
    note(f"the data of a new server is in {here}" + (f"; {found} has another one's" if found else ""))


def note(text: str) -> None:
    """Write a note to standard error."""
    if sys.stderr is not None:  # it is None where the caller has closed it
        print_line(f"note: {text}", file=sys.stderr)


def holds_data(folder: Path) -> bool:
    """Whether the folder holds a server's data."""
    return (folder / "PG_VERSION").exists()


def make_elsewhere() -> Path:
    """Make root's own folder unless it exists. Another user who can write to it could replace programs and data.

    Raises:
        EmbeddedServerError: others can write to it.
    """
    ELSEWHERE.mkdir(exist_ok=True)
    found = ELSEWHERE.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise EmbeddedServerError(
            f"{ELSEWHERE} is not a folder that only root can write to, so the embedded server's data is not safe there",
            hint=f"Check what it holds, then remove it, or `chown root {ELSEWHERE} && chmod 755 {ELSEWHERE}`.",
        )
    ELSEWHERE.chmod(0o755)  # mkdir obeys the umask
    return ELSEWHERE


def _name_for(folder: Path) -> str:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return f"{folder.name}-{digest}" if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", folder.name) else digest


def _ensure_account(data: Path) -> Account:
    """The account that runs root's server: the owner of existing data, because PostgreSQL refuses other users."""
    if holds_data(data) and (owner := data.stat()).st_uid != 0:
        return Account(f"number {owner.st_uid}", owner.st_uid, owner.st_gid)
    return ensure_server_account()
