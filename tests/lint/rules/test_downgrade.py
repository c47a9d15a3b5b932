"""Missing and empty downgrades are found."""

import pytest

from support.projects import source
from support.revision_files import UP, changed, of_first

pytestmark = pytest.mark.one_postgresql

EMPTY = [
    *("pass", "...", "return", "return None", "raise NotImplementedError", "pass\n'no docstring'", "# nothing\npass"),
    *('""""""', '"""  """'),
]


@pytest.mark.parametrize("body", EMPTY)
def test_an_empty_downgrade_without_a_reason_is_found(body: str) -> None:
    (line,) = of_first(source("0001", None, UP, body))

    assert line == (
        "downgrade: its downgrade is empty. Revert what upgrade does, or explain in a docstring of downgrade() "
        "why that is impossible."
    )


@pytest.mark.parametrize("body", ["", "pass", "return", "raise NotImplementedError"])
def test_an_empty_downgrade_with_a_reason_is_no_finding(body: str) -> None:
    assert of_first(source("0001", None, UP, f'"""Nothing: the rows cannot be told apart any more."""\n{body}')) == []


def test_a_missing_downgrade_is_found() -> None:
    assert of_first(changed(("def downgrade", "def downgrad"))) == [
        "downgrade: it has no downgrade. Revert what upgrade does."
    ]
