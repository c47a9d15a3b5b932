"""Forked children of the test process, like those of Airflow and gunicorn."""

import os
from collections.abc import Callable


def forked(action: Callable[[], object]) -> int:
    """Start a child that runs the action and ends; returns its process id. It prints what the action raises."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException as error:  # noqa: BLE001  (the child must not continue as a second pytest)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    """Wait for a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
