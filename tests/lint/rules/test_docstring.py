"""What a docstring lacks is found."""

import re

import pytest

from support.projects import source
from support.revision_files import DOWN, FIRST, UP, changed, of_first

pytestmark = pytest.mark.one_postgresql

LACKS = "Say what changes, why, which locks are taken and for how long, and what downgrade loses."


@pytest.mark.parametrize("section", ["Why", "Locks", "Loss on downgrade"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_section_that_is_missing_or_empty_is_found(section: str, how: str) -> None:
    text = re.sub(rf"(?m)^{section}: .*\n", "" if how == "gone" else f"{section}:\n", FIRST)

    assert of_first(text) == [f"docstring: its docstring lacks {section}. {LACKS}"]


@pytest.mark.parametrize("docstring", ["", '"""Change something."""\n'], ids=["none", "only a title"])
def test_a_docstring_that_lacks_everything_is_found(docstring: str) -> None:
    text = re.sub(r'(?s)^""".*?"""\n', docstring, FIRST)
    title = "" if docstring else "a title, "

    assert of_first(text) == [f"docstring: its docstring lacks {title}Why, Locks, Loss on downgrade. {LACKS}"]


@pytest.mark.parametrize(
    "prose",
    ["<the reason for this change, in a sentence or two>", "<which lock,\n    and for how long>", "<todo>"],
)
def test_the_template_s_prose_is_found(prose: str) -> None:
    assert of_first(changed(("a test asks for it.", prose))) == [
        "docstring: its docstring still holds the template's <...>. Fill it in."
    ]


OUTSIDE = {
    "autocommit_block": "with op.get_context().autocommit_block():\n    op.execute('VACUUM')",
    "create_index_concurrently": "op.create_index_concurrently('i', 't', ['c'])",
}


@pytest.mark.parametrize("where", OUTSIDE)
@pytest.mark.parametrize("way", ["up", "down"])
def test_locks_that_no_check_can_see_have_to_be_named(where: str, way: str) -> None:
    up, down = (OUTSIDE[where], DOWN) if way == "up" else (UP, OUTSIDE[where])

    (line,) = of_first(source("0001", None, up, down, locks="some, for a moment."))

    assert line == (
        f"docstring: its Locks name no lock, but the statements in {where} take locks. "
        "Name the strongest of them, such as SHARE UPDATE EXCLUSIVE: no check can see it."
    )
    assert of_first(source("0001", None, up, down, locks="SHARE UPDATE EXCLUSIVE on t.")) == []


@pytest.mark.parametrize("prose", ["scores < 0 or > 1", "1 <> 2", "a -> b", "x <= 3 and y >= 4", "f(x) << 3"])
def test_comparisons_are_not_the_template_s_prose(prose: str) -> None:
    assert of_first(changed(("a test asks for it.", prose))) == []
