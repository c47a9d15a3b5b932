"""examples/cron: each line of the crontab, run by the shell that it names, in folders of the test."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from mlops_db import DatabaseManager
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database
from support.process import SECRET

pytestmark = [pytest.mark.slow, pytest.mark.one_postgresql]

FOLDER = ROOT / "examples" / "cron"
LINE = re.compile(r"^((?:[\d*/]+ +){4}[\d*/]+) +(.*)$", re.MULTILINE)
STORED = "SELECT timestamp, metric_value, metadata ->> 'error' IS NOT NULL FROM monitoring_metrics ORDER BY id"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hour() -> datetime:
    """The hour that has begun; in the minute before the next one it waits, because the job looks at the clock, too."""
    while (now := datetime.now(timezone.utc)).minute == 59:
        time.sleep(1)
    return now.replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def machine(tmp_path: Path, head: Database) -> Path:
    """A folder with everything that the crontab expects."""
    for folder in ("opt/mlops/bin", "etc/mlops", "var/lib/mlops"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(FOLDER / "monitor.py", tmp_path / "opt/mlops")
    for program, target in (("mlops-db", SCRIPTS / "mlops-db"), ("python", Path(sys.executable))):
        (tmp_path / "opt/mlops/bin" / program).write_text(f'#!/bin/sh\nexec {target} "$@"\n', encoding="utf-8")
        (tmp_path / "opt/mlops/bin" / program).chmod(0o755)
    variables = (
        f"{name}={value}\n" for name, value in head.environment.items() if name.startswith(("POSTGRES_", "ML"))
    )
    (tmp_path / "etc/mlops/.env").write_text("".join(variables), encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(machine: Path) -> Run:
    """Runs the one line of the crontab that has this word, as cron does: with the variables of the crontab alone."""
    crontab = (FOLDER / "crontab").read_text(encoding="utf-8")
    for folder in ("/opt/mlops", "/etc/mlops", "/var/lib/mlops"):
        crontab = re.sub(rf"(?<![\w/]){folder}", f"{machine}{folder}", crontab)
    variables = dict(re.findall(r"^([A-Z]+)=(.*)$", crontab, re.MULTILINE))

    def run(word: str) -> subprocess.CompletedProcess[str]:
        (line,) = (command for _, command in LINE.findall(crontab) if word in command)
        assert "%" not in line  # for cron, a line break
        return subprocess.run(
            [variables["SHELL"], "-c", line],
            env={"HOME": str(machine), "LC_ALL": "C.UTF-8", "PATH": variables["PATH"]},
            cwd=machine,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=False,
        )

    return run


def predictions(machine: Path, *rows: str) -> None:
    text = "\n".join(("predicted_at,covered", *rows, ""))
    (machine / "var/lib/mlops/predictions.csv").write_text(text, encoding="utf-8")


def test_every_line_is_one_of_cron() -> None:
    lines = (FOLDER / "crontab").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.match(r"#|$|[A-Z]+=", line) and not LINE.fullmatch(line)] == []
    assert sum(bool(LINE.fullmatch(line)) for line in lines) == 3


def test_the_job_stores_the_last_hour_and_a_rerun_replaces_it(
    head: Database, machine: Path, run: Run, hour: datetime
) -> None:
    minutes = [(hour - timedelta(minutes=minute)).isoformat() for minute in (60, 30, 1)]
    predictions(
        machine,
        f"{hour.isoformat()},0",
        *(f"{minute},{covered}" for minute, covered in zip(minutes, "110", strict=True)),
    )
    for _ in range(2):
        done = run("monitor.py")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert head.query(STORED) == [(hour - timedelta(hours=1), pytest.approx(2 / 3), False)]


def test_an_hour_without_predictions_has_failed_until_a_rerun_measures_it(
    head: Database, machine: Path, run: Run, hour: datetime
) -> None:
    predictions(machine)
    for _ in range(2):
        done = run("monitor.py")
        assert (done.returncode, done.stdout) == (1, "")
        assert "ZeroDivisionError" in done.stderr
        assert "Traceback" not in done.stderr
    assert head.query(STORED) == [(hour - timedelta(hours=1), None, True)]

    predictions(machine, f"{(hour - timedelta(minutes=1)).isoformat()},1")
    assert run("monitor.py").returncode == 0
    assert head.query(STORED) == [(hour - timedelta(hours=1), 1.0, False)]


@pytest.mark.parametrize("row", ["2026-11-27T14:05:00,1", "today,1", "", "a" * 200_000])
def test_a_file_that_cannot_be_read_has_failed_in_one_line(machine: Path, run: Run, hour: datetime, row: str) -> None:
    predictions(machine, row, row and f"{(hour - timedelta(minutes=1)).isoformat()}")
    done = run("monitor.py")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)


def test_a_server_that_is_away_is_another_exit_code(machine: Path, run: Run) -> None:
    predictions(machine)
    env = machine / "etc/mlops/.env"
    env.write_text(f"POSTGRES_HOST=/nonexistent\nPOSTGRES_PASSWORD='{SECRET}'\n", encoding="utf-8")
    done = run("monitor.py")
    assert done.returncode == 75
    assert "no PostgreSQL answers" in done.stderr
    assert SECRET not in done.stderr
    assert "no PostgreSQL answers" in run("health").stdout
    env.write_text("MLOPS_ENV production\n", encoding="utf-8")
    assert run("monitor.py").returncode == 1


@pytest.mark.parametrize("word", ["maintain", "monitor"])
def test_nothing_runs_twice_at_once(machine: Path, run: Run, word: str) -> None:
    lock = machine / f"var/lib/mlops/{word}.lock"
    with subprocess.Popen(
        ["/usr/bin/env", "flock", lock, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"locked\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"locked\n"
        assert run(f"{word}.lock").returncode == 75
        holder.stdin.close()


def test_cron_sends_a_mail_only_about_what_somebody_must_see(head: Database, run: Run) -> None:
    done = run("maintain")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with DatabaseManager(head.settings) as db:
        db.monitoring.expect("coverage", "coverage_rate", lower=0.5, model_name="churn")
        db.monitoring.log("coverage", "coverage_rate", 0.9, model_name="churn")
        done = run("health")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        db.monitoring.log("coverage", "coverage_rate", 0.4, model_name="churn")
    assert "1 low" in run("health").stdout
