"""Decoding that no message can break: what pamqp 4 refuses to read arrives as something that can be shown.

pamqp raises where a short string or the name of a header is not UTF-8, where a time lies beyond the year 9999 (a stamp
in microseconds does), and where tables nest deeper than Python's stack. aiormq then gives up the connection; the broker
hands the same message over on the next one, and again, for ever: one message of any producer would block the queue, or
take the whole prefetch with it once a delivery limit is reached. So four decoders are replaced:

    short string, header name   bytes that are no UTF-8 become lone surrogates (``surrogateescape``)
    time                        an ``int``, the number as it came, where it is no ``datetime``
    table, array                beyond 16 levels: ``bytes``, undecoded

The core knows all of these: they are shown (``core/table.py``), and never put on a copy.
"""

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

import structlog
from pamqp import decode

log = structlog.get_logger(__name__)

KNOWN_MAJOR: Final = "4"
DEEPEST: Final = 16
"""Levels of tables and arrays that are read; beyond this the core does not copy them anyway."""

Decoder = Callable[[bytes], tuple[int, Any]]
_LENGTH: Final = struct.Struct(">I")
_TIME: Final = struct.Struct(">Q")


def install() -> bool:
    """Replace the decoders of the library in this process. Repeating it is harmless.

    False, with a warning in the log, where the library is not the one this was written for: then it is left as it is.
    """
    if _installed():
        return True
    found = version("pamqp")
    if found.split(".")[0] != KNOWN_MAJOR or not _is_as_known():
        log.warning("broker.decoder_unknown", version=found)
        return False
    decode.METHODS.update(_METHODS)
    decode.TABLE_MAPPING.update(_TYPES)
    return True


def _installed() -> bool:
    return all(decode.METHODS.get(name) is decoder for name, decoder in _METHODS.items())


def _is_as_known() -> bool:
    """Whether the library looks its decoders up where we replace them."""
    try:
        methods = {name: decode.METHODS[name] for name in _METHODS}
        types = {kind: decode.TABLE_MAPPING[kind] for kind in _TYPES}
        stock = (decode.short_str, decode.timestamp, decode.field_table, decode.field_array)
    except (AttributeError, KeyError):
        return False
    return tuple(methods.values()) == stock and tuple(types.values()) == stock[1:]


def short_str(data: bytes) -> tuple[int, str]:
    """A string of at most 255 bytes. Raises ValueError if there is nothing at all."""
    if not data:
        raise ValueError("a short string without its length")
    end = 1 + data[0]
    return end, data[1:end].decode("utf-8", "surrogateescape")


def timestamp(data: bytes) -> tuple[int, datetime | int]:
    """A time in seconds, or in milliseconds as the library takes large numbers. Raises ValueError if it is cut off."""
    try:
        return decode.timestamp(data)
    except (ValueError, OverflowError, OSError):
        if len(data) < _TIME.size:
            raise
        return _TIME.size, _TIME.unpack_from(data)[0]


def field_table(data: bytes) -> tuple[int, dict[str, Any]]:
    """Names with values. Raises ValueError if it is cut off, or of a type that AMQP does not know."""
    return _table(data, 1)


def field_array(data: bytes) -> tuple[int, list[Any]]:
    """Values. Raises ValueError as ``field_table``."""
    return _array(data, 1)


def _table(data: bytes, depth: int) -> tuple[int, dict[str, Any]]:
    end = _end(data)
    table: dict[str, Any] = {}
    offset = _LENGTH.size
    while offset < end:
        consumed, name = short_str(data[offset : offset + 256])
        offset += consumed
        consumed, table[name] = _value(data[offset:end], depth)
        offset += consumed
    return end, table


def _array(data: bytes, depth: int) -> tuple[int, list[Any]]:
    end = _end(data)
    items: list[Any] = []
    offset = _LENGTH.size
    while offset < end:
        consumed, item = _value(data[offset:end], depth)
        offset += consumed
        items.append(item)
    return end, items


def _end(data: bytes) -> int:
    if len(data) < _LENGTH.size:
        raise ValueError("a table or an array without its length")
    end = _LENGTH.size + int(_LENGTH.unpack_from(data)[0])
    if end > len(data):
        raise ValueError("a table or an array that is cut off")
    return end


def _value(data: bytes, depth: int) -> tuple[int, Any]:
    nested = _NESTED.get(data[:1])
    if nested is None:
        consumed, value = decode.embedded_value(data)
        if not consumed:
            raise ValueError("a name without a value")
        return consumed, value
    if depth < DEEPEST:
        consumed, value = nested(data[1:], depth + 1)
    else:
        consumed = _end(data[1:])
        value = data[1 : 1 + consumed]
    return 1 + consumed, value


_NESTED: Final[Mapping[bytes, Callable[[bytes, int], tuple[int, Any]]]] = MappingProxyType({b"F": _table, b"A": _array})
_METHODS: Final[Mapping[str, Decoder]] = MappingProxyType(
    {"shortstr": short_str, "timestamp": timestamp, "table": field_table, "array": field_array}
)
_TYPES: Final[Mapping[bytes, Decoder]] = MappingProxyType({b"T": timestamp, b"F": field_table, b"A": field_array})
