"""The rules for what revisions do: each broken in the ways that it can be, and kept by what comes near it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlops_db.lint.rule import Finding
from mlops_db.lint.rules import ACCEPTABLE
from mlops_db.lint.run import Report, check_revisions
from mlops_db.settings import Settings
from support.projects import add_revision, copy_project, empty_project

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

KEPT = '"""Nothing: what upgrade did may stay."""'
BASE = """
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("what", sa.Text),
        sa.Column("amount", sa.BigInteger),
    )
    op.create_table(
        "customers",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text),
    )
"""


@dataclass(frozen=True)
class Revision:
    """A revision, and for each rule that it breaks a part of the message."""

    upgrade: str
    downgrade: str = KEPT
    findings: tuple[tuple[str, str], ...] = ()
    docstring: str = ""
    running_code: str = "unaffected."

    def add_to(self, ini: Path) -> str:
        running_code = self.running_code + self.docstring
        return add_revision(ini, self.upgrade, self.downgrade, running_code=running_code)


def sql(*statements: str) -> str:
    return "\n".join(f"op.execute({statement!r})" for statement in statements)


def outside(statement: str) -> str:
    return f"with op.get_context().autocommit_block():\n    op.execute({statement!r})"


def unnamed(*kinds: str) -> tuple[tuple[str, str], ...]:
    return tuple(("unnamed", f"its {kind} has no name") for kind in kinds)


WHOLE = (("whole-table", "upgrade changes every row of orders in one transaction"),)
TWO = tuple((rule, f"{way} blocks the writers of 2 tables at once: customers, orders")
            for rule, way in (("two-tables", "upgrade"), ("two-tables", "downgrade")))  # fmt: skip
BATCHES = """
    DO $$ BEGIN LOOP
        UPDATE orders SET what = '{value}' WHERE id IN (SELECT id FROM orders WHERE what <> '{value}' LIMIT 5000);
        EXIT WHEN NOT FOUND; {commit}
    END LOOP; END $$
