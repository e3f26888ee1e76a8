"""Cuts deliveries out of the byte stream of an AMQP 0-9-1 connection; every other byte is handed on as it came. No I/O.

Theory of operation
-------------------
A frame is ``kind (1 byte), channel (2), size (4), payload (size), 0xCE``. A delivery is three or more frames of one
channel: the method ``basic.deliver``, a content header, and bodies until the size in the header is reached (none where
it is 0). Frames of other channels may lie in between, and a chunk of the stream may end anywhere.

    whole delivery in the chunk      -> cut in one go (``_whole``): three look-ups, four slices
    anything else on such a channel  -> frame by frame (``_keep``); an incomplete frame is held until it is complete
    frames of other channels         -> handed on at once, as far as they have come

Content belongs to the method before it on its channel, so the header and bodies of ``basic.return`` and
``basic.get-ok`` are handed on like their methods. A channel that is closed, by either side, is no longer registered:
its number may be given to somebody else.

What is no valid stream is the business of whoever reads behind us: all frames of unfinished deliveries and everything
that follows is handed on from then on, so that the reader sees the very bytes that it would have seen without us.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

Cut = tuple[int, int, bytes, bytes, bytes, bytes]
"""A delivery: tag, whether it came before (1 or 0), exchange, routing key, properties (flags first, undecoded), body.
A plain tuple: it is made for every message."""

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END: Final = 0xCE
CLASS_BASIC: Final = 60
DELIVER: Final = 0x003C_003C
CLOSES: Final = frozenset({0x0014_0028, 0x0014_0029})
"""``channel.close`` and ``channel.close-ok``: either is the last frame of its channel."""

ACK: Final = 0x003C_0050
_KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
_FRAME: Final = struct.Struct(">BHI")
_HEADER: Final = struct.Struct(">BHIHHQ")
_AROUND: Final = 8
"""Bytes of a frame that are not its payload."""
_frame_at: Final = _FRAME.unpack_from
_header_at: Final = _HEADER.unpack_from
_method_at: Final = struct.Struct(">BHIIB").unpack_from
"""Frame, method and length of the first argument, which for ``basic.deliver`` is the consumer tag."""
_ack: Final = struct.Struct(">BHIIQ?B").pack
_tag_at: Final = struct.Struct(">QB").unpack_from


class StreamBroken(ValueError):
    """The bytes are no frames, or frames in an order that AMQP does not know."""


@dataclass(slots=True)
class _Unfinished:
    """A delivery whose frames are not all there. ``missing`` bytes of its body; None before its header came."""

    frames: list[bytes]
    head: tuple[int, int, bytes, bytes]
    missing: int | None = None

    def cut(self) -> Cut:
        return *self.head, self.frames[1][19:-1], b"".join([frame[7:-1] for frame in self.frames[2:]])


class Cutter:
    """The state of one connection's stream. ``fault`` says why nothing is cut any more; empty while all is well.

    ``kept`` is set with every frame of a delivery that is kept for the rest of it, and reset by whoever asks.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.kept = False
        self._channels: set[int] = set()
        self._taken: dict[int, list[Cut]] = {}
        self._unfinished: dict[int, _Unfinished] = {}
        self._held: list[bytes] = []
        self._lacking = 0
        self._passing = 0

    @property
    def between_frames(self) -> bool:
        """Whether what was handed on so far ends with a whole frame."""
        return not self._passing

    def register(self, channel: int) -> None:
        """Cut the deliveries of this channel out, until it is closed."""
        self._channels.add(channel)

    def is_registered(self, channel: int) -> bool:
        """Whether the deliveries of this channel are cut out."""
        return channel in self._channels

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream; those to be handed on. Never raises; see ``fault``."""
        if self.fault:
            return data
        if self._held:
            self._held.append(data)
            self._lacking -= len(data)
            if self._lacking > 0:
                return b""
            data = b"".join(self._held)
            self._held.clear()
        passed: list[bytes] = []
        position, end = 0, len(data)
        try:
            if self._passing:
                position = self._pass(data, 0, passed)
            while position < end:
                position = self._whole(data, position)
                if position < end:
                    position = self._frame(data, position, passed)
        except StreamBroken as error:
            self._give_up(str(error), passed, data[position:])
        return b"".join(passed)

    def take(self) -> Iterator[tuple[int, list[Cut]]]:
        """What was cut out since the last time, by channel, in the order it came."""
        if self._taken:
            taken, self._taken = self._taken, {}
            yield from taken.items()

    def _whole(self, data: bytes, position: int) -> int:
        """Cut whole deliveries that lie one behind the other; where they end. What looks odd is left to ``_frame``.

        Every message comes through here, so nothing is called that can be looked up, and nothing is done twice.
        """
        end, current = len(data), -1
        cuts: list[Cut] = []
        try:
            while position < end:
                kind, channel, size, method, name = _method_at(data, position)
                if method != DELIVER or kind != METHOD:
                    break
                if channel != current:
                    if channel not in self._channels or channel in self._unfinished:
                        break
                    current, cuts = channel, self._taken.setdefault(channel, [])
                header = position + size + 8
                at = position + 21 + name
                key = at + 1 + data[at]
                key_end = key + 1 + data[key]
                kind, same, size, class_id, _, length = _header_at(data, header)
                body = header + size + 8
                after: int = body + length + 8
                if after > end or key_end != header - 1 or kind != HEADER or same != channel or class_id != CLASS_BASIC:
                    break
                if size < 14 or _frame_at(data, body) != (BODY, channel, length):
                    break
                if not data[header - 1] == data[body - 1] == data[after - 1] == END:
                    break
                tag, redelivered = _tag_at(data, at - 9)
                exchange, routing_key = data[at + 1 : key], data[key + 1 : key_end]
                properties, text = data[header + 19 : body - 1], data[body + 7 : after - 1]
                cuts.append((tag, redelivered & 1, exchange, routing_key, properties, text))
                position = after
        except (IndexError, struct.error):
            pass  # the chunk ends within this one
        if not cuts and current >= 0:
            del self._taken[current]
        return position

    def _frame(self, data: bytes, position: int, passed: list[bytes]) -> int:
        """Deal with one frame, or with what is there of it; where the next one starts."""
        left = len(data) - position
        if left < _FRAME.size:
            return self._hold(data, position, _FRAME.size - left)
        kind, channel, size = _frame_at(data, position)
        if kind not in _KINDS:
            raise StreamBroken(f"a frame of the unknown kind {kind}")
        whole: int = size + _AROUND
        if channel not in self._channels:
            self._passing = whole
            return self._pass(data, position, passed)
        if left < whole:
            return self._hold(data, position, whole - left)
        frame = data[position : position + whole]
        if frame[-1] != END:
            raise StreamBroken("a frame without its end")
        if not self._keep(kind, channel, frame):
            passed.append(frame)
        return position + whole

    def _hold(self, data: bytes, position: int, lacking: int) -> int:
        self._held.append(data[position:])
        self._lacking = lacking
        return len(data)

    def _pass(self, data: bytes, position: int, passed: list[bytes]) -> int:
        """Hand on what is there of a frame that is nothing to us."""
        piece = data[position : position + self._passing]
        self._passing -= len(piece)
        if not self._passing and piece[-1] != END:
            raise StreamBroken("a frame without its end")
        passed.append(piece)
        return position + len(piece)

    def _keep(self, kind: int, channel: int, frame: bytes) -> bool:
        """Whether this frame of a registered channel belongs to a delivery; then it is kept."""
        unfinished = self._unfinished.get(channel)
        if kind == METHOD:
            return self._method(channel, frame, unfinished)
        if unfinished is None:
            return False
        if kind == HEADER and unfinished.missing is None:
            unfinished.missing = _body_size(frame)
        elif kind == BODY and unfinished.missing is not None and len(frame) - _AROUND <= unfinished.missing:
            unfinished.missing -= len(frame) - _AROUND
        else:
            raise StreamBroken(f"a frame of kind {kind} where it does not belong")
        self.kept = True
        unfinished.frames.append(frame)
        if not unfinished.missing:
            del self._unfinished[channel]
            self._taken.setdefault(channel, []).append(unfinished.cut())
        return True

    def _method(self, channel: int, frame: bytes, unfinished: _Unfinished | None) -> bool:
        if unfinished is not None:
            raise StreamBroken("a method in the middle of a delivery")
        number = _method_at(frame)[3] if len(frame) >= 12 else 0
        if number in CLOSES:
            self._channels.discard(channel)
        if number != DELIVER:
            return False
        self._unfinished[channel] = _Unfinished([frame], _head(frame))
        self.kept = True
        return True

    def _give_up(self, why: str, passed: list[bytes], rest: bytes) -> None:
        """Hand everything on from here, with the frames of what is not finished before it."""
        self.fault = why
        for unfinished in self._unfinished.values():
            passed.extend(unfinished.frames)
        self._unfinished.clear()
        self._passing = 0
        passed.append(rest)


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """One ``basic.ack``."""
    return _ack(METHOD, channel, 13, ACK, tag, multiple, END)


def _head(frame: bytes) -> tuple[int, int, bytes, bytes]:
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


def _body_size(frame: bytes) -> int:
    """What a content header announces. Raises StreamBroken."""
    if len(frame) < _HEADER.size + 3:
        raise StreamBroken("a content header that is too short")
    _, _, _, class_id, _, length = _header_at(frame)
    if class_id != CLASS_BASIC:
        raise StreamBroken(f"a content header of class {class_id}")
    return int(length)
