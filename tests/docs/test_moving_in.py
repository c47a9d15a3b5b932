"""docs/moving-in.md, letter for letter, by an owner that is no superuser: its commands, SQL, Python and files."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlops_db import DatabaseManager
from mlops_db.settings import Settings
from support.cluster import chosen_programs, connect_superuser, throwaway_cluster
from support.database import ROOT, SCRIPTS, clean_environment, client
from support.examples import PLAIN, example
from support.handmade import SPECIFICATION

PAGE = (ROOT / "docs" / "moving-in.md").read_text(encoding="utf-8")

# What each row is about is in its last column, or in a comment.
OLD_ROWS = r"""
INSERT INTO model_versions (id, run_id, model, version, stage, f1, brier, created, promoted) VALUES
    (1, NULL, 'churn', 1, 'ARCHIVED', '0.71', 0.2, '2023-01-10 09:00', '2023-01-11 09:00'),
    (2, 'run-2', 'churn', 2, 'PRODUCTION', ' 7.5e-1', 0.15, '2023-05-10 09:00', '2023-05-11 09:00'),
    (3, 'run-3', 'churn ', 3, ' Production', '1', 0, '2024-05-10 09:00', '2024-05-11 09:00'),
    (4, 'run-3', 'churn', 3, 'Staging', '0.5', 0.5, '2024-06-09 09:00', NULL),  -- newer, but not in production
    (5, 'run-5', 'churn', 4, 'shadow', '0.8', 0.1, '2024-06-01', NULL),
    (6, '', 'fraud', 1, 'PRODUCTION', 'n/a', 'NaN', NULL, '2025-10-26 02:30'),
    (7, 'run-7', 'fraud', 2, 'staging', '81 %', 12, '2025-03-30 02:30', NULL),
    (8, 'run-8', NULL, NULL, 'candidate', '', NULL, 'infinity', NULL),
    (9, repeat('x', 256), 'fraud', 3, 'staging', NULL, NULL, '2025-01-01', NULL),
    (10, 'run-10', NULL, NULL, 'retired', '0.1', NULL, '2025-07-01 00:00', '1970-01-01'),
    (11, 'run-11', NULL, NULL, 'Retired', '.25', NULL, '2025-07-01 00:00', NULL),
    (12, 'run-11', NULL, NULL, 'shadow', '.25', NULL, '2025-08-01 00:00', NULL);
INSERT INTO monitoring_runs (id, model, run_at, psi_age, psi_income, coverage, mae, error, details) VALUES
    (1, 'churn', '2023-02-01 00:30', 0.1, 0.30000000000000004, '0.93', NULL, NULL, '{"rows": 100}'),
    (2, 'churn', '2024-07-01 00:30', 0, 'NaN', '93 %', 1e-300, NULL, '[1]'),
    (3, 'churn', '2024-07-02 00:30', NULL, NULL, ' ', NULL, 'no rows', NULL),
    (4, 'churn', '2024-07-03 00:30', 0.1, 0.4, '', NULL, NULL, 'null'),  -- tried again as 5, with one value less
    (5, 'churn', '2024-07-03 00:30', 0.2, NULL, '0,9', '-Infinity', NULL, '{"error": "own", "legacy_id": 0}'),
    (6, 'churn', '2025-10-26 02:30', 0.5, NULL, NULL, NULL, NULL, NULL),
    (7, 'churn', '2025-10-26 02:30', 0.6, NULL, NULL, NULL, NULL, NULL),
    (8, 'fraud', '2025-10-26 02:30', 0.7, NULL, NULL, NULL, NULL, NULL),
    (9, 'churn', NULL, 0.6, NULL, NULL, NULL, NULL, NULL),
    (10, 'churn', '2106-02-07 06:28:15', 0.6, NULL, NULL, NULL, NULL, NULL),
    (11, NULL, '2012-03-25 02:30', 0.6, NULL, NULL, NULL, NULL, NULL),  -- skipped; older than ten years
    (12, repeat('m', 256), '2024-01-01', 0.6, NULL, NULL, NULL, NULL, NULL);
