"""Finds in two catalogues what makes code fail that was written for the first one.

Code reads and writes by name: tables, views, columns and functions in `public` and `reporting`, and those that
`project.USED_INTERNALS` names. So a change counts whatever statement made it: in a revision, in an SQL file, in a DO
block.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlops_db.drift.catalogue import VIEWS, Name, grants_of
from mlops_db.project import USED_INTERNALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlops_db.drift.catalogue import Catalogue, Properties

_RELATIONS = ("table", *VIEWS)
# A later one takes every value of an earlier one, and a client reads it as the same type.
_WIDER = (
    ("smallint", "integer", "bigint"),
    ("character varying", "text"),
)
_LIMITED = re.compile(r"(?P<type>character varying|numeric)\((?P<limit>\d+)(?:,(?P<scale>\d+))?\)")
_KEY = re.compile(
    r"(?:PRIMARY KEY|UNIQUE(?: NULLS NOT DISTINCT)?) \((?P<columns>[^()]*)\)(?: INCLUDE \([^()]*\))?"
    r"(?P<where> WHERE .*)?"
)
_RETURNS = re.compile(r"^ RETURNS (.*)$", re.MULTILINE)


def breaking_changes(before: Catalogue, after: Catalogue) -> Iterator[str]:
    """What the second catalogue lacks, or demands, that code for the first one does not expect; one line each."""
    relations = {relation: _columns(before, relation) for relation in _used(before, _RELATIONS)}
    for relation, columns in relations.items():
        there = [name for kind in _RELATIONS if (name := Name(kind, "", relation.name)) in after]
        if not there:
            yield f"{_shown(relation)} is gone"
            continue
        yield from _of_columns(before, after, columns, _columns(after, there[0]), is_view=relation.kind in VIEWS)
        if there[0] == relation:  # a view in place of a table has the rules and the defaults of the table that it reads
            yield from _of_filled(before, after, columns)
            yield from _of_rules(before, after, relation, columns)
        yield from _of_access(relation, before[relation], after[there[0]])
    for function in _used(before, ("function",)):
        if "RETURNS trigger" not in before[function].get("definition", ""):
            yield from _of_function(function, before, after)
    for type_ in _used(before, ("type",)):
        yield from _of_type(type_, before[type_], after.get(type_))


def _used(catalogue: Catalogue, kinds: tuple[str, ...]) -> Iterator[Name]:
    for name in catalogue:
        schema, _, plain = name.name.partition(".")
        if name.kind in kinds and (schema != "mlops_internal" or plain.partition("(")[0] in USED_INTERNALS):
            yield name


def _columns(catalogue: Catalogue, relation: Name) -> list[Name]:
    return [name for name in catalogue if name.kind == "column" and name.within == relation.name]


def _shown(name: Name) -> str:
    return str(name).replace("public.", "")


def _of_columns(
    before: Catalogue, after: Catalogue, old: list[Name], new: list[Name], *, is_view: bool
) -> Iterator[str]:
    for column in old:
        if column not in after:
            yield f"{_shown(column)} is gone"
            continue
        was, now = before[column], after[column]
        if not is_wider(was["type"], now["type"]) and not (is_view and is_wider(now["type"], was["type"])):
            yield f"{_shown(column)} has another type, {now['type']} instead of {was['type']}"
        if "not null" in now and "not null" not in was and not _takes_no_null(before, column):
            yield f"{_shown(column)} takes no NULL any more"
        if _takes_no_value(now) and not _takes_no_value(was):
            yield f"{_shown(column)} takes no value any more"
    for column in new:
        if column not in before and "not null" in after[column] and not _is_filled(after[column]):
            yield f"{_shown(column)} is new, and needs a value"
    # `SELECT *` and INSERT without names go by position.
    if set(old) <= set(new) and new[: len(old)] != old:
        yield f"the columns of {_shown(Name('', '', old[0].within)).strip()} come in another order"


def _of_filled(before: Catalogue, after: Catalogue, old: list[Name]) -> Iterator[str]:
    for column in old:
        if column in after and _is_filled(before[column]) and not _is_filled(after[column]):
            yield f"{_shown(column)} has no default any more"


def _takes_no_null(catalogue: Catalogue, column: Name) -> bool:
    """Whether a CHECK refuses NULL in the column."""
    rules = (properties.get("definition", "") for name, properties in catalogue.items() if name.within == column.within)
    refuses = re.compile(rf"^CHECK .*\({re.escape(column.name)} IS NOT NULL\)")
    return any(refuses.match(rule) and " OR " not in rule for rule in rules)


def _is_filled(column: Properties) -> bool:
    """Whether PostgreSQL fills the column of a row that gives it no value."""
    return not column.keys().isdisjoint(("default", "identity", "generated"))


def _takes_no_value(column: Properties) -> bool:
    return "generated" in column or column.get("identity") == "ALWAYS"


def is_wider(old: str, new: str) -> bool:
    """Whether a type takes all values of another one, and clients read them as before."""
    if old == new:
        return True
    was, now = _LIMITED.fullmatch(old), _LIMITED.fullmatch(new)
    if was and now and was["type"] == now["type"]:
        scale = int(was["scale"] or 0), int(now["scale"] or 0)
        digits = int(was["limit"]) - scale[0], int(now["limit"]) - scale[1]
        return scale[0] <= scale[1] and digits[0] <= digits[1]
    if now:
        return False
    plain = was["type"] if was else old
    return plain == new or any(
        plain in types and new in types and types.index(plain) < types.index(new) for types in _WIDER
    )


def _of_rules(before: Catalogue, after: Catalogue, table: Name, columns: list[Name]) -> Iterator[str]:
    """New CHECKs, keys and references over columns that code fills already; and keys that ON CONFLICT may name."""
    was, now = _rules(before, table), _rules(after, table)
    words = {column.name.strip('"') for column in columns}
    lost = [_mentioned(rule, words) for rule in was if rule not in now]
    for rule, shown in now.items():
        mentioned = _mentioned(rule, words)
        # A CHECK in place of another one may be wider; the writes tell.
        is_other = rule.startswith("CHECK") and (mentioned in lost or shown in was.values())
        if mentioned and rule not in was and not is_other and not _is_key_of(rule, was):
            yield f"{shown} is new: {rule}"
    for rule, shown in was.items():
        if _KEY.fullmatch(rule) and rule not in now and not _is_key_of(rule, now):
            yield f"{shown} is gone: {rule}"


def _rules(catalogue: Catalogue, table: Name) -> dict[str, str]:
    """The definitions of a table's constraints and unique indexes, each with the name that people know it by."""
    found = {}
    for name, properties in catalogue.items():
        definition = properties.get("definition", "")
        if name.within != table.name:
            continue
        if name.kind == "constraint":
            found[definition.removesuffix(" NOT VALID")] = _shown(name)
        elif name.kind == "index" and definition.startswith("CREATE UNIQUE INDEX"):
            found["UNIQUE " + definition.partition(" USING btree ")[2]] = _shown(name)
    return found


