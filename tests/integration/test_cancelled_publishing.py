"""Publishing and settling, cancelled at each of their awaits: by somebody, and by a library that nobody asked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass

import pytest

from tests.support.broker import DEADLINE_S, Outside, RecordingSink, endpoint, until_channels, update_of
from tests.support.cutting import Cause, Cut, at_every_await
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import CopyFailed
from worker.core.model import Ack, AckReason, Dead, Disposition, Properties, Reason, Retry, Settlement

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]

both_causes = pytest.mark.parametrize("cause", Cause)
LATER = 1  # the tier that nothing returns from during a test


@asynccontextmanager
async def publishing(broker: PrivateBroker) -> AsyncIterator[tuple[Publisher, Link]]:
    link = Link(endpoint(broker.url), name="publish")
    publisher = Publisher(link)
    try:
        yield publisher, link
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await publisher.close()
            await link.close()


@both_causes
@pytest.mark.parametrize("warm", [False, True], ids=["opening", "open"])
async def test_a_publish(broker: PrivateBroker, queues: Topology, cause: Cause, *, warm: bool) -> None:
    """Another one that waits for the same channel is confirmed, so is the next, and one channel is open in the end."""

    async def trial(cut: Cut) -> None:
        async with publishing(broker) as (publisher, link):
            if warm:
                await publisher.place("", queues.dead_queue, b"", Properties())
            else:
                await link.get()
            other = asyncio.create_task(publisher.place("", queues.dead_queue, b"", Properties()))
            await cut.run(publisher.place("", queues.dead_queue, b"", Properties()), fails=(CopyFailed,))
            await other
            await publisher.place("", queues.dead_queue, b"", Properties())
            await until_channels(await link.get(), 2)  # one of them is the connection's own, number 0

    await at_every_await(cause, trial, least=1)


@both_causes
async def test_the_first_publish(broker: PrivateBroker, queues: Topology, cause: Cause) -> None:
    """It dials and opens the channel itself."""

    async def trial(cut: Cut) -> None:
        async with publishing(broker) as (publisher, link):
            await cut.run(publisher.place("", queues.dead_queue, b"", Properties()), fails=(CopyFailed,))
            await publisher.place("", queues.dead_queue, b"", Properties())
            await until_channels(await link.get(), 2)

    await at_every_await(cause, trial, least=3)


@both_causes
async def test_closing_a_publisher(broker: PrivateBroker, queues: Topology, cause: Cause) -> None:
    """It can be closed again, and used again."""

    async def trial(cut: Cut) -> None:
        async with publishing(broker) as (publisher, link):
            await publisher.place("", queues.dead_queue, b"", Properties())
            await cut.run(publisher.close())
            # aiormq may keep a failed close to itself; then the next publish is the one to find the connection lost.
            with nullcontext() if cut.asked else suppress(CopyFailed):
                await publisher.place("", queues.dead_queue, b"", Properties())
            await publisher.place("", queues.dead_queue, b"", Properties())
            await publisher.close()
            await until_channels(await link.get(), 1)

    await at_every_await(cause, trial)


# -- settling ---------------------------------------------------------------------------------------------------------

DECIDED: dict[str, Disposition] = {
    "1": Dead(reason=Reason.REJECTED, detail="the platform refuses it"),
    "2": Ack(AckReason.APPLIED),
    "3": Retry(tier=LATER, reason=Reason.BUSY, detail="try later"),
}
"""What becomes of each order. Nothing is decided of order 4."""


@dataclass
class Desk:
    """Four unsettled deliveries, and who settles them."""

    consumer: Consumer
    sink: RecordingSink
    settler: BrokerSettler
    outside: Outside
    names: Topology

    def decided(self) -> list[Settlement]:
        """The settlements of the four."""
        return [
            Settlement(
                delivery=each,
                disposition=DECIDED[each.routing_key],
                update=update_of(each, order_id=int(each.routing_key)),
            )
            for each in self.sink.deliveries[:4]
            if each.routing_key in DECIDED
        ]

    async def left(self) -> set[str]:
        """The orders that the broker still has, in whatever queue; they are removed from all of them."""
        await self.consumer.release()
        found: set[str] = set()
        for queue in (self.names.work_queue, self.names.dead_queue, self.names.retry_exchanges[LATER]):
            found |= await removed(self.outside, queue)
        return found - {"last"}


async def removed(outside: Outside, queue: str) -> set[str]:
    """Take everything out of a queue, up to a message that is put behind it; the orders, each known by its body."""
    await outside.publish("", queue, b"last")
    assert outside.connection.transport is not None
    channel = await outside.connection.transport.connection.channel()
    bodies: set[str] = set()
    complete = asyncio.Event()

    async def receive(message: object) -> None:
        bodies.add(getattr(message, "body", b"").decode())
        if "last" in bodies:
            complete.set()

    async with asyncio.timeout(DEADLINE_S):
        await channel.basic_consume(queue, receive, no_ack=True)
        await complete.wait()
        await channel.close()
    return bodies


@asynccontextmanager
async def desk(broker: PrivateBroker, outside: Outside, names: Topology) -> AsyncIterator[Desk]:
    taking, giving = Link(endpoint(broker.url), name="consume"), Link(endpoint(broker.url), name="publish")
    consumer, publisher = Consumer(taking, queue=names.work_queue, prefetch=50), Publisher(giving)
    settler = BrokerSettler(
        consumer, publisher, dead_queue=names.dead_queue, retry_exchanges=names.retry_exchanges, worker="0"
    )
    sink = RecordingSink()
    try:
        await consumer.open(sink)
        for key in ("1", "2", "3", "4"):
            await outside.publish(names.exchanges[0].name, key, key.encode())
        await sink.until_count(4)
        yield Desk(consumer, sink, settler, outside, names)
    finally:
        async with asyncio.timeout(DEADLINE_S):
            await consumer.release()
            await publisher.close()
            await taking.close()
            await giving.close()


@both_causes
async def test_a_settlement(broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause) -> None:
    """The original or its copy is with the broker, and what nobody decided on is; the same ones again settle the
    rest."""
    await outside.channel()

    async def trial(cut: Cut) -> None:
        async with desk(broker, outside, queues) as at:
            await cut.run(at.settler.settle(at.decided()), fails=(CopyFailed,))
            await at.settler.settle(at.decided())

            assert await at.left() >= {"1", "3", "4"}

    await at_every_await(cause, trial, least=3)


@both_causes
async def test_the_placing_of_one_copy(broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause) -> None:
    """One of the tasks of a settlement is cut: nothing is acknowledged whose copy is not placed."""
    await outside.channel()

    async def trial(cut: Cut) -> None:
        async with desk(broker, outside, queues) as at:
            with cut.tasks("place copies"):
                await asyncio.gather(at.settler.settle(at.decided()), return_exceptions=True)

            assert await at.left() >= {"1", "3", "4"}

    await at_every_await(cause, trial, least=3)
