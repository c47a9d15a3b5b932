"""Jobs that log metrics as processes of their own, and note what the storage layer told them about each call.

Each call has a number, which is in the metadata of its rows. So every row can be held to what was confirmed: none is
lost, and none of a call that failed is there.
"""

import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mlops_db.errors import ConnectionLostError, MlopsDbError
from mlops_db.settings import Settings
from mlops_db.storage.db_manager import DatabaseManager
from support.database import Database
from support.forks import exit_code, forked
from support.sessions import wait_until

HUGE = "huge"  # a model that all jobs write to
PAUSE_S = 0.02
RETRY_FOR_S = 60.0
REPLACED = (datetime(2026, 10, 1, tzinfo=timezone.utc), datetime(2026, 10, 2, tzinfo=timezone.utc))
RERUN_ROWS = 42  # two of each model
CONFIRMED, REFUSED, UNKNOWN = "confirmed", "refused", "unknown"


@dataclass(frozen=True)
class Call:
    """What became of a call.

    Attributes:
        job: the job that made it.
        number: which of the job's calls it was.
        rows: how many rows it gave.
        replaces: the moment that it replaced.
        outcome: confirmed; refused, so that nothing may be stored; or unknown.
        retryable: whether the error said that a retry may help.
        error: its class and its message.
        seconds: how long it took.
    """

    job: int
    number: int
    rows: int
    replaces: str | None
    outcome: str
    retryable: bool
    error: str
    seconds: float


@dataclass
class Job:
    """Makes calls until it is told to stop; a refused call is made again if its error is retryable."""

    number: int
    db: DatabaseManager
    chance: random.Random
    journal: Any
    models: Sequence[str]
    actions: Mapping[Callable[["Job"], bool], int]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def work(self, stop: Path) -> None:
        while not stop.exists():
            action = self.chance.choices(list(self.actions), list(self.actions.values()))[0]
            until = time.monotonic() + RETRY_FOR_S
            while not action(self) and time.monotonic() < until and not stop.exists():
                time.sleep(0.05)
            time.sleep(PAUSE_S)

    def model(self) -> str:
        return self.chance.choice(self.models)

    def row(self, model: str, name: str, number: int) -> dict[str, Any]:
        return {
            "metric_type": "job", "metric_name": name, "metric_value": number, "model_name": model,
            "metadata": {"job": self.number, "call": number},
        }  # fmt: skip

    def call(
        self, rows: int, do: Callable[[int], object], *, number: int | None = None, replaces: datetime | None = None
    ) -> bool:
        """Make a call and note its outcome; False if it should be made again."""
        number = next(self.numbers) if number is None else number
        begun = time.monotonic()
        outcome, retryable, text = CONFIRMED, False, ""
        try:
            do(number)
        except MlopsDbError as error:
            lost = isinstance(error, ConnectionLostError) and error.committed is None
            outcome, retryable = UNKNOWN if lost else REFUSED, error.retryable
            text = f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001  (a defect, which the test reports)
            outcome, text = REFUSED, f"DEFECT {type(error).__name__}: {error}"
        moment = None if replaces is None else replaces.isoformat()
        seconds = time.monotonic() - begun
        self.journal.write(
            json.dumps([self.number, number, rows, moment, outcome, retryable, text, seconds]).encode() + b"\n"
        )
        return not retryable


def log(job: Job) -> bool:
    name = f"log {job.chance.randrange(5)}"
    return job.call(1, lambda n: job.db.monitoring.log(**job.row(job.model(), name, n)))


def log_failure(job: Job) -> bool:
    return job.call(
        1,
        lambda n: job.db.monitoring.log_failure(
            "job", "failed", "no labels", model_name=job.model(), metadata={"job": job.number, "call": n}
        ),
    )


def log_many(job: Job) -> bool:
    """Rows of several models, and so of several workers, or of one."""
    models = job.chance.sample(list(job.models), 3) if job.chance.random() < 0.5 else [job.model()]
    return job.call(
        12, lambda n: job.db.monitoring.log_many([job.row(models[i % len(models)], f"many {i}", n) for i in range(12)])
    )


def log_new_series(job: Job) -> bool:
    """Series that nobody has written before."""
    models = job.chance.sample(list(job.models), 2)
    return job.call(
        4,
        lambda n: job.db.monitoring.log_many(
            [job.row(models[i % 2], f"new {job.number} {n} {i}", n) for i in range(4)]
        ),
    )


def log_new_model(job: Job) -> bool:
    return job.call(1, lambda n: job.db.monitoring.log(**job.row(f"born {job.number} {n}", "first", n)))


def log_same_new_series(job: Job) -> bool:
    """A series that other jobs are about to write, too."""
    name = f"race {time.time() // 0.5:.0f}"
    return job.call(2, lambda n: job.db.monitoring.log_many([job.row(m, name, n) for m in job.models[:2]]))


def replace(job: Job) -> bool:
    """The rows of a moment of models of its own, over and over."""
    at = job.chance.choice(REPLACED)
    models = [f"own {job.number}.{i}" for i in range(3)]
    return job.call(
        6,
        lambda n: job.db.monitoring.log_many(
            [job.row(m, f"replaced {i}", n) for m in models for i in range(2)], replace=at
        ),
        replaces=at,
    )


