"""A revision that follows none of those before it is found."""

import pytest

from support.projects import source
from support.revision_files import DOWN, FIRST, UP, found

pytestmark = pytest.mark.one_postgresql


@pytest.mark.parametrize("before", ["0002", None, "0009"], ids=["itself", "nothing", "unknown"])
def test_a_revision_that_does_not_follow_the_number_before_is_found(before: str | None) -> None:
    lines = found(_0001_first=FIRST, _0002_second=source("0002", before, UP, DOWN))

    follows = f"it follows {before or 'nothing'}, not 0001"
    assert f"0002_second.py: linear: {follows}. Set down_revision to the revision with the number before." in lines


def test_a_first_revision_that_follows_one_is_found() -> None:
    lines = found(_0001_first=source("0001", "0000", UP, DOWN))

    assert lines == [
        "0001_first.py: linear: it follows 0000, not nothing. Set down_revision to the revision with the number before."
    ]


def test_numbers_may_be_left_out() -> None:
    assert found(_0001_first=FIRST, _0007_later=source("0007", "0001", UP, DOWN)) == []
