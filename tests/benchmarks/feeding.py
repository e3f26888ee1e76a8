"""Producers for load: what a client library does for each message would take longer than what is to be measured.

The connection is opened with pamqp's commands, the three frames of a message are put together by hand: 10 us for each.
Every message is persistent, mandatory and confirmed, at most ``WINDOW`` of them at a time.
"""

import asyncio
import contextlib
import struct
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from pamqp import commands, frame
from pamqp.header import ProtocolHeader

from tests.benchmarks.loads import Event

WINDOW = 1000
"""Messages that wait for their confirm: more gains nothing, fewer leave the broker idle."""
CHANNEL = 1
FRAME_MAX = 131_072
DEADLINE_S = 900.0

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_ACK = (60, 80)
# content type, delivery mode, message id, timestamp: the bits by which AMQP 0-9-1 says which properties follow
_FLAGS = 1 << 15 | 1 << 12 | 1 << 7 | 1 << 6


class Refused(RuntimeError):
    """The broker did not take a message; that spoils the measurement."""


class Feeder:
    """One confirming channel on a connection of its own; ``open`` makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: str) -> None:
        self._reader, self._writer = reader, writer
        self._exchange = _short(exchange)
        self._published = 0
        # Confirmed are all tags up to the floor, and single ones above it: a quorum queue confirms in any order.
        self._floor = 0
        self._above: set[int] = set()
        self._changed = asyncio.Event()
        self._buffer = b""
        self._incoming = self._frames()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, exchange: str) -> AsyncIterator["Feeder"]:
        """Connect, and close in the end."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port or 5672)
        feeder = cls(reader, writer, exchange)
        try:
            await feeder._log_in(address.username or "guest", address.password or "guest")
            async with asyncio.TaskGroup() as group:
                confirms = group.create_task(feeder._read_confirms(), name="confirms")
                try:
                    yield feeder
                finally:
                    confirms.cancel()
            feeder._send(commands.Connection.Close(reply_code=200, reply_text="", class_id=0, method_id=0), 0)
            await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def publish(self, events: Iterable[Event]) -> None:
        """Publish them all; returns when each is confirmed. Raises Refused and TimeoutError."""
        async with asyncio.timeout(DEADLINE_S):
            left = iter(events)
            while pieces := [self._message(event) for event in islice(left, WINDOW // 4)]:
                self._writer.write(b"".join(pieces))
                await self._until_open_at_most(WINDOW - WINDOW // 4)
            await self._until_open_at_most(0)

    async def pace(self, events: Iterable[Event], rate: float) -> "array[float]":
        """Publish so many a second, evenly; when each was written (seconds since 1970)."""
        moments = array("d")
        start = time.monotonic()
        for number, event in enumerate(events):
            delay = start + number / rate - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            moments.append(time.time())
            self._writer.write(self._message(event))
        await self._until_open_at_most(0)
        return moments

    async def _until_open_at_most(self, count: int) -> None:
        await self._writer.drain()
        while self._published - self._floor - len(self._above) > count:
            self._changed.clear()
            await self._changed.wait()

    def _message(self, event: Event) -> bytes:
        self._published += 1
        number = self._published
        body = event.body
        method = struct.pack(">HHH", 60, 40, 0) + self._exchange + _short(str(event.order_id)) + b"\x01"
        properties = (
            _short("application/json")
            + b"\x02"
            + _short(f"{event.order_id:08x}-{event.number:04x}-4000-8000-{number:012x}")
            + struct.pack(">Q", int(time.time()))
        )
        header = struct.pack(">HHQH", 60, 0, len(body), _FLAGS) + properties
        return _frame(_METHOD, method) + _frame(_HEADER, header) + _frame(_BODY, body)

    async def _log_in(self, user: str, password: str) -> None:
        self._writer.write(ProtocolHeader(0, 9, 1).marshal())
        await self._next(commands.Connection.Start)
        self._send(commands.Connection.StartOk({}, "PLAIN", f"\0{user}\0{password}", "en_US"), 0)
        await self._next(commands.Connection.Tune)
        # No heartbeats: a connection of the tests' own on loopback, which is closed when they are over.
        self._send(commands.Connection.TuneOk(channel_max=8, frame_max=FRAME_MAX, heartbeat=0), 0)
        self._send(commands.Connection.Open("/"), 0)
        await self._next(commands.Connection.OpenOk)
        self._send(commands.Channel.Open(), CHANNEL)
        await self._next(commands.Channel.OpenOk)
        self._send(commands.Confirm.Select(), CHANNEL)
        await self._next(commands.Confirm.SelectOk)

    def _send(self, command: Any, channel: int) -> None:
        self._writer.write(frame.marshal(command, channel))

    async def _next(self, kind: type[Any]) -> None:
        payload = await anext(self._incoming)
        if payload[:4] != struct.pack(">I", kind.index):
            raise Refused(f"expected {kind.__name__}, got {payload[:200]!r}")

    async def _read_confirms(self) -> None:
        async for payload in self._incoming:
            kind = struct.unpack_from(">HH", payload)
            if kind != _ACK:  # handed back, not stored, or the channel is closed
                raise Refused(repr(payload[:200]))
            tag, multiple = struct.unpack_from(">QB", payload, 4)
            self._note(tag, multiple=bool(multiple))

    def _note(self, tag: int, *, multiple: bool) -> None:
        self._above.add(tag)
        if multiple:
            self._floor = tag
            self._above = {each for each in self._above if each > tag}
        while self._floor + 1 in self._above:
            self._floor += 1
            self._above.discard(self._floor)
        self._changed.set()

    async def _frames(self) -> AsyncIterator[bytes]:
        """The method frames that come in."""
        while True:
            for kind, payload in self._complete():
                if kind == _METHOD:
                    yield payload
            more = await self._reader.read(FRAME_MAX)
            if not more:
                raise Refused("the broker closed the connection")
            self._buffer += more

    def _complete(self) -> Iterator[tuple[int, bytes]]:
        buffer, start = self._buffer, 0
        frames: list[tuple[int, bytes]] = []
        while len(buffer) - start >= 7:
            kind, _, size = struct.unpack_from(">BHI", buffer, start)
            if len(buffer) - start < size + 8:
                break
            frames.append((kind, buffer[start + 7 : start + 7 + size]))
            start += size + 8
        self._buffer = buffer[start:]
        return iter(frames)


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, CHANNEL, len(payload)) + payload + _END


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw
