"""Reads from the revisions which tables, views and parts of them they create; all others are left alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
       | (?:({PART})\s*\.\s*)?({PART})\s+RENAME\s+TO\s+({PART})""",
    re.IGNORECASE | re.VERBOSE,
)
_CREATED_IN_PYTHON = re.compile(r"""\b(?:create_table|rename_table)\(\s*(?:["']\w+["'],\s*)?["'](\w+)["']""")
# Dynamic SQL may leave a name open, as format('CREATE TRIGGER %I ...', name) does.
_SPELLED = rf"""(?!"\s|[^\s;(]*[%{{'])({PART})"""
_PART_CREATED = re.compile(
    rf"""\bCREATE\s+(?:OR\s+REPLACE\s+)?(?:CONSTRAINT\s+)?(?:TRIGGER|RULE|POLICY)\s+(?:{_SPELLED}|[^\s;]*[%{{'"])
         (?:[^;]*?\bON\s+(?:(?:SELECT|INSERT|UPDATE|DELETE)\s+TO\s+)?(?:(?:{PART}\.)?{_SPELLED})?)?""",
    re.IGNORECASE | re.VERBOSE,
)


class Created(NamedTuple):
    """What the upgrades of revisions create.

    Attributes:
        relations: the tables and views, named as by `key_of`.
        parts: the names of triggers, rules and policies, with that of their relation; None for a name that the SQL
            leaves open.
    """

    relations: set[str]
    parts: set[tuple[str | None, str | None]]

    def has_part(self, name: str, relation: str) -> bool:
        """Whether a trigger, rule or policy of a relation may be one of them."""
        return not self.parts.isdisjoint({(name, relation), (name, None), (None, relation), (None, None)})


def key_of(schema: str | None, name: str) -> str:
    """The name of a table or view; with its schema, unless that is public."""
    return name if schema in (None, "public") else f"{schema}.{name}"


def created_by_revisions(script: ScriptDirectory, *, only_ours: bool = False) -> Created:
    """What an upgrade by the directory's revisions creates; with `only_ours`, without those in folders beside ours.

    It is read from the SQL of a revision; from its text if it writes no SQL without a database.
    """
    relations: set[str] = set()
    parts: set[tuple[str | None, str | None]] = set()
    renamed: set[str] = set()
    for text in _upgrades(script, only_ours=only_ours):
        relations.update(_CREATED_IN_PYTHON.findall(text))
        for match in _CREATED.finditer(text):
            schema, name = match[1] or match[3], match[2] or match[5]
            relations.add(key_of(schema and stored_name(schema), stored_name(name)))
            if match[4]:
                renamed.add(stored_name(match[4]))
                parts.add((stored_name(name), None))  # as ALTER TRIGGER ... ON ... RENAME TO does
        for part, relation in _PART_CREATED.findall(text):
            parts.add((stored_name(part) if part else None, stored_name(relation) if relation else None))
    # A trigger keeps its name when its table gets another one.
    return Created(relations, {(part, None if relation in renamed else relation) for part, relation in parts})


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
