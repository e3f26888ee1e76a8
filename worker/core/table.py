"""AMQP field tables (headers): what the client can encode again exactly, how large it gets, and how the rest is shown.

The limits are those of pamqp 4, which decodes more than it encodes: a long string that is not UTF-8 arrives as
``bytes`` and has no encoder, doubles go out as 32-bit floats, times as whole seconds, names over 128 bytes are cut.
"""

import base64
import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from worker.core.fields import INT64_MAX, INT64_MIN

LONGEST_NAME: Final = 128
_DEEPEST: Final = 16
_LATEST_SECOND: Final = 0xFFFFFFFF
"""pamqp takes larger times for milliseconds when it reads them."""


def encoded_size(value: object, depth: int = 0) -> int | None:
    """Bytes that this value takes in a table (an upper bound, type octet included), or None if it would not survive.

    Surviving means: encoded without an error, and read back as the same value.
    """
    match value:
        case None:
            return 1
        case bool():
            return 2
        case int():
            return 9 if INT64_MIN <= value <= INT64_MAX else None
        case float():
            return 5 if _is_single(value) else None
        case str():
            return _text_size(value)
        case bytearray():
            return 5 + len(value)
        case Decimal():
            return 6 if _is_amqp_decimal(value) else None
        case datetime():
            return 9 if _is_whole_second(value) else None
        case list() if depth < _DEEPEST:
            return _total([encoded_size(item, depth + 1) for item in value])
        case dict() if depth < _DEEPEST:
            return _total([entry_size(name, item, depth + 1) for name, item in value.items()])
    return None


def entry_size(name: object, value: object, depth: int = 0) -> int | None:
    """The same for a name with its value."""
    if not isinstance(name, str) or (length := _text_size(name)) is None or length > 5 + LONGEST_NAME:
        return None
    size = encoded_size(value, depth)
    return None if size is None else length + size


def readable(value: object, depth: int = 0) -> Any:
    """A JSON value that shows anything a table can hold; what JSON cannot say becomes an object that names the type."""
    if depth > _DEEPEST:
        return "(nested deeper)"
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= 64 else {"integer": f"{value.bit_length()} bits"}
        case float():
            return value if math.isfinite(value) else {"float": str(value)}
        case str():
            return fit(value, None)
        case bytes() | bytearray():
            return {"base64": base64.b64encode(value).decode()}
        case Decimal():
            return {"decimal": str(value)}
        case datetime():
            return {"time": value.isoformat()}
        case list():
            return [readable(item, depth + 1) for item in value]
        case Mapping():
            return {fit(str(name), None): readable(item, depth + 1) for name, item in value.items()}
    return {"type": type(value).__name__}


def fit(text: str, limit: int | None) -> str:
    r"""The text as it can be sent: cut to ``limit`` bytes of UTF-8 without tearing a character.

    Lone surrogates, which a lenient decoder makes of bytes that are no UTF-8, are written out as ``\udcff``.
    """
    if text.isascii():
        return text[:limit]
    return text.encode("utf-8", "backslashreplace")[:limit].decode("utf-8", "ignore")


def _total(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return 5 + sum(known) if len(known) == len(sizes) else None


def _text_size(text: str) -> int | None:
    try:
        return 5 + len(text.encode())
    except UnicodeEncodeError:
        return None


def _is_single(value: float) -> bool:
    try:
        (back,) = struct.unpack(">f", struct.pack(">f", value))
    except OverflowError:
        return False
    return bool(back == value) or math.isnan(value)


def _is_amqp_decimal(value: Decimal) -> bool:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or not -255 <= exponent <= 9:
        return False
    return 0 <= value.scaleb(max(0, -exponent)) <= 2**31 - 1


def _is_whole_second(value: datetime) -> bool:
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return value.microsecond == 0 and 0 <= aware.timestamp() <= _LATEST_SECOND
