"""Reads from the revisions which tables, views and parts of them they create; all others are left alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_db.migration.preview import written_sql
from mlops_db.migration.revision_graph import our_folder
from mlops_db.migration.statements import PART, stored_name
from mlops_db.revisions.files import sql_folder, sql_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.script import ScriptDirectory

_NAME = rf"(?:({PART})\s*\.\s*)?({PART})"
_CREATED = re.compile(
    rf"""\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:UNLOGGED\s+|FOREIGN\s+|RECURSIVE\s+)?(?:TABLE|VIEW)\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}
       | (?:({PART})\s*\.\s*)?{PART}\s+RENAME\s+TO\s+({PART})""",
    re.IGNORECASE | re.VERBOSE,
)
_CREATED_IN_PYTHON = re.compile(r"""\b(?:create_table|rename_table)\(\s*(?:["']\w+["'],\s*)?["'](\w+)["']""")
_PART_CREATED = re.compile(
    rf"\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:CONSTRAINT\s+)?(?:TRIGGER|RULE|POLICY)\s+({PART})", re.IGNORECASE
)


def key_of(schema: str | None, name: str) -> str:
    """The name of a table or view; with its schema, unless that is public."""
    return name if schema in (None, "public") else f"{schema}.{name}"


def created_by_revisions(script: ScriptDirectory, *, only_ours: bool = False) -> set[str]:
    """The tables and views that an upgrade by the directory's revisions creates, named as by `key_of`.

    With `only_ours`, without those of revisions in folders beside ours.

    They are read from the SQL of a revision; from its text if it writes no SQL without a database.
    """
    names: set[str] = set()
    for text in _upgrades(script, only_ours=only_ours):
        names.update(_CREATED_IN_PYTHON.findall(text))
        for match in _CREATED.finditer(text):
            schema, name = match[1] or match[3], match[2] or match[4]
            names.add(key_of(schema and stored_name(schema), stored_name(name)))
    return names


def parts_by_revisions(script: ScriptDirectory) -> set[str]:
    """The names of the triggers, rules and policies that an upgrade by our revisions creates."""
    texts = _upgrades(script, only_ours=True)
    return {stored_name(name) for text in texts for name in _PART_CREATED.findall(text)}


def _upgrades(script: ScriptDirectory, *, only_ours: bool) -> Iterator[str]:
    """The SQL of each upgrade; of one that writes none without a database, the text of its files."""
    folder = our_folder(script)
    for revision in script.walk_revisions():
        path = Path(revision.path)
        if only_ours and path.parent.resolve() != folder:
            continue
        sql = written_sql(revision, "upgrade")
        if sql is None:
            source = path.read_text(encoding="utf-8")
            files = [sql_folder(path) / name for name in sql_names(ast.parse(source))]
            sql = "\n".join([source, *(file.read_text(encoding="utf-8") for file in files if file.is_file())])
        yield sql
