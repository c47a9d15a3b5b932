"""Where the data is, and which user runs the server there.

PostgreSQL refuses to run as root: root's servers run as a user of their own. What lies above the data belongs to others
and stays as it is: if that user cannot go there, the data has its place below `/var/lib/mlops-db`.
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
from mlops_db.server.embedded.account import Account, server_account, tried

DATA_DIRECTORY = Path(".mlops-db")
ELSEWHERE = Path("/var/lib/mlops-db")
# Says which folder is the first that the user cannot enter.
FIRST_CLOSED = 'for folder in "$@"; do cd "$folder" || { printf %s "$folder"; exit; }; done'


class Place(NamedTuple):
    """The data, and who runs its server; None if it is the caller."""

    data: Path
    account: Account | None


@cache
def place_for(here: Path) -> Place:
    """The place of the data that belongs here; if that is elsewhere, standard error says so, once in a process.

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
    account = _account_for(here)
    closed = os.fsdecode(tried(account, FIRST_CLOSED, *reversed(here.parents)).stdout)
    away = ELSEWHERE / _name_for(here.parent)
    if not closed and (holds_data(here) or not holds_data(away)):
        return Place(here, account)
    make_elsewhere()
    account = _account_for(away)
    why = f"{closed} is" if closed else f"{here.parent} was"
    note(f"{why} closed to the user {account.name}, whom the server runs as; its data is in {away}")
    return Place(away, account)


def note_new_data(here: Path) -> None:
    """Say on standard error where new data is, and where an older server's is that somebody may miss in it."""
    older = (folder / here.name for folder in here.parent.parents)
    found = next((data for data in older if os.access(data / "PG_VERSION", os.F_OK)), None)
    note(f"the data of a new server is in {here}" + (f"; {found} has another one's" if found else ""))


def note(text: str) -> None:
    """Say something on standard error."""
    if sys.stderr is not None:  # it is None where the caller has closed it
        sys.stderr.write(f"note: {text}\n")


def holds_data(folder: Path) -> bool:
    """Whether a server's data is there."""
    return (folder / "PG_VERSION").exists()


def make_elsewhere() -> Path:
    """Make root's own folder, unless it is there. Whoever else could write there could replace programs and data.

    Raises:
        EmbeddedServerError: others can write there.
    """
    ELSEWHERE.mkdir(exist_ok=True)
    found = ELSEWHERE.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise EmbeddedServerError(
            f"{ELSEWHERE} is not a folder that only root can write to, so the embedded server's data is not safe there",
            hint=f"Look at what it holds, then remove it, or `chown root {ELSEWHERE} && chmod 755 {ELSEWHERE}`.",
        )
    ELSEWHERE.chmod(0o755)  # mkdir obeys the umask
    return ELSEWHERE


def _name_for(folder: Path) -> str:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return f"{folder.name}-{digest}" if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", folder.name) else digest


def _account_for(data: Path) -> Account:
    """Who runs root's server: whoever has the data already, or PostgreSQL would refuse it."""
    if holds_data(data) and (owner := data.stat()).st_uid != 0:
        return Account(f"number {owner.st_uid}", owner.st_uid, owner.st_gid)
    return server_account()
