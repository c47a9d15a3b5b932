"""The catalogue of metric series: whoever inserts metrics, in whatever way, registers their series."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from mlops_db.migration import commands
from support.database import Database
from support.sessions import another_session, wait_until

WRITER = "mlops_test_writer"
Series = tuple[str, str, str]
MOVES = pytest.mark.plain_postgresql(reason="Citus refuses UPDATE of model_name, which says in which shard a row is")

ONE = "INSERT INTO monitoring_metrics (metric_type, metric_name, model_name) VALUES ('drift', 'a', 'm')"
SEVERAL = """
    INSERT INTO monitoring_metrics (metric_type, metric_name, model_name, timestamp)
    VALUES ('drift', 'b', 'm', now()), ('drift', 'a', 'm', '1990-01-01'), ('drift', 'b', 'm', '2150-01-01'),
           ('drift', 'a', 'n', now() + interval '1 month'), ('coverage', 'a', 'm', now() - interval '1 month')
"""


def series(database: Database) -> list[Series]:
    return database.query("""
        SELECT model_name, metric_type, metric_name FROM mlops_internal.metric_series ORDER BY 1, 2, 3
    """)


def insert(*statements: str) -> Callable[[psycopg.Connection], None]:
    def write(connection: psycopg.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return write


def copy(connection: psycopg.Connection) -> None:
    columns = "(metric_type, metric_name, model_name, timestamp)"
    with connection.cursor().copy(f"COPY monitoring_metrics {columns} FROM STDIN") as rows:
        for number in range(500):
            rows.write_row(("drift", f"feature {number % 3}", "m", f"20{number % 100:02}-01-01"))


BY_COPY = [("m", "drift", f"feature {number}") for number in range(3)]
ONLY_A = [("m", "drift", "a")]
ALL = [("m", "coverage", "a"), ("m", "drift", "a"), ("m", "drift", "b"), ("n", "drift", "a")]
WAYS: dict[str, tuple[Callable[[psycopg.Connection], None], Sequence[Series]]] = {
    "INSERT": (insert(ONE), ONLY_A),
    "INSERT twice": (insert(ONE, ONE), ONLY_A),
    "INSERT of several rows": (insert(SEVERAL), ALL),
    "INSERT of a SELECT": (
        insert("""
            INSERT INTO monitoring_metrics (metric_type, metric_name)
            SELECT 'drift', 'f' || n % 2 FROM generate_series(1, 1000) AS n
        """),
        [("default", "drift", "f0"), ("default", "drift", "f1")],
    ),
    "INSERT ON CONFLICT": (
        insert(
            *(
                "INSERT INTO monitoring_metrics (id, metric_type, metric_name, model_name, timestamp)"
                f" VALUES (1, 'drift', '{name}', 'm', '2026-01-01') ON CONFLICT DO NOTHING"
                for name in "aab"
            )
        ),
        [("m", "drift", "a"), ("m", "drift", "b")],
    ),
    "INSERT of no row": (insert("INSERT INTO monitoring_metrics (metric_type) SELECT 'a' WHERE false"), []),
    "COPY": (copy, BY_COPY),
}


@pytest.fixture
def writer(head: Database) -> Iterator[Database]:
    """A database at head with a role that has INSERT on monitoring_metrics, what its ids take, and nothing else."""
    head.query(f"CREATE ROLE {WRITER} LOGIN")  # on Citus, nodes connect to each other as whoever writes
    head.query(f"GRANT INSERT ON monitoring_metrics TO {WRITER}")
    head.query(f"GRANT USAGE ON SEQUENCE monitoring_metrics_id_seq TO {WRITER}")
    try:
        yield head
    finally:
        head.query("RESET ROLE")
        head.query(f"DROP OWNED BY {WRITER}")
        head.query(f"DROP ROLE {WRITER}")


@pytest.mark.parametrize(("write", "expected"), WAYS.values(), ids=WAYS)
def test_every_way_to_insert_registers_the_series(
    head: Database, write: Callable[[psycopg.Connection], None], expected: Sequence[Series]
) -> None:
    write(head.connection)

    assert series(head) == expected
    assert head.value("SELECT count(*) FROM v_recent_monitoring") == len(expected)


@pytest.mark.parametrize("write", [insert(SEVERAL), copy], ids=["INSERT", "COPY"])
def test_who_may_only_insert_registers_them_too(writer: Database, write: Callable[[psycopg.Connection], None]) -> None:
    writer.query(f"SET ROLE {WRITER}")
    write(writer.connection)
    for statement in (
        "TABLE mlops_internal.metric_series",
        "SELECT mlops_internal.register_series('m', 'drift', 'a')",
        "SELECT mlops_internal.create_next_partition()",
        "SELECT count(*) FROM monitoring_metrics",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.query(statement)
    writer.query("RESET ROLE")

    assert series(writer) == (BY_COPY if write is copy else ALL)


def test_with_ids_of_its_own_insert_alone_is_enough(writer: Database) -> None:
    writer.query(f"REVOKE ALL ON SEQUENCE monitoring_metrics_id_seq FROM {WRITER}")
    writer.query(f"SET ROLE {WRITER}")
    writer.query("INSERT INTO monitoring_metrics (id, metric_type, metric_name) VALUES (1, 'drift', 'a')")
    writer.query("RESET ROLE")

    assert series(writer) == [("default", "drift", "a")]


def test_what_a_writer_has_in_its_own_schema_and_search_path_does_not_mislead_the_trigger(head: Database) -> None:
    head.query(ONE)
    head.query("""
        CREATE SCHEMA theirs;
        CREATE FUNCTION theirs.register_series(text, text, text) RETURNS void LANGUAGE sql AS 'SELECT 1 / 0';
        CREATE FUNCTION theirs.equal(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR theirs.= (LEFTARG = text, RIGHTARG = text, FUNCTION = theirs.equal);
        CREATE TEMPORARY TABLE new_rows (model_name text, metric_type text, metric_name text);
        CREATE TEMPORARY TABLE metric_series (model_name text, metric_type text, metric_name text);
        SET search_path = pg_temp, theirs, public, pg_catalog
    """)
    head.query(SEVERAL)
    head.query("SET search_path = public")

    assert series(head) == ALL


def test_a_series_that_is_rolled_back_is_none(head: Database) -> None:
    with head.connection.transaction(force_rollback=True):
        head.query(ONE)
        assert series(head) == ONLY_A

    assert series(head) == []


def test_what_is_expected_of_a_series_stays_when_rows_come(head: Database) -> None:
    head.query(ONE)
    head.query("UPDATE mlops_internal.metric_series SET expected_interval = '1 day', registered_at = '2020-01-01'")
    before = head.query("SELECT s::text, s.xmin FROM mlops_internal.metric_series AS s")

    head.query(ONE)
    head.query("SELECT mlops_internal.register_series('m', 'drift', 'a')")

    assert head.query("SELECT s::text, s.xmin FROM mlops_internal.metric_series AS s") == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("expected_interval", "'0'"),
        ("expected_interval", "'-1 day'"),
        *((column, f"'{value}'") for column in ("lower_threshold", "upper_threshold")
          for value in ("NaN", "Infinity", "-Infinity")),
        ("lower_threshold", "2"),
        pytest.param("model_name", "NULL", marks=MOVES),
        ("registered_at", "NULL"),
    ],
)  # fmt: skip
def test_expectations_that_nothing_can_meet_are_refused(head: Database, column: str, value: str) -> None:
    head.query("INSERT INTO mlops_internal.metric_series VALUES ('m', 'drift', 'a', '1 day', 1, 1)")
    violations = (psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)
    with pytest.raises(violations):
        head.query(f"UPDATE mlops_internal.metric_series SET {column} = {value}")


def test_two_writers_of_the_same_new_series_do_not_fail(head: Database) -> None:
    """In opposite orders: each statement registers in the same one."""
    forth = "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'a'), ('drift', 'b')"
    back = "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'b'), ('drift', 'a')"
    with another_session(head, "one", forth) as one, another_session(head, "other") as other:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(other.execute, back)
            wait_until(
                lambda: head.value(
                    "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted", [other.info.backend_pid]
                ),
                "the second writer to wait for the first one",
            )
            one.commit()
            writing.result()
        other.commit()

    assert series(head) == [("default", "drift", "a"), ("default", "drift", "b")]
    assert head.value("SELECT count(*) FROM monitoring_metrics") == 4


# The revisions


def test_metrics_that_were_there_before_are_registered_by_0021(empty: Database) -> None:
    commands.upgrade(empty.settings, "0014")
    empty.query("""
        INSERT INTO monitoring_metrics (metric_type, metric_name)
        VALUES ('drift', 'old'), ('drift', 'old'), ('drift', 'both')
    """)

    commands.upgrade(empty.settings, "0015")
    assert series(empty) == []
    empty.query("""
        INSERT INTO monitoring_metrics (metric_type, metric_name, model_name)
        VALUES ('drift', 'new', 'm'), ('drift', 'both', 'default')
    """)
    assert series(empty) == [("default", "drift", "both"), ("m", "drift", "new")]

    commands.upgrade(empty.settings, "0021")
    known = [("default", "drift", "both"), ("default", "drift", "old"), ("m", "drift", "new")]
    assert series(empty) == known

    commands.downgrade(empty.settings, "0020")
    assert series(empty) == known
    commands.upgrade(empty.settings, "0021")
    assert series(empty) == known


@MOVES
def test_rows_that_come_to_another_series_by_update_register_it(head: Database) -> None:
    head.query("INSERT INTO monitoring_metrics (metric_type, metric_name, metric_value) VALUES ('drift', 'psi', 0.1)")

    head.query("UPDATE monitoring_metrics SET model_name = 'churn'")

    assert head.query("SELECT model_name, health FROM v_recent_monitoring ORDER BY 1") == [
        ("churn", "ok"),
        ("default", "missing"),
    ]
