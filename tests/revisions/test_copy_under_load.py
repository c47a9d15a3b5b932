"""monitoring_metrics is copied while others write and while its runs are killed: at the end it has what they committed.

The writers' deeds and the moments of the kills are drawn; how they meet the run is up to the machine.
MLOPS_DB_SOAK_RUNS (default 100) is the number of round trips under the mark `soak`.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlops_db.migration import commands
from support.database import Database, revision_of
from support.metric_writers import Writers, rows_of, writers
from support.projects import Checkout

PLAIN, MONTHLY = "0014", "0018"
WAYS = {"upgrade": ["0015", "0016", "0017", MONTHLY], "downgrade": ["0017", "0016", "0015", PLAIN]}
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
kills = st.lists(st.tuples(st.integers(5, 400), st.sampled_from(["kill", "terminate"])), max_size=4)
halts = st.sets(st.sampled_from(["0015", "0016", "0017"]))


@pytest.fixture
def plain(empty: Database) -> Database:
    commands.upgrade(empty.settings, PLAIN)
    return empty


def go(
    checkout: Checkout,
    database: Database,
    load: Writers,
    direction: str,
    halts: set[str],
    kills: list[tuple[int, str]],
) -> None:
    """Run to the other end with the writers beside, halting at some revisions; each kill ends a run after some turns."""
    kills = list(kills)
    targets = [revision for revision in WAYS[direction] if revision in halts or revision in (PLAIN, MONTHLY)]
    for target in targets:
        while revision_of(database) != target:
            run = checkout.start(database, direction, target)
            turns = 0
            while run.process.is_alive():
                load.turn()
                turns += 1
                if kills and turns >= kills[0][0]:
                    _, how = kills.pop(0)
                    if how == "kill":
                        run.process.kill()
                    else:
                        database.query(END_OF_RUN)
                    turns = -1_000_000
            done = run.ended()
            if turns >= 0 and done.returncode: debug(database, done)
            assert turns < 0 or done.returncode == 0, done
        load.turns(20)


def debug(database, done):
    print(done.stdout, done.stderr)
    print(database.query("select * from mlops_internal.table_copies"))
    print(database.query("select count(*) from mlops_internal.monitoring_metrics_changes"))
    print(database.query("select mlops_internal.replay_metric_changes()"))
    print(database.query("select source_rows, copy_rows, (select count(*) from monitoring_metrics), (select count(*) from mlops_internal.monitoring_metrics_copy) from mlops_internal.table_copies"))
    cols = "id, timestamp::timestamp, metric_type, metric_name, metric_value, model_name"
    print(database.query(f"select {cols} from monitoring_metrics except select {cols} from mlops_internal.monitoring_metrics_copy limit 5"))
    print(database.query(f"select {cols} from mlops_internal.monitoring_metrics_copy except select {cols} from monitoring_metrics limit 5"))


def round_trip(
    checkout: Checkout,
    database: Database,
    *,
    seed: int,
    rows: int,
    halts: set[str],
    kills: list[tuple[int, str]],
    truncates: float,
) -> None:
    database.query("TRUNCATE monitoring_metrics")
    database.query(OLD_ROWS.replace("%s", str(rows)))
    with writers(database, seed, truncates=truncates) as load:
        for direction in WAYS:
            go(checkout, database, load, direction, halts, kills)
            assert rows_of(database) == load.finish()
            assert database.query(LEFT_OVER) == []


@pytest.mark.parametrize("kills", [[], [(40, "kill"), (120, "terminate")]], ids=["in one go", "killed twice"])
def test_what_writers_committed_meanwhile_is_there_at_the_end(
    plain: Database, tmp_path: Path, kills: list[tuple[int, str]]
) -> None:
    round_trip(
        Checkout(tmp_path), plain, seed=len(kills), rows=3000, halts={"0016"}, kills=kills, truncates=0.002 * len(kills)
    )


def examples(number: int) -> settings:
    return settings(
        max_examples=number,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],  # another time, the run is at another place
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [8, pytest.param(SOAK_RUNS, marks=pytest.mark.soak)])
def test_whatever_writers_do_and_whenever_runs_end(plain: Database, tmp_path: Path, number: int) -> None:
    checkout = Checkout(tmp_path)

    @examples(number)
    @given(
        seed=st.integers(0, 2**32),
        rows=st.sampled_from([0, 1, 500, 3000, 8000]),
        halts=halts,
        kills=kills,
        truncates=st.sampled_from([0, 0, 0.001, 0.01]),
    )
    def property_(
        seed: int, rows: int, halts: set[str], kills: list[tuple[int, str]], truncates: float
    ) -> None:
        round_trip(checkout, plain, seed=seed, rows=rows, halts=halts, kills=kills, truncates=truncates)

    property_()

