"""`op.execute_file`: each statement of the file beside the revision, exactly as it is written."""

import os
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

import mlops_db.migration.operations  # noqa: F401
from mlops_db.errors import RefusedError
from mlops_db.migration.statements import split_statements
from support.database import Database, revision_of
from support.process import assert_run_failed
from support.projects import Checkout

pytestmark = [pytest.mark.libraries, pytest.mark.full_postgresql]

# What SQLAlchemy and psycopg2 could take for parameters, and what ends a statement only elsewhere.
ODD = r"""-- Odd texts; a semicolon; a colon: and a per cent sign %s.
-- Revisions: 9020

CREATE TABLE odd (place int, text text);

-- A comment that stays; with a semicolon.
INSERT INTO odd VALUES (1, ':name \:name %s %(name)s %% é ''; '''), (2, E'a\\b;\n');
INSERT INTO odd VALUES ('3'::int, format('%s:%s', 'a', $$;$$));
/* nothing; /* at all; */ here */;
;
CREATE FUNCTION odd_rows() RETURNS SETOF odd LANGUAGE plpgsql AS $body$
BEGIN
    RETURN QUERY SELECT * FROM odd WHERE text LIKE '%';

    RETURN;
END $body$;
CREATE FUNCTION two(x int) RETURNS int RETURN CASE WHEN x > 0 THEN 2 END
"""
ROWS = [(1, r":name \:name %s %(name)s %% é '; '"), (2, "a\\b;\n"), (3, "a:;")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def write(checkout: Checkout, name: str, text: str) -> Path:
    path = checkout.ini.parent / "migrations" / "versions" / "sql" / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("how", ["run", "script"])
def test_statements_are_sent_as_they_are_written(empty: Database, checkout: Checkout, how: str) -> None:
    if empty.connection.info.server_version < 140000:
        odd = ODD.replace("RETURN CASE WHEN x > 0 THEN 2 END", "LANGUAGE sql AS 'SELECT 2;'")
    else:
        odd = ODD
    write(checkout, "9020_odd.sql", odd)
    checkout.add('op.execute_file("9020_odd.sql")', "op.execute('DROP TABLE odd CASCADE')")

    done = checkout.alembic(empty, "upgrade", "head", *(["--sql"] if how == "script" else []))
    assert done.returncode == 0, done.stdout + done.stderr
    if how == "script":
        assert "Revisions: 9020" not in done.stdout
        assert "-- A comment that stays; with a semicolon." in done.stdout
        empty.psql(done.stdout)

    assert empty.query("SELECT * FROM odd ORDER BY 1") == ROWS
    assert empty.query("SELECT * FROM odd_rows() ORDER BY 1") == ROWS
    assert empty.value("SELECT prosrc FROM pg_proc WHERE proname = 'odd_rows'") == (
        "\nBEGIN\n    RETURN QUERY SELECT * FROM odd WHERE text LIKE '%';\n\n    RETURN;\nEND "
    )


def test_a_file_is_utf_8_whatever_the_locale(empty: Database, checkout: Checkout) -> None:
    write(checkout, "9020_text.sql", "CREATE TABLE odd AS SELECT 'é' AS text;\n")
    checkout.add('op.execute_file("9020_text.sql")', "op.execute('DROP TABLE odd')")

    done = empty.run(
        "alembic", "-c", str(checkout.ini), "upgrade", "head", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )

    assert done.returncode == 0, done.stderr
    assert empty.value("SELECT text FROM odd") == "é"


def test_a_commit_in_a_file_is_refused(empty: Database, checkout: Checkout) -> None:
    write(checkout, "9020_commit.sql", "CREATE TABLE odd (n int);\nCOMMIT;\n")
    revision = checkout.add('op.execute_file("9020_commit.sql")', "pass")

    assert_run_failed(checkout.alembic(empty, "upgrade", "head"), f"revision {revision}", "COMMIT")
    assert empty.value("SELECT to_regclass('public.odd')") is None


def test_what_a_file_drops_is_known_before_a_downgrade_runs(empty: Database, checkout: Checkout) -> None:
    write(checkout, "9020_drop_odd.sql", "DROP TABLE odd;\n")
    checkout.add(
        "op.execute('CREATE TABLE odd AS SELECT 1 AS n')",
        'op.execute_file("9020_drop_odd.sql")',
    )
    assert checkout.alembic(empty, "upgrade", "head").returncode == 0

    planned = checkout.alembic(empty, "-x", "plan=true", "downgrade", "-1")
    refused = empty.run("alembic", "-c", str(checkout.ini), "downgrade", "-1", MLOPS_ENV="production")

    assert "tables: odd (" in planned.stdout
    assert_run_failed(refused, "this downgrade would lose 1 row of odd; nothing was changed")


def test_a_file_is_one_message_unless_a_guard_watches_the_rows(empty: Database, checkout: Checkout) -> None:
    text = "CREATE TABLE first (n int);\nCREATE TABLE {} AS SELECT current_query() AS sent;\n"
    write(checkout, "9020_up.sql", text.format("going_up"))
    write(checkout, "9020_down.sql", f"DROP TABLE first;\n{text.format('going_down')}")
    checkout.add('op.execute_file("9020_up.sql")', 'op.execute_file("9020_down.sql")')

    assert checkout.alembic(empty, "upgrade", "head").returncode == 0
    done = empty.run("alembic", "-c", str(checkout.ini), "downgrade", "-1", MLOPS_ENV="production")

    assert done.returncode == 0, done.stderr
    assert empty.value("SELECT sent FROM going_up") == text.format("going_up")
    assert empty.value("SELECT sent FROM going_down").strip() == text.format("going_down").splitlines()[1].rstrip(";")


# Files that cannot be executed


@pytest.mark.parametrize(
    "arguments",
    [("upgrade", "head"), ("upgrade", "head", "--sql"), ("history",), ("current",)],
    ids=" ".join,
)  # fmt: skip
def test_a_missing_file_is_an_error_before_anything_runs(
    empty: Database, checkout: Checkout, arguments: tuple[str, ...]
) -> None:
    (checkout.ini.parent / "migrations" / "versions" / "sql" / "0022_v_model_timeline.sql").unlink()

    done = checkout.alembic(empty, *arguments)

    assert_run_failed(
        done,
        "0022_views_by_model.py executes sql/0022_v_model_timeline.sql, which is not there",
        "git checkout -- migrations",
    )
    assert revision_of(empty) is None


def test_a_missing_file_whose_name_is_computed_is_an_error_of_the_run(empty: Database, checkout: Checkout) -> None:
    checkout.add('op.execute_file(revision + "_gone.sql")', "pass")

    assert_run_failed(
        checkout.alembic(empty, "upgrade", "head"), f"executes sql/{checkout.head}_gone.sql, which is not there"
    )
    assert revision_of(empty) == checkout.ids[-2]


def test_a_file_in_another_encoding_is_an_error(empty: Database, checkout: Checkout) -> None:
    write(checkout, "9020_text.sql", "").write_bytes("SELECT 'é'".encode("latin-1"))
    checkout.add('op.execute_file("9020_text.sql")', "pass")

    assert_run_failed(checkout.alembic(empty, "upgrade", "head"), "9020_text.sql is not UTF-8", "Save it as UTF-8.")


def test_a_text_that_ends_in_sql_is_no_file_where_no_file_is_executed(empty: Database, checkout: Checkout) -> None:
    checkout.add("op.execute('SELECT 1').__class__('dump.sql') if False else None", "pass")

    assert checkout.alembic(empty, "upgrade", "head").returncode == 0


# Where it is


def test_a_revision_of_another_folder_has_its_files_beside_it(
    empty: Database, checkout: Checkout, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    (mine / "sql").mkdir(parents=True)
    before = checkout.head
    revision = checkout.add('op.execute_file("mine.sql")', "op.execute('DROP TABLE mine')")
    (file,) = checkout.ini.parent.glob(f"migrations/versions/{revision}_*.py")
    text = file.read_text(encoding="utf-8").replace(f'"{revision}"', '"mine_0001"')
    (mine / "mine.py").write_text(text.replace(f"= '{before}'", f"= None\ndepends_on = '{before}'"), encoding="utf-8")
    file.unlink()
    (mine / "sql" / "mine.sql").write_text("CREATE TABLE mine (n int)", encoding="utf-8")
    config = Config(checkout.ini)
    config.attributes["settings"] = empty.settings
    config.set_main_option(
        "version_locations", os.pathsep.join(map(str, (checkout.ini.parent / "migrations" / "versions", mine)))
    )

    command.upgrade(config, "heads")
    assert empty.value("SELECT to_regclass('public.mine') IS NOT NULL") is True

    (mine / "sql" / "mine.sql").unlink()
    with pytest.raises(CommandError, match=r"mine\.py executes sql/mine\.sql, which is not there"):
        command.downgrade(config, "-1")


def test_the_checks_of_the_revisions_find_missing_and_unused_files(empty: Database, checkout: Checkout) -> None:
    (checkout.ini.parent / "migrations" / "versions" / "sql" / "0023_comments.sql").unlink()
    write(checkout, "0022_v_nobody.sql", "SELECT 1;\n")

    done = empty.run("mlops-db", "check", "--revisions", ALEMBIC_CONFIG=str(checkout.ini))

    assert done.returncode == 1
    unused, missing = [line for line in done.stdout.splitlines() if ": sql-file: " in line]
    assert unused == (
        "0022_views_by_model.py: sql-file: no revision names sql/0022_v_nobody.sql."
        ' Write op.execute_file("0022_v_nobody.sql") in the revision, or delete the file.'
    )
    assert missing == (
        "0023_comments.py: sql-file: it names sql/0023_comments.sql, which does not exist."
        " Restore the file, or correct its name."
    )


# Splitting


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" ; ;; ", []),
        ("-- nothing\n", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;\n-- two\nSELECT 2;\n", ["SELECT 1", "-- two\nSELECT 2"]),
        ("SELECT ';' AS \";\"; SELECT $a$;$$;$a$", ["SELECT ';' AS \";\"", "SELECT $a$;$$;$a$"]),
        ("SELECT 1 /* ; /* ; */ ; */; SELECT 2", ["SELECT 1 /* ; /* ; */ ; */", "SELECT 2"]),
        (
            "CREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2); SELECT 3",
            ["CREATE RULE r AS ON DELETE TO t DO (SELECT 1; SELECT 2)", "SELECT 3"],
        ),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 3",
            [
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
                "SELECT 3",
            ],
        ),
    ],
)
def test_statements_end_where_the_server_ends_them(sql: str, statements: list[str]) -> None:
    assert list(split_statements(sql)) == statements


def test_a_call_outside_of_a_run_is_refused() -> None:
    operations = Operations(MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True}))

    with pytest.raises(RefusedError, match="outside of a run"):
        operations.execute_file("0022_v_model_timeline.sql")  # type: ignore[attr-defined]
