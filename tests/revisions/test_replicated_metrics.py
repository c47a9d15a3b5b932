"""monitoring_metrics of a subscriber of logical replication: what is applied during the copy arrives."""

from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest

from mlops_db.migration import commands
from mlops_db.settings import Settings
from support.cluster import chosen_programs, connect_superuser, settings_of, throwaway_cluster
from support.database import Database
from support.sessions import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

SUBSCRIBE = """
CREATE SUBSCRIPTION metrics CONNECTION 'dbname=publisher user=postgres host={host}' PUBLICATION metrics
  WITH (create_slot = false, slot_name = 'metrics', copy_data = false)
"""


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Database, Database]]:
    """A publisher and its subscriber, two databases of one server, both at 0014."""
    with throwaway_cluster(chosen_programs(request.config), wal_level="logical") as folder:
        with connect_superuser(folder) as server:
            for name in ("publisher", "subscriber"):
                server.execute(f"CREATE DATABASE {name}")
        made = []
        for name in ("publisher", "subscriber"):
            commands.upgrade(settings_of(folder, name), "0014")
            made.append(Database.of(psycopg.connect(host=str(folder), user="postgres", dbname=name)))
        publisher, subscriber = made
        # The keys of the two tables differ after the swap: with FULL, PostgreSQL finds rows by all columns.
        publisher.query("ALTER TABLE monitoring_metrics REPLICA IDENTITY FULL")
        publisher.query("CREATE PUBLICATION metrics FOR TABLE monitoring_metrics")
        publisher.query("SELECT pg_create_logical_replication_slot('metrics', 'pgoutput')")
        subscriber.query(SUBSCRIBE.format(host=folder))
        yield publisher, subscriber
        subscriber.query("DROP SUBSCRIPTION metrics")
        for database in made:
            database.connection.close()


def rows(database: Database) -> list[tuple[object, ...]]:
    return database.connection.execute(
        "SELECT id, timestamp::timestamp::text, metric_name, metric_value FROM monitoring_metrics ORDER BY id",
        prepare=False,
    ).fetchall()


def change(publisher: Database, number: int) -> None:
    publisher.query(
        "INSERT INTO monitoring_metrics (timestamp, metric_type, metric_name, metric_value)"
        " SELECT timestamp '2026-01-01' + n * interval '1 day', 'drift', 'n', n FROM generate_series(1, 100) AS n"
    )
    publisher.query("UPDATE monitoring_metrics SET metric_value = -1 WHERE id %% 7 = %s", [number])
    publisher.query("DELETE FROM monitoring_metrics WHERE id %% 11 = %s", [number])
    if number == 2:
        publisher.query("TRUNCATE monitoring_metrics")
        publisher.query("INSERT INTO monitoring_metrics (metric_type, metric_name) VALUES ('drift', 'after')")


def wait_until_equal(publisher: Database, subscriber: Database) -> None:
    wait_until(lambda: rows(subscriber) == rows(publisher), "the subscriber to have what the publisher has")


@pytest.mark.parametrize(
    ("run", "revisions"),
    [(commands.upgrade, ("0015", "0016", "0017", "0018")), (commands.downgrade, ("0017", "0016", "0015", "0014"))],
    ids=["up", "down"],
)
def test_what_is_applied_during_the_copy_arrives(
    pair: tuple[Database, Database], run: Callable[[Settings, str], None], revisions: Sequence[str]
) -> None:
    publisher, subscriber = pair
    commands.upgrade(subscriber.settings, {"0018": "0014", "0014": "0018"}[revisions[-1]])
    for number, revision in enumerate(revisions):
        change(publisher, number)
        wait_until_equal(publisher, subscriber)
        run(subscriber.settings, revision)
    assert rows(subscriber) == rows(publisher)

    # The subscription knows the table that is gone; after its next start it would skip what is for the new one.
    subscriber.query("ALTER SUBSCRIPTION metrics REFRESH PUBLICATION WITH (copy_data = false)")
    change(publisher, 5)
    subscriber.query("ALTER SUBSCRIPTION metrics DISABLE")
    change(publisher, 6)
    subscriber.query("ALTER SUBSCRIPTION metrics ENABLE")
    wait_until_equal(publisher, subscriber)
