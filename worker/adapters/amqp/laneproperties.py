"""Properties of a message straight from the bytes of its content header, many times as fast as the library reads them.

The usual ones of an event (content type, delivery mode, message id, timestamp) are read in a straight line, anything
else name by name. What comes out is what the library gives with the decoders of ``lenient.py``, with one difference: a
property that cannot be read at all costs the message, not the connection (``Undecoded``).
"""

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from worker.adapters.amqp import lenient
from worker.core.model import Properties

UNDECODED: Final = "x-undecoded"
"""A header of ours in which the bytes that could not be read are shown; the prefix keeps it from being sent again."""

_TYPE_MODE_ID: Final = b"\x90\x80"
_TYPE_MODE_ID_TIME: Final = b"\x90\xc0"
"""Flags of content type, delivery mode and message id, without and with a timestamp."""
_WITH_TIME: Final = 0x40
_MORE: Final = 0x0001
"""Another word of flags follows."""

_flags_at: Final = struct.Struct(">H").unpack_from


class Undecoded(NamedTuple):
    """Why a message's properties are not all there."""

    properties: Properties
    detail: str


def properties_of(raw: bytes) -> Properties | Undecoded:
    """The properties in the bytes of a content header, from the flags on."""
    return reader()(raw)


def reader() -> Callable[[bytes], Properties | Undecoded]:
    """Reads the properties of messages that came together, as ``properties_of`` does.

    Those of one producer differ in their id, as a rule, and in the second of their timestamp now and then. What is
    before and behind the id is read once for as long as it stays the same.
    """
    before = b"nothing begins like this"
    behind: bytes | None = None
    content_type, delivery_mode = "", 0
    timestamp: datetime | int | None = None

    def read(raw: bytes) -> Properties | Undecoded:
        nonlocal before, behind, content_type, delivery_mode, timestamp
        if not raw.startswith(before) or len(raw) == len(before):
            if not (begins := _before_the_id(raw)):
                return _any(raw)
            before, behind = begins, None
            content_type, delivery_mode = before[3:-1].decode("utf-8", "surrogateescape"), before[-1]
        at = len(before)
        end = at + 1 + raw[at]
        if raw[end:] != behind or len(raw) < end:
            if len(raw) != end + (8 if raw[1] & _WITH_TIME else 0):
                return _any(raw)
            behind = raw[end:]
            timestamp = lenient.timestamp(behind)[1] if behind else None
        message_id = raw[at + 1 : end].decode("utf-8", "surrogateescape")
        return Properties(
            content_type=content_type, delivery_mode=delivery_mode, message_id=message_id, timestamp=timestamp
        )

    return read


def _before_the_id(raw: bytes) -> bytes:
    """Flags, content type and delivery mode, where there is nothing else besides an id and a timestamp; or nothing."""
    if raw[:2] not in (_TYPE_MODE_ID, _TYPE_MODE_ID_TIME) or len(raw) < 3 or len(raw) <= 4 + raw[2]:
        return b""
    return raw[: 4 + raw[2]]


def _any(raw: bytes) -> Properties | Undecoded:
    """Whatever the flags say, in the order of AMQP; up to the first that cannot be read."""
    found: dict[str, Any] = {}
    at, name = 2, "flags"
    try:
        (flags,) = _flags_at(raw)
        word = flags
        while word & _MORE:
            (word,) = _flags_at(raw, at)
            at += 2
        for flag, (name, read) in _PROPERTIES.items():
            if flags & flag:
                size, found[name] = read(raw[at:])
                at += size
    except (ValueError, IndexError, struct.error) as error:
        left = {**(found.pop("headers", None) or {}), UNDECODED: raw[at:]}
        found.pop("cluster_id", None)
        return Undecoded(Properties(**found, headers=left), f"property {name} cannot be read: {error}")
    found.pop("cluster_id", None)
    found["headers"] = found.get("headers") or {}
    return Properties(**found)


def _text(raw: bytes) -> tuple[int, str]:
    size, text = lenient.short_str(raw[:256])
    if size > len(raw):
        raise ValueError("it is cut off")
    return size, text


def _octet(raw: bytes) -> tuple[int, int]:
    return 1, raw[0]


_PROPERTIES: Final[Mapping[int, tuple[str, Callable[[bytes], tuple[int, Any]]]]] = MappingProxyType(
    {
        0x8000: ("content_type", _text),
        0x4000: ("content_encoding", _text),
        0x2000: ("headers", lenient.field_table),
        0x1000: ("delivery_mode", _octet),
        0x0800: ("priority", _octet),
        0x0400: ("correlation_id", _text),
        0x0200: ("reply_to", _text),
        0x0100: ("expiration", _text),
        0x0080: ("message_id", _text),
        0x0040: ("timestamp", lenient.timestamp),
        0x0020: ("message_type", _text),
        0x0010: ("user_id", _text),
        0x0008: ("app_id", _text),
        0x0004: ("cluster_id", _text),
    }
)
