"""Where the data is, and which user runs the server there.

PostgreSQL refuses to run as root: root's servers run as a user of their own. What lies above the data belongs to others
and stays as it is: if that user cannot go there, the data has its place below `/var/lib/mlops-db`.
"""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mlops_db.errors import EmbeddedServerError
from mlops_db.server.embedded.system import Account, locked, reason, tried

if sys.platform != "win32":
    import pwd

DATA_DIRECTORY = Path(".mlops-db")
ELSEWHERE = Path("/var/lib/mlops-db")
SERVER_USER = "embedded_postgres"
# Says which folder is the first that the user cannot enter.
FIRST_CLOSED = 'for folder in "$@"; do cd "$folder" || { printf %s "$folder"; exit; }; done'


class Place(NamedTuple):
    """The data, and who runs its server; None if it is the caller."""

    data: Path
    account: Account | None


@cache
def place_for(here: Path) -> Place:
    """The place of the data that belongs here; if that is elsewhere, standard error says so, once in a process."""
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
    elsewhere()
    account = _account_for(away)
    why = f"{closed} is" if closed else f"{here.parent} was"
    note = f"note: {why} closed to the user {account.name}, whom the server runs as; its data is in {away}\n"
    if sys.stderr is not None:  # it is None where the caller has closed it
        sys.stderr.write(note)
    return Place(away, account)


def holds_data(folder: Path) -> bool:
    """Whether a server's data is there."""
    return (folder / "PG_VERSION").exists()


def elsewhere() -> Path:
    """Root's own folder, made if it is missing. Whoever else could write there could replace programs and data."""
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
    with locked(Path("/")):  # of several processes at once, one creates the user
        try:
            found = pwd.getpwnam(SERVER_USER)
        except KeyError:
            _create_server_user()
            found = pwd.getpwnam(SERVER_USER)
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def _create_server_user() -> None:
    """Create the user, with no password, shell or home."""
    failure = "there is no useradd"
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")  # PATH may name a folder of somebody else's
    if useradd is not None:
        options = ("--system", "--user-group", "--no-create-home", "--home-dir=/nonexistent")
        command = [useradd, *options, "--shell=/usr/sbin/nologin", SERVER_USER]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603  (constants)
        if done.returncode == 0:
            return
        failure = reason(done.stderr)
    raise EmbeddedServerError(
        f"root's embedded server runs as the user {SERVER_USER}, who cannot be created: {failure}",
        hint="Create that user, or work as a user other than root, or set POSTGRES_HOST to a server.",
    )
