"""A TCP proxy between client and broker that can be cut, slowed, blackholed, closed and healed. Listens on 127.0.0.1.

What it does to bytes it does per direction: up is from client to broker, down from broker to client.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Self

from worker.adapters.freeports import free_port

# SO_LINGER on, 0 seconds: closing sends RST instead of FIN, as a dying host or firewall would.
_RESET = struct.pack("ii", 1, 0)
_CHUNK = 65536


class Way(StrEnum):
    """Which bytes are meant."""

    UP = "client to broker"
    DOWN = "broker to client"


class _Lane:
    """How bytes travel in one direction."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.heal()

    def heal(self) -> None:
        self.open.set()
        self.bytes_per_s: float | None = None
        self.delay_s = 0.0
        self.left: int | None = None

    @property
    def chunk(self) -> int:
        """Most bytes to read at once: of a slow lane a tenth of a second's, so that it trickles."""
        return _CHUNK if self.bytes_per_s is None else max(1, int(self.bytes_per_s / 10))

    async def travel(self, data: bytes) -> bytes:
        """Wait as long as this takes; what of it arrives, if the connection is to be cut in the middle of it."""
        await self.open.wait()
        pause_s = self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0)
        if pause_s:
            await asyncio.sleep(pause_s)
            await self.open.wait()
        if self.left is None:
            return data
        arriving = data[: self.left]
        self.left -= len(arriving)
        return arriving


class TcpProxy:
    """Forwards to one port until told otherwise. Without a direction, both are meant.

    ``cut`` resets what is connected and ``finish`` ends it in good order (new connections work), ``blackhole`` holds
    back every byte from now on, ``slow`` lets them trickle, ``cut_after`` resets in the middle of something,
    ``refuse`` stops listening, ``inject`` adds to what the broker says, ``heal`` undoes all of them.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._lanes = {way: _Lane() for way in Way}
        self.port = free_port()
        self.accepted = 0

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.refuse()
        await self.cut()

    def url(self, vhost: str = "") -> str:
        """The AMQP URL through this proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    async def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            _reset(writer)
        await self._end_pumps()

    async def finish(self) -> None:
        """End every connection as if both ends had closed it: FIN."""
        for writer in self._writers:
            writer.close()
        await self._end_pumps()

    def inject(self, data: bytes) -> None:
        """Put bytes of our own behind those that every client has got so far."""
        for writer in self._clients & self._writers:
            writer.write(data)

    def cut_after(self, count: int, *ways: Way) -> None:
        """Reset each connection as soon as so many more bytes went in this direction, all connections together."""
        for lane in self._chosen(ways):
            lane.left = count

    def blackhole(self, *ways: Way) -> None:
        """Keep the connections, deliver nothing any more."""
        for lane in self._chosen(ways):
            lane.open.clear()

    def slow(self, *ways: Way, bytes_per_s: float | None = None, delay_s: float = 0.0) -> None:
        """Let each connection have so many bytes per second at most, every chunk so many seconds late."""
        for lane in self._chosen(ways):
            lane.bytes_per_s, lane.delay_s = bytes_per_s, delay_s

    def _chosen(self, ways: tuple[Way, ...]) -> list[_Lane]:
        return [self._lanes[way] for way in ways or Way]

    async def _end_pumps(self) -> None:
        self._writers.clear()
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def refuse(self) -> None:
        """Stop listening: new connections are refused, those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def heal(self) -> None:
        """Let bytes flow and connections in again."""
        for lane in self._lanes.values():
            lane.heal()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        self._clients.add(writer)
        for way, source, target, back in (
            (Way.UP, reader, up_writer, writer),
            (Way.DOWN, up_reader, writer, up_writer),
        ):
            pump = asyncio.create_task(self._pump(self._lanes[way], source, target, back), name=f"proxy {way}")
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, lane: _Lane, source: asyncio.StreamReader, target: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await source.read(lane.chunk):
                target.write(await lane.travel(data))
                await target.drain()
                if lane.left == 0:
                    _reset(back)
                    _reset(target)
        target.close()
        self._writers.discard(target)
        self._clients.discard(target)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
