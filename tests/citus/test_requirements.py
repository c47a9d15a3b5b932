"""What is missing is said with SQL that can be run, whatever the names are."""

import pytest

from mlops_db.admin.cluster.requirements import quoted_name


@pytest.mark.parametrize(("name", "quoted"), [("own", '"own"'), ('the "own" er', '"the ""own"" er"')])
def test_names_are_quoted(name: str, quoted: str) -> None:
    assert quoted_name(name) == quoted
