"""Children of the test's own process, forked as Airflow's and gunicorn's are."""

import os
from collections.abc import Callable


def forked(action: Callable[[], object]) -> int:
    """Start a child that does something and ends; returns its process id. What it raises is on its standard error."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:  # noqa: BLE001  (a child must not go on as a second pytest)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    """Wait for a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
