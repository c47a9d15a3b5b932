"""Two files with one id are found."""

import pytest

from support.projects import source
from support.revision_files import DOWN, FIRST, SECOND, UP, found

pytestmark = pytest.mark.one_postgresql


def test_two_files_with_one_number_are_no_two_heads() -> None:
    """Merging them is no way out."""
    other = source("0002", "0001", UP, DOWN)

    (line,) = found(_0001_first=FIRST, _0002_one=SECOND, _0002_other=other)

    assert line.startswith("0002_other.py: one-id: 0002_one.py and 0002_other.py are both revision 0002. Renumber ")
