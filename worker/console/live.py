"""Pages that are alive: parts of them, made on the server and sent again when they change (server-sent events).

Without the script, or where the stream is cut, a reload shows the same. A stream ends by itself after some minutes, so
that whoever lost a role does not go on watching; browsers open it again, and are asked who they are.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from aiohttp import web

from worker.core.errors import WorkerError

EVERY_S: Final = 1.0
LONGEST_S: Final = 300.0
QUIET_S: Final = 15.0
"""A line that means nothing is sent so often, so that proxies do not take the stream for dead."""
MOST_STREAMS: Final = 200
_AGAIN: Final = b"retry: 1000\n\n"
"""Milliseconds after which browsers open a stream again that was cut; by themselves some wait five seconds."""

Parts = Mapping[str, str]
"""What is inside of elements of the page, by their ids."""
Render = Callable[[], Awaitable[Parts | None]]
"""The parts as they are now; None: it is over, and the page should be loaded again."""


class Streams:
    """All that are open. ``close`` ends them, or the console would wait for its readers."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.count = 0


STREAMS: Final = web.AppKey("streams", Streams)


async def stream(request: web.Request, render: Render, *, every_s: float = EVERY_S) -> web.StreamResponse:
    """Send the parts, and again those that changed, until it is over."""
    streams = request.app[STREAMS]
    if streams.count >= MOST_STREAMS:
        raise web.HTTPServiceUnavailable(text="too many pages are watching", headers={"Retry-After": "10"})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    await response.prepare(request)
    streams.count += 1
    try:
        with suppress(ConnectionError):
            await _feed(response, render, streams.closing, every_s)
    finally:
        streams.count -= 1
    return response


async def _feed(response: web.StreamResponse, render: Render, closing: asyncio.Event, every_s: float) -> None:
    sent: dict[str, str] = {}
    await response.write(_AGAIN)
    began = quiet_since = time.monotonic()
    while not closing.is_set() and time.monotonic() - began < LONGEST_S:
        try:
            parts = await render()
        except WorkerError:
            parts = sent  # what is away is shown by the next load of the page
        if parts is None:
            await response.write(b"event: over\ndata: {}\n\n")
            return
        changed = {name: html for name, html in parts.items() if sent.get(name) != html}
        if changed:
            await response.write(b"data: " + json.dumps(changed).encode() + b"\n\n")
            sent |= changed
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= QUIET_S:
            await response.write(b": still here\n\n")
            quiet_since = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await closing.wait()