def _is_key_of(rule: str, rules: Iterable[str]) -> bool:
    """Whether a key is already one by these rules: another one has the same columns, for all rows."""
    key = _KEY.fullmatch(rule)
    others = filter(None, map(_KEY.fullmatch, rules))
    return key is not None and any(other["columns"] == key["columns"] and not other["where"] for other in others)


def _mentioned(rule: str, words: set[str]) -> frozenset[str]:
    plain = re.sub(r"'(?:[^']|'')*'| REFERENCES .*", "", rule)
    return frozenset(word for word in words if re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", plain))


def _of_access(relation: Name, was: Properties, now: Properties) -> Iterator[str]:
    if "row level security" in now and "row level security" not in was:
        yield f"{_shown(relation)} has row level security now"
    for grant in sorted(grants_of(was) - grants_of(now)):
        yield f"{_shown(relation)} lacks a grant now: {grant}"


def _of_function(function: Name, before: Catalogue, after: Catalogue) -> Iterator[str]:
    if function not in after:
        plain, _, arguments = function.name.removesuffix(")").partition("(")
        others = [name for name in _used(after, ("function",)) if name.name.partition("(")[0] == plain]
        if not any(_takes(after[other].get("definition", ""), arguments) for other in others):
            yield f"{_shown(function)} is gone"
        return
    was, now = (_RETURNS.search(catalogue[function].get("definition", "")) for catalogue in (before, after))
    if was and now and was[1] != now[1]:
        yield f"{_shown(function)} returns {now[1]} instead of {was[1]}"
    for grant in sorted(grants_of(before[function]) - grants_of(after[function])):
        yield f"{_shown(function)} lacks a grant now: {grant}"


def _takes(definition: str, arguments: str) -> bool:
    """Whether a call with these arguments also fits the function: all further ones have a default."""
    listed = definition.partition("\n")[0].partition("(")[2].removesuffix(")").split(", ")
    count = len(arguments.split(", ")) if arguments else 0
    there = [argument.partition(" DEFAULT ")[0] for argument in listed[:count]]
    return ", ".join(there) == arguments and all(" DEFAULT " in argument for argument in listed[count:])


def _of_type(type_: Name, was: Properties, now: Properties | None) -> Iterator[str]:
    if now is None:
        yield f"{_shown(type_)} is gone"
    elif not set(was.get("labels", "").split(", ")) <= set(now.get("labels", "").split(", ")):
        yield f"{_shown(type_)} lacks a label now"
    elif any(was.get(key) != now.get(key) for key in ("domain", "attributes")):
        yield f"{_shown(type_)} is another one now"
