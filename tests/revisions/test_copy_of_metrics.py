"""While revisions 0016 to 0019 copy monitoring_metrics: who writes, what stops the swap, and that its hint helps."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from mlops_db.errors import RefusedError
from mlops_db.migration import commands
from support import roles
from support.database import Database, revision_of
from support.metric_writers import rows_of
from support.projects import Checkout
from support.sessions import another_session, wait_until
from support.stopped import contents

pytestmark = pytest.mark.slow  # their revisions are frozen, and test_round_trip.py runs each of them

UP, DOWN = ("0016", "0017", "0018"), ("0018", "0017", "0016")
HALFWAY = [*(("up", revision) for revision in UP), *(("down", revision) for revision in DOWN)]
every_step = pytest.mark.parametrize(
    ("way", "revision"), [pytest.param(way, number, id=f"{way} {number}") for way, number in HALFWAY]
)
both_ways = pytest.mark.parametrize("way", ["up", "down"])
LAST = {"up": "0018", "down": "0016"}
MONTH = "mlops_internal.monitoring_metrics_2026_05"
ROWS = """
INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)
SELECT timestamp '2026-05-20 00:00' - n * interval '1 day', 'drift', 'n' || n % 3, n FROM generate_series(1, 50) AS n
"""


@pytest.fixture
def plain(empty: Database) -> Database:
    """A database at 0015 with rows of three months."""
    commands.upgrade(empty.settings, "0015")
    empty.query(ROWS)
    return empty


def begin(database: Database, way: str, revision: str | None = None) -> None:
    """Go to a revision on the way up or down; by default to the last one before the swap."""
    if way == "down":
        commands.upgrade(database.settings, "0019")
        commands.downgrade(database.settings, revision or LAST[way])
    else:
        commands.upgrade(database.settings, revision or LAST[way])


def end(database: Database, way: str) -> None:
    if way == "down":
        commands.downgrade(database.settings, "0015")
    else:
        commands.upgrade(database.settings, "0019")


def cancel(database: Database, way: str) -> None:
    """Do what the hint of the swap says."""
    if way == "down":
        commands.upgrade(database.settings, "0019")
        commands.downgrade(database.settings, "0015")
    else:
        commands.downgrade(database.settings, "0015")
        commands.upgrade(database.settings, "head")


def assert_refused(database: Database, way: str, message: str) -> None:
    """The swap refuses and changes nothing; what its hint says helps."""
    before = contents(database)
    expected = rows_of(database)

    with pytest.raises(RefusedError, match=message) as refused:
        end(database, way)

    assert "nothing was changed" in str(refused.value)
    assert (
        refused.value.hint
        == {
            "up": "Begin anew: alembic downgrade 0015, then alembic upgrade head.",
            "down": "Begin anew: alembic upgrade 0019, then the downgrade again.",
        }[way]
    )
    assert (revision_of(database), contents(database)) == (LAST[way], before)
    cancel(database, way)
    assert rows_of(database) == expected


# Who writes meanwhile


@every_step
def test_a_role_that_may_only_write_goes_on_writing(plain: Database, way: str, revision: str) -> None:
    with roles.role(plain, "jobs") as jobs:
        plain.query("""
            GRANT SELECT, INSERT, UPDATE, DELETE ON monitoring_metrics TO jobs;
            GRANT USAGE ON SEQUENCE monitoring_metrics_id_seq TO jobs;
            REVOKE ALL ON SCHEMA mlops_internal FROM PUBLIC
        """)
        begin(plain, way, revision)

        roles.run_as(
            jobs,
            "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'new')",
            "UPDATE monitoring_metrics SET metric_value = -1 WHERE id <= 10",
            "UPDATE monitoring_metrics SET timestamp = timestamp - interval '40 days', id = -id WHERE id IN (11, 12)",
            "DELETE FROM monitoring_metrics WHERE id IN (20, 21)",
            "SELECT * FROM monitoring_metrics",
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.run_as(jobs, "DELETE FROM mlops_internal.monitoring_metrics_changes")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.run_as(jobs, "TRUNCATE monitoring_metrics")
        expected = rows_of(plain)
        assert len(expected) == 49
        end(plain, way)

        assert rows_of(plain) == expected
        roles.run_as(jobs, "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'after')")


@both_ways
def test_an_owner_that_is_no_superuser_and_may_create_no_temporary_table_swaps_the_tables(
    plain: Database, way: str
) -> None:
    with roles.owner(plain) as owned:
        for name in ("monitoring_metrics", "model_versions", "retraining_decisions", "alembic_version"):
            plain.query(f"ALTER TABLE {name} OWNER TO {owned.settings.user}")
        for name in ("v_recent_monitoring", "v_model_timeline", "v_decision_history"):
            plain.query(f"ALTER VIEW {name} OWNER TO {owned.settings.user}")
        plain.query(f"ALTER SCHEMA mlops_internal OWNER TO {owned.settings.user}")
        tables = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = to_regnamespace(%s)"
        for (name,) in plain.query(tables, ["mlops_internal"]):
            plain.query(f"ALTER TABLE {name} OWNER TO {owned.settings.user}")
        functions = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = to_regnamespace(%s)"
        for (name,) in plain.query(functions, ["mlops_internal"]):
            plain.query(f"ALTER FUNCTION {name} OWNER TO {owned.settings.user}")
        begin(owned, way)
        plain.query(f"REVOKE TEMPORARY ON DATABASE {plain.settings.database} FROM PUBLIC, {owned.settings.user}")
        roles.run_as(owned.settings, "UPDATE monitoring_metrics SET metric_value = 0.5 WHERE id < 9")
        expected = rows_of(plain)

        end(owned, way)

        assert rows_of(plain) == expected
        owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 'monitoring_metrics%'"
        assert plain.query(owners) == [(owned.settings.user,)]


@both_ways
def test_the_owner_role_owns_the_copy_and_its_functions(empty: Database, way: str) -> None:
    with roles.owner(empty, "mlops_test_owner") as owned, roles.role(empty, "deployer") as deployer:
        empty.query("GRANT mlops_test_owner TO deployer")
        database = replace(empty, settings=replace(deployer, owner_role=owned.settings.user))
        commands.upgrade(database.settings, "0015")
        empty.query(ROWS)
        begin(database, way)
        owners = """
            SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 'monitoring_metrics%'
             UNION SELECT proowner::regrole::text FROM pg_proc WHERE proname LIKE '%metric%'
        """
        assert empty.query(owners) == [("mlops_test_owner",)]

        end(database, way)

        assert empty.value("SELECT count(*) FROM monitoring_metrics") == 50


@both_ways
def test_functions_of_the_copy_are_for_their_owner_alone(plain: Database, way: str) -> None:
    begin(plain, way)
    with roles.role(plain, "guest") as guest, roles.session(guest) as session:
        plain.query("GRANT USAGE ON SCHEMA mlops_internal TO guest; CREATE SCHEMA AUTHORIZATION guest")
        session.execute("CREATE TABLE guest.mine (id int)")
        for statement in (
            "SELECT mlops_internal.replay_metric_changes()",
            "CREATE TRIGGER t AFTER INSERT ON guest.mine EXECUTE FUNCTION mlops_internal.log_metric_changes()",
            "CREATE TRIGGER t AFTER TRUNCATE ON guest.mine EXECUTE FUNCTION mlops_internal.log_metric_truncate()",
            "INSERT INTO mlops_internal.monitoring_metrics_changes SELECT",
            "SELECT * FROM mlops_internal.metrics_for_months",
            "SELECT * FROM mlops_internal.monitoring_metrics_copy",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)


@both_ways
def test_rows_of_a_replica_s_session_arrive(plain: Database, way: str) -> None:
    """Ordinary triggers do not see what logical replication applies."""
    begin(plain, way)
    with another_session(plain, "apply", "SET session_replication_role = replica") as apply:
        apply.execute("INSERT INTO monitoring_metrics (id, metric_type, metric_name) VALUES (1000, 'drift', 'applied')")
        apply.execute("UPDATE monitoring_metrics SET metric_value = 7 WHERE id < 5")
        apply.execute("DELETE FROM monitoring_metrics WHERE id = 9")
        apply.commit()
    expected = rows_of(plain)

    end(plain, way)

    assert rows_of(plain) == expected
    assert 1000 in expected


@both_ways
def test_truncate_arrives_with_the_rows_after_it(plain: Database, way: str) -> None:
    begin(plain, way)
    with plain.connection.transaction():
        plain.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'goes')")
        plain.query("TRUNCATE monitoring_metrics RESTART IDENTITY")
        plain.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'stays')")
    expected = rows_of(plain)

    end(plain, way)

    assert rows_of(plain) == expected
    assert list(expected) == [1]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@both_ways
def test_truncate_at_a_higher_isolation_level_is_refused(plain: Database, way: str, level: str) -> None:
    """Its snapshot may be older than rows that go."""
    begin(plain, way)
    expected = rows_of(plain)
    plain.query(f"BEGIN ISOLATION LEVEL {level}")
    with pytest.raises(
        psycopg.errors.ObjectInUse, match="is being copied, and TRUNCATE at this isolation level"
    ) as error:
        plain.query("TRUNCATE monitoring_metrics")
    assert "READ COMMITTED" in str(error.value.diag.message_hint)
    plain.query("ROLLBACK")

    end(plain, way)

    assert rows_of(plain) == expected
    plain.query(f"BEGIN ISOLATION LEVEL {level}; TRUNCATE monitoring_metrics; COMMIT")


def test_writes_into_a_month_arrive_on_the_way_down(plain: Database) -> None:
    begin(plain, "down")
    plain.query(f"""
        INSERT INTO {MONTH} (timestamp, metric_type, metric_name) VALUES ('2026-05-02', 'drift', 'direct');
        UPDATE {MONTH} SET metric_value = -5 WHERE id IN (2, 3);
        DELETE FROM {MONTH} WHERE id = 4;
        TRUNCATE mlops_internal.monitoring_metrics_2026_04
    """)
    expected = rows_of(plain)
    assert 0 < len(expected) < 50

    end(plain, "down")

    assert rows_of(plain) == expected


# What stops the swap


DISABLED = {
    "disabled": "ALTER TABLE monitoring_metrics DISABLE TRIGGER ALL",
    "disabled for a while": "ALTER TABLE monitoring_metrics DISABLE TRIGGER ALL; ALTER TABLE monitoring_metrics"
    " ENABLE TRIGGER ALL",
    "disabled and restored": "ALTER TABLE monitoring_metrics DISABLE TRIGGER monitoring_metrics_log_changes;"
    " ALTER TABLE monitoring_metrics ENABLE ALWAYS TRIGGER monitoring_metrics_log_changes",
    "dropped": "DROP TRIGGER monitoring_metrics_log_changes ON monitoring_metrics",
    "made anew": """
        DROP TRIGGER monitoring_metrics_log_changes ON monitoring_metrics;
        CREATE TRIGGER monitoring_metrics_log_changes AFTER INSERT OR UPDATE OR DELETE ON monitoring_metrics
            FOR EACH ROW EXECUTE FUNCTION mlops_internal.log_metric_changes();
        ALTER TABLE monitoring_metrics ENABLE ALWAYS TRIGGER monitoring_metrics_log_changes
    """,
}


@pytest.mark.parametrize("statements", [pytest.param(statements, id=name) for name, statements in DISABLED.items()])
@both_ways
def test_a_trigger_of_the_log_that_was_disabled_stops_the_swap(plain: Database, way: str, statements: str) -> None:
    """As `pg_restore --disable-triggers` does."""
    begin(plain, way)
    plain.query(statements)
    plain.query("UPDATE monitoring_metrics SET metric_value = -3")  # which may be in no log

    assert_refused(plain, way, "triggers that log changes of monitoring_metrics were disabled or dropped while")


def test_triggers_of_one_month_that_were_disabled_stop_the_swap(plain: Database) -> None:
    begin(plain, "down")
    plain.query(f"ALTER TABLE {MONTH} DISABLE TRIGGER ALL; DELETE FROM {MONTH}; ALTER TABLE {MONTH} ENABLE TRIGGER ALL")

    assert_refused(plain, "down", "triggers that log changes of monitoring_metrics were disabled or dropped while")


BOUNDS = "FOR VALUES FROM ('2026-05-01 00:00+00') TO ('2026-06-01 00:00+00')"
MONTHS = {
    "dropped": ("partitions of monitoring_metrics came or went", f"DROP TABLE {MONTH}"),
    "detached": (
        "partitions of monitoring_metrics came or went",
        f"ALTER TABLE monitoring_metrics DETACH PARTITION {MONTH}; DROP TABLE {MONTH}",
    ),
    "replaced": (
        "partitions of monitoring_metrics came or went",
        f"DROP TABLE {MONTH}; CREATE TABLE {MONTH} PARTITION OF monitoring_metrics {BOUNDS}",
    ),
    "away for a while": (
        "triggers that log changes of monitoring_metrics were disabled or dropped",
        f"""
            ALTER TABLE monitoring_metrics DETACH PARTITION {MONTH};
            DELETE FROM {MONTH} WHERE id % 2 = 0;
            ALTER TABLE monitoring_metrics ATTACH PARTITION {MONTH} {BOUNDS}
        """,
    ),
}


@pytest.mark.parametrize(("message", "statements"), MONTHS.values(), ids=MONTHS)
def test_a_month_that_came_or_went_stops_the_swap(plain: Database, message: str, statements: str) -> None:
    begin(plain, "down")
    plain.query("SET timezone = 'UTC'")
    plain.query(statements)
    plain.query("DELETE FROM monitoring_metrics WHERE timestamp >= '2026-05-01' AND metric_value > 1e6")

    # The counts may differ, too: rows that went with a month are in no log.
    assert_refused(plain, "down", message)


@both_ways
def test_a_row_that_went_during_the_copy_stops_the_swap(plain: Database, way: str) -> None:
    begin(plain, way, "0017")
    plain.query("DELETE FROM mlops_internal.monitoring_metrics_copy WHERE id = 7")
    if way == "up":
        commands.upgrade(plain.settings, "0018")
    else:
        commands.downgrade(plain.settings, "0016")

    assert_refused(plain, way, "the copy of monitoring_metrics has 49 rows, and the table 50")


@both_ways
def test_a_row_that_gets_another_key_during_the_replay_arrives_once(plain: Database, way: str) -> None:
    """The replay takes some changes of a row, and then sees what the row's later changes have made of it."""
    begin(plain, way)
    plain.query("UPDATE monitoring_metrics SET metric_value = 100 WHERE id = 7")
    with another_session(plain, "changes the key") as writer, another_session(plain, "holds the replay") as holder:
        writer.execute("UPDATE monitoring_metrics SET metric_value = 101 WHERE id = 7")
        plain.query("UPDATE monitoring_metrics SET metric_value = 100 WHERE id = 8")
        writer.execute("UPDATE monitoring_metrics SET metric_name = 'other' WHERE id = 7")
        holder.execute("LOCK TABLE mlops_internal.monitoring_metrics_copy IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor() as pool:
            replay = pool.submit(plain.query, "SELECT mlops_internal.replay_metric_changes()")
            wait_until(lambda: holder.execute("SELECT FROM pg_locks WHERE NOT granted").rowcount, "the replay to wait")
            writer.commit()
            holder.commit()
            replay.result()
    expected = rows_of(plain)

    end(plain, way)

    assert rows_of(plain) == expected


@both_ways
def test_changes_of_a_row_that_the_replay_takes_apart_arrive(plain: Database, way: str) -> None:
    """It takes 50,000 at a time."""
    plain.query(ROWS.replace("50", "20000").replace("interval '1 day'", "interval '1 minute'"))
    begin(plain, way, "0017")
    for change in ("metric_value = metric_value + 1", "metric_value = metric_value + 1", "metric_name = 'other'"):
        plain.query(f"UPDATE monitoring_metrics SET {change}")
    expected = rows_of(plain)

    end(plain, way)

    assert rows_of(plain) == expected


@both_ways
def test_changes_are_not_replayed_in_a_transaction_that_does_not_see_the_last_ones(plain: Database, way: str) -> None:
    begin(plain, way)
    plain.query("BEGIN ISOLATION LEVEL REPEATABLE READ")

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="isolation level that does not see"):
        plain.query("SELECT mlops_internal.replay_metric_changes()")


