"""What a docstring lacks is found."""

import re

import pytest

from support.projects import source
from support.revision_files import DOWN, FIRST, UP, changed, found, of_first

pytestmark = pytest.mark.one_postgresql

LACKS = (
    "Say what changes, why, which locks are taken and for how long, what downgrade loses, and whether code of earlier"
    " revisions goes on working."
)


@pytest.mark.parametrize("section", ["Why", "Locks", "Loss on downgrade"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_section_that_is_missing_or_empty_is_found(section: str, how: str) -> None:
    text = re.sub(rf"(?m)^{section}: .*\n", "" if how == "gone" else f"{section}:\n", FIRST)

    assert of_first(text) == [f"docstring: its docstring lacks {section}. {LACKS}"]


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_the_declaration_about_running_code_is_asked_of_all_but_the_baseline(how: str) -> None:
    first, fifth = (
        re.sub(r"(?m)^Running code: .*\n", "" if how == "gone" else "Running code:\n", text)
        for text in (FIRST, source("0005", None, UP, DOWN))
    )
    assert of_first(first) == []
    assert found(_0005_fifth=fifth) == [f"0005_fifth.py: docstring: its docstring lacks Running code. {LACKS}"]


@pytest.mark.parametrize(
    "declared",
    [
        "unaffected.",
        "unaffected. Nobody reads it.",
        "breaks: readers of it.",
        "breaks code before 0005: readers of it.",
        "breaks code\n    before 0005: readers of it.",
    ],
)
def test_a_declaration_says_whether_older_code_works(declared: str) -> None:
    assert found(_0005_first=source("0005", None, UP, DOWN, running_code=declared)) == []


@pytest.mark.parametrize(
    "declared", ["it works.", "unaffected", "breaks.", "breaks:", "breaks code before: it.", "None."]
)
def test_any_other_declaration_is_found(declared: str) -> None:
    (line,) = found(_0005_first=source("0005", None, UP, DOWN, running_code=declared))
    assert line.startswith("0005_first.py: docstring: its Running code says neither that older code is unaffected nor")


@pytest.mark.parametrize("since", ["0006", "head", "9999"])
def test_a_declaration_names_a_revision_before(since: str) -> None:
    first, second = source("0005", None, UP, DOWN), source("0006", "0005", UP, DOWN)
    declared = source("0005", None, UP, DOWN, running_code=f"breaks code before {since}: all.")
    assert found(_0005_first=first, _0006_second=second) == []
    assert found(_0005_first=declared, _0006_second=second) == [
        (
            f"0005_first.py: docstring: its Running code names {since}, which is no revision before it. "
            "Name the first revision whose code works after this one."
        )
    ]


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
