"""AMQP values as JSON and back, exactly, in a form that people and tools like jq may pass on.

What JSON holds stands for itself. Everything else is an object of one name that says what it is, as
``table.readable`` shows it, where that can be taken back:

    {"base64": "/w=="}   bytes (a text that is no UTF-8)      {"bytes": "/w=="}      an AMQP byte array
    {"time": "2026-..."} a time                               {"decimal": "1.20"}    a decimal
    {"float": "nan"}     a float that is no number            {"integer": "9..."}    one that doubles would round
    {"text": "YYA="}     text with lone surrogates            {"entries": [[n, v]]}  a table with such a name

A table that looks like one of these (one entry, of such a name) is wrapped: ``{"table": {...}}``.
"""

import base64
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

EXACT: Final = 2**53
"""Integers beyond are rounded by tools that know only doubles."""
DEEPEST: Final = 64
"""Levels that are read back; tables from the wire have at most 16."""


def to_json(value: object) -> Any:
    """The JSON value. Raises TypeError for what no AMQP table holds."""
    match value:
        case None | bool():
            return value
        case int():
            return value if -EXACT <= value <= EXACT else {"integer": str(value)}
        case float():
            return value if math.isfinite(value) else {"float": repr(value)}
        case str():
            return value if is_clean(value) else {"text": _encoded(value.encode("utf-8", "surrogatepass"))}
        case bytes():
            return {"base64": _encoded(value)}
        case bytearray():
            return {"bytes": _encoded(value)}
        case Decimal():
            return {"decimal": str(value)}
        case datetime():
            return {"time": value.isoformat()}
        case list():
            return [to_json(item) for item in value]
        case Mapping():
            return _table(value)
    raise TypeError(f"no AMQP value: {type(value).__name__}")


def from_json(value: object, depth: int = 0) -> Any:
    """The value again. Raises ValueError, with what is wrong, for an object that says what it cannot be."""
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    if isinstance(value, list):
        return [from_json(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((mark, inner),) = value.items()
        if mark == "table" and isinstance(inner, dict):
            return {name: from_json(item, depth + 1) for name, item in inner.items()}
        if mark == "entries" and isinstance(inner, list):
            return dict(_entry(each, depth + 1) for each in inner)
        if mark in _MARKS:
            return _marked(mark, inner)
    return {name: from_json(item, depth + 1) for name, item in value.items()}


def is_clean(text: str) -> bool:
    """No lone surrogates: it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _table(value: Mapping[Any, Any]) -> Any:
    if not all(is_clean(name) for name in value):
        return {"entries": [[to_json(name), to_json(item)] for name, item in value.items()]}
    shown = {name: to_json(item) for name, item in value.items()}
    return {"table": shown} if len(shown) == 1 and not _MARKS.keys().isdisjoint(shown) else shown


def _entry(pair: object, depth: int) -> tuple[str, Any]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError("an entry is a list of a name and a value")
    name = from_json(pair[0], depth)
    if not isinstance(name, str):
        raise ValueError("the name of an entry is a text")
    return name, from_json(pair[1], depth)


def _marked(mark: str, inner: object) -> Any:
    if isinstance(inner, str):
        try:
            return _MARKS[mark](inner)
        except (ValueError, InvalidOperation):
            pass
    raise ValueError(f"cannot be read as {mark}")


def _encoded(octets: bytes | bytearray) -> str:
    return base64.b64encode(octets).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _surrogates(text: str) -> str:
    return _decoded(text).decode("utf-8", "surrogatepass")


def _never(text: str) -> Any:
    raise ValueError(text)


_MARKS: Final[Mapping[str, Callable[[str], Any]]] = {
    "base64": _decoded,
    "bytes": lambda text: bytearray(_decoded(text)),
    "time": datetime.fromisoformat,
    "decimal": Decimal,
    "float": float,
    "integer": int,
    "text": _surrogates,
    "entries": _never,
    "table": _never,
}
