"""The casters and adapters of our own statements. Others that are registered with psycopg2 do not apply to them.

Any library of a process may register casters and adapters for all connections: JSON that is decoded in another way,
numeric as float, text as bytes, floats written with fewer digits. Our statements do not use those.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg2
from psycopg2 import extensions
from psycopg2._psycopg import List


def _from_json(value: str | bytes | None, _cursor: object) -> Any:
    return None if value is None else json.loads(value)


_JSON = extensions.new_type((114, 3802), "MLOPS_JSON", _from_json)

# By the types' oids. psycopg2 prefers the cursor's casters to those of the connection and of the process.
CASTERS: dict[int, Any] = {
    oid: caster
    for caster in (
        _JSON,
        extensions.BOOLEAN,
        extensions.BOOLEANARRAY,
        extensions.DECIMAL,
        extensions.DECIMALARRAY,
        extensions.FLOAT,
        extensions.FLOATARRAY,
        extensions.INTEGER,
        extensions.INTEGERARRAY,
        extensions.LONGINTEGER,
        extensions.LONGINTEGERARRAY,
        extensions.PYDATE,
        extensions.PYDATEARRAY,
        extensions.PYDATETIME,
        extensions.PYDATETIMEARRAY,
        extensions.PYDATETIMETZ,
        extensions.PYDATETIMETZARRAY,
        extensions.PYINTERVAL,
        extensions.PYINTERVALARRAY,
        extensions.UNICODE,
        extensions.UNICODEARRAY,
        psycopg2.BINARY,
        psycopg2.ROWID,
    )
    for oid in caster.values
}


def adapt(parameters: Any) -> Any:
    """Give each parameter of a statement psycopg2's own adapter for its type; psycopg2 adapts other types."""
    if parameters is None:
        return None
    if isinstance(parameters, Mapping):
        return {name: _adapt(value) for name, value in parameters.items()}
    return [_adapt(value) for value in parameters]


def _adapt(value: Any) -> Any:
    if value is None:
        return None  # NULL, without any adapter
    adapter = _ADAPTERS.get(type(value))
    if adapter is None:
        adapter = next((_ADAPTERS[kind] for kind in _ADAPTERS if isinstance(value, kind)), None)
    return value if adapter is None else adapter(value)


def _array(values: Sequence[Any]) -> List:
    return List([_adapt(value) for value in values])


_ADAPTERS: dict[type[Any], Callable[[Any], Any]] = {
    str: extensions.QuotedString,
    bool: extensions.Boolean,
    int: extensions.Int,
    float: extensions.Float,
    datetime: extensions.TimestampFromPy,
    timedelta: extensions.IntervalFromPy,
    list: _array,
}
