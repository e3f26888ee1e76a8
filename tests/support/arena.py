"""Where faults happen: a broker that a test may ill-treat, the stand-in platform, a worker, and a load through it all.

async with Arena(node, tmp_path) as arena:
    worker = await arena.start()
    async with arena.load():
        await arena.flowing()
        ... break something, mend it ...
        took_s = await arena.recovered(since)
        await arena.assert_full_prefetch()
    figures = await arena.settled()

Unlike ``World`` it keeps no connection to the broker: every look opens one of its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import aiohttp
import msgspec
from aiormq.abc import DeliveredMessage

from tests.support.accounting import Accounting, Verdict
from tests.support.broker import Outside, unique_topology
from tests.support.orderbooks import REJECTED, Key
from tests.support.producer import Producer
from tests.support.workerprocess import DEADLINE_S, PROGRAM, WorkerProcess
from tests.support.world import RETRY_DELAYS_S, worker_settings
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.simulator.faults import Fault
from worker.simulator.options import Options
from worker.simulator.server import Simulator

ORDERS = range(1, 101)
PREFETCH = 200
POLL_S = 0.02
WINDOW = 500
"""Events on their way to the broker at a time."""
START_S = 60.0
"""Imports alone take their time where a dozen processes share two cores."""
BUSY = {"PREFETCH": str(PREFETCH), "MAX_BATCH": "20", "CALL_TIMEOUT_S": "2", "DRAIN_GRACE_S": "10"}
"""Many small calls, so that a fault always meets some in flight and some being settled."""


@dataclass(slots=True)
class Arena:
    """Owns everything but the broker; leaves no process, queue or connection behind."""

    node: PrivateBroker
    folder: Path
    options: Options = field(default_factory=lambda: Options(rejected_values=REJECTED, latency_s=(0.0, 0.04)))
    names: Topology = field(default_factory=lambda: unique_topology(retry_delays_s=RETRY_DELAYS_S))
    simulator: Simulator = field(init=False)
    accounting: Accounting = field(init=False)
    settings: dict[str, str] = field(init=False)
    workers: list[WorkerProcess] = field(default_factory=list)
    _logged: frozenset[str] = frozenset()
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._logged = frozenset(self.log_text.splitlines())
        self.simulator = Simulator(self.options)
        self.accounting = Accounting(self.simulator.platform)
        address = await self._stack.enter_async_context(self.simulator.serve())
        await self.declare()
        self._stack.push_async_callback(self._delete)
        self._stack.push_async_callback(self._end_workers)
        self.settings = BUSY | worker_settings(self.node.url, self.names, address, self.options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # -- the broker -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def outside(self) -> AsyncIterator[Outside]:
        """A connection of a person's own, for a look."""
        person = await Outside.connect(self.node.url)
        try:
            yield person
        finally:
            await person.close()

    @property
    def log_text(self) -> str:
        """What the broker logged so far."""
        return self.node.log_text

    async def declare(self) -> None:
        """Make the queues (again)."""
        async with self.outside() as person:
            await declare(person.connection, self.names)

    async def ctl(self, *arguments: str) -> str:
        """``rabbitmqctl`` without blocking the load."""
        return await asyncio.to_thread(self.node.ctl, *arguments)

    async def take(self, queue: str, *, keep: bool = False) -> list[bytes]:
        """The bodies of everything that is ready in a queue; it is removed, unless it is to be kept."""
        mark, bodies = uuid4().bytes, list[bytes]()
        marked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def receive(message: DeliveredMessage) -> None:
            if message.body == mark and not marked.done():
                marked.set_result(message.delivery_tag or 0)
            elif not marked.done():
                bodies.append(message.body)

        async with self.outside() as person, asyncio.timeout(DEADLINE_S):
            channel = await person.channel()
            await channel.basic_consume(queue, receive)
            # Whatever was there comes before this one: no polling of counters that lag behind.
            await channel.basic_publish(mark, routing_key=queue)
            await channel.basic_ack(await marked, multiple=not keep)
            await channel.close()
        return bodies

    async def publish(self, keys: Sequence[Key]) -> None:
        """Publish these events of the books, confirmed."""
        exchange, body = self.names.exchanges[0].name, self.accounting.body
        async with self.outside() as person:
            for first in range(0, len(keys), WINDOW):
                window = keys[first : first + WINDOW]
                await asyncio.gather(*(person.publish(exchange, str(key.order_id), body(key)) for key in window))

    async def _delete(self) -> None:
        async with self.outside() as person:
            channel = await person.channel()
            for queue in self.names.queues:
                await channel.queue_delete(queue.name)

    # -- the worker -----------------------------------------------------------------------------------------------

    async def start(self, *, program: Sequence[str] = PROGRAM, **settings: str) -> WorkerProcess:
        """Start a worker with its admin interface, and wait until it consumes."""
        self.settings["ADMIN_PORT"] = str(free_port())
        worker = await WorkerProcess.start(self.settings | settings, cwd=self.folder, program=program)
        self.workers.append(worker)
        await worker.until_heard("worker.ready", deadline_s=START_S)
        return worker

    @property
    def worker(self) -> WorkerProcess:
        """The one started last."""
        return self.workers[-1]

    async def state(self) -> dict[str, Any]:
        """What ``/state`` of the worker started last says."""
        url = f"http://127.0.0.1:{self.settings['ADMIN_PORT']}/state"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            said: dict[str, Any] = await answer.json()
            return said

    async def _end_workers(self) -> None:
        for worker in self.workers:
            await worker.kill()

    # -- load and platform ----------------------------------------------------------------------------------------

    def load(self, **options: Any) -> Producer:
        """A load that runs as long as its block (see ``Producer``)."""
        exchange = self.names.exchanges[0].name
        return Producer(self.accounting, **{"url": self.node.url, "exchange": exchange, "orders": ORDERS, **options})

    def set_options(self, **changes: Any) -> None:
        """Change options of the stand-in platform from now on."""
        self.simulator.options = msgspec.structs.replace(self.simulator.options, **changes)

    async def fault(self, **fault: Any) -> None:
        """Plan a fault of the platform (see ``simulator/faults.py``)."""
        await self.simulator.add_fault(Fault(**fault))

    # -- waiting and judging --------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the condition holds; AssertionError with what the workers said if it does not in time."""
        try:
            async with asyncio.timeout(deadline_s):
                while not condition():  # noqa: ASYNC110 - several sources, none of which signals
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            said = "\n".join(worker.output[-6000:] for worker in self.workers)
            raise AssertionError(f"it did not come to that within {deadline_s} s; the workers said:\n{said}") from None

    async def flowing(self, count: int = 400) -> None:
        """Wait until the platform took so many more updates: whatever comes next meets work under way."""
        mark = len(self.simulator.platform.orders.history) + count
        await self.until(lambda: len(self.simulator.platform.orders.history) >= mark)

    async def recovered(self, since: float, *, limit_s: float = 10.0) -> float:
        """Wait for the next update on the platform, and say how many seconds after ``since`` (monotonic) it came.

        AssertionError beyond ``limit_s``.
        """
        history = self.simulator.platform.orders.history
        await self.until(lambda: history and history[-1].moment.at_s > since, deadline_s=limit_s)
        took_s = next(change.moment.at_s for change in history if change.moment.at_s > since) - since
        assert took_s < limit_s
        return took_s

    async def consuming_again(self, since: float, *, generations: int, limit_s: float = 10.0) -> float:
        """The same for a worker that lost its channel: only updates count that came after it consumed again, which it
        had done ``generations`` times before."""
        await self.until(lambda: len(self.worker.heard("broker.consuming")) > generations, deadline_s=limit_s)
        consuming = time.monotonic()
        return consuming - since + await self.recovered(consuming, limit_s=limit_s - (consuming - since))

    @property
    def generations(self) -> int:
        """How often the worker began to consume."""
        return len(self.worker.heard("broker.consuming"))

    async def assert_full_prefetch(self) -> None:
        """The broker hands over the whole prefetch: a platform that dawdles makes it pile up in the worker."""
        usual = self.simulator.options.latency_s
        self.set_options(latency_s=1.0)
        seen = 0
        try:
            async with asyncio.timeout(DEADLINE_S):
                while seen < PREFETCH:
                    await asyncio.sleep(POLL_S)
                    seen = (await self.state())["unsettled"]
        except TimeoutError:
            raise AssertionError(f"only {seen} unsettled of a prefetch of {PREFETCH}") from None
        finally:
            self.set_options(latency_s=usual)

    async def arrived(self, *, deadline_s: float = 40.0) -> None:
        """Wait until nothing is on its way any more, as far as producers know; AssertionError if that takes longer."""
        end = time.monotonic() + deadline_s
        while True:
            for body in await self.take(self.names.dead_queue):
                self.accounting.note_dead(body)
            if self.accounting.arrived():
                return
            if time.monotonic() > end:
                said = self.worker.output[-6000:]
                raise AssertionError(f"not all arrived: {self.accounting.verdict().problems}; the worker said:\n{said}")
            await asyncio.sleep(10 * POLL_S)

    async def settled(self, *, alone: bool = True, deadline_s: float = 40.0) -> Verdict:
        """Wait for everything to arrive, stop the worker in good order, and check the accounts."""
        await self.arrived(deadline_s=deadline_s)
        for worker in self.workers:
            if worker.is_running:
                assert await worker.terminate() == 0
        verdict = await self.verdict(alone=alone)
        verdict.assert_good()
        return verdict

    async def verdict(self, *, alone: bool = True) -> Verdict:
        """The accounts of a run that ended; takes what is left in the queues."""
        tiers = [queue.name for queue in self.names.queues if ".retry." in queue.name]
        queued = [body for queue in (*tiers, *self.names.work_queues) for body in await self.take(queue)]
        self.accounting.replace_queued(queued)
        for body in await self.take(self.names.dead_queue):
            self.accounting.note_dead(body)
        for worker in self.workers:
            self.accounting.note_worker(worker.lines)
        self.accounting.note_broker("\n".join(sorted(set(self.log_text.splitlines()) - self._logged)))
        return self.accounting.verdict(alone=alone)