INSERT INTO retraining_decisions (id, version_id, decided, action, gates, reason, decided_by) VALUES
    (1, 1, '2023-01-11 09:00', 'deploy', '{"minimum_coverage": true}', 'first', NULL),
    (2, 2, '2023-05-11 09:00', 'deploy', 'null', 'better', 'ada'),
    (3, 2, '2023-05-11 09:00', 'Deploy', NULL, 'better', 'ada'),  -- tried again
    (4, 3, '2024-05-11 09:00', 'DEPLOY', '[{"gate": "minimum_coverage", "passed": true}]', '', NULL),
    (5, 4, '2024-05-12 09:00', 'reject', '{"a": "\u0000"}', NULL, NULL),
    (6, 5, '2024-06-12 09:00', 'shadow', NULL, NULL, NULL),
    (7, 99, '2024-07-12 09:00', 'hold', '"text"', 'gone', NULL),
    (8, NULL, NULL, 'hold', NULL, NULL, NULL),
    (9, NULL, '2025-10-26 02:30', 'reject', '{}', NULL, NULL),
    (10, NULL, '2025-10-26 02:30', 'reject', '{}', 'of another candidate', NULL),
    (11, 9, '2025-02-01', 'reject', NULL, NULL, NULL);
"""
# How a database may have been set up for old programs.
HOSTILE_SETTINGS = (
    "standard_conforming_strings = off",
    "DateStyle = 'SQL, DMY'",
    "extra_float_digits = 0",
    "IntervalStyle = sql_standard",
    "timezone = 'America/New_York'",
)
TWICE = "the clock showed 2025-10-26 02:30:00 twice: taken as the {} time"


@dataclass(frozen=True)
class Place:
    """A database of the server, and a folder in which somebody follows the page."""

    server: Path
    database: str
    folder: Path

    @property
    def settings(self) -> Settings:
        return Settings(host=str(self.server), port=5432, user="airflow", password=None, database=self.database)

    def run(self, commands: str, *, fails: bool = False) -> str:
        """Run a script of the shell; returns its output, with the errors."""
        environment = clean_environment(
            PGHOST=str(self.server), PGUSER="airflow", PGDATABASE=self.database,
            POSTGRES_HOST=str(self.server), POSTGRES_USER="airflow", POSTGRES_PASSWORD="", MLOPS_DB_NAME=self.database,
        )  # fmt: skip
        environment["PATH"] = f"{SCRIPTS}:{Path(client('psql')).parent}:{environment['PATH']}"
        done = subprocess.run(
            ["/bin/bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def psql(self, script: str, *, fails: bool = False) -> str:
        """Run SQL in psql as the page does: in one transaction, to the first error."""
        (self.folder / "script.sql").write_text(script, encoding="utf-8")
        return self.run("psql -X -q -1 --set=ON_ERROR_STOP=1 --file=script.sql", fails=fails)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(
            host=str(self.server), user="airflow", dbname=self.database, options="-c timezone=UTC"
        ) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.description is None else cursor.fetchall()

    def old_tables(self, rows: str = OLD_ROWS) -> None:
        """The page's old tables with rows, put aside, beside the new ones."""
        self.run("createdb")
        self.psql(block("sql shape") + rows)
        self.psql(block("sql aside"))
        self.run(block("bash init"))

    def plan(self) -> None:
        (self.folder / "plan.sql").write_text(block("sql plan"), encoding="utf-8")
        self.run(block("bash plan"))

    def move(self) -> None:
        (self.folder / "move.sql").write_text(block("sql move"), encoding="utf-8")
        self.run(block("bash move"))


