"""Why an event is refused, in words that a producer can act on. The slow second pass: runs only for bad events.

Every text points at a field, names types, and never repeats a value of the payload: many people read dead letters.
The rules are those of ``fields.py``; ``decode.py`` applies them through msgspec, which stops at the first error.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from worker.core.fields import INT64_MAX, INT64_MIN, MAX_BODY_BYTES, Kind
from worker.core.times import parse_time

_MOST_PROBLEMS: Final = 5
_LONGEST_NAME: Final = 60

_EXPECTED: Final[Mapping[Kind, str]] = {
    Kind.INTEGER: "an integer",
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.STRING: "a string",
    Kind.NAME: "a string",
}
_TYPES: Final[Mapping[Kind, tuple[type, ...]]] = {
    Kind.INTEGER: (int,),
    Kind.NUMBER: (int, float),
    Kind.BOOLEAN: (bool,),
    Kind.STRING: (str,),
    Kind.NAME: (str,),
}


class _NotANumber:
    """Stands for NaN and Infinity, which Python's own JSON reader lets through and JSON does not have."""


_SHORT_NAMES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
    _NotANumber: "NaN or Infinity, which JSON does not have",
}


def explain(
    body: bytes, *, changes: Mapping[str, Kind], ignored: Collection[str], cloud: bool, encoded: bool = False
) -> str:
    """What is wrong with this body, at most a few problems, for the header ``ow-detail``.

    ``cloud`` says that it came as a CloudEvent, ``encoded`` that the message names a content encoding.
    """
    if len(body) > MAX_BODY_BYTES:
        return f"body: {len(body)} bytes, at most {MAX_BODY_BYTES} are allowed"
    if not body:
        return "body: empty; expected a JSON object"
    value, problem = _read(body)
    if problem is not None:
        return f"{problem}; content_encoding is set, publish the body unencoded" if encoded else problem
    problems = list(_problems(value, changes=changes, ignored=ignored, cloud=cloud))
    shown = problems[:_MOST_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    # msgspec checks every occurrence of a repeated key, the untyped pass sees the last one only.
    return "; ".join(shown) or "body: a field is given twice, or a number is NaN, Infinity or out of range"


def too_deep() -> str:
    """The text for a body whose arrays and objects are nested beyond the bound."""
    return "body: nested too deeply; an event is a flat JSON object"


def ahead(source: str, *, by_us: int, allowed_s: float) -> str:
    """The text for a time in the future."""
    seconds = by_us / 1_000_000
    far = f"{seconds:.0f} s" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
    return f"{source}: {far} in the future, {allowed_s:g} s are allowed (MAX_CLOCK_SKEW_S); check the sender's clock"


def nothing_to_change(changes: Collection[str], *, cloud: bool) -> str:
    """The text for an event that names an order and no field."""
    return f"{'data' if cloud else 'body'}: nothing to change; give at least one of {', '.join(changes)}"


def _read(body: bytes) -> tuple[Any, str | None]:
    try:
        body.decode()
        return msgspec.json.decode(body), None
    except UnicodeDecodeError:
        return None, "body: not valid UTF-8"
    except RecursionError:
        return None, too_deep()
    except msgspec.ValidationError:
        return None, "body: a number is out of range"
    except msgspec.DecodeError as error:
        text = str(error).removeprefix("JSON is malformed: ")
    return _read_with_constants(body, otherwise=f"body: not JSON: {text}")


def _read_with_constants(body: bytes, *, otherwise: str) -> tuple[Any, str | None]:
    found: list[str] = []

    def remember(name: str) -> _NotANumber:
        found.append(name)
        return _NotANumber()

    try:
        value = json.loads(body.decode(), parse_constant=remember)
    except (ValueError, RecursionError):
        return None, otherwise
    return (value, None) if found else (None, otherwise)


def _problems(value: Any, *, changes: Mapping[str, Kind], ignored: Collection[str], cloud: bool) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"body: expected a JSON object, got {_short(value)}"
    elif not cloud:
        yield from _event_problems(value, "", changes=changes, ignored=ignored)
    else:
        yield from _envelope_problems(value)
        data = value.get("data")
        if isinstance(data, dict):
            yield from _event_problems(data, "data.", changes=changes, ignored=ignored)


def _envelope_problems(envelope: Mapping[str, Any]) -> Iterator[str]:
    """The rules of the CloudEvents 1.0 JSON format, section 3: required attributes, unset may be null."""
    if envelope.get("specversion") != "1.0":
        yield 'specversion: expected "1.0" (CloudEvents)'
    for name in ("id", "source", "type"):
        if not envelope.get(name) or not isinstance(envelope[name], str):
            yield f"{name}: CloudEvents require a non-empty string, got {_short(envelope.get(name))}"
    if "data" not in envelope:
        yield "data: missing; put the event there as a JSON object" + (
            ", not into data_base64" if "data_base64" in envelope else ""
        )
    elif not isinstance(envelope["data"], dict):
        yield f"data: expected an object, got {_short(envelope['data'])}"
    if envelope.get("time") is not None:
        yield from _time_problems("time", envelope["time"])
    kind = envelope.get("datacontenttype")
    if kind is not None and not (isinstance(kind, str) and is_json_type(kind)):
        yield "datacontenttype: expected a JSON media type such as application/json"


def is_json_type(media_type: str) -> bool:
    """Whether a media type (parameters allowed) says JSON."""
    essence = media_type.partition(";")[0].strip().lower()
    return essence in {"application/json", "text/json"} or essence.endswith("+json")


def _event_problems(
    event: Mapping[str, Any], path: str, *, changes: Mapping[str, Kind], ignored: Collection[str]
) -> Iterator[str]:
    if "id" not in event:
        yield f"{path}id: missing; give the order id as an integer above 0"
    for name, value in event.items():
        if name == "id":
            yield from _id_problems(f"{path}id", value)
        elif name == "occurred_at":
            yield from _time_problems(f"{path}occurred_at", value)
        elif name == "sequence":
            yield from _kind_problems(f"{path}sequence", Kind.INTEGER, value, hint=" (leave it out if there is none)")
        elif name in changes:
            if value is not None:
                yield from _kind_problems(f"{path}{name}", changes[name], value)
        elif name not in ignored:
            yield f"{path}{_shown(name)}: unknown field (EXTRA_FIELDS sends it, IGNORE_FIELDS leaves it out)"
    if changes.keys().isdisjoint(event):
        yield nothing_to_change(changes, cloud=bool(path))


def _id_problems(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value <= INT64_MAX:
            yield f"{path}: expected an integer from 1 to {INT64_MAX} (64 bits)"
    else:
        yield from _kind_problems(path, Kind.INTEGER, value)


def _time_problems(path: str, value: Any) -> Iterator[str]:
    hint = "RFC 3339 with an offset, like 2026-11-21T10:00:00.123Z"
    if not isinstance(value, str):
        yield f"{path}: expected {hint} (or leave it out), got {_short(value)}"
    elif parse_time(value) is None:
        yield f"{path}: not a valid time; expected {hint}"


def _kind_problems(path: str, kind: Kind, value: Any, *, hint: str = "") -> Iterator[str]:
    # bool is a subclass of int in Python, and a type of its own in JSON.
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) != (kind is Kind.BOOLEAN):
        if kind is Kind.INTEGER and isinstance(value, float):
            hint = " (write it without point and exponent)"
        yield f"{path}: expected {_EXPECTED[kind]}, got {_short(value)}{hint}"
    elif kind is Kind.NAME and not value:
        yield f"{path}: empty; give a text, or leave the field out"
    elif isinstance(value, int | float) and not INT64_MIN <= value <= INT64_MAX:
        yield f"{path}: out of range; at most 64 bits are allowed"


def _short(value: Any) -> str:
    return _SHORT_NAMES.get(type(value), "something else")


def _shown(name: str) -> str:
    """A field name as it may be shown: it comes from outside, so it is cut and cleaned of control characters."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name[: _LONGEST_NAME + 1])
    return printable if len(printable) <= _LONGEST_NAME else printable[:_LONGEST_NAME] + "…"
