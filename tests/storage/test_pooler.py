"""Jobs through a transaction-pooling PgBouncer, the real one."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest
from psycopg2 import extensions
from psycopg2.extras import RealDictCursor
from sqlalchemy import text

from mlops_db import DatabaseManager
from support.database import Database
from support.pooler import PGBOUNCER, pgbouncer

SESSION = """
SELECT current_setting('TimeZone'), current_setting('search_path'), current_setting('transaction_isolation'),
       current_setting('application_name'), current_setting('extra_float_digits'), current_setting('IntervalStyle')
"""

pytestmark = [
    pytest.mark.skipif(PGBOUNCER is None, reason="needs PgBouncer (Debian's package pgbouncer)"),
    pytest.mark.libraries,
]


@pytest.mark.parametrize(
    "ignored", ["extra_float_digits", "extra_float_digits,options"], ids=["refuses the options", "ignores the options"]
)
def test_behind_a_transaction_pooler_each_transaction_is_the_same(head: Database, ignored: str) -> None:
    name = head.settings.database
    head.query(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    head.query(f"ALTER DATABASE {name} SET search_path = nowhere")
    head.query(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    head.query(f"ALTER DATABASE {name} SET extra_float_digits = -15")
    head.query(f"ALTER DATABASE {name} SET IntervalStyle = 'sql_standard'")
    with pgbouncer(head, ignored) as through, DatabaseManager(through) as db:
        assert db.execute_query(SESSION) == [("UTC", "public", "read committed", "mlops-db", "1", "postgres")]
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda number: db.models.register(str(number), "1"), range(30)))
            list(threads.map(lambda number: db.models.promote(str(number)), range(30)))
        with db.session() as session:
            session.execute(text("SELECT 1"))
            session.commit()
        db.ping()
        db.wait_until_ready(0)
    assert head.value("SELECT count(*) FROM model_versions WHERE status = 'production'") == 1
    assert head.value("SELECT count(*) FROM retraining_decisions") == 30


def test_behind_a_transaction_pooler_psycopg2_s_side_comes_back(head: Database) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    with pgbouncer(head, "extra_float_digits,options") as through, DatabaseManager(through) as db:
        before = db.models.register("a", "1"), db.decisions.record("reject", candidate="a", decided_at=moment)
        for statement in (
            "SET datestyle = 'German, DMY'",
            "SET timezone = 'Asia/Tokyo'",
            "SET client_encoding = 'LATIN1'",
            "SELECT 1",
        ):
            with db.get_connection() as connection:
                connection.cursor_factory = RealDictCursor
                extensions.register_type(extensions.new_type((1184, 25, 1043), "LOST", lambda *_: None), connection)
                connection.cursor().execute(statement)
            assert (db.models.get("a"), *db.decisions.history()) == before
            assert db.execute_query("SELECT %s, 'é'", (moment,)) == [(moment, "é")]
