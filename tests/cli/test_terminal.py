"""What each command shows on a terminal: wrapped between words, in colours if wanted; and plain in a pipe."""

import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from mlops_db.cli.main import commands
from mlops_db.terminal import styled_lines
from support.database import Database, clean_environment, run_command
from support.handmade import make_by_hand
from support.roles import role
from support.terminal import on_a_terminal, without_colours

pytestmark = [pytest.mark.slow, pytest.mark.full_postgresql]

HELP = [(command, "--help") for command in commands() if command != "psql"] + [("--help",)]
# What changes something is run dry, or where nothing is left to do.
REPORTS = [
    pytest.param(
        ("status",), marks=pytest.mark.plain_postgresql(reason="the table of nodes is too wide, and shown cell by cell")
    ),
    ("check",),
    ("create",),
    ("init",),
    ("create", "--dry-run"),
    ("init", "--dry-run"),
    ("maintain", "--dry-run"),
    ("grant-reader", "mlops_test_reader", "--dry-run"),
    ("adopt", "--dry-run"),
    ("demo", "--days", "1"),
    ("completion", "nope"),
    ("alembic", "-x", "plan=true", "downgrade", "0021"),
]
BOX = re.compile("[─-╿]")
# A word, or options that exclude each other, which argparse keeps together.
WORD = re.compile(r" *(\S+|\[[^]]+\])")


def words(shown: str) -> list[str]:
    return BOX.sub(" ", without_colours(shown)).split()


def too_wide(shown: str, columns: int) -> list[str]:
    """The lines that a terminal would have to break, but for words that no line can hold."""
    lines = [line for line in without_colours(shown).splitlines() if len(line) > columns]
    return [line for line in lines if not WORD.fullmatch(line)]


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("arguments", HELP, ids=" ".join)
def test_help_is_wrapped_between_words(arguments: tuple[str, ...], columns: int) -> None:
    environment = clean_environment()
    code, shown = on_a_terminal(*arguments, environment=environment, columns=columns)

    wide = run_command("mlops-db", *arguments, environment={**environment, "COLUMNS": "1000"})
    assert code == 0
    assert too_wide(shown, columns) == []
    assert words(shown) == words(wide.stdout)


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_reports_and_errors_are_wrapped_between_words(head: Database, arguments: tuple[str, ...]) -> None:
    with role(head, "mlops_test_reader", "NOLOGIN"):
        code, shown = on_a_terminal(*arguments, environment=head.environment)
        piped = head.run("mlops-db", *arguments)

    assert code == piped.returncode
    assert "\x1b" not in piped.stdout + piped.stderr
    assert too_wide(shown, 80) == []
    assert sorted(words(shown)) == sorted(words(piped.stdout + piped.stderr))
    for kind, colour in (("error", "1;31"), ("hint", "1;36")):
        assert (f"\x1b[{colour}m{kind}:\x1b[0m" in shown) == (f"{kind}:" in piped.stderr)


@pytest.mark.parametrize("columns", [80, 40])
def test_a_table_that_is_too_wide_is_shown_cell_by_cell(head: Database, columns: int) -> None:
    code, shown = on_a_terminal("history", "--limit", "2", environment=head.environment, columns=columns)

    assert code == 0
    assert too_wide(shown, columns) == []
    assert re.search(
        r"^direction: upgrade\nrevision: \d+ [a-z ]+\noutcome: applied\n", without_colours(shown), re.MULTILINE
    )


@pytest.mark.parametrize("columns", [16, 28, 40, 80])
def test_a_line_is_broken_before_words_and_keeps_its_indentation(columns: int) -> None:
    text = "    see mlops_internal.metric_series and /a/path/that/no/line/of/twenty/columns/holds, ✅ twice ✅\n\nend"
    lines = [line.plain for line in styled_lines([text], Console(width=columns))]

    assert " ".join(lines).split() == text.split()
    assert lines[-2:] == ["", "end"]
    assert all(line.startswith("    ") for line in lines[:-2])
    assert [line for line in lines if cell_len(line) > columns and len(line.split()) > 1] == []
    assert len(lines) > 3 or columns == 80


def test_what_adopt_finds_is_wrapped_and_coloured_but_for_sql(empty: Database) -> None:
    make_by_hand(empty, "ALTER TABLE model_versions ADD COLUMN note text;")
    code, shown = on_a_terminal("adopt", environment=empty.environment)

    assert code == 1
    assert [line for line in too_wide(shown, 80) if "ALTER TABLE" not in line] == []
    assert "ALTER TABLE public.model_versions DROP COLUMN note;" in shown


# Colours


def change_a_view(database: Database) -> None:
    """Make a difference that `check` shows as a diff."""
    definition = database.value("SELECT pg_get_viewdef('v_decision_history'::regclass)").rstrip(";")
    database.query(f"CREATE OR REPLACE VIEW v_decision_history AS {definition} OFFSET 0")


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)], ids=str
)
def test_a_diff_has_colours_on_a_terminal_unless_they_are_not_wanted(
    head: Database, variables: dict[str, str], *, coloured: bool
) -> None:
    change_a_view(head)
    code, shown = on_a_terminal("check", environment=head.environment, **variables)

    assert code == 1
    assert ("\x1b[31m" in shown) == coloured
    assert "-" in without_colours(shown)


@pytest.mark.parametrize(("variables", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True)], ids=str)
def test_a_diff_has_no_colours_in_a_pipe_unless_they_are_wanted(
    head: Database, variables: dict[str, str], *, coloured: bool
) -> None:
    change_a_view(head)
    assert ("\x1b[31m" in head.run("mlops-db", "check", **variables).stdout) == coloured


def test_columns_says_how_wide_the_terminal_is(head: Database) -> None:
    _, shown = on_a_terminal("status", environment=head.environment, columns=200, COLUMNS="60")
    assert too_wide(shown, 60) == []
    assert words(shown)
