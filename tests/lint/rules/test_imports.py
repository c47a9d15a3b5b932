"""Imports of what can change are found."""

import pytest

from support.projects import source
from support.revision_files import DOWN, UP, changed, of_first

pytestmark = pytest.mark.one_postgresql


@pytest.mark.parametrize(
    "statement",
    ["import re, json", "from datetime import UTC", "import sqlalchemy.orm", "from alembic import context",
     "from sqlalchemy.dialects import postgresql", "from sqlalchemy.dialects.postgresql import JSONB",
     "from __future__ import annotations"],
)  # fmt: skip
def test_alembic_sqlalchemy_and_the_standard_library_may_be_imported(statement: str) -> None:
    assert of_first(changed(("import sqlalchemy as sa\n", f"{statement}\nimport sqlalchemy as sa\n"))) == []


MOVING = {
    "import mlops_db": "mlops_db",
    "import mlops_db.schema.views as v": "mlops_db.schema.views",
    "from mlops_db.schema import head": "mlops_db.schema",
    "import os, psycopg2": "psycopg2",
    "from sqlalchemy_utils import UUID": "sqlalchemy_utils",
    "from . import other": ".",
    "from ..versions import other": "..versions",
    "from .other import thing": ".other",
    "import migrations.versions": "migrations.versions",
}


@pytest.mark.parametrize("where", ["at the top", "in upgrade"])
@pytest.mark.parametrize(("statement", "module"), MOVING.items())
def test_an_import_of_what_can_change_is_found(statement: str, module: str, where: str) -> None:
    if where == "at the top":
        text = changed(("import sqlalchemy as sa\n", f"import sqlalchemy as sa\n{statement}\n"))
    else:
        text = source("0001", None, f"{statement}\n{UP}", DOWN)

    (line,) = of_first(text)

    assert line == (
        f"imports: it imports {module}, which can change after the revision has run. Write into the revision what it "
        "needs, as literals."
    )
