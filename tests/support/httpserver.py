"""A tiny scriptable HTTP server on loopback, for tests of the HTTP adapters.

A test says what the next requests are answered with (``script``, one answer each; afterwards ``default``), and reads
from ``seen`` what arrived. An answer is an async function of the request, so it may also reset the connection, stop
half-way, or wait until the test lets it go on. No platform behaviour is built in.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, kw_only=True)
class Seen:
    """One request as it arrived. ``peer`` tells connections apart."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: Any

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class HttpServer:
    """The running server: what it was asked, and what it answers next."""

    url: str = ""
    default: Answer
    seen: list[Seen] = field(default_factory=list)
    arrivals: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    script_left: deque[Answer] = field(default_factory=deque)

    def script(self, *answers: Answer) -> None:
        """Answer the next requests with these, in this order."""
        self.script_left.extend(answers)

    async def arrived(self, count: int = 1) -> None:
        """Wait until ``count`` more requests have been read in full."""
        for _ in range(count):
            await self.arrivals.acquire()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        peer = request.transport.get_extra_info("peername") if request.transport else None
        headers = dict(request.headers)
        self.seen.append(Seen(method=request.method, path=request.path_qs, headers=headers, body=body, peer=peer))
        answer = self.script_left.popleft() if self.script_left else self.default
        self.arrivals.release()
        return await answer(request)


@asynccontextmanager
async def serving(
    default: Answer, *, keepalive_s: float = 30.0, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[HttpServer]:
    """Run a server on a free loopback port; on leaving, answers that still wait are cancelled."""
    server = HttpServer(default=default)
    application = web.Application()
    application.router.add_route("*", "/{anything:.*}", server.handle)
    runner = web.AppRunner(
        application, keepalive_timeout=keepalive_s, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"{'https' if ssl_context else 'http'}://127.0.0.1:{port}/"
        yield server
    finally:
        await runner.cleanup()


def reply(status: int = 200, body: bytes = b"", *, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with these bytes, whatever they are."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


def json_reply(payload: Any, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with this value as JSON."""
    return reply(status, json.dumps(payload).encode(), headers={"Content-Type": "application/json", **(headers or {})})


def gated(gate: asyncio.Event, then: Answer) -> Answer:
    """Answer only once the test has opened the gate."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await then(request)

    return answer


async def silent(_request: web.Request) -> web.StreamResponse:
    """Never answer; the connection stays open."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def stalling(request: web.Request) -> web.StreamResponse:
    """Send the headers and the beginning of a body, and then nothing more."""
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b"{")
    return await silent(request)


async def reset(request: web.Request) -> web.StreamResponse:
    """Reset the connection (RST) before anything of an answer was sent."""
    transport = request.transport
    assert transport is not None
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return web.Response()


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection properly (FIN), without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def cut_off(status: int, sent: bytes, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Promise more body than is sent, then reset."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(sent) + 100
        await response.prepare(request)
        await response.write(sent)
        return await reset(request)

    return answer


def raw(data: bytes) -> Answer:
    """Write these bytes to the socket instead of an HTTP answer, then close."""

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(data)
        return await hang_up(request)

    return answer


@asynccontextmanager
async def refusing_port() -> AsyncIterator[int]:
    """A port that refuses connections for as long as the context lasts: bound, so nobody else gets it, not
    listening."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@asynccontextmanager
async def mute_port() -> AsyncIterator[int]:
    """A port where connecting never finishes: its queue of waiting connections is full, so Linux drops each SYN."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        port = sock.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for filler in fillers:
                filler.close()
