"""Code that was written for the specification's `db_manager.py` runs unchanged: its names, its SQL, psycopg2's ways."""

import copy
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from typing import Any

import psycopg2.extras
import pytest
from sqlalchemy import text

from mlops_db import DatabaseManager, get_db_manager
from mlops_db.errors import InvalidValueError
from support.database import Database

pytestmark = pytest.mark.libraries

# The specification's "Common Queries", letter for letter.
COMMON_QUERIES = (
    """
    SELECT * FROM model_versions 
    WHERE status = 'production' 
    ORDER BY promoted_at DESC;
    """,  # noqa: W291
    """
    SELECT * FROM v_decision_history 
    LIMIT 10;
    """,  # noqa: W291
    """
    SELECT * FROM v_recent_monitoring 
    LIMIT 20;
    """,  # noqa: W291
    """
    SELECT * FROM v_model_timeline 
    ORDER BY created_at DESC;
    """,  # noqa: W291
)
INSERT = "INSERT INTO model_versions (mlflow_run_id, model_version, status) VALUES (%s, %s, %s)"
AT = datetime(2026, 3, 29, 1, 30, tzinfo=timezone.utc)


@pytest.fixture
def shared(head: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseManager]:
    """`get_db_manager()`, as a job calls it: the environment says where the database is."""
    for name, value in head.environment.items():
        monkeypatch.setenv(name, value)
    with closing(get_db_manager()) as manager:
        yield manager


def count(head: Database) -> Any:
    return head.value("SELECT count(*) FROM model_versions")


# The specification's names


def test_both_names_work_with_the_environment_alone(shared: DatabaseManager, head: Database) -> None:
    assert get_db_manager() is shared
    assert get_db_manager().execute_query(INSERT, ("a", "1", "production")) == 1
    with DatabaseManager().get_connection() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT mlflow_run_id, model_version FROM model_versions WHERE status = %s", ("production",))
        assert cursor.fetchone() == ("a", "1")
        assert [column[0] for column in cursor.description or ()] == ["mlflow_run_id", "model_version"]
    assert count(head) == 1


@pytest.mark.parametrize("method", ["get_connection", "cursor", "connection", "session"])
def test_what_is_used_without_with_says_how_to_write_it(db: DatabaseManager, method: str) -> None:
    copy.copy(getattr(db, method)())  # asks for attributes before there are any
    with pytest.raises(AttributeError, match=rf"has no execute itself\. Write: with db\.{method}\(\) as \w+:"):
        getattr(db, method)().execute("SELECT 1")


def test_the_specification_s_queries_give_tuples_and_dicts_of_the_same_values(db: DatabaseManager) -> None:
    db.models.register("a", "1", f1_score=0.8, brier_score=0.1)
    db.models.promote("a", gates={"minimum_coverage": {"passed": True}}, reasoning="better")
    db.monitoring.log("drift", "psi", 0.1, timestamp=AT)
    db.monitoring.log("drift", "psi", 0.2)
    for query in COMMON_QUERIES:
        rows = db.execute_query(query)
        assert isinstance(rows, list)
        assert rows
        dicts = db.execute_query(query, as_dicts=True)
        for named, row in zip(dicts, rows, strict=True):
            assert next(iter(named)) == "id"
            # Each query has its own now, and age is counted from it.
            differing = {name for name, value in zip(named, row, strict=True) if named[name] != value}
            assert differing <= {"age"}


# What psycopg2's users do with a connection


def test_a_block_commits_by_itself_and_by_hand(db: DatabaseManager, head: Database) -> None:
    with db.get_connection() as connection, connection.cursor() as cursor:
        cursor.execute(INSERT, ("a", "1", "staging"))
    assert count(head) == 1
    with db.get_connection() as connection:
        cursor = connection.cursor()
        cursor.execute(INSERT, ("b", "2", "staging"))
        connection.commit()
        assert count(head) == 2
        cursor.execute(INSERT, ("c", "3", "staging"))
        connection.rollback()
        cursor.execute(INSERT, ("d", "4", "staging"))
        cursor.close()
    assert count(head) == 3


def test_a_block_that_raises_stores_nothing(db: DatabaseManager, head: Database) -> None:
    def job() -> None:
        with db.get_connection() as connection, connection, connection.cursor() as cursor:
            cursor.execute(INSERT, ("a", "1", "staging"))
            raise ValueError("the job failed")

    with pytest.raises(ValueError, match="the job failed"):
        job()
    assert count(head) == 0


def test_rows_of_psycopg2_s_own_cursors(db: DatabaseManager) -> None:
    db.execute_query(INSERT, ("a", "1", "staging"))
    query = "SELECT mlflow_run_id, model_version FROM model_versions"
    with db.get_connection() as connection:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as real:
            real.execute(query)
            row = real.fetchall()[0]
            assert (dict(row), json.dumps(row)) == (
                {"mlflow_run_id": "a", "model_version": "1"},
                '{"mlflow_run_id": "a", "model_version": "1"}',
            )
        with connection.cursor(cursor_factory=psycopg2.extras.DictCursor) as by_both:
            by_both.execute(query)
            both = by_both.fetchone()
            assert both is not None
            assert (both[0], both["model_version"]) == ("a", "1")
        with connection.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor) as named:
            named.execute(query)
            assert [found.model_version for found in named] == ["1"]
        connection.cursor_factory = psycopg2.extras.RealDictCursor
    assert db.execute_query(query) == [("a", "1")]


