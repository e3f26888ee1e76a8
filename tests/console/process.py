"""``order-worker console`` as a process, at work on a port of this machine."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.console.stage import NOBODY_LISTENS
from tests.support.tool import Tool
from worker.adapters.freeports import free_port

PATIENCE_S = 20.0


@asynccontextmanager
async def at_work(tool: Tool, *, port: int | None = None, **settings: str) -> AsyncIterator[tuple[Process, str]]:
    """The process, answering, and its address; killed if it outlives the block. Settings are names without prefix."""
    port = port or free_port()
    given = {"CONSOLE_PORT": str(port), "CONSOLE_WORKERS": NOBODY_LISTENS, **settings}
    async with tool.started("console", **given) as process:
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while b"console.listening" not in (line := await process.stderr.readline()):
                assert line, "the console ended"
        draining = asyncio.create_task(process.stderr.read())
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            draining.cancel()
            await asyncio.wait([draining])
