"""An upgrade loses no row: rows that it deletes are in another table afterwards.

A downgrade loses none either, if its docstring says so.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from mlops_db.lint.observation import Moment, Relation, Row, Run, Step
from mlops_db.lint.rule import Finding, Findings, RunRule
from mlops_db.migration.guard.row_values import rows_in_words
from mlops_db.migration.statements import PART, stored_name, without_texts

_REMEDY_OF_DOWNGRADE = "Keep them, or declare under Loss on downgrade what is lost."
_NAME = rf"(?:{PART}\.)?({PART})"
_NAMES = rf"{_NAME}(?:\s*\*)?(?:\s*,\s*(?:ONLY\s+)?{_NAME})*"
_DELETES = re.compile(
    rf"\b(?P<words>DELETE\s+FROM|TRUNCATE(?:\s+TABLE)?)\s+(?:ONLY\s+)?(?P<names>{_NAMES})"
    rf"|\bMERGE\s+INTO\s+(?:ONLY\s+)?(?P<merged>{_NAME})\b[^;]*\bTHEN\s+(?P<merge>DELETE)\b",
    re.IGNORECASE,
)
_EXECUTED = re.compile(r"\bEXECUTE\s+(?:format\s*\(\s*)?'((?:[^']|'')*)'", re.IGNORECASE)
_BODY = re.compile(r"\$(\w*)\$(.*)\$\1\$", re.DOTALL)


@partial(
    RunRule,
    column="rows",
    remedy="Keep the rows, or copy them to another table in the same transaction; if they may go, declare it:"
    " `Accepted: loss, because ...` in the docstring.",
    may_be_accepted=True,
)
def check(run: Run) -> Findings:
    """Find an upgrade that loses rows, or a downgrade that declares no loss; a DELETE that meets no row."""
    # Rows that another table has got are not lost.
    no_loss = run.file.description.sections.get("Loss on downgrade", "").lower().startswith("nothing")
    for step in run.steps[: 2 if no_loss else 1]:
        shrunk = [oid for oid, rows in step.before.rows.items() if len(step.after.rows.get(oid, ())) < len(rows)]
        for oid in shrunk:
            count = lost_rows(oid, step.before, step.after) if oid in run.steps[0].before.tables else 0
            if count:
                message = f"{step.direction} loses {rows_in_words(count)} of {step.before.relations[oid].shown}"
                yield Finding(message, "" if step.direction == "upgrade" else _REMEDY_OF_DOWNGRADE)
        for words, table in _deletes(step) if step.direction == "upgrade" else ():
            if table.root not in shrunk:
                yield Finding(f"upgrade runs {words} {table.shown}, which matched no row of this check")


def lost_rows(oid: int, before: Moment, after: Moment) -> int:
    """How many rows of a table are gone, and not in another table either.

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
    common = sorted(rows[0].keys() & holder[0].keys()) if rows and holder else []
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


def _deletes(step: Step) -> Iterator[tuple[str, Relation]]:
    """The DELETE, TRUNCATE and MERGE of the statements, with the table; not those of functions that it only creates."""
    tables = {relation.name: relation for relation in step.before.relations.values() if relation.is_table}
    seen = set()
    for statement in step.statements:
        for part in _run_now(statement):
            for match in _DELETES.finditer(part):
                words = " ".join((match["words"] or "MERGE ... DELETE of").upper().split())
                for name in re.findall(_NAME, match["names"] or match["merged"]):
                    plain = stored_name(name)
                    if plain in tables and (words, plain) not in seen:
                        seen.add((words, plain))
                        yield words, tables[plain]


def _run_now(statement: str) -> Iterator[str]:
    """The parts of the statement that run at once; in a DO block also the texts that it executes."""
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
