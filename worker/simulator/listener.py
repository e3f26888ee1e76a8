"""Where the stand-in listens, and how it stops listening for a while without giving up its port."""

import asyncio
import contextlib
import socket

from aiohttp import web

SHUTDOWN_S = 1.0  # for calls that are still running; their waits have been ended before
BACKLOG = 1024


class Listener:
    """One port with one application. ``refuse`` makes connects fail with ECONNREFUSED and resets what is connected."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        # handler_cancellation is off by default: a handler runs on when its client leaves, as the endpoint expects.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        self._host = host
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._site: web.SockSite | None = None
        self._resuming: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Address for clients on this machine."""
        host = "127.0.0.1" if self._host in ("", "0.0.0.0") else self._host  # noqa: S104  compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_listening(self) -> bool:
        """False while connects are refused."""
        return self._site is not None

    async def open(self) -> None:
        """Start listening."""
        await self._runner.setup()
        await self.listen()

    async def listen(self) -> None:
        """Listen (again); harmless if it does."""
        self._forget_resuming()
        if self._site is None:
            self._site = web.SockSite(self._runner, self._socket, backlog=BACKLOG)
            await self._site.start()

    async def refuse(self, for_s: float | None = None) -> None:
        """Stop listening, for ``for_s`` seconds or until ``listen``, and reset every connection there is.

        The port stays ours: a socket that is bound but does not listen makes the kernel refuse connects, and nobody
        else can take it meanwhile.
        """
        self._forget_resuming()
        if self._site is not None:
            await self._site.stop()
            self._site = None
            self._socket = _bound(self._host, self.port)
        self._reset_connections()
        if for_s is not None:
            self._resuming = asyncio.create_task(self._resume(for_s), name="simulator-resume")

    async def close(self) -> None:
        """Stop for good."""
        resuming = self._resuming
        self._forget_resuming()
        if resuming is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await resuming
        await self._runner.cleanup()
        self._site = None
        self._socket.close()

    async def _resume(self, for_s: float) -> None:
        await asyncio.sleep(for_s)
        self._resuming = None  # this task itself: listen() must not cancel it
        await self.listen()

    def _forget_resuming(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    def _reset_connections(self) -> None:
        server = self._runner.server
        for protocol in server.connections if server else ():
            if protocol.transport is not None:
                protocol.transport.abort()


def _bound(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
