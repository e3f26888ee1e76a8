"""Files of dead letters: NDJSON, a letter on each line, to be read, edited with tools like jq, and brought back.

    {"copy_id": ..., "reason": ..., "detail": ..., "failed_at": ..., "order_id": ..., "message_id": ...,
     "exchange": ..., "routing_key": ..., "event": {...}, "body_base64": ..., "properties": {...}, "headers": {...}}

The body is what people edit, and what has to come back byte for byte where nobody did:

- a JSON object is there twice: as ``event``, for reading and editing, and as it was, in ``body_base64``. The bytes
  count as long as ``event`` says the same; spaces, the order of names and escapes are no edit. Once it says something
  else (or the bytes were taken out) the body is the JSON of ``event``. Base64, because nobody edits that by mistake;
- other texts, and objects with numbers that a tool would round (beyond 2**53, or more digits than a double has), are a
  text: ``body``. Everything else is ``body_base64`` alone, and so is what is too long to be edited by anybody.

Exactly one of ``event``, ``body`` and ``body_base64`` alone must be there. Headers and properties are written as
``tablejson`` says. ``reason``, ``detail``, ``failed_at``, ``order_id`` and ``message_id`` are for people: nothing reads
them back, because the headers say the same.
"""

import base64
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import fields

from worker.core.deadletter import DeadLetter, letter_key
from worker.core.errors import UsageError
from worker.core.model import Properties
from worker.core.tablejson import DEEPEST, EXACT, from_json, is_clean, to_json
from worker.core.times import format_time

LONGEST_SHOWN: Final = 1024 * 1024
"""Bytes of a body that is written for people, too. An event has at most 64 KiB, and a text may grow sixfold in JSON."""
_FOR_PEOPLE: Final = ("reason", "detail", "failed_at", "order_id", "message_id")
_PLACE: Final = ("copy_id", "exchange", "routing_key")
_NAMES: Final = frozenset((*_FOR_PEOPLE, *_PLACE, "event", "body", "body_base64", "properties", "headers"))
_PROPERTIES: Final = tuple(each.name for each in fields(Properties) if each.name != "headers")
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "delivery_mode": (int,),
    "priority": (int,),
    "timestamp": (datetime, int),
}


@dataclass(slots=True, frozen=True, kw_only=True)
class FiledLetter:
    """A letter as a file has it. ``exchange`` and ``routing_key`` are where its producer sent it, unless edited.

    ``edited`` is true where an ``event`` says something else than the letter did. Edits of texts cannot be seen here.
    """

    copy_id: str
    body: bytes
    properties: Properties
    exchange: str
    routing_key: str
    edited: bool = False


def exchange_of(letter: DeadLetter) -> str:
    """The exchange that the producer sent it to, as far as the letter says."""
    if letter.history.exchange is not None:
        return letter.history.exchange
    first = letter.deaths[-1].get("exchange") if letter.deaths else None
    return first if isinstance(first, str) else letter.delivery.exchange


def letter_line(letter: DeadLetter) -> bytes:
    """The line of this letter, ASCII, with its line end."""
    properties = letter.delivery.properties
    failed_us = letter.failed_us
    shown = {
        "copy_id": letter_key(letter),
        "reason": letter.reason,
        "detail": to_json(letter.detail),
        "failed_at": None if failed_us is None else format_time(failed_us),
        "order_id": letter.order_id,
        "message_id": to_json(letter.message_id),
        "exchange": to_json(exchange_of(letter)),
        "routing_key": to_json(letter.routing_key),
        **_body(letter.delivery.body),
        "properties": {
            name: to_json(value) for name in _PROPERTIES if (value := getattr(properties, name)) is not None
        },
        "headers": to_json({**properties.headers}),
    }
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"


def read_letter(text: bytes, number: int) -> FiledLetter:
    """The letter on line ``number``. Raises UsageError, which says the line and what is wrong with it."""
    try:
        return _letter(_object(text))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"line {number}: {error}") from None


