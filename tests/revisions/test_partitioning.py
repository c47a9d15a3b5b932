"""Revisions 0016 to 0019: monitoring_metrics in months, with every row, and back; and what is in the way of that."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mlops_db.errors import RefusedError
from mlops_db.migration import commands
from mlops_db.migration.commands import alembic_config
from mlops_db.server.connection import connect
from support.database import Database, revision_of
from support.partitions import months, partitions
from support.projects import Checkout
from support.sessions import another_session
from support.stopped import contents, stopped

pytestmark = pytest.mark.slow  # their revisions are frozen, and test_round_trip.py runs each of them

LARGEST_INTEGER = 2**31 - 1
MONTH = "date_trunc('month', now(), 'UTC')"
# From both ends of what a timestamp holds, from the edges of this month, and from months to come.
MOMENTS = (
    "'0001-01-01 00:00:00+00'",
    "'0001-06-01 00:00:00+00'",
    "'1969-12-31 23:59:59.999999+00'",
    f"{MONTH} - interval '1 microsecond'",
    MONTH,
    f"({MONTH} AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' - interval '1 microsecond'",
    f"({MONTH} AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'",
    f"({MONTH} AT TIME ZONE 'UTC' + interval '4 months') AT TIME ZONE 'UTC' - interval '1 microsecond'",
    f"({MONTH} AT TIME ZONE 'UTC' + interval '4 months') AT TIME ZONE 'UTC'",
    "'9999-12-31 23:59:59.999999+00'",
)


def add(database: Database, *moments: str) -> None:
    for moment in moments:
        database.query(
            "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value, metadata, model_name)"
            f""" VALUES ({moment}, 'drift', 'share', 0.1, '{{"a": [1.10]}}', 'fraud')"""
        )


def metrics(database: Database) -> list[tuple[object, ...]]:
    """Every row, times as text in UTC, in the order of the ids."""
    database.query("SET timezone = 'UTC'")
    return database.query("""
        SELECT id, timestamp::timestamp::text, metric_type, metric_name, metric_value, metadata::text,
               created_at::timestamp::text, model_name
          FROM monitoring_metrics ORDER BY id, timestamp
    """)


@pytest.fixture
def plain(empty: Database) -> Database:
    """A database at 0015."""
    commands.upgrade(empty.settings, "0015")
    return empty


@contextmanager
def role(database: Database, attributes: str = "NOLOGIN", name: str = "mlops_test_reader") -> Iterator[str]:
    database.query(f"CREATE ROLE {name} {attributes}")
    try:
        yield name
    finally:
        database.query(f"DROP OWNED BY {name}")
        database.query(f"DROP ROLE {name}")


# Rows


@pytest.mark.parametrize("moments", [(), MOMENTS[4:6]], ids=["no rows", "rows of this month"])
def test_a_table_without_a_past_has_this_month_and_three_ahead(plain: Database, moments: tuple[str, ...]) -> None:
    add(plain, *moments)

    commands.upgrade(plain.settings, "0019")

    found = partitions(plain)
    assert sorted(found) == sorted([*months(plain, 0, 3), "monitoring_metrics_earlier", "monitoring_metrics_later"])
    month = plain.value(f"SELECT {MONTH}::text")
    assert found["monitoring_metrics_earlier"][0] == f"FOR VALUES FROM (MINVALUE) TO ('{month}')"
    assert found["monitoring_metrics_later"][0].endswith("TO (MAXVALUE)")


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(MOMENTS, id="all"),
        *(
            pytest.param(moments, id=name)
            for name, moments in {
                "the last moment": MOMENTS[-1:],
                "the future": MOMENTS[6:],
                "the first moment": MOMENTS[:1],
                "this month": MOMENTS[4:5],
                "the past": MOMENTS[1:4],
            }.items()
        ),
    ],
)
def test_every_row_is_there_whenever_it_was_and_comes_back(plain: Database, moments: tuple[str, ...]) -> None:
    add(plain, *moments)
    plain.query("CREATE TABLE monitoring_metrics_copy (id int)")  # somebody else's
    before = metrics(plain)
    schema = plain.dump()

    commands.upgrade(plain.settings, "0019")

    assert metrics(plain) == before
    found = partitions(plain)
    assert {"monitoring_metrics_earlier", "monitoring_metrics_later", *months(plain, 1, 3)} <= set(found)
    assert sum(rows for _, rows in found.values()) == len(moments)
    of_earlier = sum(moment.startswith(("'0001", "'1969")) for moment in moments)
    assert found["monitoring_metrics_earlier"][1] == of_earlier, "months begin with the first row of ten years"
    add(plain, *MOMENTS)
    assert plain.value("SELECT count(*) FROM monitoring_metrics") == len(moments) + len(MOMENTS)
    plain.query("DELETE FROM monitoring_metrics WHERE id > %s", [len(moments)])

    commands.downgrade(plain.settings, "0015")

    assert metrics(plain) == before
    assert plain.dump() == schema


def test_rows_are_in_their_months(plain: Database) -> None:
    add(plain, *MOMENTS)
    commands.upgrade(plain.settings, "0019")

    found = {name: rows for name, (_, rows) in partitions(plain).items()}
    assert found == {
        "monitoring_metrics_earlier": 3,
        **dict(zip(months(plain, -1, 3), (1, 2, 1, 0, 1), strict=True)),
        "monitoring_metrics_later": 2,
    }


def test_old_rows_that_are_not_to_be_kept_go_with_their_months_at_once(plain: Database) -> None:
    add(plain, *(f"now() - interval '{age} days'" for age in (4000, 400, 200, 100, 1)))
    commands.upgrade(plain.settings)

    done = plain.run("mlops-db", "maintain", "--keep", "150d")

    assert done.returncode == 0, done.stderr
    assert plain.query("SELECT id FROM monitoring_metrics ORDER BY id") == [(4,), (5,)]


def test_the_key_is_there_before_the_swap_and_every_partition_has_it_afterwards(plain: Database) -> None:
    add(plain, *MOMENTS)
    without_key = """
        SELECT relid::text FROM pg_partition_tree(%s)
         WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = relid AND indisprimary AND indisvalid)
    """
    commands.upgrade(plain.settings, "0017")
    assert len(plain.query(without_key, ["mlops_internal.monitoring_metrics_copy"])) == 8
    commands.upgrade(plain.settings, "0018")
    assert plain.query(without_key, ["mlops_internal.monitoring_metrics_copy"]) == []
    index = "SELECT oid, relfilenode FROM pg_class WHERE relname = 'monitoring_metrics_later_pkey'"
    built = plain.query(index)

    commands.upgrade(plain.settings, "0019")

    assert plain.query(without_key, ["monitoring_metrics"]) == []
    assert plain.query(index) == built, "the swap builds nothing"
    with pytest.raises(psycopg.errors.UniqueViolation):
        plain.query("INSERT INTO monitoring_metrics SELECT * FROM monitoring_metrics")


@pytest.mark.parametrize("begun", ["up", "down"])
def test_the_key_is_built_while_a_writer_and_a_reader_keep_their_transactions_open(
    plain: Database, tmp_path: Path, begun: str
) -> None:
    add(plain, "now()", "now() - interval '1 year'")
    run = ("upgrade", "0018") if begun == "up" else ("downgrade", "0016")
    commands.upgrade(plain.settings, "0017" if begun == "up" else "0019")
    if begun == "down":
        commands.downgrade(plain.settings, "0017")
    with (
        another_session(plain, "reader", "SELECT count(*) FROM v_recent_monitoring"),
        another_session(plain, "writer", "UPDATE monitoring_metrics SET metric_value = 7") as writer,
    ):
        done = Checkout(tmp_path).alembic(plain, *run)
        assert done.returncode == 0, done
        writer.commit()

    commands.upgrade(plain.settings, "0019") if begun == "up" else commands.downgrade(plain.settings, "0015")
    assert plain.query("SELECT metric_value FROM monitoring_metrics") == [(7,), (7,)]


@pytest.mark.parametrize("moments", [(), MOMENTS], ids=["no rows", "all"])
@pytest.mark.parametrize("maintain", ["", "CALL mlops_internal.maintain('1 second', 5)"], ids=["", "maintained"])
@pytest.mark.parametrize("revision", ["0018", "0017", "0016"])
def test_a_way_back_that_is_cancelled_changes_nothing(
    plain: Database, moments: tuple[str, ...], maintain: str, revision: str
) -> None:
    add(plain, *moments)
    commands.upgrade(plain.settings)
    plain.query(maintain)
    before = partitions(plain), metrics(plain), plain.dump()

    commands.downgrade(plain.settings, revision)
    assert metrics(plain) == before[1]
    commands.upgrade(plain.settings)

    assert (partitions(plain), metrics(plain), plain.dump()) == before


@pytest.mark.parametrize("moments", [(), MOMENTS], ids=["no rows", "all"])
@pytest.mark.parametrize("revision", ["0016", "0017", "0018"])
def test_a_copy_that_is_cancelled_changes_nothing(plain: Database, moments: tuple[str, ...], revision: str) -> None:
    add(plain, *moments)
    before = metrics(plain), plain.dump()
    files = "SELECT pg_relation_filenode('monitoring_metrics')"
    file = plain.value(files)

    commands.upgrade(plain.settings, revision)
    assert metrics(plain) == before[0]
    commands.downgrade(plain.settings, "0015")

    assert (metrics(plain), plain.dump(), plain.value(files)) == (*before, file)


def test_the_ids_go_on_where_they_were_and_beyond_32_bits(plain: Database) -> None:
    add(plain, *["now()"] * 5)
    plain.query("DELETE FROM monitoring_metrics WHERE id > 3")
    commands.upgrade(plain.settings, "0019")

    assert plain.value("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('a', 'b') RETURNING id") == 6
    plain.query("SELECT setval('monitoring_metrics_id_seq', %s)", [LARGEST_INTEGER])
    add(plain, "now()")
    assert plain.value("SELECT max(id) FROM monitoring_metrics") == LARGEST_INTEGER + 1
    assert (
        plain.value("SELECT pg_get_serial_sequence('monitoring_metrics', 'id')") == "public.monitoring_metrics_id_seq"
    )
    plain.query("DROP TABLE monitoring_metrics CASCADE")
    assert plain.value("SELECT to_regclass('monitoring_metrics_id_seq')") is None, "it belongs to the table"


def test_ids_that_32_bits_do_not_hold_stop_the_downgrade_and_nothing_changes(plain: Database) -> None:
    commands.upgrade(plain.settings, "0019")
    plain.query("SELECT setval('monitoring_metrics_id_seq', %s)", [LARGEST_INTEGER])
    add(plain, "now()", "now() - interval '1 year'")
    before = contents(plain)

    with pytest.raises(RefusedError, match=str(LARGEST_INTEGER + 2)) as refused:
        commands.downgrade(plain.settings, "0015")

    assert "nothing was changed" in str(refused.value)
    assert (revision_of(plain), contents(plain)) == ("0019", before)

    plain.query(f"UPDATE monitoring_metrics SET id = {LARGEST_INTEGER} - id % 2 WHERE id > {LARGEST_INTEGER}")
    plain.query("SELECT setval('monitoring_metrics_id_seq', 1)")
    commands.downgrade(plain.settings, "0015")
    assert [id_ for id_, *_ in metrics(plain)] == [LARGEST_INTEGER - 1, LARGEST_INTEGER]


def test_an_id_that_32_bits_do_not_hold_and_that_came_during_the_copy_stops_the_swap(plain: Database) -> None:
    commands.upgrade(plain.settings, "0019")
    add(plain, "now()")
    commands.downgrade(plain.settings, "0016")
    plain.query(f"UPDATE monitoring_metrics SET id = {LARGEST_INTEGER + 1}")
    before = contents(plain)

    with pytest.raises(RefusedError, match=str(LARGEST_INTEGER + 1)):
        commands.downgrade(plain.settings, "0015")

    assert (revision_of(plain), contents(plain)) == ("0016", before)
    plain.query("UPDATE monitoring_metrics SET id = 3")
    commands.downgrade(plain.settings, "0015")
    assert [id_ for id_, *_ in metrics(plain)] == [3]


def test_a_sequence_beyond_32_bits_goes_back_to_the_ids_that_are_left(plain: Database) -> None:
    commands.upgrade(plain.settings, "0019")
    add(plain, "now()", "now()")
    plain.query("SELECT setval('monitoring_metrics_id_seq', %s)", [LARGEST_INTEGER + 10])

    commands.downgrade(plain.settings, "0015")

    add(plain, "now()")
    assert [id_ for id_, *_ in metrics(plain)] == [1, 2, 3]


def test_ids_that_several_rows_have_stop_the_downgrade_and_nothing_changes(plain: Database) -> None:
    """The monthly table's key allows it, the plain one's does not."""
    commands.upgrade(plain.settings, "0019")
    add(plain, *["now()"] * 5)
    plain.query("UPDATE monitoring_metrics SET id = 3, metric_name = 'n' || id WHERE id IN (2, 4)")
    before = contents(plain)

    with pytest.raises(RefusedError, match="monitoring_metrics has ids that several rows have: 3; ") as refused:
        commands.downgrade(plain.settings, "0015")

    assert "nothing was changed" in str(refused.value)
    assert (revision_of(plain), contents(plain)) == ("0019", before)
    plain.query(
        "UPDATE monitoring_metrics SET id = nextval('monitoring_metrics_id_seq') WHERE metric_name IN ('n2', 'n4')"
    )
    commands.downgrade(plain.settings, "0015")
    assert [id_ for id_, *_ in metrics(plain)] == [1, 3, 5, 6, 7]


@pytest.mark.parametrize("moments", [(), MOMENTS], ids=["empty", "with rows"])
def test_a_caller_s_session_makes_the_same_months(plain: Database, head: Database, moments: tuple[str, ...]) -> None:
    """Its zone is behind UTC and has a clock change in most spans of four months; its dates are not ISO's."""
    add(plain, *moments)
    engine = create_engine("postgresql+psycopg2://", creator=lambda: connect(plain.settings), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET timezone = 'America/New_York'")
        connection.exec_driver_sql("SET datestyle = 'SQL, DMY'")
        connection.commit()
        config = alembic_config(plain.settings)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    if not moments:
        assert partitions(plain) == partitions(head)
    assert set(months(plain, 1, 3)) < set(partitions(plain))
    assert {bounds for name, (bounds, _) in partitions(plain).items() if name in months(plain, 1, 3)} == {
        bounds for name, (bounds, _) in partitions(head).items() if name in months(head, 1, 3)
    }


# Others


def test_grants_on_the_table_and_on_its_columns_go_along_up_and_down(plain: Database) -> None:
    with role(plain) as reader, role(plain, name='"mlops_test Odd ""one"""') as odd:
        plain.query(f"""
            GRANT SELECT, INSERT ON monitoring_metrics TO {reader};
            GRANT SELECT ON monitoring_metrics TO {odd} WITH GRANT OPTION;
            GRANT UPDATE (metric_value, metadata), REFERENCES (id) ON monitoring_metrics TO {odd};
            GRANT TRIGGER ON monitoring_metrics TO PUBLIC;
            GRANT USAGE ON SEQUENCE monitoring_metrics_id_seq TO {reader};
            GRANT SELECT ON v_recent_monitoring TO {reader}
        """)
        before = grants(plain)
        assert len(before) >= 9

        commands.upgrade(plain.settings, "0019")
        assert grants(plain) == before
        with plain.connection.transaction(force_rollback=True):
            plain.query(f"SET LOCAL ROLE {reader}")
            plain.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'share')")
            assert plain.value("SELECT count(*) FROM monitoring_metrics") == 1

        commands.downgrade(plain.settings, "0015")
        assert grants(plain) == before


