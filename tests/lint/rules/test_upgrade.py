"""A missing upgrade is found."""

from support.revision_files import changed, of_first


def test_a_missing_upgrade_is_found() -> None:
    assert len(of_first(changed(("def upgrade", "def upgrad")))) == 1