# Odd tables


@pytest.mark.parametrize(
    "rows",
    [
        "SELECT",
        "INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('a', 'b')",
        """
            INSERT INTO monitoring_metrics (id, metric_type, metric_name)
            SELECT n, 'a', 'b' FROM unnest(ARRAY[-2147483648, -7, 0, 1, 100000, 2147483647]) AS n
        """,
    ],
    ids=["no row", "one row", "gaps and negative ids"],
)
def test_a_table_of_few_rows_goes_up_and_down(empty: Database, rows: str) -> None:
    commands.upgrade(empty.settings, "0015")
    empty.query(rows)
    expected = rows_of(empty)

    for way in ("up", "down"):
        end(empty, way)
        assert rows_of(empty) == expected


@both_ways
def test_batches_begin_anew_after_a_half_filled_copy_was_dropped(plain: Database, tmp_path: Path, way: str) -> None:
    """A position is of one copy: the next copy is another table."""
    plain.query(ROWS.replace("50", "3000"))
    begin(plain, way, "0016" if way == "up" else "0018")
    plain.query("""
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(1);
            RETURN NEW;
        END $$;
        CREATE TRIGGER wait BEFORE INSERT ON mlops_internal.monitoring_metrics_copy FOR EACH ROW WHEN (NEW.id = 1500)
            EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(1);
    """)
    checkout = Checkout(tmp_path)
    run = checkout.start(plain, *(("upgrade", "0017") if way == "up" else ("downgrade", "0017")))
    pid = run.backend(plain, "INSERT INTO mlops_internal.monitoring_metrics_copy%")
    wait_until(lambda: plain.value("SELECT count(*) FROM mlops_internal.monitoring_metrics_copy"), "the first batch")
    wait_until(lambda: plain.value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s", [pid]), "the second")
    run.process.kill()
    run.ended()
    plain.query("SELECT pg_terminate_backend(%s)", [pid])
    plain.query("SELECT pg_advisory_unlock(1)")
    assert plain.value("SELECT count(*) FROM mlops_internal.batch_positions") == 1
    plain.query("DELETE FROM monitoring_metrics WHERE id % 3 = 0")
    expected = rows_of(plain)

    cancel(plain, way)

    assert rows_of(plain) == expected
    assert plain.value("SELECT to_regclass('mlops_internal.batch_positions')") is None


def script(database: Database, *arguments: str) -> str:
    done = database.run("alembic", *arguments, "--sql")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_copies_up_and_down_as_the_online_run_does(plain: Database) -> None:
    zone = ("-x", "legacy-timezone=Europe/Berlin")
    expected = rows_of(plain)

    plain.psql(script(plain, *zone, "upgrade", "0015:0019"))
    assert revision_of(plain) == "0019"
    assert rows_of(plain).keys() == expected.keys()
    assert rows_of(plain)[1][0] == "2026-05-18 22:00:00"
    plain.psql(script(plain, *zone, "downgrade", "0019:0015"))

    assert rows_of(plain) == expected
    assert revision_of(plain) == "0015"
