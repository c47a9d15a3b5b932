"""Several heads are found, and merged branches are not."""

import pytest

from support.projects import source
from support.revision_files import DOWN, FIRST, SECOND, UP, found

pytestmark = pytest.mark.one_postgresql


def test_two_heads_are_one_finding_with_both_remedies() -> None:
    third = source("0003", "0001", UP, DOWN)

    (line,) = found(_0001_first=FIRST, _0002_second=SECOND, _0003_third=third)

    assert line == (
        "0003_third.py: one-head: there are 2 heads: 0002, 0003. Let it follow the other one (down_revision and the "
        "number), or merge them with `alembic merge`."
    )


def test_branches_that_are_merged_on_purpose_are_linear_enough() -> None:
    third = source("0003", "0001", UP, DOWN)
    merge = source("0004", ("0002", "0003"), UP, DOWN)

    assert found(_0001_first=FIRST, _0002_second=SECOND, _0003_third=third, _0004_merge=merge) == []
