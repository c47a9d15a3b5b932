"""What `alembic revision` and `alembic merge` make of a copy of this project, as a colleague types them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command

from mlops_db.migration.commands import alembic_config, run_command
from mlops_db.revisions.graph import revisions
from mlops_db.settings import Settings
from support.database import Database, clean_environment
from support.database import run_command as run_process
from support.process import assert_failed
from support.projects import copy_project
from support.revision_files import file_findings

pytestmark = [pytest.mark.full_postgresql, pytest.mark.libraries]

HEAD = revisions()[-1].id
NEXT = f"{int(HEAD) + 1:04}"
SECTIONS = ("Why", "Locks", "Loss on downgrade", "Running code")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy without a server: nothing answers on the port that its environment names."""
    return copy_project(tmp_path, "pyproject.toml").parent


def create_revision(copy: Path, function: Callable[..., object], *arguments: object, **options: object) -> Path:
    """The file that `alembic revision` or `alembic merge` makes, where no server answers."""
    config = alembic_config(Settings(host="localhost", port=1, database="nowhere"), ini=copy / "alembic.ini")
    return new_file(copy, lambda: run_command(function, config, *arguments, **options))


def new_file(copy: Path, make: Callable[[], object]) -> Path:
    folder = copy / "migrations" / "versions"
    before = set(folder.glob("*.py"))
    make()
    (file,) = set(folder.glob("*.py")) - before
    return file


def assert_clean(file: Path) -> None:
    """Ruff has nothing to say, and the post-write hooks have nothing left to do."""
    for words in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
        done = run_process("ruff", *words, str(file), environment=clean_environment(), cwd=file.parents[2])
        assert done.returncode == 0, done.stdout + done.stderr


def value(file: Path, name: str) -> str:
    (found,) = re.findall(rf"^{name} = (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


def test_a_new_revision_has_the_next_number_and_is_clean(copy: Path) -> None:
    nowhere = clean_environment(POSTGRES_HOST="localhost", POSTGRES_PORT="1")
    revision = ("alembic", "revision", "-m", "Add a thing")
    file = new_file(copy, lambda: run_process(*revision, cwd=copy, environment=nowhere))

    assert file.name == f"{NEXT}_add_a_thing.py"
    assert (value(file, "revision"), value(file, "down_revision")) == (f'"{NEXT}"', f'"{HEAD}"')
    text = file.read_text(encoding="utf-8")
    assert text.startswith('"""Add a thing.\n\n')
    assert re.findall(r"^([A-Z][\w ]+): ", text.split('"""')[1], re.MULTILINE) == list(SECTIONS)
    assert text.count("raise NotImplementedError") == 2
    assert "import sqlalchemy" not in text
    assert_clean(file)


def test_numbers_go_on_and_rev_id_wins(copy: Path) -> None:
    assert create_revision(copy, command.revision, "Add one").name == f"{NEXT}_add_one.py"
    assert create_revision(copy, command.revision, "Add two", rev_id="0042").name == "0042_add_two.py"
    last = create_revision(copy, command.revision, "Add three")
    assert last.name == "0043_add_three.py"
    assert value(last, "down_revision") == '"0042"'


def test_a_merge_needs_no_server(copy: Path) -> None:
    one = create_revision(copy, command.revision, "Add one")
    two = create_revision(copy, command.revision, "Add two", head=HEAD, splice=True)
    merge = create_revision(copy, command.merge, "heads", "Join them")

    assert merge.name == f"{int(NEXT) + 2:04}_join_them.py"
    assert value(merge, "revision") == f'"{merge.name[:4]}"'
    assert sorted(re.findall(r"\d+", value(merge, "down_revision"))) == [one.name[:4], two.name[:4]]
    assert_clean(merge)
    assert not [finding for finding in file_findings(merge.parent) if finding.file == merge.name]


def test_a_merge_takes_an_id(copy: Path) -> None:
    create_revision(copy, command.revision, "Add one")
    create_revision(copy, command.revision, "Add two", head=HEAD, splice=True)
    assert create_revision(copy, command.merge, "heads", "Join them", rev_id="0077").name == "0077_join_them.py"


@pytest.mark.parametrize(
    ("message", "title"),
    [
        pytest.param("Add a thing.", "Add a thing.", id="full stop"),
        pytest.param('Call it "thing"', 'Call it "thing".', id="quotes"),
        pytest.param(r"Match \d+ and \N{x}", r"Match \d+ and \N{x}.", id="backslash"),
        pytest.param('Say """three"""', None, id="triple quotes"),
        pytest.param("Füge ein Ding hinzu: 100 % ${x} <% y %>", "Füge ein Ding hinzu: 100 % ${x} <% y %>.", id="signs"),
        pytest.param(f"Add {'a very long title ' * 8}", None, id="long"),
    ],
)
def test_any_message_makes_a_file_that_is_clean(copy: Path, message: str, title: str | None) -> None:
    file = create_revision(copy, command.revision, message)
    assert file.name.startswith(NEXT)
    namespace: dict[str, object] = {}
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), namespace)  # noqa: S102  (as Alembic loads it)
    if title is not None:
        assert str(namespace["__doc__"]).splitlines()[0] == title
    assert_clean(file)


def test_what_autogenerate_writes_is_clean_and_runs(head: Database, copy: Path) -> None:
    sql = "CREATE VIEW extra AS SELECT 'it''s at :noon \\ 100 %' AS a"
    (copy / "migrations" / "versions" / f"{NEXT}_extra.py").write_text(
        f"from alembic import op\nfrom sqlalchemy import DDL\n\nrevision, down_revision = '{NEXT}', '{HEAD}'\n"
        f"def upgrade():\n    op.execute(DDL({sql.replace('%', '%%')!r}))\n"
        "def downgrade():\n    op.execute('DROP VIEW extra')\n",
        encoding="utf-8",
    )
    run_command(command.upgrade, alembic_config(head.settings, ini=copy / "alembic.ini"), "head")
    head.query("ALTER TABLE model_versions ADD extra integer")
    head.query("DROP VIEW v_model_timeline")

    done = head.run("alembic", "revision", "--autogenerate", "-m", "Bring it back", cwd=copy)

    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (copy / "migrations" / "versions").glob("*_bring_it_back.py")
    assert_clean(file)
    assert "# ###" not in file.read_text(encoding="utf-8")
    config = alembic_config(head.settings, ini=copy / "alembic.ini")
    for function, arguments in ((command.upgrade, ["head"]), (command.check, []), (command.downgrade, ["-1"])):
        run_command(function, config, *arguments)
    assert head.value("SELECT a FROM extra") == "it's at :noon \\ 100 %"


def test_autogenerate_that_finds_nothing_makes_a_revision_that_does_not_run(head: Database, copy: Path) -> None:
    config = alembic_config(head.settings, ini=copy / "alembic.ini")
    file = new_file(copy, lambda: run_command(command.revision, config, "Change nothing", autogenerate=True))
    assert file.read_text(encoding="utf-8").count("raise NotImplementedError") == 2


def test_an_empty_revision_is_refused_in_one_line(head: Database, copy: Path) -> None:
    before = head.dump()
    file = create_revision(copy, command.revision, "Add a thing")
    assert_failed(head.run("alembic", "upgrade", "head", cwd=copy), file.name[:4])
    assert head.query("TABLE alembic_version") == [(HEAD,)]
    assert head.dump() == before