def grants(database: Database) -> list[tuple[str, ...]]:
    """Who may do what with the table, its columns, its sequence and its view."""
    return database.query("""
        SELECT c.relname, coalesce(a.attname, ''), acl.grantee::regrole::text, acl.privilege_type, acl.is_grantable
          FROM pg_class AS c
         CROSS JOIN LATERAL (
             SELECT NULL AS attname, relacl AS acl UNION ALL
             SELECT attname, attacl FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0
         ) AS a CROSS JOIN aclexplode(a.acl) AS acl
         WHERE c.oid IN ('monitoring_metrics'::regclass, 'monitoring_metrics_id_seq'::regclass,
                         'v_recent_monitoring'::regclass)
           AND acl.grantee <> c.relowner
         ORDER BY 1, 2, 3, 4
    """)


STRANGERS = {
    "a view": ("CREATE VIEW dashboard AS SELECT metric_value FROM monitoring_metrics", "DROP VIEW dashboard"),
    "a view of another schema": (
        "CREATE SCHEMA bi; CREATE VIEW bi.dashboard AS SELECT 1 FROM monitoring_metrics", "DROP VIEW bi.dashboard",
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW dashboard AS TABLE monitoring_metrics", "DROP MATERIALIZED VIEW dashboard",
    ),
    "a view that only counts": (
        "CREATE VIEW dashboard AS SELECT count(*) FROM monitoring_metrics", "DROP VIEW dashboard",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("create", "drop"), STRANGERS.values(), ids=STRANGERS)
def test_what_would_go_on_reading_the_old_table_stops_the_upgrade(plain: Database, create: str, drop: str) -> None:
    add(plain, "now()")
    plain.query(create)

    finding = stopped(plain, at="0015")

    assert "dashboard would still read the old table of monitoring_metrics; nothing was changed" in finding.message
    assert drop in finding.hint
    plain.query(drop)
    commands.upgrade(plain.settings)
    plain.query(create.rpartition("; ")[2])


def test_what_would_go_on_reading_the_months_stops_the_downgrade(plain: Database) -> None:
    commands.upgrade(plain.settings, "0019")
    plain.query("CREATE VIEW dashboard AS SELECT count(*) FROM monitoring_metrics")
    before = contents(plain)

    with pytest.raises(RefusedError, match="dashboard would still read"):
        commands.downgrade(plain.settings, "0015")

    assert (revision_of(plain), contents(plain)) == ("0019", before)


def test_a_view_on_our_view_stops_it_too_and_is_named(plain: Database) -> None:
    plain.query("CREATE VIEW dashboard AS SELECT metric_value FROM v_recent_monitoring")
    before = contents(plain)

    with pytest.raises(RefusedError, match="dashboard would still read") as refused:
        commands.upgrade(plain.settings)

    assert (revision_of(plain), contents(plain)) == ("0015", before)
    assert "DROP VIEW dashboard" in refused.value.hint


def test_another_role_than_the_owner_is_refused_and_the_owner_named(plain: Database) -> None:
    with role(plain, "SUPERUSER LOGIN PASSWORD 'x'", "mlops_test_admin") as admin:
        before = contents(plain)
        settings = replace(plain.settings, user=admin, password="x")  # noqa: S106  (a role of this test's)

        with pytest.raises(
            RefusedError, match=f"belongs to {plain.settings.user}, and would belong to {admin}"
        ) as refused:
            commands.upgrade(settings)

        assert f"POSTGRES_USER={plain.settings.user}" in refused.value.hint
        assert (revision_of(plain), contents(plain)) == ("0015", before)


def test_the_owner_stays_the_owner_of_the_table_and_of_the_months(plain: Database) -> None:
    add(plain, "now()")
    owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 'monitoring_metrics%'"
    commands.upgrade(plain.settings)

    assert plain.query(owners) == [(plain.settings.user,)]


PARTS = {
    "trigger told": "CREATE TRIGGER told AFTER INSERT ON monitoring_metrics EXECUTE FUNCTION tell()",
    "row level security": "ALTER TABLE monitoring_metrics ENABLE ROW LEVEL SECURITY",
    "policy mine": "CREATE POLICY mine ON monitoring_metrics",
    "publication outside": "CREATE PUBLICATION outside FOR TABLE monitoring_metrics",
    "constraint short": "ALTER TABLE monitoring_metrics ADD CONSTRAINT short CHECK (length(metric_name) < 99)",
    "index by_time": "CREATE INDEX by_time ON monitoring_metrics (timestamp)",
    "rule told": "CREATE RULE told AS ON DELETE TO monitoring_metrics DO INSERT INTO other VALUES (old.id)",
    "statistics object related": "CREATE STATISTICS related ON metric_type, metric_name FROM monitoring_metrics",
    "default value for public.monitoring_metrics.metric_value": "ALTER TABLE monitoring_metrics"
    " ALTER COLUMN metric_value SET DEFAULT 0",
    "column remark": "ALTER TABLE monitoring_metrics ADD COLUMN remark text",
    "child table kid": "CREATE TABLE kid () INHERITS (monitoring_metrics)",
    "parent table forebear": "CREATE TABLE forebear (id int); ALTER TABLE monitoring_metrics INHERIT forebear",
}
READERS = {
    "function counted()": "CREATE FUNCTION counted() RETURNS bigint BEGIN ATOMIC"
    " SELECT count(*) FROM monitoring_metrics; END",
    "function newest()": "CREATE FUNCTION newest() RETURNS SETOF monitoring_metrics LANGUAGE sql AS"
    " 'TABLE monitoring_metrics'",
    "policy measured on public.other": "CREATE POLICY measured ON other"
    " USING (id IN (SELECT id FROM monitoring_metrics))",
    "rule measured on public.other": "CREATE RULE measured AS ON INSERT TO other DO INSTEAD"
    " INSERT INTO monitoring_metrics (metric_type) VALUES ('x')",
    "constraint other_id_fkey on public.other": "ALTER TABLE other ADD FOREIGN KEY (id) REFERENCES monitoring_metrics",
    "table column other.metric": "ALTER TABLE other ADD COLUMN metric monitoring_metrics",
    # The remedy is for this table, whatever its name pretends.
    'constraint odd on public."x on public.other DROP COLUMN id; --"': (
        'CREATE TABLE "x on public.other DROP COLUMN id; --"'
        " (id int, CONSTRAINT odd CHECK (NULL::monitoring_metrics IS NULL))"
    ),
}


@pytest.fixture
def with_other(plain: Database) -> Database:
    """A database at 0015, with what is somebody else's."""
    plain.query("CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    plain.query("CREATE TABLE other (id int)")
    add(plain, "now()")
    return plain


def stops(database: Database, text: str) -> str:
    """The upgrade stops before it copies, changes or locks anything; returns the statements of its hint."""
    before = contents(database)
    with (
        another_session(database, "reader", "SELECT count(*) FROM monitoring_metrics"),
        pytest.raises(RefusedError, match=re.escape(text)) as refused,
    ):
        commands.upgrade(replace(database.settings, retry_for=0), "0019")
    assert contents(database) == before
    return refused.value.hint.removesuffix("; run it again, and create it again afterwards.")


@pytest.mark.parametrize(("what", "statement"), PARTS.items(), ids=PARTS)
def test_what_would_stay_with_the_old_table_stops_it(with_other: Database, what: str, statement: str) -> None:
    with_other.query(statement)

    remedy = stops(with_other, f"the new table of monitoring_metrics would be without {what}; nothing was changed")

    assert re.search("(^|; )DROP TABLE", remedy) is None
    with_other.query(remedy)
    commands.upgrade(with_other.settings, "0019")
    assert with_other.value("SELECT count(*) FROM monitoring_metrics") == 1


@pytest.mark.parametrize(("what", "statement"), READERS.items(), ids=READERS)
def test_an_object_that_would_still_read_the_old_table_stops_it(
    with_other: Database, what: str, statement: str
) -> None:
    if "BEGIN ATOMIC" in statement and with_other.connection.info.server_version < 140000:
        pytest.skip("BEGIN ATOMIC came with PostgreSQL 14")
    with_other.query(statement)

    remedy = stops(with_other, f"{what} would still read the old table of monitoring_metrics; nothing was changed")

    assert re.search("(^|; )DROP TABLE", remedy) is None
    with_other.query(remedy)
    commands.upgrade(with_other.settings, "0019")
    assert (
        with_other.value("SELECT count(*) FROM pg_attribute WHERE attrelid = 'other'::regclass AND attname = 'id'") == 1
    )


def test_the_error_names_all_obstacles_at_once(with_other: Database) -> None:
    for statement in (PARTS["trigger told"], PARTS["column remark"], READERS["function newest()"]):
        with_other.query(statement)

    remedy = stops(
        with_other,
        "function newest() would still read the old table of monitoring_metrics; "
        "the new table of monitoring_metrics would be without column remark, trigger told; nothing was changed",
    )

    with_other.query(remedy)
    commands.upgrade(with_other.settings, "0019")


@pytest.mark.parametrize(
    "what", ["trigger told", "policy mine", "publication outside", "index by_time", "column remark", "child table kid"]
)
def test_what_came_during_the_copy_and_would_stay_with_the_old_table_stops_the_swap(
    with_other: Database, what: str
) -> None:
    commands.upgrade(with_other.settings, "0018")
    with_other.query(PARTS[what])

    remedy = stops(with_other, f"the new table of monitoring_metrics would be without {what}; nothing was changed")

    with_other.query(remedy)
    commands.upgrade(with_other.settings, "0019")
    assert with_other.value("SELECT count(*) FROM monitoring_metrics") == 1


def test_a_reader_that_came_during_the_way_back_stops_the_swap(plain: Database) -> None:
    add(plain, "now()")
    commands.upgrade(plain.settings, "0019")
    commands.downgrade(plain.settings, "0016")
    plain.query("CREATE VIEW dashboard AS SELECT count(*) FROM monitoring_metrics")
    before = contents(plain)

    with pytest.raises(RefusedError, match="dashboard would still read"):
        commands.downgrade(plain.settings, "0015")

    assert (revision_of(plain), contents(plain)) == ("0016", before)
    plain.query("DROP VIEW dashboard")
    commands.downgrade(plain.settings, "0015")
    assert plain.value("SELECT count(*) FROM monitoring_metrics") == 1
