"""The arena on a cluster: every look goes to a node that answers, and the worker and the load know all addresses."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.arena import POLL_S, Arena
from tests.support.broker import Outside
from tests.support.cluster import PrivateCluster
from tests.support.producer import Producer
from tests.support.workerprocess import WorkerProcess
from worker.core.errors import BrokerRefused, ConnectionLost

DEADLINE_S = 60.0


@dataclass(slots=True)
class ClusterArena(Arena):
    """Make one with ``ClusterArena.on``. ``usable`` are the numbers of the nodes that a person would use now."""

    cluster: PrivateCluster = field(kw_only=True)
    usable: set[int] = field(kw_only=True)

    @classmethod
    def on(cls, cluster: PrivateCluster, folder: Path) -> Self:
        """An arena on a cluster that is whole."""
        return cls(cluster.nodes[0], folder, cluster=cluster, usable=set(range(len(cluster.nodes))))

    # -- the broker -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def outside(self) -> AsyncIterator[Outside]:
        """A connection to a node that is usable."""
        person = await Outside.connect(self.cluster.urls[min(self.usable)])
        try:
            yield person
        finally:
            await person.close()

    @property
    def log_text(self) -> str:
        """What all nodes logged."""
        return self.cluster.log_text

    async def declare(self) -> None:
        """Make the queues; a queue of a moment ago may have no leader yet, so it is asked for on another node too."""
        await Arena.declare(self)
        await self.until_led(time.monotonic())

    def urls(self, first: int = 0, *, query: str = "") -> str:
        """All addresses, separated by commas, this node's first."""
        urls = self.cluster.urls
        return ",".join(url + query for url in (*urls[first:], *urls[:first]))

    def load(self, **options: Any) -> Producer:
        """A load that goes to whichever node takes it."""
        return Arena.load(self, **{"url": self.urls()} | options)

    # -- who is where ---------------------------------------------------------------------------------------------

    def home(self, worker: WorkerProcess) -> int:
        """The number of the node that this worker consumes from."""
        line = worker.heard("broker.connected", connection="order-worker consume")[-1]
        port = urlsplit(line["url"]).port
        [number] = (number for number, node in enumerate(self.cluster.nodes) if node.port == port)
        return number

    async def leaders(self) -> set[int]:
        """The nodes that lead the work queue and the dead-letter queue. Raises ConnectionLost where one has none."""
        asked = min(self.usable)
        try:
            queues = (self.names.work_queue, self.names.dead_queue)
            return {await asyncio.to_thread(self.cluster.leader_of, queue, asked=asked) for queue in queues}
        except ValueError as unknown:
            raise ConnectionLost("no leader") from unknown

    async def until_led(self, since: float) -> float:
        """Wait until usable nodes lead the queues; the latest moment (monotonic, ``since`` or later) known to be before
        they did. The dead-letter queue is one of them: while a copy cannot be made, the worker waits."""
        asked, deadline = since, time.monotonic() + DEADLINE_S
        while True:
            now = time.monotonic()
            try:
                if await self.leaders() <= self.usable:
                    return asked
            except (ConnectionLost, BrokerRefused):
                if now > deadline:
                    raise
            asked = now
            await asyncio.sleep(POLL_S)

    async def until_active(self, *, deadline_s: float) -> None:
        """Wait until the worker started last was handed a message. TimeoutError if that takes longer."""
        async with asyncio.timeout(deadline_s):
            while (await self.state())["role"] != "active":  # noqa: ASYNC110 - asked over HTTP
                await asyncio.sleep(POLL_S)

    async def leads(self, number: int) -> None:
        """Make this node the leader of the work queue."""
        await asyncio.to_thread(self.cluster.move_leader, self.names.work_queue, number)

    def longest_stop(self, since: float) -> float:
        """The longest time in seconds, from ``since`` (monotonic) on, in which the platform was given no update.

        AssertionError where it was given none at all.
        """
        times = [change.moment.at_s for change in self.simulator.platform.orders.history]
        after = [at_s for at_s in times if at_s > since]
        assert after, "nothing was applied"
        return max(later - earlier for earlier, later in zip([since, *after], after, strict=False))
