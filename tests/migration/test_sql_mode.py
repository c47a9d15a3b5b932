"""`--sql`: a script that gives what the online run gives, the history included."""

import io
import re
from pathlib import Path

import pytest
from alembic import command

from mlops_db.migration import commands
from mlops_db.migration.commands import alembic_config
from mlops_db.migration.history import read_history
from mlops_db.revisions.graph import revisions
from support.database import Database, clean_environment, client, run_command
from support.projects import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.libraries]

HEAD = revisions()[-1].id
IDS = [revision.id for revision in revisions()]


def script(*arguments: str, **variables: str) -> str:
    """What `alembic ... --sql` writes where no server can be reached."""
    done = run_command(
        "alembic", *arguments, "--sql", environment=clean_environment(POSTGRES_HOST="nowhere.invalid", **variables)
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("program", [("alembic",), ("mlops-db", "alembic")])
@pytest.mark.parametrize(
    "arguments",
    [
        ("upgrade", "%(here)s"),
        ("upgrade", "nope:head"),
        ("upgrade", "+99"),
        ("downgrade", "0003:nope"),
        ("stamp", "nope"),
    ],
)
def test_a_wrong_revision_is_refused_before_the_script_begins(
    program: tuple[str, ...], arguments: tuple[str, str]
) -> None:
    done = run_command(*program, *arguments, "--sql", environment=clean_environment(POSTGRES_HOST="nowhere.invalid"))
    assert done.returncode > 0
    assert "SET " not in done.stdout
    assert "Traceback" not in done.stderr


def entries(database: Database) -> list[tuple[str, str, str, str]]:
    """The history, oldest first."""
    found = read_history(database.settings, limit=1000)
    return [(entry.direction, entry.revision, entry.outcome, entry.client) for entry in found[::-1]]


@pytest.mark.parametrize("arguments", [("upgrade", "head"), ("downgrade", f"{HEAD}:base")])
def test_two_users_write_the_same_script(arguments: tuple[str, str]) -> None:
    mine = script(*arguments, PYTHONHASHSEED="1", TZ="Asia/Kolkata")
    yours = script(*arguments, PYTHONHASHSEED="2", TZ="UTC", POSTGRES_USER="somebody", MLOPS_ENV="production")
    assert mine == yours
    lines = mine.splitlines()
    # An index that is built CONCURRENTLY ends a transaction, and so do batches; another one begins after it.
    outside = re.findall(r"^(?:CREATE .*INDEX CONCURRENTLY | +WHILE done < )", mine, re.MULTILINE)
    assert lines.count("BEGIN;") == lines.count("COMMIT;") == len(IDS) + len(outside)


def written(database: Database, direction: str, revision: str) -> str:
    config = alembic_config(database.settings)
    config.output_buffer = io.StringIO()
    getattr(command, direction)(config, revision, sql=True)
    return config.output_buffer.getvalue()


def test_scripts_up_and_down_leave_the_catalogue_of_online_runs(empty: Database, head: Database) -> None:
    commands.downgrade(head.settings, "base")

    empty.psql(written(empty, "upgrade", "head"))
    empty.psql(written(empty, "downgrade", f"{HEAD}:base"))

    assert "mlops_internal.migration_history" in empty.dump()
    # A script of Alembic 1.18 ends by dropping its own table; an online run, and later ones, leave it empty.
    but_alembic_s = "--exclude-table=alembic_version"
    assert empty.dump(but_alembic_s) == head.dump(but_alembic_s)


@pytest.mark.parametrize("down", ["run", "script"])
def test_a_script_goes_up_again_after_a_downgrade_to_base(empty: Database, head: Database, down: str) -> None:
    commands.upgrade(empty.settings)
    if down == "run":
        commands.downgrade(empty.settings, "base")
    else:
        empty.psql(written(empty, "downgrade", f"{HEAD}:base"))

    empty.psql(written(empty, "upgrade", "head"))

    assert empty.dump() == head.dump()
    assert empty.query("SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_a_script_from_base_refuses_a_database_that_is_further(empty: Database) -> None:
    commands.upgrade(empty.settings, "0002")
    before = empty.dump()
    with pytest.raises(AssertionError, match="at revision 0002, but the script starts from base; nothing was changed"):
        empty.psql(written(empty, "upgrade", "head"))
    assert empty.dump() == before


def test_each_revision_of_a_script_is_entered_in_the_history(empty: Database) -> None:
    empty.psql(written(empty, "upgrade", "head"))
    empty.psql(written(empty, "downgrade", f"{HEAD}:base"))

    assert entries(empty) == [
        *(("upgrade", revision, "applied", "SQL script") for revision in IDS),
        *(("downgrade", revision, "applied", "SQL script") for revision in IDS[::-1]),
    ]
    complete = "SELECT count(*) FROM mlops_internal.migration_history WHERE duration >= '0'"
    assert empty.value(complete) == 2 * len(IDS)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise NotImplementedError", "revision {} has no statements yet"),
        (
            'op.get_bind().execute(sa.text("SELECT 1")).scalar()',
            "revision {} cannot be written as a script: Attr",
        ),
        ("raise RuntimeError", "revision {} cannot be written as a script: RuntimeError: no reason given"),
    ],
)
@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_revision_that_cannot_be_written_is_refused(tmp_path: Path, body: str, reason: str, direction: str) -> None:
    checkout = Checkout(tmp_path)
    revision = checkout.add(*((body, "pass") if direction == "upgrade" else ("pass", body)))
    steps = f"{HEAD}:{revision}" if direction == "upgrade" else f"{revision}:{HEAD}"
    arguments = ("mlops-db", "alembic", "-c", str(checkout.ini), direction, steps, "--sql")
    done = run_command(*arguments, environment=clean_environment(POSTGRES_HOST="nowhere.invalid"))
    assert done.returncode > 0
    assert re.fullmatch(rf"error: {reason.format(revision)}.*\nhint: .+\n", done.stderr), done.stderr


