"""The whole worker in its world: a process, a real broker with names of its own, the stand-in platform in this loop.

async with World(broker, tmp_path) as world:
    worker = await world.start()
    await world.publish([{"id": 1, "status": 4}])
    await world.until(lambda: world.status(1) == 4)
"""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

import msgspec
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from tests.support.broker import Outside, unique_topology
from tests.support.workerprocess import DEADLINE_S, PROGRAM, WorkerProcess
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.times import format_time
from worker.simulator.calls import Call
from worker.simulator.faults import Fault
from worker.simulator.options import Options
from worker.simulator.server import Address, Simulator

WINDOW = 500
POLL_S = 0.01
RETRY_DELAYS_S = (0.2, 0.4)
BASE_US = 1_790_000_000_000_000
"""Stamped events happened after this moment (September 2026), one microsecond for each of their version."""

Event = Mapping[str, Any]
T = TypeVar("T")


def stamped(order_id: int, version: int, **fields: Any) -> dict[str, Any]:
    """An event whose place among those of its order is ``version``; without fields, the status tells it."""
    return {"id": order_id, **(fields or {"status": version}), "occurred_at": format_time(BASE_US + version)}


@dataclass(slots=True, frozen=True)
class DeadLetter:
    """A message of the dead-letter queue."""

    message: DeliveredMessage

    @property
    def body(self) -> bytes:
        """Its body as it came."""
        return self.message.body

    @property
    def properties(self) -> Basic.Properties:
        """Its AMQP properties."""
        return self.message.header.properties

    @property
    def headers(self) -> Mapping[str, Any]:
        """Its headers, ours included."""
        return self.properties.headers or {}


def partitioned(names: Topology) -> dict[str, str]:
    """The settings of these partitions; nothing where there is one."""
    if len(names.work_queues) == 1:
        return {}
    front = next(each for each in names.exchanges if each.name == names.work_queue)
    return {"PARTITIONS": str(len(names.work_queues)), "HASH_EXCHANGE": front.type}


def worker_settings(amqp_url: str, names: Topology, address: Address, options: Options) -> dict[str, str]:
    """What a worker needs to find this broker and this platform: settings, names without prefix."""
    return {
        "JOURNAL_URL": f"sqlite:///{names.work_queue}.db",  # several worlds may share a folder, but no journal
        "AMQP_URL": amqp_url,
        "EXCHANGE": names.exchanges[0].name,
        "QUEUE": names.work_queue,
        **partitioned(names),
        "DEAD_LETTER_QUEUE": names.dead_queue,
        "RETRY_DELAYS_S": ",".join(f"{delay:g}" for delay in RETRY_DELAYS_S),
        "OAUTH_URL": address.oauth_url,
        "GRAPHQL_URL": address.graphql_url,
        "CLIENT_ID": options.client_id,
        "CLIENT_SECRET": options.client_secret,
    }


