"""monitoring_metrics is copied while others write and while its runs are killed: at the end it has what they committed.

The writers' deeds and the moments of the kills are drawn; how they meet the run is up to the machine.
MLOPS_DB_SOAK_RUNS (default 100) is the number of round trips under the mark `soak`.
"""

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlops_db.migration import commands
from support.cluster import chosen_programs, connect_superuser, settings_of, start, stop, throwaway_cluster
from support.database import Database, revision_of
from support.metric_writers import Writers, rows_of, writers
from support.projects import Checkout

PLAIN, MONTHLY = "0015", "0019"
WAYS = {"upgrade": ["0016", "0017", "0018", MONTHLY], "downgrade": ["0018", "0017", "0016", PLAIN]}
LEFT_OVER = """
SELECT relname FROM pg_class WHERE relnamespace = 'mlops_internal'::regnamespace
   AND relname ~ 'copy|copies|changes|metrics_for|batch' UNION ALL
SELECT tgname FROM pg_trigger WHERE tgname LIKE 'monitoring_metrics_log%' UNION ALL
SELECT proname FROM pg_proc WHERE proname ~ 'metric_(changes|truncate)'
"""
OLD_ROWS = """
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, model_name)
SELECT timestamp '2026-11-01' - n * interval '3 hours', 'drift', 'n' || n % 5, n, 'w' || n % 4
  FROM generate_series(1, %s) AS n
"""
END_OF_RUN = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'mlops-db %'
"""

SOAK_RUNS = int(os.environ.get("MLOPS_DB_SOAK_RUNS", "100"))


@pytest.fixture
def plain(empty: Database) -> Database:
    commands.upgrade(empty.settings, PLAIN)
    return empty


@dataclass(frozen=True)
class Plan:
    """A way up and down.

    Attributes:
        seed: of what the writers do.
        rows: how many there are at the beginning.
        halts: revisions at which a run ends, and others write for a while.
        kills: what ends a run, and after how many turns of the writers.
        truncates: how probable a TRUNCATE is, in each turn.
    """

    seed: int
    rows: int
    halts: frozenset[str] = frozenset()
    kills: tuple[tuple[int, str], ...] = ()
    truncates: float = 0.0


plans = st.builds(
    Plan,
    seed=st.integers(0, 2**32),
    rows=st.sampled_from([0, 1, 500, 3000, 8000]),
    halts=st.frozensets(st.sampled_from(["0016", "0017", "0018"])),
    kills=st.lists(st.tuples(st.integers(5, 400), st.sampled_from(["kill", "terminate"])), max_size=4).map(tuple),
    truncates=st.sampled_from([0, 0, 0.001, 0.01]),
)


def go(checkout: Checkout, database: Database, load: Writers, direction: str, plan: Plan) -> None:
    """Run to the other end with the writers beside."""
    kills = list(plan.kills)
    for target in WAYS[direction]:
        if target not in plan.halts | {PLAIN, MONTHLY}:
            continue
        while revision_of(database) != target:
            run = checkout.start(database, direction, target)
            turns, killed = 0, False
            while run.process.is_alive():
                load.turn()
                turns += 1
                if not killed and kills and turns >= kills[0][0]:
                    _, how = kills.pop(0)
                    killed = True
                    if how == "kill":
                        run.process.kill()
                    else:
                        database.query(END_OF_RUN)
            done = run.ended()
            assert killed or (done.returncode == 0 and revision_of(database) == target), done
        load.turns(20)


def round_trip(checkout: Checkout, database: Database, plan: Plan) -> None:
    commands.downgrade(database.settings, PLAIN)  # from where a round trip failed that Hypothesis repeats
    database.query("TRUNCATE monitoring_metrics")
    database.query(OLD_ROWS.replace("%s", str(plan.rows)))
    with writers(database, plan.seed, truncates=plan.truncates) as load:
        for direction in WAYS:
            go(checkout, database, load, direction, plan)
            expected = load.finish()
            assert rows_of(database) == expected
            assert database.query(LEFT_OVER) == []


def test_what_writers_committed_meanwhile_is_there_at_the_end(plain: Database, tmp_path: Path) -> None:
    plan = Plan(seed=1, rows=2000, halts=frozenset({"0017"}), kills=((40, "kill"), (80, "terminate")), truncates=0.002)
    round_trip(Checkout(tmp_path), plain, plan)


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, pytest.param(SOAK_RUNS, marks=pytest.mark.soak)])
def test_whatever_writers_do_and_whenever_runs_end(plain: Database, tmp_path: Path, number: int) -> None:
    checkout = Checkout(tmp_path)

    @settings(
        max_examples=number,
        derandomize=False,  # the profile for CI would draw the same plans each time
        phases=[Phase.explicit, Phase.generate],  # another time, the run is at another place
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(plans)
    def come_back(plan: Plan) -> None:
        round_trip(checkout, plain, plan)

    come_back()


@pytest.mark.slow
@pytest.mark.full_postgresql
@pytest.mark.parametrize("rounds", [1, pytest.param(SOAK_RUNS // 5, marks=pytest.mark.soak)])
def test_after_a_crash_of_the_server_the_copy_goes_on(
    request: pytest.FixtureRequest, tmp_path: Path, rounds: int
) -> None:
    checkout, chance = Checkout(tmp_path), random.Random(21)  # noqa: S311  (moments, not secrets)
    programs = chosen_programs(request.config)
    with throwaway_cluster(programs) as folder:
        commands.upgrade(settings_of(folder), PLAIN)
        database = Database.of(connect_superuser(folder))
        database.query(OLD_ROWS.replace("%s", "3000"))
        for direction in rounds * list(WAYS):
            target, crashes = WAYS[direction][-1], 2
            while revision_of(database) != target:
                with writers(database, chance.randrange(2**32)) as load:
                    run = checkout.start(database, direction, target)
                    left = chance.randint(5, 200) if crashes else 1_000_000
                    while run.process.is_alive() and left:
                        load.turn()
                        left -= 1
                    if crashes:
                        for writer in load.all:
                            writer.session.close()
                        committed = load.all[0].committed
                        stop(programs, folder)
                        start(programs, folder)
                        database.connection.close()
                        database = Database.of(connect_superuser(folder))
                        run.ended()
                        crashes -= 1
                    else:
                        done = run.ended()
                        assert done.returncode == 0, done
                        committed = load.finish()
                assert rows_of(database) == committed
        database.connection.close()
