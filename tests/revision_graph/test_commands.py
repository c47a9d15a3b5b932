"""Each fault of the files and of the record, through every command as a process: one line, a hint, nothing changed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_db.revisions.graph import revisions
from support.database import Database
from support.forked_commands import Commands
from support.handmade import SPECIFICATION
from support.process import assert_failed
from support.projects import copy_project, versions

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HEAD = revisions()[-1].id
SOURCE = """\
\"\"\"Do nothing.\"\"\"
revision = {id!r}
down_revision = {parents!r}
def upgrade():
    pass
def downgrade():
    pass
"""
JOB = """
import sys
from mlops_db import get_db_manager
from mlops_db.errors import MlopsDbError
try:
    print(get_db_manager().models.production("churn"))
except MlopsDbError as error:
    sys.exit(f"error: {error}\\nhint: {error.hint}")
"""
STATUS, INIT, CHECK = ("mlops-db", "status"), ("mlops-db", "init"), ("mlops-db", "check")
UPGRADE, JOBS = ("alembic", "upgrade", "head"), (sys.executable, "-c", JOB)
EVERYDAY = (STATUS, INIT, UPGRADE, JOBS)
COMMANDS = (
    *EVERYDAY,
    CHECK,
    ("mlops-db", "adopt", "--dry-run"),
    ("mlops-db", "maintain", "--dry-run"),
    ("mlops-db", "grant-reader", "nobody"),
    ("mlops-db", "demo"),
    ("mlops-db", "alembic", "upgrade", "head"),
    ("mlops-db", "alembic", "heads"),
    ("mlops-db", "alembic", "branches"),
    ("mlops-db", "alembic", "show", HEAD),
    ("alembic", "upgrade", "heads"),
    ("alembic", "upgrade", "head", "--sql"),
    ("alembic", "-x", "plan=true", "upgrade", "head"),
    ("alembic", "downgrade", "-1"),
    ("alembic", "downgrade", f"{HEAD}:base", "--sql"),
    ("alembic", "stamp", "head"),
    ("alembic", "stamp", "--purge", HEAD),
    ("alembic", "current"),
    ("alembic", "history"),
    ("alembic", "check"),
    ("alembic", "revision", "-m", "Add one"),
    ("alembic", "revision", "--autogenerate", "-m", "Add one"),
    ("alembic", "merge", "heads", "-m", "Join them"),
)
# What Alembic itself does with two heads, if it is told which one is meant, or only shows them.
ABOUT_HEADS = {
    ("mlops-db", "alembic", "heads"),
    ("mlops-db", "alembic", "branches"),
    ("mlops-db", "alembic", "show", HEAD),
    ("alembic", "upgrade", "heads"),
    ("alembic", "downgrade", "-1"),
    ("alembic", "downgrade", f"{HEAD}:base", "--sql"),
    ("alembic", "stamp", "--purge", HEAD),
    ("alembic", "current"),
    ("alembic", "history"),
    ("alembic", "merge", "heads", "-m", "Join them"),
}


class Checkout:
    """A checkout of its own, with the package: what is in its migrations/ is the package's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions = versions(copy_project(folder, "src"))
        self._commands: Commands | None = None

    def add(self, name: str, id_: str, parents: object) -> Path:
        file = self.versions / f"{name}.py"
        file.write_text(SOURCE.format(id=id_, parents=parents), encoding="utf-8")
        return file

    def run(self, database: Database, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a process; the package is imported once for all of them."""
        if self._commands is None:
            own = {"PYTHONPATH": str(self.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
            self._commands = Commands(database.environment | own, self.folder)
        return self._commands.run(*command, **variables)

    def stop(self) -> None:
        if self._commands is not None:
            self._commands.stop()

    def refuses(self, database: Database, *command: str, naming: tuple[str, ...]) -> None:
        assert_failed(self.run(database, *command), *naming)

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.versions.glob("*.py") if path.exists()}


def one_number_twice(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", HEAD)
    checkout.add("9001_yours", "9001", HEAD)
    return "9001_mine.py", "9001_yours.py", "Renumber", "9002"


def unknown_parent(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", "8999")
    return "9001_mine.py", "8999", "Restore"


def circle(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", "9002")
    checkout.add("9002_yours", "9002", "9001")
    return "9001_mine.py", "9002_yours.py", "circle", "down_revision"


def follows_itself(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", (HEAD, "9001"))
    return "9001_mine.py", "follows itself", "down_revision"


def two_bases(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", None)
    return "0001_model_versions.py", "9001_mine.py", "bases"


def another_name(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9002_mine", "9001", HEAD)
    return "9002_mine.py", "9001", "Rename"


def no_python(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", HEAD).write_text('<<<<<<< HEAD\nrevision = "9001"\n', encoding="utf-8")
    return "9001_mine.py", "line 1"


def no_literal(checkout: Checkout) -> tuple[str, ...]:
    checkout.add("9001_mine", "9001", HEAD).write_text("import os\nrevision = os.name\n", encoding="utf-8")
    return "9001_mine.py", "revision", "literal"


def no_file(checkout: Checkout) -> tuple[str, ...]:
    (checkout.versions / "9001_mine.py").symlink_to("nowhere")
    return "9001_mine.py", "cannot be read"


def none_at_all(checkout: Checkout) -> tuple[str, ...]:
    for path in checkout.versions.glob("*.py"):
        path.unlink()
    return "no revision", str(checkout.versions), "git checkout"


def no_folder(checkout: Checkout) -> tuple[str, ...]:
    shutil.rmtree(checkout.versions)
    return "no revision", str(checkout.versions), "git checkout"


FAULTS = (
    unknown_parent, circle, follows_itself, two_bases, another_name, no_python, no_literal, no_file, none_at_all,
    no_folder,
)  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path)
    yield checkout
    checkout.stop()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs commands against the test's database, of this checkout."""
    name = "head" if "head" in request.fixturenames else "empty"
    commands = Commands(request.getfixturevalue(name).environment)
    yield commands.run
    commands.stop()


def test_every_command_refuses_one_number_twice(head: Database, checkout: Checkout) -> None:
    naming = one_number_twice(checkout)
    before = head.dump(), checkout.files
    for command in COMMANDS:
        checkout.refuses(head, *command, naming=naming)
    assert (head.dump(), checkout.files) == before
    assert head.query("TABLE alembic_version") == [(HEAD,)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_files(head: Database, checkout: Checkout, fault: Callable[[Checkout], tuple[str, ...]]) -> None:
    naming = fault(checkout)
    before = head.dump(), checkout.files
    for command in (*EVERYDAY, ("mlops-db", "alembic", "heads")):
        checkout.refuses(head, *command, naming=naming)
    assert (head.dump(), checkout.files) == before
    assert head.query("TABLE alembic_version") == [(HEAD,)]


@pytest.mark.parametrize(
    "line", ["import nonesuch", "return", "raise ValueError('%s %(x)s')", "del upgrade", "downgrade = None"]
)
def test_a_file_that_cannot_be_loaded(head: Database, checkout: Checkout, line: str) -> None:
    with checkout.add("9001_mine", "9001", HEAD).open("a") as file:
        file.write(f"\n{line}\n")
    for command in (INIT, ("mlops-db", "alembic", "heads")):
        checkout.refuses(head, *command, naming=("9001_mine.py",))
    assert head.query("TABLE alembic_version") == [(HEAD,)]


def test_a_fault_is_an_error_before_the_database_is_created(empty: Database, checkout: Checkout) -> None:
    naming = one_number_twice(checkout)
    assert_failed(checkout.run(empty, *INIT, MLOPS_DB_NAME="mlops_test_not_yet"), *naming)
    assert empty.query("SELECT FROM pg_database WHERE datname = 'mlops_test_not_yet'") == []


def test_two_heads_run_only_where_the_command_says_which(head: Database, checkout: Checkout) -> None:
    checkout.add("9001_mine", "9001", HEAD)
    checkout.add("9002_yours", "9002", HEAD)
    before = head.dump(), checkout.files
    for command in COMMANDS:
        if command not in ABOUT_HEADS:
            checkout.refuses(head, *command, naming=("9001_mine.py", "9002_yours.py", "alembic merge heads -m"))
    assert (head.dump(), checkout.files) == before

    def alembic(*arguments: str) -> str:
        done = checkout.run(head, "alembic", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    alembic("upgrade", "heads")
    assert head.query("TABLE alembic_version ORDER BY 1") == [("9001",), ("9002",)]
    assert sorted(alembic("current").split()) == ["(head)", "(head)", "9001", "9002"]
    assert alembic("history")
    alembic("revision", "-m", "Add one", "--head", "9001", "--rev-id", "9003")
    next(checkout.versions.glob("9003_*")).unlink()
    alembic("merge", "heads", "-m", "Join them", "--rev-id", "9004")

    status = checkout.run(head, "mlops-db", "status")
    assert "revision  9001 and 9002\n" in status.stdout
    assert "pending   9004 join_them\n" in status.stdout
    checkout.refuses(head, *CHECK, naming=("9001 and 9002, not at head",))
    checkout.refuses(head, *JOBS, naming=("9001 and 9002, not at head",))
    assert checkout.run(head, *INIT).returncode == 0
    assert head.query("TABLE alembic_version") == [("9004",)]


def test_a_revision_that_never_ran_is_pending_with_any_number(head: Database, checkout: Checkout) -> None:
    """9001 follows 9002: whoever went by numbers would take a database at 9002 for one at head."""
    checkout.add("9001_mine", "9001", "9002")
    checkout.add("9002_yours", "9002", HEAD)
    assert checkout.run(head, "alembic", "upgrade", "9002").returncode == 0

    status = checkout.run(head, *STATUS)
    assert status.returncode == 1
    assert "pending   9001 mine\n" in status.stdout
    checkout.refuses(head, *JOBS, naming=("9002, not at head",))
    assert "9001 mine" in checkout.run(head, *INIT).stderr
    assert checkout.run(head, *STATUS).returncode == 0


# What the database has recorded

WITHOUT_KEY = f"""
    ALTER TABLE alembic_version DROP CONSTRAINT alembic_version_pkc;
    INSERT INTO alembic_version VALUES ('{HEAD}')
"""


@pytest.mark.parametrize(
    ("statement", "naming"),
    [
        ("INSERT INTO alembic_version VALUES ('0010')", ("0010", HEAD, f"alembic stamp --purge {HEAD}`")),
        ("INSERT INTO alembic_version VALUES ('0010'), ('0016')", ("0010", "0016", f"--purge {HEAD}`")),
        # As in a restored copy that has lost its keys.
        (WITHOUT_KEY, (f"{HEAD} and {HEAD}", f"--purge {HEAD}`")),
    ],
)  # fmt: skip
def test_rows_that_overlap(run: Run, head: Database, statement: str, naming: tuple[str, ...]) -> None:
    head.query(statement)
    before = head.query("TABLE alembic_version")
    every = [command for command in COMMANDS if command not in FILES_ONLY]
    for command in every if "0016" in naming else EVERYDAY:
        assert_failed(run(*command), *naming)
    assert head.query("TABLE alembic_version") == before

    # The way out, as it is told.
    assert run("alembic", "stamp", "--purge", HEAD).returncode == 0
    assert head.query("TABLE alembic_version") == [(HEAD,)]
    assert run(*STATUS).returncode == 0


# They say nothing of the database, or are the way out.
FILES_ONLY = (
    ("alembic", "stamp", "--purge", HEAD),
    ("mlops-db", "alembic", "heads"),
    ("mlops-db", "alembic", "branches"),
    ("mlops-db", "alembic", "show", HEAD),
    ("alembic", "upgrade", "head", "--sql"),
    ("alembic", "downgrade", f"{HEAD}:base", "--sql"),
    ("alembic", "revision", "-m", "Add one"),
    ("alembic", "merge", "heads", "-m", "Join them"),
)


def test_a_row_that_is_not_ours_beside_ours(run: Run, head: Database) -> None:
    head.query("INSERT INTO alembic_version VALUES ('abc')")
    delete = "DELETE FROM public.alembic_version WHERE version_num = 'abc';"
    for command in (*EVERYDAY, CHECK, ("alembic", "stamp", "--purge", HEAD)):
        assert_failed(run(*command), HEAD, "'abc'", "beside it", delete)
    head.query(delete)
    assert run(*STATUS).returncode == 0


# What is left where nothing is recorded

RESET = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


def statements(output: str, *verbs: str) -> list[str]:
    """The statements that a hint says to run."""
    return re.findall(rf"(?:{'|'.join(verbs)}) [^;]*;", output.partition("hint: ")[2])


@pytest.mark.parametrize("way_out", ["DROP", "ALTER"])
def test_a_reset_leaves_the_other_schemas_behind(run: Run, head: Database, way_out: str) -> None:
    head.query(RESET)
    before = head.dump()
    for command in (*EVERYDAY, CHECK, ("mlops-db", "adopt"), ("alembic", "current"), ("alembic", "check")):
        assert_failed(run(*command), "metric_series", "functions", "DROP SCHEMA mlops_internal CASCADE;")
    assert head.dump() == before

    for statement in statements(run(*STATUS).stderr, way_out):
        head.query(statement)
    done = run(*INIT)
    assert done.returncode == 0, done.stderr
    assert run(*CHECK).returncode == 0


def test_months_that_a_reset_left_are_named(run: Run, head: Database) -> None:
    month = head.value("SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhrelid::regclass::text ~ '_20'")
    head.query(f"ALTER TABLE monitoring_metrics DETACH PARTITION {month}")
    head.query(f"INSERT INTO {month} (model_name, metric_type, metric_name, metric_value, timestamp) "
               "VALUES ('m', 't', 'n', 1, now())")  # fmt: skip
    head.query(RESET)
    assert_failed(run(*INIT), month.rpartition(".")[2], "DROP SCHEMA mlops_internal CASCADE;")
    assert head.value(f"SELECT count(*) FROM {month}") == 1


@pytest.mark.parametrize(
    "left",
    [
        ["CREATE VIEW v_model_timeline AS SELECT 1"],
        ["CREATE VIEW v_model_timeline AS SELECT 1", "CREATE VIEW v_decision_history AS TABLE v_model_timeline"],
        ["CREATE MATERIALIZED VIEW v_recent_monitoring AS SELECT 1", "CREATE VIEW v_model_timeline AS SELECT 1"],
        ["CREATE SEQUENCE monitoring_metrics_id_seq"],
        ["CREATE TABLE v_model_timeline ()"],
        ["CREATE SCHEMA mlops_internal", "CREATE TABLE mlops_internal.monitoring_metrics_2025_01 ()"],
        ["CREATE SCHEMA mlops_internal; CREATE TABLE mlops_internal.a (); CREATE VIEW v_model_timeline AS SELECT 1"],
    ],
)  # fmt: skip
def test_what_else_may_be_left(run: Run, empty: Database, left: list[str]) -> None:
    for statement in left:
        empty.query(statement)
    before = empty.dump()
    for command in (INIT, STATUS):
        assert_failed(run(*command), "DROP ")
    assert empty.dump() == before

    for statement in statements(run(*STATUS).stderr, "DROP"):
        empty.query(statement)
    assert run(*INIT).returncode == 0


@pytest.mark.parametrize(
    ("at", "how"),
    [
        ("0004", "DROP TABLE alembic_version"),
        ("0005", "DELETE FROM alembic_version"),
        ("0022", "DROP TABLE alembic_version"),
        (HEAD, "DELETE FROM alembic_version"),
    ],
)
def test_a_lost_record(run: Run, head: Database, at: str, how: str) -> None:
    run("alembic", "downgrade", at)
    before = head.dump()
    head.query(how)
    if at == "0004":  # adopting it finds out
        assert_failed(run(*STATUS), "adopt")
        return
    for command in (*EVERYDAY, ("mlops-db", "adopt")):
        assert_failed(run(*command), "model_versions", f"alembic stamp {at}`")

    assert run("alembic", "stamp", at).returncode == 0
    assert head.dump() == before
    assert run(*CHECK).returncode == 0
    assert run(*INIT).returncode == 0


def test_tables_made_by_hand_after_a_reset(run: Run, head: Database) -> None:
    head.query(RESET)
    head.query(SPECIFICATION)
    done = run(*STATUS)
    assert_failed(done, "DROP SCHEMA mlops_internal CASCADE; and then `mlops-db adopt`")
    for statement in statements(done.stderr, "DROP"):
        head.query(statement)
    assert run("mlops-db", "adopt").returncode == 0
    assert run(*INIT).returncode == 0


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("made_ready", [["alembic", "downgrade", "base"], ["alembic", "stamp", "base"]])
def test_a_database_at_base_is_no_remains(run: Run, made_ready: list[str]) -> None:
    if made_ready[1] == "downgrade":
        assert run(*INIT).returncode == 0
    assert run(*made_ready).returncode == 0
    assert run(*INIT).returncode == 0


# Which project


@pytest.fixture(params=["another", "missing", "no location", "a folder", "no ini", "no module"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What ALEMBIC_CONFIG may name instead of this project."""
    ini = tmp_path / "alembic.ini"
    if request.param == "a folder":
        return tmp_path
    contents = {
        "another": "[alembic]\nscript_location = %(here)s/theirs\n",
        "no location": "[alembic]\n",
        "no ini": "script_location\n",
        "no module": "[alembic]\nscript_location = nonesuch:migrations\n",
    }
    if request.param in contents:
        (tmp_path / "theirs" / "versions").mkdir(parents=True)
        ini.write_text(contents[request.param], encoding="utf-8")
    return ini


@pytest.mark.usefixtures("head")
def test_what_alembic_config_names_is_for_alembic_alone(run: Run, elsewhere: Path) -> None:
    for command in (STATUS, INIT, JOBS):
        done = run(*command, ALEMBIC_CONFIG=str(elsewhere))
        assert done.returncode == 0, done.stdout + done.stderr
    assert_failed(run("mlops-db", "check", "--revisions", ALEMBIC_CONFIG=str(elsewhere)), str(elsewhere.parent))