"""
LOST = ("loss", "upgrade loses")
EMPTIED = ("whole-table", "upgrade deletes every row of orders in one transaction")
IN_BATCHES = (
    'op.run_in_batches("{statement} WHERE id > :after AND id <= :upto", table="orders", key="id", schema="public")'
)
BREAKS = "breaks: what this is not about."

CHAIN = {
    # Names
    "a CHECK without a name": Revision(
        sql("ALTER TABLE orders ADD CHECK (amount > -5) NOT VALID"),
        sql("ALTER TABLE orders DROP CONSTRAINT orders_amount_check"),
        unnamed("CHECK on orders"),
        running_code=BREAKS,
    ),
    "a CHECK with a name": Revision(
        sql("ALTER TABLE orders ADD CONSTRAINT orders_amount_check1 CHECK (amount > -5) NOT VALID"),
        sql("ALTER TABLE orders DROP CONSTRAINT orders_amount_check1"),
        running_code=BREAKS,
    ),
    "a column of another type, whose CHECKs are made anew": Revision(
        sql("-- squawk-ignore changing-column-type\nALTER TABLE orders ALTER amount TYPE bigint USING amount"),
    ),
    "an index that is built anew": Revision(outside("REINDEX TABLE CONCURRENTLY orders")),
    "a table of constraints without names": Revision(
        sql("""
            CREATE TABLE unnamed (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text UNIQUE, b bigint REFERENCES unnamed,
                c bigint CHECK (c > 0), d bigint, EXCLUDE USING btree (d WITH =)
            )
        """),
        sql("DROP TABLE unnamed"),
        unnamed(*(f"{kind} on unnamed" for kind in ("UNIQUE", "FOREIGN KEY", "CHECK", "EXCLUDE", "PRIMARY KEY"))),
    ),
    "a table of constraints that the convention names": Revision(
        """op.create_table(
            "named",
            sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
            sa.Column("a", sa.Text, unique=True),
            sa.Column("b", sa.BigInteger, sa.ForeignKey("named.id")),
            sa.Column("c", sa.BigInteger, sa.CheckConstraint("c > 0", name="c")),
        )""",
        'op.drop_table("named")',
    ),
    "a CHECK without a name, in a block": Revision(
        sql("DO $$ BEGIN EXECUTE 'ALTER TABLE customers ADD CHECK (name <> ''A'') NOT VALID'; END $$"),
        sql("ALTER TABLE customers DROP CONSTRAINT customers_name_check"),
        unnamed("CHECK on customers"),
        running_code=BREAKS,
    ),
    "an index without a name": Revision(
        outside("CREATE INDEX CONCURRENTLY ON orders (what)"), sql("DROP INDEX orders_what_idx"),
        unnamed("index on orders"),
    ),
    # Two tables
    "two tables at once": Revision(
        sql("ALTER TABLE orders ADD COLUMN x1 bigint", "ALTER TABLE customers ADD COLUMN x1 bigint"),
        sql("ALTER TABLE customers DROP COLUMN x1", "ALTER TABLE orders DROP COLUMN x1"),
        TWO,
    ),
    "two tables, one after the other": Revision(
        f'{sql("ALTER TABLE orders ADD COLUMN x2 bigint")}\n{outside("SELECT 1")}\n'
        + sql("ALTER TABLE customers ADD COLUMN x2 bigint"),
        f'{sql("ALTER TABLE orders DROP COLUMN x2")}\n{outside("SELECT 1")}\n'
        + sql("ALTER TABLE customers DROP COLUMN x2"),
    ),
    "two tables that writers go on with": Revision(
        sql("COMMENT ON TABLE orders IS 'o'", "COMMENT ON TABLE customers IS 'c'"),
        sql("COMMENT ON TABLE orders IS NULL", "COMMENT ON TABLE customers IS NULL"),
    ),
    "a table and its view": Revision(
        sql("CREATE VIEW v AS SELECT id FROM orders", "ALTER TABLE orders ADD COLUMN x4 bigint"),
        sql("DROP VIEW v", "ALTER TABLE orders DROP COLUMN x4"),
    ),
    "a foreign key that is accepted": Revision(
        sql("ALTER TABLE orders ADD COLUMN customer bigint CONSTRAINT orders_customer_fkey REFERENCES customers"),
        sql("ALTER TABLE orders DROP COLUMN customer"),
        (("squawk", "adding-foreign-key-constraint"),),
        docstring="\nAccepted: two-tables, because a foreign key locks both.",
    ),
    # Whole tables
    "an UPDATE": Revision(sql("UPDATE orders SET what = 'a'"), KEPT, WHOLE),
    "an UPDATE outside of a transaction": Revision(outside("UPDATE orders SET what = 'b'"), KEPT, WHOLE),
    "an UPDATE with a condition that all rows meet": Revision(
        outside("UPDATE orders SET what = 'c' WHERE what <> 'c'"), KEPT, WHOLE
    ),
    "an UPDATE in a query": Revision(
        sql("WITH u AS (UPDATE orders SET what = 'd' RETURNING 1) SELECT count(*) FROM u"), KEPT, WHOLE
    ),
    "an UPDATE in a function": Revision(
        sql("CREATE OR REPLACE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql AS"
            " 'UPDATE public.orders SET what = ''e'''", "SELECT pg_temp.f()"), KEPT, WHOLE,
    ),
    "batches that never commit": Revision(sql(BATCHES.format(value="f", commit="")), KEPT, WHOLE),
    "batches": Revision(outside(BATCHES.format(value="g", commit="COMMIT;"))),
    "an UPDATE of one row": Revision(sql("UPDATE orders SET what = 'h' WHERE id = (SELECT min(id) FROM orders)")),
    "batches of the operation": Revision(IN_BATCHES.format(statement="UPDATE public.orders SET what = 'i'")),
    "batches beside a SET": Revision(
        sql("SET search_path = pg_catalog, pg_temp")
        + "\n" + IN_BATCHES.format(statement="UPDATE public.orders SET what = 'j'"),
        IN_BATCHES.format(statement="UPDATE public.orders SET what = 'k'"),
    ),
    "a copy": Revision(
        sql("CREATE TABLE copied (id bigint, what text)",
            "INSERT INTO copied (id, what) SELECT o.id, (SELECT 'x' WHERE true) FROM public.orders AS o"),
        sql("DROP TABLE copied"),
        (("whole-table", "upgrade copies every row of orders in one transaction"),),
    ),
    "copies of a part, of groups, and of a new table": Revision(
        sql("CREATE TABLE parts (id bigint, what text)", "INSERT INTO parts SELECT 1, 'a' FROM parts",
            "INSERT INTO parts SELECT id, what FROM orders WHERE id < 3",
            "INSERT INTO parts SELECT max(id), what FROM orders GROUP BY what"),
        sql("DROP TABLE parts"),
    ),
    # Losses
    "a DELETE": Revision(sql("DELETE FROM orders"), KEPT, (LOST, EMPTIED)),
    "a DELETE outside of a transaction": Revision(outside("DELETE FROM orders"), KEPT, (LOST, EMPTIED)),
    "a TRUNCATE": Revision(sql("TRUNCATE orders"), KEPT, (LOST,)),
    "a TRUNCATE that no text shows": Revision(
        sql("DO $$ BEGIN EXECUTE 'TRUNC' || 'ATE orders'; END $$"), KEPT, (LOST,)
    ),
    "a DELETE that meets none of the rows": Revision(
        sql("DELETE FROM public.orders WHERE what = 'never'"), KEPT, (("loss", "upgrade runs DELETE FROM orders"),)
    ),
    "a DELETE that a block executes and that meets none": Revision(
        sql("DO $$ BEGIN EXECUTE format('DELETE FROM orders WHERE what = %L', 'never'); END $$"), KEPT,
        (("loss", "upgrade runs DELETE FROM orders"),),
    ),
    "a block that only speaks of a DELETE": Revision(
        sql("DO $$ BEGIN -- no DELETE FROM orders\n RAISE NOTICE 'DELETE FROM orders is yours'; END $$")
    ),
    "a function that is to delete one day": Revision(
        sql("CREATE FUNCTION public.clear() RETURNS void LANGUAGE sql AS 'DELETE FROM public.customers'"),
        sql("DROP FUNCTION public.clear()"),
    ),
    "rows that move": Revision(
        sql("CREATE TABLE old_orders (id bigint, what text, amount numeric)",
            "WITH gone AS (DELETE FROM orders RETURNING *) INSERT INTO old_orders SELECT id, what, amount FROM gone"),
        sql("INSERT INTO orders (what, amount) SELECT what, amount FROM old_orders", "DROP TABLE old_orders"),
    ),
    "a DELETE that is accepted": Revision(
        sql("DELETE FROM orders"),
        docstring="\nAccepted: loss, because nobody needs them; whole-table, because nobody uses it.",
    ),
    "a DELETE that is accepted without a reason": Revision(
        sql("DELETE FROM orders"), KEPT, (("docstring", "its Accepted names no rule with a reason"), LOST, EMPTIED),
        docstring="\nAccepted: loss.",
    ),
    "a downgrade that deletes and says nothing": Revision(
        sql("SELECT 1"), sql("DELETE FROM orders"), (("loss", "downgrade loses 6 rows of orders"),)
    ),
    # Constraints
    "a NOT NULL": Revision(
        sql("ALTER TABLE orders ADD COLUMN y bigint NOT NULL DEFAULT 1",
            "-- squawk-ignore ban-drop-default\nALTER TABLE orders ALTER y DROP DEFAULT"),
        sql("ALTER TABLE orders DROP COLUMN y"),
        (("running-code", "column orders.y is new, and needs a value"),),
    ),
    "a rule that the rows of the check do not keep": Revision(
        sql("ALTER TABLE customers ADD CONSTRAINT customers_short CHECK (length(name) < 3) NOT VALID"),
        sql("ALTER TABLE customers DROP CONSTRAINT customers_short"),
        (("running-code", "constraint customers_short on customers is new: CHECK"),),
    ),
    "a default that goes, for a column that takes NULL": Revision(
        sql("ALTER TABLE orders ALTER amount SET DEFAULT 1",
            "-- squawk-ignore ban-drop-default\nALTER TABLE orders ALTER amount DROP DEFAULT")
    ),
    # Copies
    "a CHECK that reads back differently": Revision(
        sql("ALTER TABLE orders ADD COLUMN s varchar(10),"
            " ADD CONSTRAINT orders_s CHECK (s IN ('a', upper('b'))) NOT VALID"),
        sql("ALTER TABLE orders DROP COLUMN s"),
        (("squawk", "prefer-text-field"),
         ("copy", "after pg_dump and restore there is a difference, constraint orders_s")),
    ),
    "a view that reads back differently": Revision(
        sql("CREATE VIEW w AS SELECT id FROM orders WHERE s NOT IN ('c', lower('D'))"), sql("DROP VIEW w"),
        (("copy", "after pg_dump and restore there is a difference, view"),),
    ),
    "a CHECK that does not": Revision(
        sql("ALTER TABLE orders ADD CONSTRAINT orders_t CHECK (what = ANY ('{a,b}'::text[])) NOT VALID"),
        sql("ALTER TABLE orders DROP CONSTRAINT orders_t"),
        running_code="breaks code before 0005: rows that nobody wrote.",
    ),
    "another name for the table of both": Revision(
        sql("-- squawk-ignore renaming-table\nALTER TABLE orders RENAME TO purchases"),
        sql("ALTER TABLE purchases RENAME TO orders"),
        (("running-code", "table orders is gone"),),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(_empty_template: Any) -> Settings:
    """The test server, as a superuser."""
    where = _empty_template
    return Settings(
        host=where.host, port=int(where.port), user=where.user, password=where.password or None, database="postgres"
    )


@pytest.fixture(scope="module")
def creator(server: Settings) -> Iterator[Settings]:
    """A role that may create databases, and nothing else."""
    with psycopg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, dbname="postgres",
        autocommit=True,
    ) as connection:  # fmt: skip
        connection.execute("CREATE ROLE rules_creator LOGIN CREATEDB PASSWORD 'scratch'")
        yield replace(server, user="rules_creator", password="scratch")  # noqa: S106  (a role of this test's)
        connection.execute("DROP ROLE rules_creator")


@pytest.fixture(scope="module")
def chain(creator: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """The findings of each revision above, in one project, one after the other."""
    ini = empty_project(tmp_path_factory.mktemp("rules"))
    add_revision(ini, BASE, 'op.drop_table("customers")\nop.drop_table("orders")')
    files = {name: revision.add_to(ini) for name, revision in CHAIN.items()}
    found = check_revisions(creator, ini).findings
    assert {finding.file for finding in found} <= {*files.values()}
    return {name: [finding for finding in found if finding.file == file] for name, file in files.items()}


@pytest.mark.parametrize("name", CHAIN)
def test_a_revision_breaks_the_rules_that_it_breaks_and_no_other(chain: dict[str, list[Finding]], name: str) -> None:
    text = [(finding.rule, finding.message.replace("public.", "")) for finding in chain[name]]
    expected = CHAIN[name].findings

    assert sorted(rule for rule, _ in text) == sorted(rule for rule, _ in expected), text
    for rule, part in expected:
        assert any(rule == broken and part in message for broken, message in text), text
    assert "\n" not in "".join(map(str, chain[name]))


@pytest.mark.parametrize(
    ("name", "helper"),
    [
        ("a CHECK without a name", "op.validate_constraint("),
        ("an index without a name", "op.create_index_concurrently("),
        ("two tables at once", "op.validate_constraint"),
        ("an UPDATE", "op.run_in_batches("),
        ("a foreign key that is accepted", "op.validate_constraint("),
    ],
)
def test_the_remedy_names_the_helper(chain: dict[str, list[Finding]], name: str, helper: str) -> None:
    assert helper in chain[name][0].remedy


def test_these_rules_may_be_accepted() -> None:
    assert {"loss", "two-tables", "whole-table"} <= {*ACCEPTABLE}  # test_files.py has the whole list


# On top of this project's own revisions

ON_TOP = {
    "a CHECK that a job's row without scores breaks": Revision(
        sql("ALTER TABLE model_versions ADD CONSTRAINT f1_known CHECK (f1_score IS NOT NULL) NOT VALID"),
        sql("ALTER TABLE model_versions DROP CONSTRAINT f1_known"),
        (("running-code", "constraint f1_known on model_versions is new: CHECK"),),
    ),
    "a trigger that refuses a job's row": Revision(
        sql("""
            CREATE FUNCTION mlops_internal.refuse_row() RETURNS trigger LANGUAGE plpgsql
                SET search_path = pg_catalog, pg_temp AS 'BEGIN RAISE check_violation; END';
            REVOKE EXECUTE ON FUNCTION mlops_internal.refuse_row FROM PUBLIC;
            CREATE TRIGGER refuse BEFORE INSERT ON model_versions FOR EACH ROW WHEN (NEW.model_name = 'played')
                EXECUTE FUNCTION mlops_internal.refuse_row();
        """),
        sql("DROP TRIGGER refuse ON model_versions; DROP FUNCTION mlops_internal.refuse_row"),
        (("running-code", "db.models.register() with scores worked before the upgrade"),),
    ),
    "the trigger goes again": Revision(
        sql("ALTER TABLE model_versions DISABLE TRIGGER refuse"),
        sql("ALTER TABLE model_versions ENABLE TRIGGER refuse"),
    ),
    "a CHECK that the rows of the check keep and a job's do not": Revision(
        sql("ALTER TABLE retraining_decisions ADD CONSTRAINT of_a_run CHECK (candidate_mlflow_run_id ~ '^run-[0-9]+$')"
            " NOT VALID"),
        sql("ALTER TABLE retraining_decisions DROP CONSTRAINT of_a_run"),
        running_code=BREAKS,
    ),
    "a CHECK that all keep": Revision(
        sql("ALTER TABLE model_versions ADD CONSTRAINT f1_again CHECK (f1_score >= 0) NOT VALID"),
        sql("ALTER TABLE model_versions DROP CONSTRAINT f1_again"),
        (("running-code", "constraint f1_again on model_versions is new: CHECK"),),
    ),
    "another name for a table": Revision(
        sql("-- squawk-ignore renaming-table\nALTER TABLE retraining_decisions RENAME TO decisions"),
        sql("ALTER TABLE decisions RENAME TO retraining_decisions"),
        (("running-code", "table retraining_decisions is gone"),),
    ),
    "another name for a column": Revision(
        sql("-- squawk-ignore renaming-column\nALTER TABLE decisions RENAME action TO what"),
        sql("ALTER TABLE decisions RENAME what TO action"),
        (("running-code", "column decisions.action is gone"),
         ("running-code", "column decisions.what is new, and needs a value")),
    ),
    "a CHECK that goes": Revision(
        sql("-- squawk-ignore ban-drop-constraint\n"
            "ALTER TABLE decisions DROP CONSTRAINT IF EXISTS retraining_decisions_action_check"),
    ),
    "a CHECK that the rows of the check do not keep": Revision(
        sql("ALTER TABLE decisions ADD CONSTRAINT odd CHECK (length(what) < 3) NOT VALID"),
        sql("ALTER TABLE decisions DROP CONSTRAINT odd"),
        (("running-code", "constraint odd on decisions is new: CHECK"),
         ("round-trip", "existing rows can violate its odd, so")),
    ),
    "its validation": Revision('op.validate_constraint("odd", "decisions")'),
}  # fmt: skip


@pytest.fixture(scope="module")
def on_top(creator: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, dict[str, str]]:
    ini = copy_project(tmp_path_factory.mktemp("on_top"))
    files = {name: revision.add_to(ini) for name, revision in ON_TOP.items()}
    return check_revisions(creator, ini), files


@pytest.mark.parametrize("name", ON_TOP)
def test_the_right_revision_is_blamed(on_top: tuple[Report, dict[str, str]], name: str) -> None:
    report, files = on_top
    text = [(finding.rule, finding.message) for finding in report.findings if finding.file == files[name]]
    expected = ON_TOP[name].findings

    assert sorted(rule for rule, _ in text) == sorted(rule for rule, _ in expected), text
    for rule, part in expected:
        assert any(rule == broken and part in message for broken, message in text), text


def test_none_of_the_revisions_before_is_blamed(on_top: tuple[Report, dict[str, str]]) -> None:
    report, files = on_top

    assert {finding.file for finding in report.findings} <= {*files.values()}
