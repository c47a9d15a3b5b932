"""The schemas of `--json`: checks what a command printed strictly, and knows what the tests have seen of a schema.

What we publish permits new keys. Here a key that a schema lacks is an error, so that nobody forgets to describe it.
"""

import datetime as dt
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

FOLDER = files("mlops_db") / "json_schema"
SCHEMAS: dict[str, dict[str, Any]] = {
    file.name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8")) for file in FOLDER.iterdir()
}
# Only a database with Citus has it.
OPTIONAL = {"cluster"}
_FORMATS = FormatChecker()
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}

# A place in a schema, such as `entries[].outcome`, and a type or a value that it can have.
Seen = set[tuple[str, str]]


@_FORMATS.checks("date-time", raises=ValueError)
def _is_in_utc(value: object) -> bool:
    return not isinstance(value, str) or dt.datetime.fromisoformat(value).utcoffset() == dt.timedelta(0)


def check(answer: dict[str, Any]) -> Seen:
    """Check an answer against the schema that it names; returns what of it the answer has."""
    schema = SCHEMAS[answer["schema"]]
    Draft202012Validator(_strict(schema), format_checker=_FORMATS).validate(answer)
    return set(_seen(schema, schema, answer, ""))


def possible(name: str) -> Seen:
    """Everything that a schema says an answer can have."""
    schema = SCHEMAS[name]
    return set(_possible(schema, schema, ""))


def parts(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that describes an object with known keys."""
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for value in node.values():
            yield from parts(value)


def _strict(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    return strict | {"additionalProperties": False} if "properties" in node else strict


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: dict[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return found


def _possible(schema: dict[str, Any], node: dict[str, Any], place: str) -> Iterator[tuple[str, str]]:
    node = _resolved(schema, node)
    if "const" in node or "enum" in node:
        yield from ((place, value) for value in node.get("enum", [node.get("const")]))
        return
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    yield from ((place, name) for name in types)
    for key, part in node.get("properties", {}).items():
        yield from _possible(schema, part, f"{place}.{key}")
    if "items" in node:
        yield from _possible(schema, node["items"], f"{place}[]")


def _seen(schema: dict[str, Any], node: dict[str, Any], value: Any, place: str) -> Iterator[tuple[str, str]]:
    node = _resolved(schema, node)
    if "const" in node or "enum" in node:
        yield place, value
        return
    yield place, "null" if value is None else _KINDS[type(value)]
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from _seen(schema, node["properties"][key], part, f"{place}.{key}")
    for part in value if isinstance(value, list) else ():
        yield from _seen(schema, node["items"], part, f"{place}[]")