def replace_the_same(job: Job) -> bool:
    """The rows of a moment, of the models that all jobs write to."""
    at = REPLACED[0]
    rows = RERUN_ROWS // len(job.models)
    return job.call(
        RERUN_ROWS,
        lambda n: job.db.monitoring.log_many(
            [job.row(m, f"rerun {i}", n) for m in job.models for i in range(rows)], replace=at
        ),
        replaces=at,
    )


ACTIONS: dict[Callable[[Job], bool], int] = {
    log: 6, log_failure: 2, log_many: 8, log_new_series: 1, log_new_model: 1, log_same_new_series: 2, replace: 6,
}  # fmt: skip


@dataclass
class Jobs:
    """Jobs that run. Attribute `calls` has what they did once they have stopped."""

    folder: Path
    processes: list[int]
    calls: list[Call] = field(default_factory=list)

    def so_far(self) -> list[Call]:
        """What they have done by now."""
        calls = []
        for path in sorted(self.folder.glob("*.journal")):
            # The last line may be half written.
            calls += [Call(*json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        return calls

    def confirmed(self) -> int:
        return sum(path.read_bytes().count(b'"confirmed"') for path in self.folder.glob("*.journal"))

    def go_on(self, calls: int = 20) -> None:
        """Wait until more calls are confirmed."""
        reached = self.confirmed() + calls
        wait_until(lambda: self.confirmed() >= reached, f"{calls} more calls of jobs to succeed")

    def stop(self) -> None:
        (self.folder / "stop").touch()
        codes = [exit_code(pid) for pid in self.processes]
        self.calls = self.so_far()
        self.processes.clear()
        assert not any(codes), codes

    def refused_for_good(self) -> list[Call]:
        """The calls whose error said that a retry does not help, although nothing is stored."""
        return [call for call in self.calls if call.outcome == REFUSED and not call.retryable]

    def errors(self) -> Counter[str]:
        """How often each error was raised, without its numbers."""
        return Counter(call.error for call in self.calls if call.error)


@contextmanager
def jobs(settings: Settings, folder: Path, *, count: int = 10, replaces: bool = True) -> Iterator[Jobs]:
    """Run jobs during the block; `replaces`: some of their calls replace rows."""
    actions = {action: share for action, share in ACTIONS.items() if replaces or action is not replace}
    with _running(settings, folder, count, actions) as running:
        yield running


@contextmanager
def reruns(database: Database, folder: Path, count: int) -> Iterator[Jobs]:
    """Run one task several times at once, over and over, during the block; then one run has all the rows."""
    with _running(database.settings, folder, count, {replace_the_same: 1}) as running:
        running.go_on(count * 2)
        yield running
        running.go_on(count * 2)
        running.stop()
        assert running.refused_for_good() == []
        statement = (
            "SELECT metadata ->> 'job', metadata ->> 'call', count(*) FROM monitoring_metrics"
            " WHERE timestamp = %s GROUP BY 1, 2"
        )
        assert [rows for _, _, rows in database.query(statement, (REPLACED[0],))] == [RERUN_ROWS]


@contextmanager
def _running(
    settings: Settings, folder: Path, count: int, actions: Mapping[Callable[[Job], bool], int]
) -> Iterator[Jobs]:
    models = [HUGE, *(f"model {i}" for i in range(20))]
    folder.mkdir(parents=True, exist_ok=True)

    def work(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  (deeds, not secrets)
        with DatabaseManager(settings) as db, (folder / f"{number}.journal").open("wb", buffering=0) as journal:
            Job(number, db, chance, journal, models, actions).work(folder / "stop")

    running = Jobs(folder, [forked(lambda n=n: work(n)) for n in range(count)])  # type: ignore[misc]
    try:
        yield running
    finally:
        if running.processes:
            running.stop()


def assert_rows_are_those_of_confirmed_calls(database: Database, calls: Sequence[Call]) -> None:
    """No row of a confirmed call is lost, none is there twice, and none of a call that failed is there."""
    found = {
        (job, number): rows
        for job, number, rows in database.query(
            "SELECT (metadata ->> 'job')::int, (metadata ->> 'call')::int, count(*)"
            "  FROM monitoring_metrics GROUP BY 1, 2"
        )
    }
    wrong = []
    last: dict[tuple[int, str], list[Call]] = {}
    for call in calls:
        if call.replaces is not None:
            if call.outcome == CONFIRMED:
                last[call.job, call.replaces] = [call]
            elif call.outcome == UNKNOWN:
                last.setdefault((call.job, call.replaces), []).append(call)
        else:
            expected = {CONFIRMED: (call.rows,), REFUSED: (0,), UNKNOWN: (0, call.rows)}[call.outcome]
            if (there := found.pop((call.job, call.number), 0)) not in expected:
                wrong.append((there, call))
    for possible in last.values():
        there = {call.number: found.pop((call.job, call.number), 0) for call in possible}
        whole = [call for call in possible if there[call.number] == call.rows]
        none_is_sure = not any(call.outcome == CONFIRMED for call in possible)
        if sum(there.values()) not in ([0, 6] if none_is_sure else [6]) or (sum(there.values()) and len(whole) != 1):
            wrong.append((there, possible))  # type: ignore[arg-type]
    assert wrong == [], wrong[:5]
    assert found == {}, "rows that nobody confirmed"
