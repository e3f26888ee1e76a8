"""What of the original message stays on its copy, what is only shown there (``ow-original``), what is only named.

Bounded in all parts: the broker closes the whole connection over properties larger than a frame (131,072 bytes).
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from msgspec.structs import fields, replace

from worker.core.model import Properties
from worker.core.table import LONGEST_NAME, encoded_size, entry_size, fit, readable

MAX_KEPT: Final = 100 * 1024
"""Bound of the original headers that stay, encoded."""
MAX_SHORT: Final = 255
"""Longest AMQP short string, in bytes; so are ids, exchange names and routing keys."""
PERSISTENT: Final = 2
_MAX_SHOWN: Final = 3072
_MAX_NAMED: Final = 1024
_ROUTING: Final = ("CC", "BCC")
_UNSAFE: Final = ("expiration", "user_id")


def split_headers(headers: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The original headers: those that stay, those left out but worth showing, and the names beyond the budget."""
    kept: dict[str, Any] = {}
    # CC and BCC first: a replay restores them, so they must not be crowded out of the bounded text.
    left = {name: headers[name] for name in _ROUTING if name in headers}
    sized: list[tuple[int, str]] = []
    for name, value in headers.items():
        size = None if name in _ROUTING or name.startswith("x-") else entry_size(name, value)
        if size is None:
            left[name] = value
        else:
            sized.append((size, name))
    # Smallest first: one huge header must not push out the others.
    room = MAX_KEPT
    for size, name in sorted(sized):
        room -= size
        if room >= 0:
            kept[name] = headers[name]
    return kept, left, [name for _, name in sized if name not in kept]


def safe_properties(properties: Properties) -> tuple[Properties, dict[str, Any]]:
    """The properties that may go on a copy, and those left out by name. Headers are not looked at."""
    left = {name: getattr(properties, name) for name in _UNSAFE}
    for each in fields(Properties):
        value = getattr(properties, each.name)
        if each.name not in {"headers", "message_id", "delivery_mode"} and not _is_property(each.name, value):
            left[each.name] = value
    cleared: dict[str, Any] = {**dict.fromkeys(left), "message_id": None, "delivery_mode": PERSISTENT}
    return replace(properties, **cleared), {name: value for name, value in left.items() if value is not None}


def _is_property(name: str, value: object) -> bool:
    if value is None:
        return True
    if name == "priority":
        return type(value) is int and 0 <= value <= 255
    if name == "timestamp":
        # Whole seconds on the wire: the exact time is in ow-occurred-at.
        return isinstance(value, datetime) and encoded_size(value.replace(microsecond=0)) is not None
    return isinstance(value, str) and (size := encoded_size(value)) is not None and size <= 5 + MAX_SHORT


def shown_as_json(left: Mapping[str, Any], *, earlier: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The JSON of what was left out, and the names that did not fit. An earlier copy's come first and stay."""
    shown: dict[str, Any] = {}
    omitted: list[str] = []
    room = _MAX_SHOWN
    for name, value in {**earlier, **{name: value for name, value in left.items() if name not in earlier}}.items():
        entry = {fit(name, None): readable(value)}
        room_left = room - len(json.dumps(entry, ensure_ascii=False).encode())
        if room_left >= 0:
            shown |= entry
            room = room_left
        else:
            omitted.append(name)
    return (json.dumps(shown, ensure_ascii=False) if shown else ""), omitted


def named(names: Iterable[str]) -> str:
    """A JSON list of names, bounded; its last item counts those that did not fit."""
    unique = list(dict.fromkeys(fit(name, LONGEST_NAME) for name in names))
    shown: list[str] = []
    room = _MAX_NAMED - len('["… and 1000000 more"]'.encode())
    for name in unique:
        room -= len(json.dumps(name, ensure_ascii=False).encode()) + 2
        if room < 0:
            shown.append(f"… and {len(unique) - len(shown)} more")
            break
        shown.append(name)
    return json.dumps(shown, ensure_ascii=False)
