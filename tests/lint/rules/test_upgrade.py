"""A missing upgrade is found."""

import pytest

from support.revision_files import changed, of_first

pytestmark = pytest.mark.one_postgresql


def test_a_missing_upgrade_is_found() -> None:
    assert len(of_first(changed(("def upgrade", "def upgrad")))) == 1
