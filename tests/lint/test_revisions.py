"""What `check_revisions` finds by running revisions: each rule broken once, and each pattern of the docs kept."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mlops_db.errors import MissingExtraError, NotPermittedError, ServerUnreachableError
from mlops_db.lint.rule import COLUMNS
from mlops_db.lint.run import Report, check_revisions
from mlops_db.project import BASELINE
from mlops_db.settings import Settings
from support.database import ROOT, SCRIPTS
from support.projects import add_revision, copy_project, empty_project, source, versions

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

KEPT = '"""Nothing: what upgrade did may stay."""'


@dataclass(frozen=True)
class Revision:
    """A revision to check, and a pattern for each finding that is expected of it.

    With `after`, one that undoes it follows, so that the next revision starts from the same on both scratch databases.
    """

    upgrade: str
    downgrade: str
    findings: tuple[str, ...] = ()
    locks: str = "ACCESS EXCLUSIVE on model_versions, for a moment."
    after: str = ""


def sql(*statements: str) -> str:
    return "\n".join(f"op.execute({statement!r})" for statement in statements)


def outside(statement: str) -> str:
    return f"with op.get_context().autocommit_block():\n    op.execute({statement!r})"


F1_CHECK = "ADD CONSTRAINT f1_again CHECK (f1_score BETWEEN 0 AND 1) NOT VALID"

GOOD = {
    "an added column": Revision(
        'op.add_column("model_versions", sa.Column("owner", sa.Text, server_default="unknown", nullable=False))',
        'op.drop_column("model_versions", "owner")',
    ),
    "an index beside the writers": Revision(
        'op.create_index_concurrently("model_versions_status_idx", "model_versions", ["status"])',
        'op.drop_index("model_versions_status_idx", "model_versions")',
        locks="SHARE UPDATE EXCLUSIVE while it is built; downgrade takes ACCESS EXCLUSIVE for a moment.",
    ),
    "an index beside the writers, both ways": Revision(
        'op.create_index_concurrently("both_ways_idx", "model_versions", ["status"], where="status IS NOT NULL")',
        outside("DROP INDEX CONCURRENTLY both_ways_idx"),
        locks="SHARE UPDATE EXCLUSIVE while it is built.",
    ),
    "a constraint for new rows": Revision(
        sql(f"ALTER TABLE model_versions {F1_CHECK}"),
        sql("ALTER TABLE model_versions DROP CONSTRAINT f1_again"),
    ),
    "its validation": Revision(
        'op.validate_constraint("f1_again", "model_versions")',
        sql(
            "ALTER TABLE model_versions DROP CONSTRAINT f1_again",
            f"ALTER TABLE model_versions {F1_CHECK}",
        ),
        locks="SHARE UPDATE EXCLUSIVE while the rows are read; downgrade takes ACCESS EXCLUSIVE for a moment.",
    ),
    "a constraint for new rows, once more": Revision(
        sql("ALTER TABLE model_versions ADD CONSTRAINT brier CHECK (brier_score BETWEEN 0 AND 1) NOT VALID"),
        sql("ALTER TABLE model_versions DROP CONSTRAINT brier"),
    ),
    "its validation, as docs/writing-a-revision.md has it": Revision(
        'op.validate_constraint("brier", "model_versions")',
        '"""Nothing: what was validated cannot be made not valid again without dropping it."""',
        locks="SHARE UPDATE EXCLUSIVE while the rows are read.",
    ),
    "a column filled in batches": Revision(
        outside("""
            DO $$
            BEGIN
                LOOP
                    UPDATE model_versions SET owner = 'nobody'
                     WHERE id IN (SELECT id FROM model_versions WHERE owner <> 'nobody' LIMIT 5000);
                    EXIT WHEN NOT FOUND;
                    COMMIT;
                END LOOP;
            END $$
        """),
        KEPT,
        locks="ROW EXCLUSIVE on model_versions.",
    ),
    "a change of rows without a way back": Revision(
        sql("UPDATE model_versions SET status = 'archived' WHERE status IS NULL"),
        KEPT,
        locks="ROW EXCLUSIVE on model_versions.",
    ),
    "a table of its own": Revision(
        """
            op.create_table(
                "orders",
                sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
                sa.Column("what", sa.Text),
                sa.Column("amount", sa.BigInteger),
            )
        """,
        'op.drop_table("orders")',
        locks="none that anybody waits for; downgrade takes ACCESS EXCLUSIVE on orders.",
    ),
    "a view": Revision(
        sql("CREATE VIEW v_orders AS SELECT id, amount FROM orders"),
        sql("DROP VIEW v_orders"),
        locks="ACCESS SHARE on orders; downgrade takes ACCESS EXCLUSIVE on v_orders.",
    ),
}

BAD = {
    # Round trip
    "a downgrade that forgets an index": Revision(
        outside("CREATE INDEX CONCURRENTLY IF NOT EXISTS forgotten ON model_versions (model_version)"),
        sql("SELECT 'the index is forgotten'"),
        (r"round-trip: downgrade .*, index public\.forgotten on .*: unexpected\. Fix downgrade\(\)\.",),
    ),
    "a downgrade that restores another default": Revision(
        sql("ALTER TABLE monitoring_metrics ALTER metric_value SET DEFAULT 0"),
        sql("ALTER TABLE monitoring_metrics ALTER metric_value SET DEFAULT 1"),
        (r"round-trip: downgrade .*, column .*\.metric_value: default: expected nothing, found .*1.*",),
    ),
    "a downgrade that brings a column back as the last one": Revision(
        sql("-- squawk-ignore ban-drop-column\nALTER TABLE orders DROP COLUMN what"),
        sql("ALTER TABLE orders ADD COLUMN what text"),
        (r"round-trip: downgrade .*, column public\.orders\.what: position: expected 2, found 3\. .*",
         r"round-trip: downgrade .*, column public\.orders\.amount: position: expected 3, found 2\. .*",
         r"running-code: column orders\.what is gone\. .*"),
    ),
    "a second upgrade that makes something else": Revision(
        # Schemas other than ours are not compared: the mark stays unseen.
        sql("""
            DO $$ BEGIN
                IF to_regclass('elsewhere.mark') IS NULL THEN COMMENT ON TABLE orders IS 'first time'; END IF;
                CREATE SCHEMA IF NOT EXISTS elsewhere;
                CREATE TABLE IF NOT EXISTS elsewhere.mark ();
            END $$
        """),
        sql("COMMENT ON TABLE orders IS NULL"),
        (r"round-trip: a second upgrade makes .*: comment: expected first time, found nothing\. .*",),
    ),
    # --sql
    "an upgrade that is another one online": Revision(
        "if not op.get_context().as_sql:\n    op.execute(\"COMMENT ON TABLE orders IS 'online'\")",
        sql("COMMENT ON TABLE orders IS NULL"),
        (r"sql-mode: the script of its upgrade makes .*: comment: expected online, found nothing\. Let .*",),
        after="COMMENT ON TABLE orders IS NULL",
    ),
    "a downgrade that is another one online": Revision(
        sql("COMMENT ON TABLE orders IS 'both'"),
        "if not op.get_context().as_sql:\n    op.execute('COMMENT ON TABLE orders IS NULL')",
        (r"sql-mode: the script of its downgrade makes .*: comment: expected nothing, found both\. Let .*",),
        after="COMMENT ON TABLE orders IS NULL",
    ),
    "a script that psql refuses": Revision(
        'op.execute("SELECT 1/0" if op.get_context().as_sql else "SELECT 1")',
        KEPT,
        (r"sql-mode: the script of its upgrade fails: .*division by zero.* Fix what --sql writes\.",),
    ),
    "a script of a downgrade that psql refuses": Revision(
        sql("SELECT 1"),
        'op.execute("SELECT 1/0" if op.get_context().as_sql else "SELECT 1")',
        (r"sql-mode: the script of its downgrade fails: .*division by zero.*",),
    ),
    # Squawk
    "an index that writers wait for": Revision(
        'op.create_index("waits", "model_versions", ["status"])',
        'op.drop_index("waits", "model_versions")',
        (r"squawk: require-concurrent-index-creation: .*`concurrently`.*op\.create_index_concurrently\(.*",),
    ),
    "a constraint that reads all rows under its lock": Revision(
        sql("ALTER TABLE model_versions ADD CONSTRAINT at_once CHECK (f1_score >= 0)"),
        sql("ALTER TABLE model_versions DROP CONSTRAINT at_once"),
        (r"running-code: constraint at_once on model_versions is new: CHECK .*",
         r"squawk: constraint-missing-not-valid: .*`NOT VALID`.*op\.validate_constraint\(.*"),
    ),
    "a NOT NULL that reads all rows under its lock": Revision(
        'op.alter_column("model_versions", "f1_score", nullable=False)',
        'op.alter_column("model_versions", "f1_score", nullable=True)',
        (r"running-code: column model_versions\.f1_score takes no NULL any more\. .*",
         r"squawk: adding-not-nullable-field: .*op\.validate_constraint\(.*"),
    ),
    # Locks
    "an upgrade with a stronger lock than declared": Revision(
        sql("ALTER TABLE model_versions ADD COLUMN note text"),
        sql("ALTER TABLE model_versions DROP COLUMN note"),
        (r"locks: upgrade takes ACCESS EXCLUSIVE on model_versions, declared: SHARE UPDATE EXCLUSIVE\. .*",
         r"locks: downgrade takes ACCESS EXCLUSIVE on model_versions, declared: SHARE UPDATE EXCLUSIVE\. .*"),
        locks="SHARE UPDATE EXCLUSIVE on model_versions, for a moment.",
    ),
    "a downgrade with a stronger lock than declared": Revision(
        sql("COMMENT ON COLUMN orders.amount IS 'stage'"),
        sql("LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE", "COMMENT ON COLUMN orders.amount IS NULL"),
        (r"locks: downgrade takes SHARE ROW EXCLUSIVE on orders, declared: SHARE UPDATE EXCLUSIVE\. .*",),
        locks="SHARE UPDATE EXCLUSIVE on orders, for a moment.",
    ),
    "a lock where none is declared": Revision(
        sql("COMMENT ON TABLE orders IS 'orders'"),
        sql("COMMENT ON TABLE orders IS NULL"),
        (r"locks: upgrade takes SHARE UPDATE EXCLUSIVE on orders, declared: none\. .*",
         r"locks: downgrade takes SHARE UPDATE EXCLUSIVE on orders, declared: none\. .*"),
        locks="none.",
    ),
    "a lock that is gone before a block outside begins": Revision(
        sql("LOCK TABLE model_versions IN EXCLUSIVE MODE") + "\n" + outside("SELECT 1"),
        sql("SELECT 1"),
        (r"locks: upgrade takes EXCLUSIVE on model_versions, declared: SHARE UPDATE EXCLUSIVE\. .*",),
        locks="SHARE UPDATE EXCLUSIVE on model_versions.",
    ),
    "a stronger lock than declared on a view": Revision(
        sql("ALTER VIEW v_model_timeline SET (security_barrier = true)"),
        sql("ALTER VIEW v_model_timeline RESET (security_barrier)"),
        (r"locks: upgrade takes ACCESS EXCLUSIVE on v_model_timeline, declared: ACCESS SHARE\. .*",
         r"locks: downgrade takes ACCESS EXCLUSIVE on v_model_timeline, declared: ACCESS SHARE\. .*"),
        locks="ACCESS SHARE on v_model_timeline.",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(_empty_template: Any) -> Settings:
    """The test server, as a superuser."""
    where = _empty_template
    return Settings(
        host=where.host, port=int(where.port), user=where.user, password=where.password or None, database="postgres"
    )


def superuser(server: Settings) -> "psycopg.Connection[Any]":
    return psycopg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, dbname="postgres",
        autocommit=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def creator(server: Settings) -> Iterator[Settings]:
    """A role that may create databases, and nothing else."""
    with superuser(server) as connection:
        connection.execute("CREATE ROLE scratch_creator LOGIN CREATEDB PASSWORD 'scratch'")
        yield replace(server, user="scratch_creator", password="scratch")  # noqa: S106  (a role of this test's)
        connection.execute("DROP ROLE scratch_creator")


@dataclass(frozen=True)
class Checked:
    """One run over this project's revisions and, after head, all those of a table above."""

    report: Report
    files: dict[str, str]
    output: str

    def findings(self, name: str) -> list[str]:
        file = self.files[name]
        return [str(finding).removeprefix(f"{file}: ") for finding in self.report.findings if finding.file == file]


