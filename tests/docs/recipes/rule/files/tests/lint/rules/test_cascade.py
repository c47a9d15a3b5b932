"""A CASCADE that drops is found."""

import pytest

from support.projects import DOCSTRING, source
from support.revision_files import DOWN, of_first

pytestmark = pytest.mark.one_postgresql

REMEDY = "Drop what depends on it first, by name."


@pytest.mark.parametrize("statement", ["DROP VIEW v CASCADE", "alter table t drop c cascade", "TRUNCATE t CASCADE"])
def test_a_cascade_is_found(statement: str) -> None:
    text = source("0001", None, f"op.execute({statement!r})", DOWN)
    (line,) = of_first(text)
    assert line.startswith("cascade: line ")
    assert line.endswith(REMEDY)


@pytest.mark.parametrize("statement", ["DROP VIEW v", "CREATE TABLE t (a int REFERENCES u ON DELETE CASCADE)"])
def test_other_statements_are_not_found(statement: str) -> None:
    assert of_first(source("0001", None, f"op.execute({statement!r})", DOWN)) == []


def test_it_may_be_accepted() -> None:
    docstring = f"{DOCSTRING}Accepted: cascade, because nobody else has views here.\n"
    assert of_first(source("0001", None, "op.execute('DROP VIEW v CASCADE')", DOWN, docstring=docstring)) == []
