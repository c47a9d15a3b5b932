"""An upgrade loses no row: what it deletes is in another table afterwards. Nor does a downgrade that says so."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from mlops_db.lint.revision_files import Finding
from mlops_db.migration.guard.row_values import rows_in_words
from mlops_db.migration.statements import without_texts

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from mlops_db.lint.observation import Moment, Relation, Row, Step

RULE = "loss"
_PART = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_NAME = rf"(?:{_PART}\.)?({_PART})"
_NAMES = rf"{_NAME}(?:\s*\*)?(?:\s*,\s*(?:ONLY\s+)?{_NAME})*"
_DELETES = re.compile(
    rf"\b(?P<words>DELETE\s+FROM|TRUNCATE(?:\s+TABLE)?)\s+(?:ONLY\s+)?(?P<names>{_NAMES})"
    rf"|\bMERGE\s+INTO\s+(?:ONLY\s+)?(?P<merged>{_NAME})\b[^;]*\bTHEN\s+(?P<merge>DELETE)\b",
    re.IGNORECASE,
)
_EXECUTED = re.compile(r"\bEXECUTE\s+(?:format\s*\(\s*)?'((?:[^']|'')*)'", re.IGNORECASE)
_BODY = re.compile(r"\$(\w*)\$(.*)\$\1\$", re.DOTALL)


def check(step: Step, *, of: Container[int] | None = None) -> Iterator[Finding]:
    """Find tables that have fewer rows than before, where no other table has got them; and DELETEs that met no row.

    Args:
        step: the migration.
        of: the tables that are looked at; default: all.
    """
    lost = {oid: lost_rows(oid, step.before, step.after) for oid in step.before.rows if of is None or oid in of}
    for oid, count in lost.items():
        if count:
            yield _finding(step, f"{step.direction} loses {rows_in_words(count)} of {step.before.relations[oid].shown}")
    if step.direction == "upgrade":
        counted = {oid for oid in lost if lost[oid] or _went(oid, step)}
        for words, table in _said(step):
            if table.root not in counted:
                yield _finding(step, f"upgrade says {words} {table.shown}, which met none of the rows of this check")


def _finding(step: Step, message: str) -> Finding:
    return Finding(
        step.file, RULE, message,
        "Keep the rows, or copy them to another table in the same transaction; if they may go, say so:"
        f" `Accepted: {RULE}, because ...` in the docstring."
        if step.direction == "upgrade"
        else "Keep them, or say under Loss on downgrade what goes.",
    )  # fmt: skip


def _went(oid: int, step: Step) -> bool:
    """Whether rows have left the table, to another one."""
    return len(step.after.rows.get(oid, ())) < len(step.before.rows[oid])


def lost_rows(oid: int, before: Moment, after: Moment) -> int:
    """How many rows of a table are neither there any more nor in another table.

    A row is in another table if that has the same in all columns that both have, and has more rows than before.
    """
    missing = len(before.rows[oid]) - len(after.rows.get(oid, ()))
    if missing <= 0:
        return 0
    rows = before.rows[oid]
    if oid in after.rows:
        rows = _without(rows, after.rows[oid])
    for other, there in after.rows.items():
        if other != oid and len(there) > len(before.rows.get(other, ())):
            rows = _without(rows, there)
    return min(missing, len(rows))


def _without(rows: list[Row], holder: list[Row]) -> list[Row]:
    """The rows that have no equal in the holder."""
    if not holder or not rows:
        return rows
    common = sorted(rows[0].keys() & holder[0].keys())
    if not common:
        return rows
    there = Counter(tuple(_plain(row[column]) for column in common) for row in holder)
    left = []
    for row in rows:
        key = tuple(_plain(row[column]) for column in common)
        if there[key]:
            there[key] -= 1
        else:
            left.append(row)
    return left


def _plain(value: Any) -> str:
    """A value as text, the same whether its type has a time zone, which is UTC here, or digits after the point."""
    text = str(value).removesuffix("+00:00")
    return re.sub(r"\.0+$", "", text)


def _said(step: Step) -> Iterator[tuple[str, Relation]]:
    """What the statements say of rows that go, whatever these are; not what functions and rules are to do one day."""
    tables = {relation.name: relation for relation in step.before.relations.values() if relation.is_table}
    seen = set()
    for statement in step.statements:
        for part in _run_now(statement):
            for match in _DELETES.finditer(part):
                words = " ".join((match["words"] or "MERGE ... DELETE of").upper().split())
                for name in re.findall(_NAME, match["names"] or match["merged"]):
                    plain = name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
                    if plain in tables and (words, plain) not in seen:
                        seen.add((words, plain))
                        yield words, tables[plain]


def _run_now(statement: str) -> Iterator[str]:
    plain = without_texts(statement)
    if re.search(r"\bBEGIN\s+ATOMIC\b", plain, re.IGNORECASE):
        return
    for part in plain.split(";"):
        first = part.split(maxsplit=1)[:1]
        if [word.upper() for word in first] == ["DO"]:
            for _, body in _BODY.findall(statement):
                yield without_texts(body)  # a comment or a message may well speak of DELETE
                yield from _EXECUTED.findall(body)
        elif [word.upper() for word in first] != ["CREATE"]:
            yield part