def check_all(ini: Path, server: Settings, revisions: dict[str, Revision]) -> Checked:
    files = {}
    for name, revision in revisions.items():
        files[name] = add_revision(ini, revision.upgrade, revision.downgrade, locks=revision.locks)
        if revision.after:
            add_revision(ini, sql(revision.after), KEPT)
    output = StringIO()
    return Checked(check_revisions(server, ini, progress=output), files, output.getvalue())


@pytest.fixture(scope="module")
def checked(creator: Settings, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    return check_all(copy_project(tmp_path_factory.mktemp("revisions")), creator, GOOD | BAD)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_revision_passes_every_check(checked: Checked, name: str) -> None:
    assert checked.findings(name) == []
    assert {checked.report.verdict(checked.files[name], column) for column in COLUMNS} == {"ok"}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_revision_is_found_by_its_own_rule_and_no_other(checked: Checked, name: str) -> None:
    findings = checked.findings(name)
    expected = BAD[name].findings

    assert len(findings) == len(expected), findings
    for finding, pattern in zip(findings, expected, strict=True):
        assert re.fullmatch(pattern, finding), finding  # and so it is one line


def test_the_project_s_own_revisions_have_nothing_to_find_and_the_baseline_is_exempt_from_squawk(
    checked: Checked,
) -> None:
    own = [file.name for file in sorted(versions(ROOT / "alembic.ini").glob("*.py"))]

    assert [finding for finding in checked.report.findings if finding.file in own] == []
    for file in own:
        verdicts = {column: checked.report.verdict(file, column) for column in COLUMNS}
        assert verdicts == dict.fromkeys(COLUMNS, "ok") | (
            dict.fromkeys(("squawk", "rows", "names", "copies"), "-") if file[:4] <= BASELINE else {}
        )


def test_a_table_counts_the_findings_of_each_check(checked: Checked) -> None:
    file = checked.files["an upgrade with a stronger lock than declared"]

    verdicts = [checked.report.verdict(file, column) for column in COLUMNS]
    assert verdicts == ["ok"] * 4 + ["2"] + ["ok"] * 3


def test_progress_names_each_revision(checked: Checked) -> None:
    total = len(checked.report.files)
    lines = checked.output.splitlines()

    assert len(lines) == total, [line for line in lines if not line.startswith("[")]
    for number, (line, file) in enumerate(zip(lines, checked.report.files, strict=True), 1):
        assert line.startswith(f"[{number}/{total}] {Path(file).stem} ")


# What ends a run, or needs a project of its own


ORDERS = """
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("amount", sa.BigInteger),
    )
"""


@dataclass(frozen=True)
class Project:
    """A project whose first revision, 0005, makes a table; a test adds what it needs."""

    ini: Path
    server: Settings

    def add(self, upgrade: str, downgrade: str = KEPT, **parts: str) -> str:
        return add_revision(self.ini, upgrade, downgrade, **parts)

    def write(self, name: str, text: str) -> None:
        (versions(self.ini) / name).write_text(text, encoding="utf-8")

    def check(self, server: Settings | None = None) -> Report:
        return check_revisions(server or self.server, self.ini)


@pytest.fixture
def project(server: Settings, tmp_path: Path) -> Iterator[Project]:
    made = Project(empty_project(tmp_path), server)
    made.add(ORDERS, 'op.drop_table("orders")')
    yield made
    assert scratch_databases(server) == []


def scratch_databases(server: Settings) -> list[str]:
    with superuser(server) as connection:
        return [name for (name,) in connection.execute("SELECT datname FROM pg_database") if "scratch" in name]


def test_two_files_with_one_number_are_one_finding(project: Project) -> None:
    project.write("0006_one.py", source("0006", "0005", sql("SELECT 1"), KEPT))
    project.write("0006_two.py", source("0006", "0005", sql("SELECT 1"), KEPT))

    (finding,) = project.check().findings

    assert str(finding).startswith("0006_two.py: one-id: 0006_one.py and 0006_two.py are both revision 0006. Renumber ")


def test_a_revision_that_fails_on_rows_is_found_and_those_after_it_are_not_checked(project: Project) -> None:
    bad = project.add(
        sql("ALTER TABLE orders ADD COLUMN customer text NOT NULL"), sql("ALTER TABLE orders DROP customer")
    )
    after = project.add(sql("SELECT 1"))

    report = project.check()

    (finding,) = report.findings
    assert str(finding) == (
        f"{bad}: round-trip: it does not run on tables with rows: "
        'column "customer" of relation "orders" contains null values (SQLSTATE 23502). Fix the error.'
    )
    assert [report.verdict("0005_change.py", column) for column in COLUMNS] == ["ok"] * 7 + ["-"]
    assert [report.verdict(bad, column) for column in COLUMNS] == ["ok", "1"] + ["-"] * 6
    assert [report.verdict(after, column) for column in COLUMNS] == ["ok"] + ["-"] * 7


DO_NOT_RUN = {
    "an upgrade with a wrong name": (sql("DROP TABLE oders"), KEPT, 'table "oders" does not exist'),
    "a downgrade with a wrong name": (sql("SELECT 1"), sql("DROP INDEX never"), 'index "never" does not exist'),
    "a second upgrade that meets what downgrade left": (sql("CREATE VIEW v AS SELECT 1"), KEPT, '"v" already exists'),
    "a downgrade that cannot take what was written since": (
        sql("ALTER TABLE orders ALTER amount TYPE text"),
        sql("ALTER TABLE orders ALTER amount TYPE bigint USING amount::bigint"),
        "invalid input syntax for type bigint",
    ),
    "an upgrade that checks the rows": ("raise RuntimeError('3 rows have no amount')", KEPT, "3 rows have no amount"),
    "a slip of the pen": ("op.exceute('SELECT 1')", KEPT, "exceute"),
    "an error of SQLAlchemy's": ('sa.Table("nowhere", sa.MetaData(), autoload_with=op.get_bind())', KEPT, "nowhere"),
    "a downgrade that refuses": (sql("SELECT 1"), f"{KEPT}\nraise NotImplementedError", "NotImplementedError"),
}  # fmt: skip


@pytest.mark.parametrize(("upgrade", "downgrade", "reason"), DO_NOT_RUN.values(), ids=DO_NOT_RUN)
def test_a_revision_that_does_not_run_is_a_finding_with_the_reason(
    project: Project, upgrade: str, downgrade: str, reason: str
) -> None:
    file = project.add(upgrade, downgrade)

    (finding,) = project.check().findings

    assert (finding.file, finding.rule) == (file, "round-trip")
    assert finding.message.startswith("it does not run")
    assert reason in finding.message
    assert "\n" not in str(finding)


def test_a_revision_that_needs_a_database_in_sql_mode_is_a_finding(project: Project) -> None:
    file = project.add('op.get_bind().execute(sa.text("SELECT count(*) FROM orders")).scalar_one()')

    findings = project.check().findings

    assert {finding.file for finding in findings} == {file}
    assert "sql-mode" in {finding.rule for finding in findings} <= {"sql-mode", "squawk"}


def test_a_revision_without_upgrade_is_a_finding(project: Project) -> None:
    file = project.add(sql("SELECT 1"))
    text = (versions(project.ini) / file).read_text(encoding="utf-8")
    project.write(file, text.replace("def upgrade()", "def upgrad()"))

    assert {(finding.file, finding.rule) for finding in project.check().findings} == {(file, "upgrade")}


def test_a_revision_that_cannot_be_imported_is_a_finding(project: Project) -> None:
    file = project.add("import not_installed_here", KEPT)
    text = (versions(project.ini) / file).read_text(encoding="utf-8")
    project.write(
        file, text.replace("import sqlalchemy as sa\n", "import sqlalchemy as sa\nimport not_installed_here\n")
    )

    assert {finding.rule for finding in project.check().findings if finding.file == file} == {"imports", "loads"}


def test_branches_that_are_merged_on_purpose_run(project: Project) -> None:
    for number in ("0006", "0007"):
        up, down = sql(f"CREATE VIEW v{number} AS SELECT id FROM orders"), sql(f"DROP VIEW v{number}")
        project.write(f"{number}_change.py", source(number, "0005", up, down))
    project.write("0008_merge.py", source("0008", ("0006", "0007"), "pass", '"""Nothing: it only merges."""'))

    report = project.check()

    assert report.findings == []
    verdicts = {(file, column): report.verdict(file, column) for file in report.files for column in COLUMNS}
    assert verdicts.pop(("0008_merge.py", "--sql")) == "-"  # Alembic has no way to say that a script starts from two
    assert set(verdicts.values()) == {"ok"}


def test_files_that_cannot_be_put_in_order_are_reported_without_a_server(project: Project) -> None:
    project.write("0006_change.py", "def upgrade(:")

    report = project.check(replace(project.server, host="/nowhere"))

    assert [finding.rule for finding in report.findings] == ["syntax"]
    assert [report.verdict("0005_change.py", column) for column in COLUMNS] == ["ok"] + ["-"] * 7


def test_without_a_server_the_error_says_so(project: Project) -> None:
    with pytest.raises(ServerUnreachableError, match="no PostgreSQL answers"):
        project.check(replace(project.server, host="/nowhere"))


def test_a_role_that_may_not_create_databases_is_told_what_it_lacks(project: Project) -> None:
    with superuser(project.server) as connection:
        connection.execute("CREATE ROLE nobody_much LOGIN PASSWORD 'nothing'")
        try:
            with pytest.raises(NotPermittedError, match='"nobody_much" may not create databases') as refused:
                project.check(replace(project.server, user="nobody_much", password="nothing"))  # noqa: S106  (a role of this test's)
        finally:
            connection.execute("DROP ROLE nobody_much")
    assert 'ALTER ROLE "nobody_much" CREATEDB' in refused.value.hint


def test_settings_for_production_do_not_keep_the_scratch_databases_from_going_down(project: Project) -> None:
    assert project.check(replace(project.server, environment="production")).findings == []


def test_without_squawk_the_error_says_how_to_get_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(MissingExtraError, match="need squawk") as missing:
        project.check()
    assert "mlops-db[check]" in missing.value.hint


def test_squawk_is_found_on_path_when_it_is_not_beside_the_interpreter(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squawk").symlink_to(SCRIPTS / "squawk")
    monkeypatch.setattr("sys.executable", str(tmp_path / "elsewhere" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert project.check().findings == []


# A table that is copied: two revisions each way


BEGIN_COPY = """
    CREATE TABLE mlops_internal.table_copies (
        source oid CONSTRAINT table_copies_pkey PRIMARY KEY, copy oid NOT NULL, changes oid NOT NULL,
        source_rows bigint, copy_rows bigint
    );
    CREATE TABLE mlops_internal.orders_changes (id bigint NOT NULL);
    CREATE TABLE mlops_internal.orders_copy (id bigint NOT NULL, amount {type} CHECK (amount > 5));
    INSERT INTO mlops_internal.table_copies
    SELECT 'public.orders'::regclass, 'mlops_internal.orders_copy'::regclass, 'mlops_internal.orders_changes'::regclass;
"""
END_COPY = """DO $$ BEGIN
    IF (SELECT atttypid <> '{type}'::regtype FROM pg_attribute
         WHERE attrelid = 'mlops_internal.orders_copy'::regclass AND attname = 'amount') THEN
        DROP TABLE mlops_internal.orders_copy;
    ELSE
        INSERT INTO mlops_internal.orders_copy SELECT id, amount + 10 FROM public.orders;
        DROP TABLE public.orders;
        ALTER TABLE mlops_internal.orders_copy DROP CONSTRAINT orders_copy_amount_check;
        ALTER TABLE mlops_internal.orders_copy SET SCHEMA public;
        ALTER TABLE public.orders_copy RENAME TO orders;
        ALTER TABLE public.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
        ALTER TABLE public.orders ALTER id ADD GENERATED BY DEFAULT AS IDENTITY;
    END IF;
    DROP TABLE mlops_internal.orders_changes, mlops_internal.table_copies;
END $$"""


@pytest.mark.parametrize("restored", ["bigint", "smallint"])
def test_of_a_copy_of_a_table_only_its_end_is_compared_with_its_beginning(project: Project, restored: str) -> None:
    def begin(type_: str) -> str:
        return sql(BEGIN_COPY.format(type=type_))

    def end(type_: str) -> str:
        return sql(END_COPY.format(type=type_))

    project.add(begin("integer"), end(restored))
    swap = project.add(end("integer"), begin(restored))

    findings = [finding for finding in project.check().findings if finding.rule == "round-trip"]

    assert [(finding.file, finding.message.split(": ")[0]) for finding in findings] == (
        []
        if restored == "bigint"
        else [(swap, "downgrade to before the copy leaves a difference, column public.orders.amount")]
    )
