"""How the frames of AMQP 0-9-1 lie in bytes, as far as deliveries and acknowledgements need it (specification, 2.3.5).
No I/O."""

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

Unpack = Callable[[bytes, int], tuple[Any, ...]]

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END: Final = 0xCE
CLASS_BASIC: Final = 60
DELIVER: Final = 0x003C_003C
CLOSES: Final = frozenset({0x0014_0028, 0x0014_0029})
"""``channel.close`` and ``channel.close-ok``: either is the last frame of its channel."""

ACK: Final = 0x003C_0050
KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
FRAME: Final = struct.Struct(">BHI")
_HEADER: Final = struct.Struct(">BHIHHQ")
AROUND: Final = 8
"""Bytes of a frame that are not its payload."""
frame_at: Final = FRAME.unpack_from
_header_at: Final = _HEADER.unpack_from
first_of: Final = struct.Struct(">BHIIB").unpack_from
"""Frame, method and length of the first argument, which for ``basic.deliver`` is the consumer tag."""
_ack: Final = struct.Struct(">BHIIQ?B").pack
_tag_at: Final = struct.Struct(">QB").unpack_from


SHORTEST: Final = (0, 0), 0
"""Lengths of consumer tag, exchange and properties from which any others can be found out."""


@lru_cache(maxsize=64)
def method_layout(name: int, exchange: int) -> tuple[Unpack, int]:
    """Reads a ``basic.deliver`` whose consumer tag and exchange have these lengths, up to the length of the key."""
    layout = struct.Struct(f">BHIIB{name}xQBB{exchange}sB")
    return layout.unpack_from, layout.size


@lru_cache(maxsize=256)
def header_layout(properties: int) -> tuple[Unpack, int]:
    """Reads a content header whose properties have this length, and the start of the body frame behind it."""
    layout = struct.Struct(f">BHIHHQ{properties}sBBHI")
    return layout.unpack_from, layout.size


class StreamBroken(ValueError):
    """The bytes are no frames, or frames in an order that AMQP does not know."""


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """One ``basic.ack``."""
    return _ack(METHOD, channel, 13, ACK, tag, multiple, END)


def head_of(frame: bytes) -> tuple[int, int, bytes, bytes]:
    """Tag, whether it came before, exchange and routing key of a ``basic.deliver``. Raises StreamBroken."""
    try:
        at = 21 + frame[11]
        tag, redelivered = _tag_at(frame, at - 9)
        key = at + 1 + frame[at]
        key_end = key + 1 + frame[key]
    except (IndexError, struct.error) as error:
        raise StreamBroken("a delivery that is cut off") from error
    if key_end != len(frame) - 1:
        raise StreamBroken("a delivery that does not fill its frame")
    return tag, redelivered & 1, frame[at + 1 : key], frame[key + 1 : key_end]


def body_size(frame: bytes) -> int:
    """What a content header announces. Raises StreamBroken."""
    if len(frame) < _HEADER.size + 3:
        raise StreamBroken("a content header that is too short")
    _, _, _, class_id, _, length = _header_at(frame)
    if class_id != CLASS_BASIC:
        raise StreamBroken(f"a content header of class {class_id}")
    return int(length)
