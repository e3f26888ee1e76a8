"""Settling on a real broker: copies first, then acks, and a copy that fails keeps exactly its own entry open."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from tests.support.broker import DEADLINE_S, Outside, RecordingSink, endpoint, update_of
from tests.support.proxy import TcpProxy
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.adapters.amqp.topology import Topology
from worker.adapters.journal.sql import SqlJournal
from worker.adapters.privatebroker import PrivateBroker
from worker.core.decode import EventSchema
from worker.core.errors import CopyFailed
from worker.core.history import Sought
from worker.core.model import (
    Ack,
    AckReason,
    Dead,
    Delivery,
    Disposition,
    Properties,
    Reason,
    Release,
    Retry,
    Settlement,
    Update,
)

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]

APPLIED = Ack(AckReason.APPLIED)
DEAD = Dead(reason=Reason.REJECTED, detail="the platform refuses it")


def retry(tier: int) -> Retry:
    return Retry(tier=tier, reason=Reason.BUSY, detail="try later")


@dataclass
class Bench:
    """A consumer through a proxy, a publisher past it, and a settler of both."""

    proxy: TcpProxy
    sink: RecordingSink
    consumer: Consumer
    publisher: Publisher
    names: Topology
    outside: Outside

    def settler(self, *, dead_queue: str | None = None, retries: tuple[str, ...] | None = None) -> BrokerSettler:
        return BrokerSettler(
            self.consumer,
            self.publisher,
            dead_queue=dead_queue or self.names.dead_queue,
            retry_exchanges=retries or self.names.retry_exchanges,
            worker="0.1.0",
        )

    async def deliveries(self, *orders: int, properties: Properties | None = None) -> list[Delivery]:
        for order in orders:
            body = {"id": order, "status": 4}
            await self.outside.publish(self.names.exchanges[0].name, str(order), body, properties=properties)
        return list(await self.sink.until_count(len(orders)))

    async def left(self) -> int:
        """How many messages are still in the work queue once everything unsettled was handed back."""
        unsettled = self.consumer.status.unsettled
        await self.consumer.release()
        await self.outside.until_ready(self.names.work_queue, unsettled)
        return unsettled


def settlements(deliveries: list[Delivery], *dispositions: Disposition) -> list[Settlement]:
    """One for each delivery; the order id is the routing key."""
    return [
        Settlement(
            delivery=delivery,
            disposition=disposition,
            update=update_of(delivery, order_id=int(delivery.routing_key)),
            batch_id="b1",
        )
        for delivery, disposition in zip(deliveries, dispositions, strict=True)
    ]


@pytest.fixture
async def bench(broker: PrivateBroker, outside: Outside, queues: Topology) -> AsyncIterator[Bench]:
    async with TcpProxy(broker.port) as proxy:
        taking, giving = Link(endpoint(proxy.url()), name="consume"), Link(endpoint(broker.url), name="publish")
        consumer, publisher, sink = (
            Consumer(taking, queue=queues.work_queue, prefetch=50),
            Publisher(giving),
            RecordingSink(),
        )
        await consumer.open(sink)
        async with asyncio.timeout(DEADLINE_S):
            await consumer.wait_consuming()
        yield Bench(proxy, sink, consumer, publisher, queues, outside)
        await consumer.release()
        await publisher.close()
        await taking.close()
        await giving.close()


async def test_each_disposition_ends_where_it_should(bench: Bench) -> None:
    """Ack is gone, Dead is in the dead-letter queue, Retry comes back later, Release stays with the broker."""
    deliveries = await bench.deliveries(1, 2, 3, 4)
    await bench.settler().settle(settlements(deliveries, APPLIED, DEAD, retry(0), Release()))
    again = (await bench.sink.until_count(5))[4]
    dead = await bench.outside.take(bench.names.dead_queue)
    headers = dead.header.properties.headers or {}

    assert (again.routing_key, again.properties.headers["ow-attempt"]) == ("3", 2)
    assert again.body == deliveries[2].body
    assert (dead.body, headers["ow-reason"], headers["ow-routing-key"]) == (deliveries[1].body, "rejected", "2")
    assert headers["ow-message-id"] == deliveries[1].properties.message_id
    assert dead.header.properties.message_id != deliveries[1].properties.message_id
    assert bench.consumer.holds(deliveries[3])
    assert await bench.left() == 2


async def test_nothing_is_settled_twice(bench: Bench) -> None:
    """The same settlements again: no second copy, no second ack, the channel lives."""
    deliveries = await bench.deliveries(1, 2)
    decided = settlements(deliveries, DEAD, APPLIED)
    await bench.settler().settle(decided)
    await bench.settler().settle(decided)

    await bench.outside.until_ready(bench.names.dead_queue, 1)
    assert bench.sink.losses == []
    assert await bench.left() == 0


async def test_a_copy_that_is_returned_keeps_its_entry_and_no_other(bench: Bench) -> None:
    """Order 1: the older is acked, the one whose copy failed and the younger stay. Order 2 is settled."""
    deliveries = await bench.deliveries(1, 1, 1, 2)
    decided = settlements(deliveries, APPLIED, DEAD, APPLIED, retry(1))

    with pytest.raises(CopyFailed, match="returned"):
        await bench.settler(dead_queue="no-such-queue").settle(decided)
    assert [bench.consumer.holds(each) for each in deliveries] == [False, True, True, False]
    await bench.settler().settle(decided)
    assert await bench.left() == 0
    await bench.outside.until_ready(bench.names.dead_queue, 1)


async def test_a_copy_that_is_refused_keeps_the_original(bench: Bench) -> None:
    """The dead-letter queue is full: nack, and the message stays ours."""
    full = f"{bench.names.dead_queue}.full"
    channel = await bench.outside.channel()
    await channel.queue_declare(full, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    await bench.outside.publish("", full, b"first")
    (delivery,) = await bench.deliveries(1)

    with pytest.raises(CopyFailed, match="nack"):
        await bench.settler(dead_queue=full).settle(settlements([delivery], DEAD))
    assert bench.consumer.holds(delivery)
    await channel.queue_delete(full)


async def test_a_copy_that_cannot_be_encoded_is_placed_without_its_properties(bench: Bench) -> None:
    """The body is what counts: reduced copy, then ack."""
    (delivery,) = await bench.deliveries(1)
    delivery.properties = replace(delivery.properties, reply_to="x" * 300, headers={"raw": b"\xff", "n": 2**70})
    await bench.settler().settle(settlements([delivery], DEAD))
    message = await bench.outside.take(bench.names.dead_queue)

    assert message.body == delivery.body
    assert (message.header.properties.headers or {})["ow-reason"] == "rejected"
    assert await bench.left() == 0


async def test_a_body_that_could_not_be_decoded_can_be_dead_lettered(bench: Bench) -> None:
    """No update, no order id: each delivery is an entry of its own."""
    await bench.outside.publish(bench.names.exchanges[0].name, "key", b"\xff", b"")
    deliveries = await bench.sink.until_count(2)
    reason = Dead(reason=Reason.INVALID_EVENT, detail="not JSON")
    await bench.settler().settle([Settlement(delivery=each, disposition=reason) for each in deliveries])

    assert {(await bench.outside.take(bench.names.dead_queue)).body for _ in range(2)} == {b"\xff", b""}
    assert await bench.left() == 0


async def test_a_dead_letter_is_in_a_durable_index_under_its_message_id(bench: Bench, sqlite_url: str) -> None:
    """Of an event that could be read and of one that could not: by copy, order and reason, in an SQLite file."""
    await bench.outside.publish(bench.names.exchanges[0].name, "18", b"poison")
    (poison,) = await bench.sink.until_count(1)
    good = (await bench.deliveries(17, 1))[1]
    unread = Dead(reason=Reason.INVALID_EVENT, detail="not JSON")
    decided = [Settlement(delivery=poison, disposition=unread), *settlements([good], DEAD)]
    journal = SqlJournal(sqlite_url)
    await bench.settler().settle(decided, journal.add)
    await bench.settler().settle(decided, journal.add)
    letters = await journal.page(Sought(queue=bench.names.dead_queue))
    await journal.close()
    stored = [(await bench.outside.take(bench.names.dead_queue)).header.properties for _ in range(2)]

    assert {each.copy_id for each in letters} == {each.message_id for each in stored}
    assert {(each.order_id, each.reason) for each in letters} == {(17, "rejected"), (18, "invalid-event")}
    assert await bench.outside.ready(bench.names.dead_queue) == 0


async def test_a_dead_letter_that_a_shovel_moved_back_begins_anew(bench: Bench) -> None:
    """Retried, dead-lettered, moved back with everything that it carried, retried again: attempts 1, 2, 1, 2."""
    schema, settler = EventSchema({}, ()), bench.settler()
    attempts: list[int] = []

    async def settle_next(disposition: Disposition) -> None:
        delivery = (await bench.sink.until_count(len(attempts) + 1))[-1]
        update = schema.decode(delivery)
        assert isinstance(update, Update)
        attempts.append(update.attempt)
        await settler.settle([Settlement(delivery=delivery, disposition=disposition, update=update)])

    await bench.outside.publish(bench.names.exchanges[0].name, "17", {"id": 17, "status": 4})
    await settle_next(retry(0))
    await settle_next(DEAD)
    letter = await bench.outside.take(bench.names.dead_queue)
    carried = letter.header.properties
    moved = Properties(headers=carried.headers or {}, message_id=carried.message_id)
    await bench.outside.publish("", bench.names.work_queue, letter.body, properties=moved)
    await settle_next(retry(0))
    await settle_next(APPLIED)

    assert attempts == [1, 2, 1, 2]
    assert await bench.left() == 0


async def test_deliveries_of_a_lost_channel_get_no_copy(bench: Bench) -> None:
    """They come again: a copy now would be a duplicate for certain."""
    deliveries = await bench.deliveries(1, 2)
    await bench.proxy.cut()
    await bench.sink.until_count(4)
    await bench.settler().settle(settlements(deliveries, DEAD, APPLIED))

    assert await bench.outside.ready(bench.names.dead_queue) == 0
    assert await bench.left() == 2


async def test_a_tier_beyond_the_last_is_the_last(bench: Bench) -> None:
    """More attempts than tiers wait for the longest delay."""
    deliveries = await bench.deliveries(1)
    await bench.settler().settle(settlements(deliveries, retry(9)))

    await bench.outside.until_ready(bench.names.retry_exchanges[-1], 1)
