"""What a person, or a log, sees of a run."""

import io
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlops_db.migration import commands, progress
from mlops_db.migration.progress import Progress
from support.batches import GO_ON, HOLD, batches, make_table
from support.database import SCRIPTS, Database
from support.projects import Checkout, sql

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

STEPS = ("0001 model_versions", "0002 monitoring_metrics", "0003 retraining_decisions", "0004 analytical_views")
BAR_WITHIN_S = 60


def lines_of(*labels: str) -> str:
    """A pattern for the lines of steps that ran."""
    return "".join(rf"\[{number}/{len(labels)}\] {label} \.\.\. [\d.]+ s\n" for number, label in enumerate(labels, 1))


def test_in_a_pipe_each_step_is_a_line_on_standard_error(empty: Database) -> None:
    done = empty.run("alembic", "upgrade", "0004")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(lines_of(*STEPS), done.stderr), done.stderr


def test_a_downgrade_says_that_it_is_one(empty: Database) -> None:
    commands.upgrade(empty.settings, "0004")
    stream = io.StringIO()
    commands.downgrade(empty.settings, "0001", progress=stream)
    assert re.fullmatch(lines_of(*(f"downgrade {step}" for step in STEPS[:0:-1])), stream.getvalue())


def test_steps_are_counted_from_where_the_database_stands(empty: Database) -> None:
    commands.upgrade(empty.settings, "0002")
    stream = io.StringIO()
    commands.upgrade(empty.settings, "0004", progress=stream)
    commands.upgrade(empty.settings, "0004", progress=stream)
    assert re.fullmatch(lines_of(*STEPS[2:]) + r"\S+: nothing to do\n", stream.getvalue()), stream.getvalue()


def test_python_programs_see_nothing_unless_they_give_a_stream(
    empty: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    commands.upgrade(empty.settings)
    commands.upgrade(empty.settings)
    commands.downgrade(empty.settings, "base")
    assert capfd.readouterr() == ("", "")


def test_a_stream_gets_everything_and_standard_error_nothing(
    empty: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = io.StringIO()
    commands.upgrade(empty.settings, "0001", progress=stream)
    assert re.fullmatch(lines_of(STEPS[0]), stream.getvalue())
    assert capfd.readouterr() == ("", "")


# Long commands, in a log


def test_a_log_gets_a_line_of_its_own_for_what_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    log = io.StringIO()
    shown = Progress(log)

    shown.begin("[1/1] 0005 index")
    shown.report("CREATE INDEX i: building index", 0, 0)
    shown.report("CREATE INDEX i: building index", 1, 3)
    shown.done()

    assert re.fullmatch(
        r"\[1/1\] 0005 index \.\.\. \n"
        r"\[1/1\] 0005 index: CREATE INDEX i: building index, started\n"
        r"\[1/1\] 0005 index: CREATE INDEX i: building index, 33 %\n"
        r"\[1/1\] 0005 index \.\.\. \d\.\d s\n",
        log.getvalue(),
    )


def test_a_log_is_not_flooded() -> None:
    log = io.StringIO()
    shown = Progress(log)
    shown.begin("[1/1] 0005 index")
    for done in range(100):
        shown.report("CREATE INDEX i: building index", done, 100)
    assert log.getvalue() == "[1/1] 0005 index ... "


@pytest.mark.parametrize(
    ("seconds", "output"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (185, "3 min 5 s"),
    ],
)
def test_durations_read_well(seconds: float, output: str) -> None:
    assert progress.duration(seconds) == output


# Long commands, on a terminal

# An index whose building lasts until the test lets it end.
SLOW_INDEX = sql(
    """
    CREATE FUNCTION slowly(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        WHILE NOT pg_catalog.pg_try_advisory_xact_lock(1) LOOP PERFORM pg_catalog.pg_sleep(0.05); END LOOP;
        RETURN i;
    END $$
    """,
    "CREATE TABLE extra AS SELECT 1 AS i",
    "CREATE INDEX extra_slowly ON extra (slowly(i))",
)


@contextmanager
def on_a_terminal(database: Database, folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`alembic` with a terminal as standard error; gives the process and the other end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SCRIPTS / "alembic", *arguments],
        cwd=folder,
        env=database.environment | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        encoding="utf-8",
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def read_until(terminal: int, wanted: str | None) -> str:
    """Read until `wanted` was shown; None: to the end."""
    shown = b""
    deadline = time.monotonic() + BAR_WITHIN_S
    while wanted is None or wanted.encode() not in shown:
        assert time.monotonic() < deadline, shown.decode()
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            piece = b""
        if not piece:
            assert wanted is None, shown.decode()
            break
        shown += piece
    return shown.decode()


def test_on_a_terminal_a_bar_shows_how_far_the_server_is(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    label = f"[1/1] {checkout.add(SLOW_INDEX)} test ..."
    head.query("SELECT pg_advisory_lock(1)")
    with on_a_terminal(head, tmp_path, "upgrade", "head") as (process, terminal):
        during = read_until(terminal, "━")
        head.query("SELECT pg_advisory_unlock(1)")
        after = read_until(terminal, None)
        assert process.wait() == 0

    assert during.startswith(f"{label}\r\x1b[2K"), "the line would stand above the bar, too"
    before_the_bar, _, _ = during.partition("━")
    assert before_the_bar.count(label) == 2
    assert "CREATE INDEX" in during
    assert "building index" in during
    assert re.search(rf"{re.escape(label)} \d+(\.\d)? s\r\n$", after), after
    assert "\x1b[?25h" in after, "the cursor is hidden while the bar is there"


def test_on_a_terminal_a_bar_shows_how_far_batches_are(head: Database, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    revision = checkout.add(batches())
    make_table(head)
    head.query(HOLD)
    with on_a_terminal(head, tmp_path, "-x", "lock-timeout=20s", "upgrade", "head") as (process, terminal):
        during = read_until(terminal, "━")
        head.query(GO_ON)
        after = read_until(terminal, None)
        assert process.wait() == 0

    assert re.search(r"1,000 rows, [\d,]+ a second", during), during
    assert re.search(rf"\[1/1\] {revision} test ... \d+(\.\d)? s\r\n$", after), after
