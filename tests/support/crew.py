"""Several workers on the partitions of one work queue, a journal that they share, the books, and a look at the gaps.

async with Crew(node, folder, journal_url, partitions=4, members=2) as crew:
    workers = [await crew.start(index) for index in range(2)]
    async with crew.watched():
        await crew.arena.publish(crew.events(orders=range(1, 201), per_order=20))
        ... kill one, start another ...
        await crew.arrived()
    verdict = await crew.ended()
    crew.longest_gap_s          # of any partition without an active consumer
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.accounting import Verdict
from tests.support.arena import Arena
from tests.support.broker import unique_topology
from tests.support.orderbooks import Key
from tests.support.rivals import until_agreed
from tests.support.workerprocess import WorkerProcess
from tests.support.world import RETRY_DELAYS_S
from worker.adapters.journal.database import Database
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.options import Options

LOOK_S = 0.25


@dataclass(slots=True)
class Crew:
    """Leaves no process, queue or connection behind. ``members`` is what the workers are told of their number."""

    node: PrivateBroker
    folder: Path
    journal_url: str
    partitions: int
    members: int
    latency_s: float | tuple[float, float] = (0.005, 0.06)
    longest_gap_s: float = 0.0
    arena: Arena = field(init=False)
    _journal: Database = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        names = unique_topology(retry_delays_s=RETRY_DELAYS_S, partitions=self.partitions)
        self._journal = Database(self.journal_url)
        self._stack.push_async_callback(self._journal.close)
        options = Options(latency_s=self.latency_s)
        self.arena = await self._stack.enter_async_context(Arena(self.node, self.folder, options, names))
        shared = {"JOURNAL_URL": self.journal_url, "WORKERS": str(self.members), "PREFETCH": "2000", "MAX_BATCH": "100"}
        self.arena.settings |= shared
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def start(self, index: int, **settings: str) -> WorkerProcess:
        """One more worker of this number; registered when this returns."""
        return await self.arena.start(**{"ADMIN_PORT": "0", "WORKER_INDEX": str(index), **settings})

    def events(self, orders: Sequence[int], per_order: int, *, seed: int = 1) -> list[Key]:
        """So many events of each order, in any order."""
        keys = [self.arena.accounting.make(order_id) for order_id in orders for _ in range(per_order)]
        random.Random(seed).shuffle(keys)
        return keys

    async def applied(self, changes: int, *, deadline_s: float = 60.0) -> None:
        """Wait until the platform took so many more updates."""
        history = self.arena.simulator.platform.orders.history
        mark = len(history) + changes
        await self.arena.until(lambda: len(history) >= mark, deadline_s=deadline_s)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look all the while how long any partition is without an active consumer."""
        watching = asyncio.create_task(self._watch(), name="watch the partitions")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        assert watching.cancelled(), "nobody watched"

    async def _watch(self) -> None:
        queues = self.arena.names.work_queues
        seen = dict.fromkeys(queues, time.monotonic())
        async with self.arena.outside() as person:
            channel = await person.channel()
            while True:
                for queue in queues:
                    # The active one, and none of those that wait for their turn.
                    active = (await channel.queue_declare(queue, passive=True)).consumer_count
                    now = time.monotonic()
                    self.longest_gap_s = max(self.longest_gap_s, now - seen[queue])
                    if active:
                        seen[queue] = now
                await asyncio.sleep(LOOK_S)

    async def arrived(self, *, deadline_s: float = 120.0) -> None:
        """Wait until all that was published is on the platform, and nobody owes or claims anything."""
        await self.arena.arrived(deadline_s=deadline_s)
        await until_agreed(self.arena, self._journal)

    async def ended(self) -> Verdict:
        """End all workers in good order; the accounts, which have to be right."""
        for worker in self.arena.workers:
            if worker.is_running:
                assert await worker.terminate() == 0
        verdict = await self.arena.verdict(alone=False)
        verdict.assert_good()
        return verdict
