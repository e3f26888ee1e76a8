"""The stand-in platform as a whole: two listeners (platform and control) over one state.

    async with Simulator(Options(latency_s=0.02)).serve() as address:
        ...  # address.oauth_url, address.graphql_url, address.sim_url

The control interface has a port of its own, so it stays reachable while the platform refuses connections.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from worker.simulator.control import application
from worker.simulator.endpoint import Endpoint
from worker.simulator.exchange import Platform
from worker.simulator.faults import Fault
from worker.simulator.listener import Listener
from worker.simulator.options import Options
from worker.simulator.token_endpoint import TokenEndpoint

MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(slots=True, frozen=True, kw_only=True)
class Address:
    """Where the running stand-in is."""

    oauth_url: str
    graphql_url: str
    sim_url: str


class Simulator:
    """A stand-in for the platform; one object serves once at a time, and keeps its state when served again."""

    def __init__(
        self,
        options: Options | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.platform = Platform(options or Options(), clock=clock, wall=wall)
        self._listener: Listener | None = None

    @property
    def options(self) -> Options:
        """The options in force; set new ones at any time."""
        return self.platform.options

    @options.setter
    def options(self, options: Options) -> None:
        self.platform.options = options

    @property
    def is_listening(self) -> bool:
        """Whether the platform's port takes connections."""
        return self._listener is not None and self._listener.is_listening

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0, sim_port: int = 0) -> AsyncIterator[Address]:
        """Listen on two ports (0: any free one) until the block ends. Raises OSError if one cannot be had."""
        async with AsyncExitStack() as stack:
            self.platform.stopping.clear()
            self._listener = await self._open(stack, self._platform_app(), host, port)
            control_listener = await self._open(stack, application(self), host, sim_port)
            stack.callback(self.platform.stopping.set)
            yield Address(
                oauth_url=f"{self._listener.url}/token",
                graphql_url=f"{self._listener.url}/graphql",
                sim_url=f"{control_listener.url}/_sim/",
            )

    async def add_fault(self, fault: Fault) -> None:
        """Plan a fault; ``refuse`` takes effect at once."""
        if fault.kind == "refuse":
            await self.refuse(fault.for_s)
        else:
            self.platform.faults.add(fault)

    async def clear_faults(self) -> None:
        """Nothing goes wrong any more, and the platform listens."""
        self.platform.faults.clear()
        if self._listener is not None:
            await self._listener.listen()

    async def refuse(self, for_s: float | None = None) -> None:
        """Refuse connections for so many seconds, or until the faults are cleared; open connections are reset."""
        if self._listener is not None:
            await self._listener.refuse(for_s)

    async def reset(self) -> None:
        """Forget orders, history, calls, counters and faults; options and tokens stay."""
        self.platform.reset()
        await self.clear_faults()

    async def _open(self, stack: AsyncExitStack, app: web.Application, host: str, port: int) -> Listener:
        listener = Listener(app, host, port)
        stack.push_async_callback(listener.close)
        await listener.open()
        return listener

    def _platform_app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        endpoint = Endpoint(self.platform)
        app.router.add_post("/token", TokenEndpoint(self.platform).answer)
        app.router.add_post("/", endpoint.answer)
        app.router.add_post("/graphql", endpoint.answer)
        return app
