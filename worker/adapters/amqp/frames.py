"""Cuts deliveries out of the byte stream of an AMQP 0-9-1 connection; every other byte is handed on as it came. No I/O.

Theory of operation
-------------------
A frame is ``kind (1 byte), channel (2), size (4), payload (size), 0xCE``. A delivery is three or more frames of one
channel: the method ``basic.deliver``, a content header, and bodies until the size in the header is reached (none where
it is 0). Frames of other channels may lie in between, and a chunk of the stream may end anywhere.

    whole delivery in the chunk      -> cut in one go (``_whole``): two look-ups, two slices
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

from worker.adapters.amqp.framelayouts import (
    AROUND,
    BODY,
    CLASS_BASIC,
    CLOSES,
    DELIVER,
    END,
    FRAME,
    HEADER,
    KINDS,
    METHOD,
    SHORTEST,
    StreamBroken,
    body_size,
    first_of,
    frame_at,
    head_of,
    header_layout,
    method_layout,
)

Cut = tuple[int, int, bytes, bytes, bytes, bytes]
"""A delivery: tag, whether it came before (1 or 0), exchange, routing key, properties (flags first, undecoded), body.
A plain tuple: it is made for every message."""


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
        self._layout = SHORTEST

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

        Every message comes through here, so nothing is called that can be looked up, and nothing is done twice. As a
        rule a message is laid out like the one before it: then two looks tell all of it.
        """
        end, current = len(data), -1
        cuts: list[Cut] = []
        layout, properties_size = self._layout
        (method_at, method_size), (header_at, header_size) = method_layout(*layout), header_layout(properties_size)
        try:
            while position < end:
                kind, channel, size, method, name, tag, again, length, exchange, key_size = method_at(data, position)
                if (name, length) != layout:
                    layout = name, data[position + 21 + name]
                    method_at, method_size = method_layout(*layout)
                    kind, channel, size, method, name, tag, again, _, exchange, key_size = method_at(data, position)
                if method != DELIVER or kind != METHOD:
                    break
                if channel != current:
                    if channel not in self._channels or channel in self._unfinished:
                        break
                    current, cuts = channel, self._taken.setdefault(channel, [])
                key = position + method_size
                header = key + key_size + 1
                found = header_at(data, header)
                if found[2] != properties_size + 12:
                    properties_size = max(0, found[2] - 12)
                    header_at, header_size = header_layout(properties_size)
                    found = header_at(data, header)
                kind, same, held, class_id, _, length, properties, last, body_kind, body_channel, announced = found
                body = header + header_size
                after: int = body + length
                if kind != HEADER or same != channel or class_id != CLASS_BASIC or held < 14 or last != END:
                    break
                if body_kind != BODY or body_channel != channel or announced != length:
                    break
                if header != position + size + 8 or not data[header - 1] == data[after] == END:
                    break
                cuts.append((tag, again & 1, exchange, data[key : header - 1], properties, data[body:after]))
                position = after + 1
            self._layout = layout, properties_size
        except (IndexError, struct.error):
            self._layout = SHORTEST  # the chunk ends within this one, or it is shorter than those before it
        if not cuts and current >= 0:
            del self._taken[current]
        return position

    def _frame(self, data: bytes, position: int, passed: list[bytes]) -> int:
        """Deal with one frame, or with what is there of it; where the next one starts."""
        left = len(data) - position
        if left < FRAME.size:
            return self._hold(data, position, FRAME.size - left)
        kind, channel, size = frame_at(data, position)
        if kind not in KINDS:
            raise StreamBroken(f"a frame of the unknown kind {kind}")
        whole: int = size + AROUND
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
            unfinished.missing = body_size(frame)
        elif kind == BODY and unfinished.missing is not None and len(frame) - AROUND <= unfinished.missing:
            unfinished.missing -= len(frame) - AROUND
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
        number = first_of(frame)[3] if len(frame) >= 12 else 0
        if number in CLOSES:
            self._channels.discard(channel)
        if number != DELIVER:
            return False
        self._unfinished[channel] = _Unfinished([frame], head_of(frame))
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
