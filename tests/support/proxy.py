"""A TCP proxy between client and broker that can be cut, blackholed, closed and healed. Listens on 127.0.0.1 only."""

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

# SO_LINGER on, 0 seconds: closing sends RST instead of FIN, as a dying host or firewall would.
_RESET = struct.pack("ii", 1, 0)


class TcpProxy:
    """Forwards to one port until told otherwise.

    ``cut`` resets what is connected (new connections work), ``blackhole`` holds back every byte from now on, ``refuse``
    stops listening, ``heal`` undoes both.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
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
            if not writer.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
        self._writers.clear()
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    def blackhole(self) -> None:
        """Keep the connections, deliver nothing any more in either direction."""
        self._flowing.clear()

    async def refuse(self) -> None:
        """Stop listening: new connections are refused, those that are open stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def heal(self) -> None:
        """Let bytes flow and connections in again."""
        self._flowing.set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        for source, target in ((reader, up_writer), (up_reader, writer)):
            pump = asyncio.create_task(self._pump(source, target), name="proxy pump")
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flowing.wait()
                target.write(data)
                await target.drain()
        target.close()
        self._writers.discard(target)
