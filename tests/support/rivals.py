"""Two workers forced onto the same orders: a work queue that feeds both at once, one journal, one platform, the books.

async with Rivals(node, folder, journal_url, passive_url, seed) as rivals:
    await rivals.compete()                  # 20,000 events of 200 orders; kills=3: kill -9 of either in between
    await rivals.agreed()                   # nothing queued, nothing owed
    verdict = await rivals.ended()

Single active consumer is what keeps two replicas apart in earnest, so here the queue is declared without it. A worker
with ``TOPOLOGY=passive`` whose user may not configure anything takes the queue as it is.
"""

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, func, or_, select

from tests.support.accounting import Verdict
from tests.support.arena import Arena
from tests.support.broker import unique_topology
from tests.support.orderbooks import Key
from tests.support.workerprocess import PROGRAM, WorkerProcess
from tests.support.world import RETRY_DELAYS_S
from worker.adapters.amqp.topology import Topology
from worker.adapters.journal.database import Database
from worker.adapters.journal.tables import orders
from worker.adapters.journal.ways import Kind
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.options import Options

ORDERS = range(1, 201)
PER_ORDER = 100
LATENCY_S = (0.005, 0.06)
EVENTS_PER_CALL = 150
"""More than calls ever take along here, so a part of the load makes more calls than this tells."""
POLL_S = 0.1
AGREED_S = 150.0
"""Claims of a worker that was killed are looked after 60 s after they expired, and that took 32 s."""
SETTINGS = {"TOPOLOGY": "passive", "CALL_TIMEOUT_S": "2"}


def for_both() -> Topology:
    """Queues of a test's own, whose work queue hands messages to all its consumers in turn."""
    made = unique_topology(retry_delays_s=RETRY_DELAYS_S)
    work = next(queue for queue in made.queues if queue.name == made.work_queue)
    shared = {name: value for name, value in work.arguments.items() if name != "x-single-active-consumer"}
    return replace(
        made, queues=tuple(replace(each, arguments=shared) if each is work else each for each in made.queues)
    )


async def owed(journal: Database) -> int:
    """Orders with an echo that somebody has to send yet, or a claim that still stands."""
    open_ones = or_(orders.c.echo_us.is_not(None), orders.c.claimed_by.is_not(None))

    def count(connection: Connection) -> int:
        return connection.scalar(select(func.count()).select_from(orders).where(open_ones)) or 0

    return await journal.run(count, kind=Kind.SINGLE)


async def until_agreed(arena: Arena, journal: Database, *, deadline_s: float = AGREED_S) -> None:
    """Wait until nothing is ready in the work queues, and nobody owes an echo or holds a claim."""

    async def open_ones() -> str:
        async with arena.outside() as person:
            ready = sum([await person.ready(queue) for queue in arena.names.work_queues])
        still = await owed(journal)
        return f"{ready} messages are ready, {still} orders are claimed or owed an echo" if ready or still else ""

    await until_none(open_ones, arena, deadline_s=deadline_s)


async def until_none(what: Callable[[], Awaitable[str]], arena: Arena, *, deadline_s: float) -> None:
    """Wait until there is nothing more to say. AssertionError with the last of it where that takes too long."""
    deadline = time.monotonic() + deadline_s
    while left := await what():
        assert time.monotonic() < deadline, f"{left}; the worker said:\n{arena.worker.output[-6000:]}"
        await asyncio.sleep(POLL_S)


@dataclass(slots=True)
class Rivals:
    """One run. ``passive_url`` is the broker's address for a user who may not configure anything.

    ``shuffled``: the events of an order come in any order, else the oldest first. ``program`` is what the workers run.
    """

    node: PrivateBroker
    folder: Path
    journal_url: str
    passive_url: str
    seed: int
    program: Sequence[str] = PROGRAM
    per_order: int = PER_ORDER
    shuffled: bool = True
    latency_s: float | tuple[float, float] = LATENCY_S
    arena: Arena = field(init=False)
    _chance: random.Random = field(init=False)
    _journal: Database = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._chance = random.Random(self.seed)
        self._journal = Database(self.journal_url)
        self._stack.push_async_callback(self._journal.close)
        options = Options(latency_s=self.latency_s, seed=self.seed)
        self.arena = await self._stack.enter_async_context(Arena(self.node, self.folder, options, for_both()))
        self.arena.settings |= SETTINGS | {"AMQP_URL": self.passive_url, "JOURNAL_URL": self.journal_url}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # -- the run --------------------------------------------------------------------------------------------------

    async def compete(self, *, kills: int = 0) -> None:
        """Publish everything while two workers work, and wait until all of it arrived somewhere.

        With ``kills``, that often one of the two is killed in the middle of its work, and another one started.
        """
        keys = self._events()
        workers = list(await asyncio.gather(self.start(), self.start()))
        part = len(keys) // (kills + 1)
        for number in range(kills):
            await self._kill_amid(workers, keys[number * part : (number + 1) * part])
        await self.arena.publish(keys[kills * part :])
        await self.until_all_seen()

    def _events(self) -> list[Key]:
        rounds = [self._chance.sample(ORDERS, len(ORDERS)) for _ in range(self.per_order)]
        keys = [self.arena.accounting.make(order_id) for one in rounds for order_id in one]
        if self.shuffled:
            self._chance.shuffle(keys)
        return keys

    async def _kill_amid(self, workers: list[WorkerProcess], keys: Sequence[Key]) -> None:
        """Kill one of the two while these events come in, and put another one in its place."""
        publishing = asyncio.create_task(self.arena.publish(keys), name="publish")
        try:
            await self._progress(self._chance.randint(2, max(3, len(keys) // EVENTS_PER_CALL)))
            place = self._chance.randrange(len(workers))
            workers[place].send(signal.SIGKILL)
            assert await workers[place].ended() == -signal.SIGKILL
            workers[place] = await self.start()
        finally:
            await publishing

    async def start(self, program: Sequence[str] | None = None) -> WorkerProcess:
        """Start one more worker, and wait until it consumes."""
        return await self.arena.start(program=program or self.program, ADMIN_PORT="0")

    async def _progress(self, calls: int) -> None:
        platform = self.arena.simulator.platform
        mark = platform.calls.started + calls
        await self.arena.until(lambda: platform.calls.started >= mark)

    # -- the end --------------------------------------------------------------------------------------------------

    async def until_all_seen(self, *, deadline_s: float = 180.0) -> None:
        """Wait until every order once had its greatest version on the platform, whatever it shows now."""
        await until_none(self._unseen, self.arena, deadline_s=deadline_s)

    async def agreed(self, *, deadline_s: float = AGREED_S) -> None:
        """Wait until the queue is empty and nobody owes an echo or holds a claim."""
        await until_agreed(self.arena, self._journal, deadline_s=deadline_s)

    async def ended(self) -> Verdict:
        """End both workers in good order; the accounts, with what is left in the queues."""
        for worker in self.arena.workers:
            if worker.is_running:
                assert await worker.terminate() == 0
        return await self.arena.verdict(alone=False)

    async def _unseen(self) -> str:
        lost = self.arena.accounting.verdict(alone=False).problems.get("lost", [])
        return f"{len(lost)} events not applied yet" if lost else ""