def test_batches_and_json_of_psycopg2(db: DatabaseManager) -> None:
    rows = [(datetime(2026, 3, day, tzinfo=timezone.utc), "drift", "psi", day / 10) for day in (1, 2, 3)]
    statement = "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value) VALUES %s"
    with db.get_connection() as connection, connection.cursor() as cursor:
        psycopg2.extras.execute_values(cursor, statement, rows)
        cursor.executemany(statement.replace("%s", "(%s, %s, %s, %s)"), rows)
        cursor.execute(
            "INSERT INTO retraining_decisions (action, candidate_mlflow_run_id, gate_results, reasoning)"
            " VALUES (%s, %s, %s, %s)",
            ("reject", "a", psycopg2.extras.Json({"minimum_coverage": {"passed": False}}), "no"),
        )
    written = "INSERT INTO retraining_decisions (action, gate_results) VALUES (%(action)s, %(gates)s)"
    assert db.execute_query(written, {"action": "pending", "gates": json.dumps({"x": True})}) == 1
    assert db.execute_query("SELECT gate_results FROM retraining_decisions ORDER BY id") == [
        ({"minimum_coverage": {"passed": False}},),
        ({"x": True},),
    ]
    assert db.execute_query("SELECT count(*) FROM v_recent_monitoring") == [(1,)]


def test_naive_moments_of_today_s_callers_are_utc(db: DatabaseManager) -> None:
    db.execute_query(
        "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value) VALUES (%s, %s, %s, %s)",
        (datetime(2026, 3, 29, 1, 30), "drift", "psi", 0.1),  # noqa: DTZ001  (what a caller of today passes)
    )
    assert db.execute_query("SELECT timestamp FROM monitoring_metrics") == [(AT,)]


# Names


def test_dicts_have_the_values_and_the_order_of_the_tuples(db: DatabaseManager) -> None:
    query = (
        "SELECT %s::int AS z, 'ü'::text AS \"Größe in %%\", NULL AS nothing, '{\"a\": [1]}'::jsonb AS details, %s AS at"
    )
    (row,) = db.execute_query(query, (1, AT), as_dicts=True)
    assert list(row.items()) == [("z", 1), ("Größe in %", "ü"), ("nothing", None), ("details", {"a": [1]}), ("at", AT)]
    assert row["at"].tzinfo is not None
    row["z"] = 2
    assert db.execute_query("SELECT 1 WHERE false", as_dicts=True) == []
    assert db.execute_query("SELECT 1", as_dicts=True) == [{"?column?": 1}]
    assert db.execute_query("SELECT", as_dicts=True) == [{}]
    assert db.execute_query("SHOW timezone", as_dicts=True) == [{"TimeZone": "UTC"}]


def test_dicts_of_changed_rows_need_returning(db: DatabaseManager, head: Database) -> None:
    returned = db.execute_query(INSERT + " RETURNING id, status", ("a", "1", "staging"), as_dicts=True)
    assert returned == [{"id": 1, "status": "staging"}]
    changed = db.execute_query(INSERT, ("b", "1", "staging"), as_dicts=True)
    assert changed == 1
    assert count(head) == 2


def test_columns_of_one_name_are_refused_and_nothing_is_stored(db: DatabaseManager, head: Database) -> None:
    with pytest.raises(InvalidValueError) as caught:
        db.execute_query(INSERT + " RETURNING id, id + 1 AS id, status, status", ("a", "1", "staging"), as_dicts=True)
    assert str(caught.value) == (
        'sql: several columns of its result are called "id", "status", and a dict holds only one of each; '
        "it was rolled back"
    )
    assert "AS version_id" in caught.value.hint
    assert count(head) == 0
    with pytest.raises(InvalidValueError, match=r'called "\?column\?"'):
        db.execute_query("SELECT 1, 2 WHERE false", as_dicts=True)  # whether there are rows or not
    assert db.execute_query("SELECT 1, 2") == [(1, 2)]


def test_a_parameter_that_cannot_be_sent_is_refused_in_the_same_way(db: DatabaseManager) -> None:
    with pytest.raises(InvalidValueError, match="params: is 'a'"):
        db.execute_query("SELECT %s", "a", as_dicts=True)


def test_a_cursor_factory_of_another_block_changes_no_dict(db: DatabaseManager) -> None:
    with db.connection() as connection:
        raw: Any = connection.connection.driver_connection
        raw.cursor_factory = psycopg2.extras.DictCursor
        assert connection.execute(text("SELECT 1 AS one")).scalar_one() == 1
    assert db.execute_query("SELECT 1 AS one", as_dicts=True) == [{"one": 1}]