@dataclass(slots=True)
class World:
    """Owns everything a test needs; leaves no process, queue or connection behind.

    ``options`` are those of the stand-in platform. Settings given to ``start`` are names without prefix.
    """

    broker: PrivateBroker
    folder: Path
    options: Options = field(default_factory=Options)
    partitions: int = 1
    dead: list[DeadLetter] = field(default_factory=list)
    simulator: Simulator = field(init=False)
    outside: Outside = field(init=False)
    settings: dict[str, str] = field(init=False)
    _workers: list[WorkerProcess] = field(default_factory=list)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        names = unique_topology(retry_delays_s=RETRY_DELAYS_S, partitions=self.partitions)
        self.simulator = Simulator(self.options)
        address = await self._stack.enter_async_context(self.simulator.serve())
        self.outside = await Outside.connect(self.broker.url)
        self._stack.push_async_callback(self.outside.close)
        await declare(self.outside.connection, names)
        self._stack.push_async_callback(self._delete, [queue.name for queue in names.queues])
        await self._watch_dead_letters(names.dead_queue)
        self._stack.push_async_callback(self._end_workers)
        self.settings = worker_settings(self.broker.url, names, address, self.options)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    # -- the worker -----------------------------------------------------------------------------------------------

    async def launch(self, *, program: Sequence[str] = PROGRAM, **settings: str) -> WorkerProcess:
        """Start a worker and do not wait for it."""
        worker = await WorkerProcess.start(self.settings | settings, cwd=self.folder, program=program)
        self._workers.append(worker)
        return worker

    async def start(self, **settings: str) -> WorkerProcess:
        """Start a worker and wait until it consumes."""
        worker = await self.launch(**settings)
        await worker.until_heard("worker.ready")
        return worker

    async def _end_workers(self) -> None:
        for worker in self._workers:
            await worker.kill()

    # -- the broker -----------------------------------------------------------------------------------------------

    async def publish(self, events: Iterable[Event]) -> None:
        """Publish all of them, confirmed, as producers do: the key is the order id, each has an id of its own."""
        waiting = iter(events)
        while window := list(itertools.islice(waiting, WINDOW)):
            bodies = [(json.dumps(event).encode(), str(event["id"])) for event in window]
            await asyncio.gather(*(self.publish_raw(body, key) for body, key in bodies))

    async def publish_raw(self, body: bytes, key: str = "", **properties: Any) -> None:
        """Publish any bytes with any properties; those of a usual event where they are not given."""
        usual = {"content_type": "application/json", "delivery_mode": 2, "message_id": uuid4().hex}
        wire = Basic.Properties(**{**usual, **properties})
        channel = await self.outside.channel()
        await channel.basic_publish(
            body, exchange=self.settings["EXCHANGE"], routing_key=key, properties=wire, mandatory=True
        )

    async def leftover(self) -> int:
        """Take what is ready in the work queue and the retry tiers, and count it. Exact, unlike the broker's counters.

        Only without a worker: what one has in hand does not count.
        """
        channel = await self.outside.channel()
        tiers = [f"{self.settings['EXCHANGE']}.retry.{delay:g}" for delay in RETRY_DELAYS_S]
        purged = [await channel.queue_purge(queue) for queue in (self.settings["QUEUE"], *tiers)]
        return sum(done.message_count or 0 for done in purged)

    async def consumers(self) -> int:
        """How many consumers the broker knows on the work queue, where there is one."""
        channel = await self.outside.channel()
        declared = await channel.queue_declare(self.settings["QUEUE"], passive=True)
        return declared.consumer_count or 0

    async def until_consumers(self, count: int, *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the broker knows so many consumers."""
        async with asyncio.timeout(deadline_s):
            while await self.consumers() != count:  # noqa: ASYNC110 - only the broker knows, so it is polled
                await asyncio.sleep(POLL_S)

    async def _watch_dead_letters(self, queue: str) -> None:
        async def keep(message: DeliveredMessage) -> None:
            self.dead.append(DeadLetter(message))

        transport = self.outside.connection.transport
        assert transport is not None
        channel = await transport.connection.channel()
        await channel.basic_consume(queue, keep, no_ack=True)
        # Before the queue is deleted: otherwise the library complains that the broker cancelled the consumer.
        self._stack.push_async_callback(channel.close)

    async def _delete(self, queues: Sequence[str]) -> None:
        channel = await self.outside.channel()
        for queue in queues:
            await channel.queue_delete(queue)

    # -- the platform ---------------------------------------------------------------------------------------------

    def set_options(self, **changes: Any) -> None:
        """Change options of the stand-in platform from now on."""
        self.simulator.options = msgspec.structs.replace(self.simulator.options, **changes)

    async def fault(self, **fault: Any) -> None:
        """Plan a fault (see ``simulator/faults.py``)."""
        await self.simulator.add_fault(Fault(**fault))

    def status(self, order_id: int) -> int:
        """The status that the platform shows of this order (1: never touched)."""
        return self.simulator.platform.orders.get(order_id).status

    @property
    def calls(self) -> list[Call]:
        """The update calls the platform saw (at most the last 10,000), the control calls left out."""
        return [call for call in self.simulator.platform.calls.recent if call.order_ids]

    @property
    def all_calls(self) -> int:
        """How many calls the platform saw, whatever they were."""
        return self.simulator.platform.calls.started

    # -- waiting --------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the condition holds; AssertionError with what the workers said if it does not in time."""
        try:
            async with asyncio.timeout(deadline_s):
                while not condition():  # noqa: ASYNC110 - several sources, none of which signals
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            said = "\n".join(worker.output[-4000:] for worker in self._workers)
            raise AssertionError(f"it did not come to that within {deadline_s} s; the workers said:\n{said}") from None

    async def until_applied(self, wanted: Mapping[int, int], *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the platform shows these statuses, by order id."""
        await self.until(
            lambda: all(self.status(order_id) == status for order_id, status in wanted.items()), deadline_s=deadline_s
        )

    async def until_dead(self, count: int, *, deadline_s: float = DEADLINE_S) -> list[DeadLetter]:
        """Wait for so many dead letters."""
        await self.until(lambda: len(self.dead) >= count, deadline_s=deadline_s)
        return self.dead


async def side_by_side(cases: Mapping[str, T], scenario: Callable[[T], Awaitable[None]]) -> None:
    """Run a scenario for all cases at once, for those that mostly wait. What fails carries the name of its case."""

    async def named(name: str, case: T) -> None:
        try:
            await scenario(case)
        except Exception as error:
            error.add_note(f"case: {name}")
            raise

    async with asyncio.TaskGroup() as group:
        for name, case in cases.items():
            group.create_task(named(name, case), name=name)
