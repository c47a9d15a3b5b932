"""Control-C and SIGTERM while a command waits for the server: it ends at once, and tells no other error."""

import signal
import subprocess
import sys

import pytest

from support.database import ROOT, TIMEOUT_S, Database
from support.sessions import another_session, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

COMMANDS = {
    "adopt": ["adopt", "--dry-run"],
    "check": ["check"],
    "grant-reader": ["grant-reader", "pg_monitor"],
    "history": ["history"],
    "init": ["init"],
    "maintain": ["maintain"],
    "status": ["status"],
    "wait": ["wait"],
}
# Some commands wait for 200 ms only.
PATIENT = """
import sys
from mlops_db.admin import status
from mlops_db.cli.main import main
status.LOCK_TIMEOUT = status.STATEMENT_TIMEOUT = "60s"
sys.exit(main())
"""
LOCKED = "LOCK TABLE alembic_version, monitoring_metrics, mlops_internal.migration_history IN ACCESS EXCLUSIVE MODE"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_that_waits_can_be_interrupted(
    head: Database, command: list[str], number: signal.Signals, code: int
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    with another_session(head, "a writer", LOCKED):
        process = subprocess.Popen(
            [sys.executable, "-c", PATIENT, *command],
            env=head.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: head.value(waiting, [head.settings.database]) == 1, "the command to wait")
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (code, "")
