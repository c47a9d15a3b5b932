"""Creates the data of a server, for a caller that has locked its folder."""

import shutil
import subprocess

from mlops_db.server.embedded.account import as_account, give, reason
from mlops_db.server.embedded.place import Place, holds_data
from mlops_db.server.embedded.programs import server_programs

SUPERUSER = "postgres"
OPTIONS = ("--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--no-locale", f"--username={SUPERUSER}")


def initialize(place: Place, lock: int) -> None:
    """Create the data in a folder inside, and move it up when it is complete; does nothing if the data exists.

    `.users` is created last and moved last. If a process was killed, the next one continues if that file exists, and
    starts again if it does not.
    """
    data, account = place
    new = data / ".new"
    complete = new / ".users"
    if not complete.exists():
        shutil.rmtree(new, ignore_errors=True)
        if holds_data(data):
            return
        if {path.name for path in data.iterdir()} - {complete.name}:
            raise FileExistsError("the folder is not empty and holds no PostgreSQL data")
        data.chmod(0o700)
        if data.stat().st_uid == 0:
            give(data, account)
        done = subprocess.run(  # noqa: S603  (the package's program)
            [server_programs(account) / "initdb", f"--pgdata={new}", *OPTIONS],
            capture_output=True,
            check=False,
            pass_fds=(lock,),  # if this process is killed, the next one waits until initdb has ended
            **as_account(account),
        )
        if done.returncode != 0:
            raise OSError(reason(done.stderr))
        complete.touch(mode=0o600)
    for path in sorted(new.iterdir(), key=lambda path: path == complete):
        path.rename(data / path.name)
    new.rmdir()
