"""`mlops-db adopt`: what it prints, its exit codes, and two at once."""

import subprocess

import pytest

from mlops_db.project import BASELINE_TABLES, BASELINE_VIEWS
from mlops_db.revisions.graph import revisions
from support.database import SCRIPTS, Database, revision_of
from support.handmade import FINDINGS, ODD_ROWS, OLD_VIEWS, make_by_hand, rows, state, views_of_the_baseline
from support.process import assert_failed, assert_run_failed
from support.sessions import PATIENCE_S, another_session, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HEAD = revisions()[-1].id


NOT_A_STAGE = "status is not staging, production or archived: 6 rows, id -7, 3, 4, 5, 6, 2147483647"
NO_NUMBER = "metric_value is NaN or infinite: 2 rows, id 11, 12"


def split_at(lines: list[str], line: str) -> tuple[list[str], str, list[str]]:
    return lines[: lines.index(line)], line, lines[lines.index(line) + 1 :]


@pytest.mark.plain_postgresql(reason="the extension is listed as an object of others")
def test_the_way_of_a_team_whose_database_was_made_by_schema_sql(empty: Database) -> None:
    """Refused, looked at, adopted, migrated, checked: with every row."""
    make_by_hand(empty, ODD_ROWS, OLD_VIEWS, "CREATE TABLE orders (id int);")
    target, before, untouched = empty.settings.target, rows(empty), state(empty)
    unmanaged = empty.run("alembic", "upgrade", "head")
    assert unmanaged.returncode != 0
    assert "`mlops-db adopt --dry-run`" in unmanaged.stdout + unmanaged.stderr

    tried = empty.run("mlops-db", "adopt", "--dry-run")

    assert (tried.returncode, tried.stderr) == (0, "")
    *lines, verdict, rows_keep_nobody = tried.stdout.splitlines()
    differing, other, to_fix = split_at(lines, "left alone: table public.orders")
    for view in BASELINE_VIEWS:
        assert f"--- {view} as it is" in differing
        assert f"+++ {view} as it will be" in differing
    output = [line for line in to_fix if line.startswith("to fix: ")]
    assert f"to fix: model_versions: {NOT_A_STAGE} (revision 0007)" in output
    assert f"to fix: monitoring_metrics: {NO_NUMBER} (revision 0013)" in output
    assert [line.startswith("    ") and line.endswith(" ORDER BY id;") for line in to_fix] == [False, True] * len(
        output
    )
    assert rows_keep_nobody == (
        "The rows to fix do not block `mlops-db adopt`, but `alembic upgrade head` stops at them."
    )
    assert verdict == (
        f"{target}: the tables are the specification's; the views above are replaced. Nothing was changed (--dry-run)."
    )
    assert state(empty) == untouched

    done = empty.run("mlops-db", "adopt")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        *differing,
        other,
        *to_fix,
        f"✅ {target} is now at revision 0004, with every row. Next: fix the rows above, then alembic upgrade head",
    ]
    assert rows(empty) == before
    stopped = empty.run("alembic", "upgrade", "head")
    assert_run_failed(stopped, FINDINGS["0007"].message, "SELECT * FROM model_versions WHERE")
    assert revision_of(empty) == "0006"
    for finding in FINDINGS.values():
        empty.query(finding.fix)
    assert empty.run("alembic", "upgrade", "head").returncode == 0
    assert revision_of(empty) == HEAD
    assert empty.run("mlops-db", "status").returncode == 0
    checked = empty.run("mlops-db", "check")
    assert checked.stdout.splitlines() == [
        "theirs: table public.orders",
        f"{target} at revision {HEAD}: no difference",
    ]


@pytest.mark.plain_postgresql(reason="the extension is listed as an object of others")
def test_with_the_same_views_it_says_so(empty: Database) -> None:
    make_by_hand(empty, views_of_the_baseline())

    tried = empty.run("mlops-db", "adopt", "--dry-run")

    assert (tried.returncode, tried.stdout, tried.stderr) == (
        0,
        (f"{empty.settings.target}: the tables and views are the specification's. Nothing was changed (--dry-run).\n"),
        "",
    )


