"""`mlops-db check` as a command: what it prints and where, how it ends, and that it changes nothing."""

import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Protocol

import pytest

from mlops_db.cli.check import run
from mlops_db.drift.scratch import SCRATCH_PREFIX, STALE_AFTER_S, scratch_database
from mlops_db.errors import exit_code_of
from mlops_db.migration.commands import upgrade
from mlops_db.revisions.graph import revisions
from support.database import ROOT, SCRIPTS, TIMEOUT_S, Database
from support.process import SECRET, assert_failed
from support.projects import edited_package
from support.sessions import wait_until
from support.snapshot import everything

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HEAD = revisions()[-1].id
OWNER = "mlops_test_owner"
ATTEMPTS = 20
DRIFT = """
COMMENT ON TABLE model_versions IS 'by hand';
DROP VIEW v_model_timeline;
CREATE INDEX extra ON retraining_decisions (action);
ALTER TABLE monitoring_metrics ALTER metric_type TYPE text;
ALTER TABLE retraining_decisions ALTER reasoning SET NOT NULL;
"""


@pytest.fixture
def drifted(head: Database) -> Database:
    head.query("INSERT INTO model_versions (mlflow_run_id, model_version) VALUES ('run', '1')")
    head.query("DROP VIEW v_recent_monitoring, reporting.metric_history")  # the type of a column that they read
    head.psql(DRIFT)
    return head


class InProcess(Protocol):
    """`mlops-db check`, without the second that a process takes to import Alembic."""

    def __call__(
        self, database: Database, *, sql: bool = False, **variables: str
    ) -> "subprocess.CompletedProcess[str]": ...


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    def check(database: Database, *, sql: bool = False, **variables: str) -> "subprocess.CompletedProcess[str]":
        for name, value in (database.environment | variables).items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = exit_code_of(lambda: run(Namespace(revisions=False, sql=sql, json=False)))
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess("check", code, out, err)

    return check


