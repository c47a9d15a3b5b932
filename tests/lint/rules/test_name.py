"""File names of another form or number are found."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.projects import source
from support.revision_files import DOWN, UP, changed, findings, of_first

pytestmark = pytest.mark.one_postgresql


@given(st.from_regex(r"[0-9]{4}(_[a-z0-9]{1,8}){1,8}", fullmatch=True))
def test_a_name_of_the_scheme_is_no_finding(stem: str) -> None:
    assert findings({f"{stem}.py": source(stem[:4], None, UP, DOWN)}) == []


@given(st.one_of(
    st.from_regex(r"[0-9]{0,6}_?[A-Za-z0-9_ -]{0,12}", fullmatch=True),
    st.from_regex(r"\d{4}_\w{1,8}", fullmatch=True),
))  # fmt: skip
def test_any_other_name_is_a_finding(stem: str) -> None:
    assume(re.fullmatch(r"[0-9]{4}(_[a-z0-9]+)+", stem, re.ASCII) is None)

    (finding,) = findings({f"{stem}.py": source(stem[:4], None, UP, DOWN)})

    assert str(finding) == f"{stem}.py: name: the file is not named NNNN_lower_case_words.py. Rename it."


@pytest.mark.parametrize(
    ("assignment", "output"),
    [('revision = "0002"', "'0002'"), ('revision = "a1b2c3"', "'a1b2c3'"), ('revision: str = "0003"', "'0003'"),
     ("revision = 1", "None"), ("revision = None", "None"), ("", "None"), ('revision = "00" + name', "None")],
)  # fmt: skip
def test_a_revision_id_that_is_not_the_number_is_found(assignment: str, output: str) -> None:
    (line,) = of_first(changed(('\nrevision = "0001"', f"\n{assignment}")))

    assert line == (
        f"name: its revision is {output}, its number 0001. Make both the same: `mlops-db` reads the revisions from the "
        "files' names."
    )


@pytest.mark.parametrize("assignment", ['revision: str = "0001"', 'revision: "Final[str]" = "0001"'])
def test_an_annotated_revision_id_is_read(assignment: str) -> None:
    assert of_first(changed(('\nrevision = "0001"', f"\n{assignment}"))) == []