@pytest.mark.plain_postgresql(reason="the extension is listed as an object of others")
def test_obstacles_are_listed_with_the_statements_that_remove_them(empty: Database) -> None:
    make_by_hand(
        empty, "ALTER TABLE model_versions ADD note text; CREATE INDEX recent ON monitoring_metrics (timestamp);"
    )
    before = state(empty)

    done = empty.run("mlops-db", "adopt")

    assert (done.returncode, done.stderr) == (1, "")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("view ")]
    assert lines == [
        "in the way: column public.model_versions.note: unexpected",
        "in the way: index public.recent on public.monitoring_metrics: unexpected",
        'Tables of another shape can be moved instead: docs/moving-in.md, "Older or wider shapes".',
        f"{empty.settings.target} differs from the specification and was not changed. These statements fix that:",
        "DROP INDEX public.recent;",
        "-- loses data, so it is yours to uncomment: ALTER TABLE public.model_versions DROP COLUMN note;",
    ]
    assert state(empty) == before


def test_what_no_statement_converts_is_by_hand(empty: Database) -> None:
    make_by_hand(
        empty,
        """
        INSERT INTO model_versions (mlflow_run_id, model_version, f1_score) VALUES ('1', '1', 0.5);
        ALTER TABLE model_versions ALTER f1_score TYPE jsonb USING to_jsonb(f1_score),
            ALTER brier_score TYPE date USING now();
        """,
    )

    done = empty.run("mlops-db", "adopt", "--dry-run")

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-2:] == [
        (
            "ALTER TABLE public.model_versions ALTER COLUMN f1_score TYPE double precision"
            " USING f1_score::double precision;"
        ),
        (
            "-- by hand: column public.model_versions.brier_score should be brier_score double precision;"
            " PostgreSQL does not convert date to it"
        ),
    ]


def test_a_database_under_alembic_is_refused(head: Database) -> None:
    before = state(head)

    done = head.run("mlops-db", "adopt")

    assert_failed(done, f"under Alembic already, at revision {HEAD}", "`alembic upgrade head`")
    assert (done.returncode, done.stdout) == (1, "")
    assert state(head) == before


def test_an_empty_database_is_refused(empty: Database) -> None:
    done = empty.run("mlops-db", "adopt", "--dry-run")

    assert_failed(done, f"has none of the tables {', '.join(BASELINE_TABLES)}", "`mlops-db init`")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_missing_database_is_reported(empty: Database) -> None:
    done = empty.run("mlops-db", "adopt", MLOPS_DB_NAME="mlops_test_nowhere")

    assert_failed(done, 'database "mlops_test_nowhere" does not exist')
    assert (done.returncode, done.stdout) == (1, "")


def test_of_two_at_once_both_end_well_or_one_finds_it_adopted(empty: Database) -> None:
    # A string's hash, and with it the order in a set, is another one in each process: with these two (Python 3.11 and
    # later) a set of the tables' names is in opposite orders, retraining_decisions being in the middle.
    seeds = ("6", "2")
    make_by_hand(empty, ODD_ROWS, OLD_VIEWS)
    before = rows(empty)
    with another_session(
        empty, "VACUUM", "LOCK TABLE retraining_decisions IN SHARE UPDATE EXCLUSIVE MODE"
    ) as both_wait_for:
        both = [
            subprocess.Popen(
                [SCRIPTS / "mlops-db", "adopt"],
                env=empty.environment | {"PYTHONHASHSEED": seed, "MLOPS_LOCK_TIMEOUT": "25s"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            for seed in seeds
        ]
        try:
            # The other one polls the run lock, which the server does not see as waiting.
            wait_until(lambda: waiting(empty) == 1, "one of them to wait")
        finally:
            both_wait_for.rollback()
    ended = [(process.communicate(timeout=PATIENCE_S), process.returncode) for process in both]

    assert any(code == 0 for _, code in ended), ended
    for (_, err), code in ended:
        assert code == 0 or "under Alembic already" in err, ended
    assert empty.query("TABLE alembic_version") == [("0004",)]
    assert rows(empty) == before
    assert empty.run("mlops-db", "check").returncode == 0


def waiting(database: Database) -> int:
    count: int = database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'mlops-db %' AND wait_event_type = 'Lock'"
    )
    return count
