"""The intake, cancelled at each of its awaits: by somebody, and by a library that nobody asked. On a real broker.

After each of them it consumes again when it is opened, acknowledges, and can be released; and what nobody acknowledged
comes again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from tests.support.broker import DEADLINE_S, Outside, RecordingSink, endpoint
from tests.support.cutting import Cause, Cut, at_every_await
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.usefixtures("each_lane", "no_leaks"), pytest.mark.broker]

both_causes = pytest.mark.parametrize("cause", Cause)


@dataclass
class Bench:
    """A queue, and a consumer of it that may be treated badly."""

    consumer: Consumer
    outside: Outside
    names: Topology
    sink: RecordingSink = field(default_factory=RecordingSink)

    async def opened(self) -> None:
        """Consuming."""
        await self.consumer.open(self.sink)
        async with asyncio.timeout(DEADLINE_S):
            await self.consumer.wait_consuming()

    async def publish(self, *keys: str) -> None:
        """Messages that are known by their routing keys."""
        for key in keys:
            await self.outside.publish(self.names.exchanges[0].name, key, b"{}")

    async def emptied(self, *expected: str) -> set[str]:
        """Open it, acknowledge everything up to a message that is published now; the keys of what came meanwhile.

        Waits for those ``expected`` too: what is set aside comes later.
        """
        last = f"last-{uuid4().hex}"
        awaited = {last, *expected}
        await self.publish(last)
        await self.opened()
        seen: set[str] = set()
        async with asyncio.timeout(DEADLINE_S):
            while not awaited <= seen:
                count = len(self.sink.deliveries)
                for each in self.sink.deliveries:
                    if self.consumer.holds(each) and await self.consumer.acknowledge(each.generation, [[each.tag]]):
                        seen.add(each.routing_key)
                if not awaited <= seen:
                    await self.sink.until(lambda sink, count=count: len(sink.deliveries) > count)  # type: ignore[misc]
        return seen - {last}


@pytest.fixture(autouse=True)
async def known(outside: Outside) -> None:
    """The channel of the person outside is there before anybody counts tasks."""
    await outside.channel()


@asynccontextmanager
async def bench(broker: PrivateBroker, outside: Outside, names: Topology) -> AsyncIterator[Bench]:
    link = Link(endpoint(broker.url), name="consume")
    consumer = Consumer(link, queue=names.work_queue, prefetch=50, alone_from=1)
    try:
        yield Bench(consumer, outside, names)
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await consumer.release()
            await link.close()
        assert not consumer.status.consuming


@both_causes
async def test_the_task_that_keeps_consuming(
    broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause
) -> None:
    """From the dial to the consume-ok and the wait for the end: it makes up for the library; cancelled, open renews
    it."""

    async def trial(cut: Cut) -> None:
        async with bench(broker, outside, queues) as at:
            with cut.tasks("keep consuming"):
                await at.consumer.open(at.sink)
                waits = [asyncio.create_task(cut.reached.wait()), asyncio.create_task(at.consumer.wait_consuming())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                await cut.over()
                for each in waits:
                    each.cancel()

            assert await at.emptied() == set()

    await at_every_await(cause, trial, least=4)


@both_causes
@pytest.mark.parametrize("way", ["wait", "cancel", "release", "reopen"])
async def test_what_is_asked_of_a_consumer(
    broker: PrivateBroker, outside: Outside, queues: Topology, way: str, cause: Cause
) -> None:
    """Cut half-way, whatever was unsettled is still there, and an open consumes again."""

    async def trial(cut: Cut) -> None:
        async with bench(broker, outside, queues) as at:
            await at.opened()
            await at.publish("1", "2")
            await at.sink.until_count(2)
            if way == "reopen":
                await at.consumer.cancel()
            if way == "wait":
                await at.consumer.release()
                await at.consumer.open(at.sink)
            ways = {"wait": at.consumer.wait_consuming, "cancel": at.consumer.cancel, "release": at.consumer.release}
            await cut.run(ways[way]() if way in ways else at.consumer.open(at.sink))

            assert await at.emptied() == {"1", "2"}

    await at_every_await(cause, trial)


@both_causes
async def test_an_acknowledgement(broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause) -> None:
    """What was not named in it comes again, whenever it is cut; told True, what was named does not."""

    async def trial(cut: Cut) -> None:
        async with bench(broker, outside, queues) as at:
            await at.opened()
            await at.publish("1", "2", "3", "4", "5")
            deliveries = await at.sink.until_count(5)
            named = [[deliveries[index].tag] for index in (0, 2, 4)]
            done = await cut.run(at.consumer.acknowledge(deliveries[0].generation, named))
            left = await at.emptied()

            assert left >= {"2", "4"}
            assert left == {"2", "4"} if done else at.sink.losses != [] or not cut.in_library

    await at_every_await(cause, trial)


@both_causes
async def test_a_consumer_that_is_being_widened(
    broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause
) -> None:
    """The task that does it is cut: everything comes all the same."""

    async def trial(cut: Cut) -> None:
        async with bench(broker, outside, queues) as at:
            with cut.tasks("widen the consumer"):
                await at.opened()
                await at.publish("1", "2")
                waits = [asyncio.create_task(cut.reached.wait()), asyncio.create_task(at.sink.until_count(2))]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                await cut.over()
                for each in waits:
                    each.cancel()

            assert await at.emptied() == {"1", "2"}

    await at_every_await(cause, trial, least=2)


@both_causes
async def test_a_consumer_that_hands_over_one_by_one(
    broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause
) -> None:
    """The task that does it is cut: the suspect and its companion come all the same."""

    async def trial(cut: Cut) -> None:
        async with bench(broker, outside, queues) as at:
            await at.opened()
            await at.publish("1", "2")
            first, _ = await at.sink.until_count(2)
            with cut.tasks("hand over one by one"):
                assert at.consumer._current is not None
                at.consumer._current.ledger.plan([[first.tag]])
                # A reject: from RabbitMQ 4.3 on a nack is not counted.
                await at.consumer._current.channel.basic_reject(first.tag)
                left = await at.emptied("1", "2")
                await cut.over()

            assert left == {"1", "2"}
            assert await at.emptied() <= left

    await at_every_await(cause, trial, least=2)
