"""The proxy does to bytes what the tests that use it believe."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.support.proxy import TcpProxy, Way

ECHO = b"x" * 1000


@dataclass
class Wire:
    """A client, connected through the proxy to a server that echoes."""

    proxy: TcpProxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    arrived: bytearray

    async def echoed(self, within_s: float = 5.0) -> bytes:
        """What came back of a thousand bytes; TimeoutError if it is not all of them in time."""
        self.writer.write(ECHO)
        async with asyncio.timeout(within_s):
            return await self.reader.readexactly(len(ECHO))


@asynccontextmanager
async def wired() -> AsyncIterator[Wire]:
    """A wire that works."""
    arrived = bytearray()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                arrived.extend(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpProxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        wire = Wire(proxy, reader, writer, arrived)
        assert await wire.echoed() == ECHO
        arrived.clear()
        yield wire
        writer.close()


async def test_a_black_hole_of_one_direction_lets_the_other_through() -> None:
    """Up: nothing arrives at the server. Down: it arrives, and only the answer is missing. Healing delivers all."""
    async with wired() as wire:
        wire.proxy.blackhole(Way.UP)
        with pytest.raises(TimeoutError):
            await wire.echoed(0.1)
        assert not wire.arrived
        await wire.proxy.heal()
        assert await wire.reader.readexactly(len(ECHO)) == ECHO
        wire.proxy.blackhole(Way.DOWN)
        with pytest.raises(TimeoutError):
            await wire.echoed(0.1)

        assert len(wire.arrived) == 2 * len(ECHO)
        await wire.proxy.heal()
        assert await wire.reader.readexactly(len(ECHO)) == ECHO


async def test_a_slow_direction_takes_its_time() -> None:
    """A thousand bytes at 5,000 per second are at least 0.2 s under way."""
    async with wired() as wire:
        wire.proxy.slow(Way.DOWN, bytes_per_s=5000)
        started = time.monotonic()
        assert await wire.echoed() == ECHO

        assert time.monotonic() - started >= 0.19


async def test_cut_after_some_bytes_ends_in_the_middle() -> None:
    """The server saw exactly so many bytes, and the client a reset."""
    async with wired() as wire:
        wire.proxy.cut_after(300, Way.UP)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await wire.echoed()

        assert len(wire.arrived) <= 300


async def test_finish_is_an_orderly_end_and_cut_is_not() -> None:
    """FIN reads as end of stream, RST as an error."""
    async with wired() as wire:
        await wire.proxy.finish()
        assert await wire.reader.read(1) == b""
    async with wired() as wire:
        await wire.proxy.cut()
        with pytest.raises(ConnectionResetError):
            await wire.reader.read(1)
