"""Reads from the revisions which tables and views they create; autogenerate leaves all others alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_db.migration.preview import written_sql
from mlops_db.migration.statements import stored_name
from mlops_db.revisions.files import sql_folder, sql_names

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_NAME = r"""(?:(?:public|"public")\s*\.\s*)?("(?:[^"]|"")+"|\w+)"""
_CREATED = re.compile(
    rf"""\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:UNLOGGED\s+|FOREIGN\s+|RECURSIVE\s+)?(?:TABLE|VIEW)\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}
       | \bRENAME\s+TO\s+{_NAME}""",
    re.IGNORECASE | re.VERBOSE,
)
_CREATED_IN_PYTHON = re.compile(r"""\b(?:create_table|rename_table)\(\s*(?:["']\w+["'],\s*)?["'](\w+)["']""")


def created_by_revisions(script: ScriptDirectory) -> set[str]:
    """The names of the tables and views that an upgrade by the directory's revisions creates in schema public.

    They are read from the SQL of a revision; from its text if it writes no SQL without a database.
    """
    names: set[str] = set()
    for revision in script.walk_revisions():
        sql = written_sql(revision, "upgrade")
        if sql is None:
            path = Path(revision.path)
            source = path.read_text(encoding="utf-8")
            names.update(_CREATED_IN_PYTHON.findall(source))
            files = [sql_folder(path) / name for name in sql_names(ast.parse(source))]
            sql = "\n".join([source, *(file.read_text(encoding="utf-8") for file in files if file.is_file())])
        for match in _CREATED.finditer(sql):
            names.add(stored_name(match[1] or match[2]))
    return names