def block(name: str) -> str:
    found = re.search(rf"^```{name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def counted(output: str) -> list[tuple[str, ...]]:
    """Old, moved, left behind and missing: of versions, metrics and decisions."""
    return re.findall(r"^ \w+ +\| +(\d+) \| +(\d+) \| +(\d+) \| +(-?\d+)$", output, re.MULTILINE)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A server of its own, where databases can have the page's names; the owner is the role airflow."""
    with throwaway_cluster(chosen_programs(request.config)) as socket:
        with connect_superuser(socket) as connection:
            connection.execute("CREATE ROLE airflow LOGIN CREATEDB")
        yield socket


@pytest.fixture
def place(server: Path, tmp_path: Path) -> Place:
    """A database that does not exist yet, named after the test."""
    return Place(server, tmp_path.name, tmp_path)


# Older or wider shapes


def test_each_old_row_ends_where_the_page_says(place: Place) -> None:
    place.old_tables()
    place.plan()
    look = place.psql(block("sql look"))
    for line in ("| moves | archived: a later version is in production ", "| stays | no such stage here: shadow "):
        assert line in look
    place.psql(block("sql first"))
    place.run(block("bash first"))
    place.move()
    place.psql(block("sql reconcile"))
    counts = place.psql(block("sql counts"))
    assert counted(counts) == [("12", "6", "6", "0"), ("48", "19", "29", "0"), ("11", "6", "5", "0")]
    # 5.4 of the page: one line is corrected by hand, and moves when the rows are moved again
    place.psql(block("sql correct"))
    place.move()

    assert place.query("""
        SELECT p.legacy_id, n.mlflow_run_id, n.model_name, n.model_version, n.status, n.f1_score, n.brier_score,
               n.created_at::text, n.promoted_at::text, p.note
          FROM model_versions AS n JOIN legacy.version_plan AS p USING (id) ORDER BY p.legacy_id
    """) == [
        (1, "legacy-1", "churn", "1", "archived", 0.71, 0.2, "2023-01-10 08:00:00+00", "2023-01-11 08:00:00+00", None),
        (2, "run-2", "churn", "2", "archived", 0.75, 0.15, "2023-05-10 07:00:00+00", "2023-05-11 07:00:00+00",
         "archived: a later version is in production"),
        (3, "run-3", "churn", "3", "production", 1, 0, "2024-05-10 07:00:00+00", "2024-05-11 07:00:00+00", None),
        (5, "run-5", "churn", "4", "archived", 0.8, 0.1, "2024-05-31 22:00:00+00", None, None),
        (6, "legacy-6", "fraud", "1", "production", None, None, "2025-10-26 01:30:00+00", "2025-10-26 01:30:00+00",
         f"f1 left out: n/a; brier left out: NaN; created: taken from promoted; {TWICE.format('second')}"),
        (7, "run-7", "fraud", "2", "staging", None, None, "2025-03-30 01:30:00+00", None,
         "f1 left out: 81 %; brier left out: 12; the clock skipped 2025-03-30 02:30:00: taken as an hour later"),
        (11, "run-11", "default", "unknown", "archived", 0.25, None, "2025-06-30 22:00:00+00", None, None),
    ]  # fmt: skip
    assert place.query("""
        SELECT p.legacy_id, n.decision_timestamp::text, n.action, n.candidate_mlflow_run_id, n.model_name,
               n.gate_results, n.reasoning, n.decided_by, p.note
          FROM retraining_decisions AS n JOIN legacy.decision_plan AS p USING (id) ORDER BY p.legacy_id
    """) == [
        (1, "2023-01-11 08:00:00+00", "promote", "legacy-1", "churn", {"minimum_coverage": True}, "first", None,
         "action was deploy"),
        (3, "2023-05-11 07:00:00+00", "promote", "run-2", "churn", None, "better", "ada", "action was Deploy"),
        (4, "2024-05-11 07:00:00+00", "promote", "run-3", "churn",
         {"legacy": [{"gate": "minimum_coverage", "passed": True}]}, "", None, "action was DEPLOY"),
        (7, "2024-07-12 07:00:00+00", "pending", "legacy-99", "default", {"legacy": "text"}, "gone", None,
         "action was hold; its version is not in model_versions"),
        (9, "2025-10-26 01:30:00+00", "reject", None, "default", {}, None, None, TWICE.format("second")),
        (10, "2025-10-26 01:30:00+00", "reject", None, "default", {}, "of another candidate", None,
         TWICE.format("second")),
    ]  # fmt: skip
    moment, own = "2024-07-01 22:30:00+00", {"error": "own", "legacy_id": 0}
    age, income, coverage, mae = "psi.age", "psi.income", "coverage_rate", "mae"
    assert place.query("""
        SELECT p.legacy_id, n.metric_name, n.model_name, n.timestamp::text, n.metric_value, n.metadata - 'legacy_id'
          FROM monitoring_metrics AS n JOIN legacy.metric_plan AS p USING (id)
         WHERE n.metadata -> 'legacy_id' = to_jsonb(p.legacy_id) ORDER BY p.legacy_id, n.metric_type, n.metric_name
    """) == [
        (1, coverage, "churn", "2023-01-31 23:30:00+00", 0.93, {"rows": 100}),
        (1, age, "churn", "2023-01-31 23:30:00+00", 0.1, {"rows": 100}),
        (1, income, "churn", "2023-01-31 23:30:00+00", 0.1 + 0.2, {"rows": 100}),
        (2, coverage, "churn", "2024-06-30 22:30:00+00", None, {"details": [1], "error": "no number: 93 %"}),
        (2, age, "churn", "2024-06-30 22:30:00+00", 0, {"details": [1]}),
        (2, income, "churn", "2024-06-30 22:30:00+00", None, {"details": [1], "error": "no number: NaN"}),
        (2, mae, "churn", "2024-06-30 22:30:00+00", 1e-300, {"details": [1]}),
        *((3, name, "churn", moment, None, {"error": "no rows"}) for name in (coverage, age, income, mae)),
        (4, income, "churn", "2024-07-02 22:30:00+00", 0.4, {}),
        (5, coverage, "churn", "2024-07-02 22:30:00+00", None, {"details": own, "error": "no number: 0,9"}),
        (5, age, "churn", "2024-07-02 22:30:00+00", 0.2, {"details": own}),
        (5, mae, "churn", "2024-07-02 22:30:00+00", None, {"details": own, "error": "no number: -Infinity"}),
        (6, age, "churn", "2025-10-26 00:30:00+00", 0.5, {}),
        (7, age, "churn", "2025-10-26 01:30:00+00", 0.6, {}),
        (8, age, "fraud", "2025-10-26 01:30:00+00", 0.7, {}),
        (11, age, "default", "2012-03-25 01:30:00+00", 0.6, {}),
    ]  # fmt: skip
    assert place.query("""
        SELECT what, legacy_id, metric_name, why FROM legacy.left_behind
         WHERE why <> 'NULL: not measured' AND (metric_name IS NULL OR metric_name = 'psi.age') ORDER BY 1, 2
    """) == [
        ("model_versions", 4, None, "its run is that of row 3"),
        ("model_versions", 8, None, "created: a moment in the future"),
        ("model_versions", 9, None, "run_id is longer than 255 characters"),
        ("model_versions", 10, None, "promoted: a moment before 2000"),
        ("model_versions", 12, None, "no such stage here: shadow"),
        ("monitoring_metrics", 4, age, "run 5 has the same moment"),
        ("monitoring_metrics", 9, age, "run_at: no moment"),
        ("monitoring_metrics", 10, age, "run_at: a moment in the future"),
        ("monitoring_metrics", 12, age, "model is longer than 255 characters"),
        ("retraining_decisions", 2, None, "decision 3 is the same"),
        ("retraining_decisions", 5, None, r"gates: \u0000 cannot be stored in jsonb"),
        ("retraining_decisions", 6, None, "no such action here: shadow"),
        ("retraining_decisions", 8, None, "decided: no moment"),
        ("retraining_decisions", 11, None, "run_id is longer than 255 characters"),
    ]
    # Each value has its month already, but for one that is older than ten years; every series is registered.
    checked = place.run(block("bash check"))
    assert "nothing to do" in checked
    assert ": no difference\n" in checked
    assert place.query("SELECT count(*) FROM v_recent_monitoring") == [(6,)]
    place.psql(block("sql drop"))
    assert place.query("SELECT to_regnamespace('legacy')") == [(None,)]


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_jobs_write_while_rows_are_moved(place: Place) -> None:
    place.old_tables()
    moment = "2024-07-01 22:30:00+00"
    with DatabaseManager(place.settings) as db:
        db.models.register("run-7", "2", model_name="fraud")  # as old row 7
        db.models.register("new", "9", model_name="churn")
        db.models.promote("new", reasoning="before the plan")
        place.plan()
        place.psql(block("sql first"))
        db.models.register("newer", "9", model_name="fraud")
        db.models.promote("newer", reasoning="after the plan")
        place.move()
        before = place.query("SELECT (SELECT count(*) FROM monitoring_metrics), (SELECT max(id) FROM model_versions)")
        place.move()  # once more changes nothing
        after = place.query("SELECT (SELECT count(*) FROM monitoring_metrics), (SELECT max(id) FROM model_versions)")
        assert before == after

        place.psql(block("sql reconcile"))
        left = dict(place.query("SELECT legacy_id, why FROM legacy.left_behind WHERE what = 'model_versions'"))
        assert (left[7], left[6]) == ("its run is registered already", "a new row came first")
        place.psql("UPDATE legacy.version_plan SET status = 'archived' WHERE legacy_id = 6")
        place.move()
        assert place.query("SELECT status FROM model_versions WHERE mlflow_run_id = 'legacy-6'") == [("archived",)]
        assert {
            row[0] for row in place.query("SELECT mlflow_run_id FROM model_versions WHERE status = 'production'")
        } == {
            "new",
            "newer",
        }

        # Jobs go on: no id collides, and what was moved can be promoted.
        db.monitoring.log("drift", "psi.age", 0.3, model_name="churn")
        db.models.promote("run-3", reasoning="back to the old one")
        production = db.models.production("churn")
        assert production is not None
        assert production.mlflow_run_id == "run-3"
        assert db.models.rollback("churn", of="run-3", reasoning="worse").mlflow_run_id == "new"
        assert db.models.rollback("churn", of="new", reasoning="worse").mlflow_run_id == "run-2"  # a moved decision
        written = db.monitoring.history("drift", "psi.age", model_name="churn")
        assert len(list(written)) == 7
    # The old tables can get rows, too, by a job that nobody stopped.
    place.query(f"INSERT INTO legacy.monitoring_runs (id, run_at, mae) VALUES (99, '{moment}', 1)")
    assert place.query("SELECT why FROM legacy.left_behind WHERE legacy_id = 99") == [("written after the plan",)]


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_the_plan_can_take_all_columns_and_old_tables_that_are_used_are_not_dropped(place: Place) -> None:
    place.old_tables()
    for setting in HOSTILE_SETTINGS:
        place.query(f"ALTER DATABASE {place.database} SET {setting}")
    place.plan()
    assert "already exists" in place.psql(block("sql plan"), fails=True)
    place.psql(block("sql again"))
    listed = re.compile(r"^ +CROSS JOIN LATERAL \(VALUES.*?AS c \(metric_type.*?\n", re.MULTILINE | re.DOTALL)
    all_columns, replaced = listed.subn(lambda _: block("sql many"), block("sql plan"))
    assert replaced == 1
    place.psql(all_columns)
    assert place.query("SELECT DISTINCT metric_name FROM legacy.metric_plan ORDER BY 1") == [
        ("coverage",),
        ("mae",),
        ("psi_age",),
        ("psi_income",),
    ]
    exact = "SELECT metric_value = 0.1::float8 + 0.2::float8 FROM legacy.metric_plan"
    assert place.query(f"{exact} WHERE legacy_id = 1 AND metric_name = 'psi_income'") == [(True,)]
    place.move()
    place.psql(block("sql reconcile"))
    assert ("48", "19", "29", "0") in counted(place.psql(block("sql counts")))
    place.query("CREATE VIEW public.theirs AS SELECT * FROM legacy.monitoring_runs")
    assert "view theirs depends on table legacy.monitoring_runs" in place.psql(block("sql drop"), fails=True)
    assert place.query("SELECT count(*) FROM theirs") == [(12,)]
    assert place.run("mlops-db check || true").splitlines()[0].startswith("theirs: view public.theirs")


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_what_is_in_the_way_of_the_new_tables_is_named(place: Place) -> None:
    Place(place.server, "old", place.folder).run("createdb")
    Place(place.server, "old", place.folder).psql(block("sql shape"))
    place.run(block("bash another"))
    assert "but no revision in alembic_version: it was made by hand" in place.run(block("bash init"), fails=True)
    assert 'docs/moving-in.md, "Older or wider shapes"' in place.run("mlops-db adopt --dry-run", fails=True)
    place.psql(block("sql aside"))
    place.psql("CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('abc123def456')")
    assert "is at revision 'abc123def456', which this checkout does not have" in place.run(
        block("bash init"), fails=True
    )
    place.psql("ALTER TABLE public.alembic_version SET SCHEMA legacy")
    place.run(block("bash init"))
    # The limits are named by the constraints of the page's table.
    failed = place.psql(
        "INSERT INTO model_versions (mlflow_run_id, model_version, f1_score) VALUES ('a', '1', 81)", fails=True
    )
    assert 'violates check constraint "model_versions_f1_score_check"' in failed


# The other ways


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_files_come_in_by_python_and_by_psql(place: Place) -> None:
    place.run(block("bash init"))
    for name in ("scores", "runs"):
        (place.folder / f"{name}.csv").write_text(block(f"csv {name}"), encoding="utf-8")
    (place.folder / "program.py").write_text(example("docs/moving-in.md", PLAIN), encoding="utf-8")
    output = place.run(f"{sys.executable} program.py")
    assert output.startswith("3 stored, 2 left out\n1 metric_value 'n/a' is not a number")
    scores = """
        SELECT timestamp::text, metric_value FROM monitoring_metrics WHERE metric_name = 'auc' ORDER BY timestamp, id
    """
    by_python = place.query(scores)
    assert by_python == [
        ("2025-03-01 11:00:00+00", 0.93),
        ("2025-03-03 11:00:00+00", None),
        ("2025-03-05 11:00:00+00", 0.91),
    ]
    assert place.query("""
        SELECT metric_name, timestamp::text, metric_value FROM monitoring_metrics
         WHERE metric_type = 'drift' ORDER BY 1, 2
    """) == [
        ("psi_age", "2025-03-01 11:00:00+00", 0.1),
        ("psi_age", "2025-10-26 01:30:00+00", 0.2),
        ("psi_income", "2025-03-01 11:00:00+00", 0.2),
        ("psi_income", "2025-03-02 11:00:00+00", 0.3),
        ("psi_income", "2025-10-26 01:30:00+00", 0.1),
    ]

    place.query("TRUNCATE monitoring_metrics")
    left = place.psql(block("sql csv"))
    assert place.query(scores) == [row for row in by_python if row[1] is not None]
    assert re.findall(r"^ +(\d) \|.*\| (.*)$", left, re.MULTILINE) == [("2", "n/a"), ("3", ""), ("4", "NaN")]


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_a_database_made_by_hand_is_adopted(place: Place) -> None:
    place.run("createdb")
    place.psql(
        SPECIFICATION
        + "INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('a', '1', 'staging');"
    )
    assert "Nothing was changed (--dry-run)." in place.run(block("bash adopt"))
    assert place.query("SELECT mlflow_run_id, model_name FROM model_versions") == [("a", "default")]


@pytest.mark.slow
@pytest.mark.one_postgresql
def test_tables_in_another_tool_s_database_come_over(place: Place) -> None:
    shared = Place(place.server, "airflow", place.folder)
    shared.run("createdb")
    shared.psql("CREATE TABLE dag (); CREATE TABLE dag_run (); CREATE TABLE task_instance ();" + SPECIFICATION)
    shared.psql("INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES ('a', '1', 'staging')")
    assert "is Airflow's own database" in shared.run("mlops-db adopt --dry-run", fails=True)
    shared.run(block("bash shared"))
    mlops = Place(place.server, "mlops", place.folder)
    assert mlops.query("SELECT mlflow_run_id FROM model_versions") == [("a",)]
    assert mlops.run("mlops-db check").endswith(": no difference\n")
    with DatabaseManager(mlops.settings) as db:
        assert db.models.register("b", "2").id == 2