def _letter(line: dict[str, Any]) -> FiledLetter:
    if unknown := sorted(line.keys() - _NAMES):
        raise ValueError(f"unknown name {unknown[0]!r}; there are {', '.join(sorted(_NAMES))}")
    body, edited = _body_of(line)
    headers = _named(line, "headers")
    if not isinstance(headers, dict):
        raise ValueError("headers: must be an object")
    return FiledLetter(
        copy_id=_text(line, "copy_id"),
        body=body,
        properties=_properties(line, headers),
        exchange=_text(line, "exchange"),
        routing_key=_text(line, "routing_key"),
        edited=edited,
    )


# -- the body ---------------------------------------------------------------------------------------------------------


def _body(body: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(body).decode()
    if len(body) > LONGEST_SHOWN:
        return {"body_base64": encoded}
    if (event := _event(body)) is not None:
        return {"event": event, "body_base64": encoded}
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": encoded}


def _event(body: bytes) -> dict[str, Any] | None:
    """The object in the body, if any tool for JSON can be trusted with it."""
    try:
        found = _object(body, _digits)
        return found if all(_is_safe(each) for each in _leaves(found)) else None
    except (ValueError, RecursionError):
        return None


def _body_of(line: Mapping[str, Any]) -> tuple[bytes, bool]:
    given = [name for name in ("event", "body", "body_base64") if name in line]
    if given == ["event"] or given == ["event", "body_base64"]:
        return _edited_or_not(line["event"], _bytes(line) if len(given) == 2 else None)
    if len(given) != 1:
        raise ValueError(f"one of event, body and body_base64 must be there, not {' and '.join(given) or 'none'}")
    return (_text(line, "body").encode("utf-8", "surrogatepass") if given == ["body"] else _bytes(line)), False


def _edited_or_not(event: object, original: bytes | None) -> tuple[bytes, bool]:
    if not isinstance(event, dict):
        raise ValueError("event: must be an object; for a body that is none put its text under body instead of event")
    if original is not None and _same(_object(original), event):
        return original, False
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass"), True


def _bytes(line: Mapping[str, Any]) -> bytes:
    try:
        return base64.b64decode(_text(line, "body_base64"), validate=True)
    except ValueError:
        raise ValueError("body_base64: is no base64") from None


def _same(one: object, other: object) -> bool:
    """The same JSON: unlike for Python, true is not 1, and 4.0 is not 4 (an event may be refused for that)."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _is_safe(leaf: object) -> bool:
    match leaf:
        case bool() | None:
            return True
        case int():
            return -EXACT <= leaf <= EXACT
        case str():
            return is_clean(leaf)
        case _Digits():
            return leaf.exact
    return True


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


class _Digits(float):
    """A float that knows whether it says all that its text said."""

    exact: bool


def _digits(text: str) -> _Digits:
    found = _Digits(_finite(text))
    found.exact = Decimal(repr(float(found))) == Decimal(text)
    return found


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("a number beyond all doubles")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _object(text: bytes, to_float: Callable[[str], float] = _finite) -> dict[str, Any]:
    try:
        found = json.loads(text.decode(), parse_constant=_no_number, parse_float=to_float)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"is no JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(found, dict):
        raise ValueError("must be a JSON object")
    _check_depth(found)
    return found


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > DEEPEST:
        raise ValueError("nested too deep")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, depth + 1)


# -- the rest ---------------------------------------------------------------------------------------------------------


def _named(line: Mapping[str, Any], name: str) -> Any:
    if name not in line:
        raise ValueError(f"{name}: missing")
    try:
        return from_json(line[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _text(line: Mapping[str, Any], name: str) -> str:
    found = _named(line, name)
    if not isinstance(found, str):
        raise ValueError(f"{name}: must be a text")
    return found


def _properties(line: Mapping[str, Any], headers: dict[str, Any]) -> Properties:
    found = _named(line, "properties")
    if not isinstance(found, dict):
        raise ValueError("properties: must be an object")
    for name, value in found.items():
        if name not in _PROPERTIES:
            raise ValueError(f"properties: unknown name {name!r}; there are {', '.join(_PROPERTIES)}")
        kinds = _KINDS.get(name, (str,))
        if isinstance(value, bool) or not isinstance(value, (*kinds, type(None))):
            raise ValueError(f"properties: {name} must be {' or '.join(_WORDS[kind] for kind in kinds)}")
    return Properties(**found, headers=headers)


_WORDS: Final[Mapping[type, str]] = {str: "a text", int: "an integer", datetime: 'a time ({"time": ...})'}