def test_the_script_of_a_stamp_is_entered_too(empty: Database) -> None:
    empty.psql(written(empty, "upgrade", "0001"))
    empty.psql(written(empty, "stamp", "0001:0003"))
    assert entries(empty)[1:] == [("stamp", "0003", "applied", "SQL script")]
    assert empty.query("SELECT version_num FROM alembic_version") == [("0003",)]


def test_an_online_run_goes_on_where_a_script_stopped(empty: Database, head: Database) -> None:
    empty.psql(written(empty, "upgrade", "0002"))
    commands.upgrade(empty.settings)

    assert empty.dump() == head.dump()
    assert [entry[:3] for entry in entries(empty)] == [("upgrade", revision, "applied") for revision in IDS]


def test_a_script_goes_on_where_an_online_run_stopped(empty: Database, head: Database) -> None:
    commands.upgrade(empty.settings, "0003")
    empty.psql(written(empty, "upgrade", "0003:head"))

    assert empty.dump() == head.dump()
    assert [entry[:3] for entry in entries(empty)] == [("upgrade", revision, "applied") for revision in IDS]


def test_a_revision_that_a_script_could_not_finish_is_not_in_the_history(empty: Database) -> None:
    empty.query("CREATE TYPE retraining_decisions AS ENUM ('in the way')")

    with pytest.raises(AssertionError, match="retraining_decisions"):
        empty.psql(written(empty, "upgrade", "head"))

    assert [entry[:3] for entry in entries(empty)] == [("upgrade", "0001", "applied"), ("upgrade", "0002", "applied")]


def test_a_script_refuses_a_database_that_is_elsewhere_and_changes_nothing(empty: Database) -> None:
    script = empty.run("alembic", "upgrade", "0004:0007", "--sql").stdout
    assert empty.run("alembic", "upgrade", "0006").returncode == 0
    before = empty.dump()

    for stop in ("on", "off"):
        done = run_command(
            client("psql"), "-X", "-q", "-v", f"ON_ERROR_STOP={stop}",
            "-h", empty.settings.host, "-p", str(empty.settings.port), "-U", empty.settings.user,
            "-d", empty.settings.database,
            environment=clean_environment(PGPASSWORD=empty.settings.password or ""), stdin=script,
        )  # fmt: skip
        assert "this database is at revision 0006, but the script starts from 0004; nothing was changed" in done.stderr
        if stop == "on":
            assert done.returncode != 0
            assert empty.dump() == before
            assert empty.value("SELECT version_num FROM alembic_version") == "0006"