def scratch_databases(database: Database) -> list[str]:
    found = database.query("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [SCRATCH_PREFIX])
    return sorted(name for (name,) in found)


def without_citus(output: str) -> str:
    """What `check` printed without the line that names Citus as an extension of others."""
    return output.replace("theirs: extension citus\n", "")


def test_a_database_as_its_revisions_make_it_is_one_line_and_exit_0(head: Database) -> None:
    before = everything(head)
    done = head.run("mlops-db", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert without_citus(done.stdout) == f"{head.settings.target} at revision {HEAD}: no difference\n"
    assert everything(head) == before
    assert scratch_databases(head) == []


def test_each_difference_is_one_line_and_nothing_changes(drifted: Database) -> None:
    before = everything(drifted)
    done = drifted.run("mlops-db", "check")
    *lines, count = without_citus(done.stdout).splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.partition(":")[0] for line in lines] == [
        "table public.model_versions",
        "view public.v_model_timeline",
        "view public.v_recent_monitoring",
        "view reporting.metric_history",
        "column public.retraining_decisions.reasoning",
        "column public.monitoring_metrics.metric_type",
        "index public.extra on public.retraining_decisions",
    ]
    assert lines[0].endswith(", found by hand")
    assert lines[-1].endswith(": unexpected")
    assert lines[5] == (
        "column public.monitoring_metrics.metric_type: type: expected character varying(100), found text"
    )
    assert count == f"{drifted.settings.target} at revision {HEAD}: {len(lines)} differences"
    assert everything(drifted) == before
    assert scratch_databases(drifted) == []


CHANGED = "DROP VIEW v_model_timeline; CREATE VIEW v_model_timeline AS SELECT id, f1_score FROM model_versions;"


def test_of_a_text_of_several_lines_a_diff_is_below_the_line(head: Database, in_process: InProcess) -> None:
    head.psql(CHANGED)
    head.query("COMMENT ON TABLE model_versions IS E'two\nlines \x1b[31m'")

    lines = without_citus(in_process(head).stdout).splitlines()

    table, view = (
        lines.index("table public.model_versions: comment differs"),
        lines.index("view public.v_model_timeline: definition differs"),
    )
    assert lines[table + 1 : table + 4] == ["    --- expected", "    +++ found", "    @@ -1 +1,2 @@"]
    assert lines[table + 5 : table + 7] == ["    +two", r"    +lines \x1b[31m"]
    diff = list(takewhile(lambda line: line.startswith("    "), lines[view + 1 :]))
    assert diff[:2] == ["    --- expected", "    +++ found"]
    assert any(line.startswith("    -") and "previous_version" in line for line in diff)
    output = [line for line in lines if not line.startswith("    ")]
    assert output[-1].endswith(f": {len(output) - 1} differences")


def test_with_sql_only_statements_are_on_standard_output(head: Database, in_process: InProcess) -> None:
    head.psql(CHANGED)

    done = in_process(head, sql=True)

    assert "    --- expected" in done.stderr.splitlines()
    assert "--- expected" not in done.stdout
    head.psql(done.stdout)
    assert in_process(head).returncode == 0


def test_what_nothing_converts_is_by_hand(head: Database, in_process: InProcess) -> None:
    head.psql("""
        DROP VIEW v_decision_history;
        ALTER TABLE retraining_decisions DROP CONSTRAINT retraining_decisions_created_at_check,
            ALTER created_at DROP DEFAULT, ALTER created_at TYPE boolean USING true;
    """)

    script = in_process(head, sql=True).stdout

    (line,) = [line for line in script.splitlines() if "does not convert" in line]
    assert line.startswith("-- by hand: column public.retraining_decisions.created_at should be created_at timestamp")
    assert line.endswith("; PostgreSQL does not convert boolean to it")


def test_the_printed_statements_repair_it(drifted: Database, in_process: InProcess) -> None:
    """Only statements are on standard output, as in `mlops-db check --sql > repair.sql`."""
    rows = drifted.query("TABLE model_versions")
    told_without = in_process(drifted).stdout

    done = drifted.run("mlops-db", "check", "--sql")

    assert done.returncode == 1
    assert done.stderr == told_without
    drifted.query(f"ALTER DATABASE {drifted.settings.database} SET search_path = pg_catalog")
    drifted.psql(done.stdout)
    assert in_process(drifted).returncode == 0
    assert drifted.query("TABLE public.model_versions") == rows


def test_without_drift_there_is_nothing_to_repair(head: Database, in_process: InProcess) -> None:
    done = in_process(head, sql=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no difference" in done.stderr


def test_what_would_lose_rows_is_printed_and_not_run(head: Database, in_process: InProcess) -> None:
    head.psql("CREATE TABLE mlops_internal.mine (); ALTER TABLE model_versions ADD extra integer DEFAULT 5;")
    before = everything(head)
    done = in_process(head, sql=True)
    head.psql(done.stdout)
    assert everything(head) == before

    prefix = "-- loses data, so it is yours to uncomment: "
    assert {line for line in done.stdout.splitlines() if line.startswith(prefix)} == {
        f"{prefix}DROP TABLE mlops_internal.mine;",
        f"{prefix}ALTER TABLE public.model_versions DROP COLUMN extra;",
    }
    head.psql(done.stdout.replace(prefix, ""))
    assert in_process(head).returncode == 0


def test_a_database_behind_head_is_compared_with_its_own_revision_and_told_so(
    empty: Database, in_process: InProcess
) -> None:
    upgrade(empty.settings, "0002")
    done = in_process(empty)
    assert done.returncode == 0, done.stderr
    assert without_citus(done.stdout) == (
        f"{empty.settings.target} at revision 0002 (head is {HEAD}: alembic upgrade head): no difference\n"
    )


@pytest.mark.parametrize(
    ("script", "variables", "parts"),
    [
        pytest.param("", {"POSTGRES_HOST": "localhost", "POSTGRES_PORT": "1"}, ("localhost:1",), id="no server"),
        pytest.param("", {"MLOPS_DB_NAME": "mlops_test_nowhere"}, ("mlops-db create",), id="no database"),
        pytest.param("", {}, ("no tables yet", "alembic upgrade head"), id="empty database"),
        pytest.param("CREATE TABLE model_versions ();", {}, ("made by hand", "mlops-db adopt"), id="unmanaged"),
        pytest.param(
            "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('1e2f');",
            {},
            ("'1e2f'", "MLOPS_DB_NAME"),
            id="unknown revision",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_a_hint(
    empty: Database, in_process: InProcess, script: str, variables: dict[str, str], parts: tuple[str, ...]
) -> None:
    if script:
        empty.psql(script)
    before = everything(empty)
    done = in_process(empty, **variables)
    assert_failed(done, *parts)
    assert (done.returncode, done.stdout) == (2 if "POSTGRES_PORT" in variables else 1, "")
    assert everything(empty) == before
    assert scratch_databases(empty) == []


@pytest.fixture
def owner(head: Database) -> Iterator[dict[str, str]]:
    """A role that owns the database and may not create another one, as on most managed servers."""
    head.query(f"CREATE ROLE {OWNER} LOGIN PASSWORD '{SECRET}'")
    head.query(f"ALTER DATABASE {head.settings.database} OWNER TO {OWNER}")
    head.query(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {OWNER}")
    yield {"POSTGRES_USER": OWNER, "POSTGRES_PASSWORD": SECRET}
    head.query(f"ALTER DATABASE {head.settings.database} OWNER TO CURRENT_USER")
    head.query(f"DROP OWNED BY {OWNER}")
    head.query(f"DROP ROLE {OWNER}")


@pytest.fixture
def edited(tmp_path: Path) -> dict[str, str]:
    return edited_package(tmp_path / "edited")


def test_no_database_is_made_and_none_needs_to_be_allowed(head: Database, owner: dict[str, str]) -> None:
    head.query("COMMENT ON TABLE model_versions IS 'by hand'")
    before = everything(head)
    done = head.run("mlops-db", "check", **owner)
    assert "table public.model_versions: comment: expected " in done.stdout
    assert (done.returncode, done.stderr) == (1, "")
    assert everything(head) == before


def test_with_edited_revisions_a_role_that_may_not_create_databases_is_told_whom_to_ask(
    head: Database, owner: dict[str, str], edited: dict[str, str]
) -> None:
    done = head.run("mlops-db", "check", **owner, **edited)
    assert_failed(done, OWNER, "scratch database", "CREATEDB", "`mlops-db docs`")
    assert done.returncode == 1


def test_with_edited_revisions_a_scratch_database_is_used(
    drifted: Database, edited: dict[str, str], in_process: InProcess
) -> None:
    by_snapshot, by_scratch = in_process(drifted), drifted.run("mlops-db", "check", **edited)
    assert (by_scratch.returncode, by_scratch.stdout, by_scratch.stderr) == (1, by_snapshot.stdout, "")
    assert scratch_databases(drifted) == []


def test_a_role_that_may_not_read_the_revision_is_told_so(
    head: Database, owner: dict[str, str], in_process: InProcess
) -> None:
    head.query(f"REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM {OWNER}")
    assert_failed(in_process(head, **owner), "permission denied", "alembic_version")


def stopped_halfway(database: Database, edited: dict[str, str]) -> "subprocess.Popen[str]":
    """A check that is stopped while it fills its scratch database."""
    for _ in range(ATTEMPTS):
        process = subprocess.Popen(
            [SCRIPTS / "mlops-db", "check"],
            env=database.environment | edited,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: connected(database) or process.poll() is not None, "the scratch database")  # noqa: B023  (called at once)
        process.send_signal(signal.SIGSTOP)
        if connected(database):
            return process
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=TIMEOUT_S)  # it was quicker
    raise AssertionError(f"{ATTEMPTS} checks were too quick to be stopped")


def connected(database: Database) -> bool:
    # Autovacuum may come there, too.
    query = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(datname, %s) AND backend_type = 'client backend'"
    return bool(database.value(query, [SCRATCH_PREFIX]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_check_drops_its_scratch_database(
    head: Database, edited: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = stopped_halfway(head, edited)
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in err, err
    assert (process.returncode, out) == (code, "")
    assert scratch_databases(head) == []


def test_what_a_killed_check_leaves_goes_with_the_first_check_after_an_hour(
    head: Database, edited: dict[str, str]
) -> None:
    process = stopped_halfway(head, edited)
    process.kill()
    process.communicate(timeout=TIMEOUT_S)
    (left,) = scratch_databases(head)
    wait_until(lambda: not connected(head), "the end of its session")
    with scratch_database(head.settings):
        pass
    assert scratch_databases(head) == [left]

    begun = int(left.removeprefix(SCRATCH_PREFIX).partition("_")[0])
    assert abs(time.time() - begun) < TIMEOUT_S
    head.query(f"ALTER DATABASE {left} RENAME TO {left.replace(str(begun), str(begun - STALE_AFTER_S - 60))}")
    with scratch_database(head.settings):
        pass
    assert scratch_databases(head) == []
