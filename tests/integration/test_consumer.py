"""The intake on a real broker: deliveries, acknowledgements, losses of every kind, and generations."""

import asyncio

import pytest

from tests.support.broker import DEADLINE_S, Outside, RecordingSink, endpoint
from tests.support.consuming import consuming
from tests.support.proxy import TcpProxy
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.model import Delivery

pytestmark = [pytest.mark.usefixtures("each_lane", "no_leaks"), pytest.mark.broker]


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


async def publish(outside: Outside, names: Topology, count: int) -> None:
    for number in range(1, count + 1):
        await outside.publish(names.exchanges[0].name, str(number), {"id": number})


def tags(deliveries: list[Delivery]) -> list[list[int]]:
    return [[delivery.tag] for delivery in deliveries]


async def test_everything_acknowledged_is_gone(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """One multiple frame settles the lot, and nothing is left after a release."""
    await publish(outside, queues, 20)
    async with consuming(broker.url, queues, sink) as (consumer, _):
        deliveries = await sink.until_count(20)

        assert await consumer.acknowledge(1, tags(deliveries))
        assert consumer.counts["ack_frames"] == 1
        assert consumer.status.unsettled == 0
    await outside.until_ready(queues.work_queue, 0)
    assert [delivery.tag for delivery in deliveries] == list(range(1, 21))


async def test_a_delivery_carries_what_the_broker_said(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """Body, key, exchange, properties and the two stamps."""
    await publish(outside, queues, 1)
    async with consuming(broker.url, queues, sink):
        (delivery,) = await sink.until_count(1)

    assert delivery.body == b'{"id": 1}'
    assert (delivery.exchange, delivery.routing_key) == (queues.exchanges[0].name, "1")
    assert delivery.properties.message_id
    assert not delivery.redelivered
    assert 0 < delivery.opened_us <= delivery.arrived_us


async def test_the_prefetch_bounds_what_is_unsettled(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """The next one comes only when one was acknowledged. The very first, for which it starts narrow, does not count."""
    await publish(outside, queues, 5)
    async with consuming(broker.url, queues, sink, prefetch=2) as (consumer, _):
        await sink.until_count(3)
        await outside.until_ready(queues.work_queue, 2)

        assert consumer.status.unsettled == 3
        await consumer.acknowledge(1, [[3]])
        assert [delivery.tag for delivery in await sink.until_count(4)] == [1, 2, 3, 4]


async def test_a_cut_connection_is_one_loss_and_everything_comes_again(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """New generation, redelivered, and acks of the old one are counted and ignored."""
    await publish(outside, queues, 5)
    async with TcpProxy(broker.port) as proxy, consuming(proxy.url(), queues, sink) as (consumer, _):
        first = list(await sink.until_count(5))
        await proxy.cut()
        await sink.until_count(10)
        second = sink.deliveries[5:]

        assert sink.losses == [1]
        assert {delivery.generation for delivery in second} == {2}
        assert all(delivery.redelivered for delivery in second)
        assert not await consumer.acknowledge(1, tags(first))
        assert not consumer.holds(first[0])
        assert consumer.counts["stale_acks"] == 5
        assert await consumer.acknowledge(2, tags(second))
    await outside.until_ready(queues.work_queue, 0)
    assert sink.losses == [1, 2]


async def test_a_close_by_the_broker_is_survived(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """The operator closes every connection (320); the worker is back by itself."""
    async with consuming(broker.url, queues, sink) as (consumer, _):
        await asyncio.to_thread(broker.ctl, "close_all_connections", "test")
        await sink.until(lambda seen: seen.losses == [1])
        async with asyncio.timeout(DEADLINE_S):
            await consumer.wait_consuming()

        assert consumer.status.generation == 2


async def test_an_unanswering_broker_is_a_loss(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """No bytes any more: the missed heartbeats end the generation, and after healing it consumes again."""
    await publish(outside, queues, 1)
    async with (
        TcpProxy(broker.port) as proxy,
        consuming(proxy.url(), queues, sink, heartbeat_s=1) as (consumer, _),
    ):
        await sink.until_count(1)
        proxy.blackhole()
        await sink.until(lambda seen: seen.losses == [1])
        await proxy.cut()
        await proxy.heal()
        deliveries = await sink.until_count(2)

        assert deliveries[1].redelivered
        assert await consumer.acknowledge(deliveries[1].generation, [[deliveries[1].tag]])


async def test_a_wrong_ack_costs_the_channel_and_nothing_else(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """A channel error of the broker (406) is one loss; everything comes again on a new channel."""
    await publish(outside, queues, 1)
    async with consuming(broker.url, queues, sink) as (consumer, _):
        (delivery,) = await sink.until_count(1)
        assert consumer._current is not None
        await consumer._current.channel.basic_ack(99)
        deliveries = await sink.until_count(2)

        assert sink.losses == [1]
        assert deliveries[1].generation == 2
        assert delivery.body == deliveries[1].body


async def test_a_consumer_cancelled_by_the_broker_is_a_loss(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """The queue is deleted under us: not consuming, and consuming again when it is back."""
    async with consuming(broker.url, queues, sink) as (consumer, _):
        channel = await outside.channel()
        await channel.queue_delete(queues.work_queue)
        await sink.until(lambda seen: seen.losses == [1])

        assert not consumer.status.consuming
        work = queues.queues[0]
        await channel.queue_declare(work.name, durable=True, arguments={**work.arguments})
        async with asyncio.timeout(DEADLINE_S):
            await consumer.wait_consuming()


async def test_cancel_keeps_what_is_unsettled_and_open_goes_on(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """After cancel nothing new comes, acks still work, and open resumes on the same channel."""
    await publish(outside, queues, 2)
    async with consuming(broker.url, queues, sink) as (consumer, _):
        await sink.until_count(2)
        await consumer.cancel()
        await consumer.cancel()
        await outside.publish(queues.exchanges[0].name, "3", {"id": 3})
        await outside.until_ready(queues.work_queue, 1)

        assert await consumer.acknowledge(1, [[1], [2]])
        assert not consumer.status.consuming
        await consumer.open(sink)
        assert [(each.generation, each.tag) for each in await sink.until_count(3)] == [(1, 1), (1, 2), (1, 3)]
        assert sink.losses == []


async def test_release_hands_back_and_open_starts_anew(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """Everything unsettled is ready again at the broker, the sink heard of it once, and a new generation gets it."""
    await publish(outside, queues, 3)
    async with consuming(broker.url, queues, sink) as (consumer, _):
        await sink.until_count(3)
        await consumer.release()
        await consumer.release()
        await outside.until_ready(queues.work_queue, 3)

        assert sink.losses == [1]
        await consumer.open(sink)
        await consumer.open(sink)
        assert {each.generation for each in (await sink.until_count(6))[3:]} == {2}


async def test_acks_that_were_written_last_take_effect_before_the_channel_is_closed(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """However many frames they are: a channel that is closed forgets those that it has not handed on to the queue."""
    await publish(outside, queues, 100)
    async with consuming(broker.url, queues, sink) as (consumer, _):
        deliveries = await sink.until_count(100)
        await consumer.cancel()
        assert await consumer.acknowledge(1, tags(deliveries[1:]))
        assert consumer.counts["ack_frames"] == 99
        await consumer.release()

        await outside.until_ready(queues.work_queue, 1)


async def test_a_sink_that_raises_does_not_stop_the_intake(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """It is counted; the delivery stays open, so no multiple frame can cover it."""
    sink.failure = RuntimeError("bug")
    await publish(outside, queues, 2)
    async with consuming(broker.url, queues, sink) as (consumer, _):
        await sink.until_count(2)

        assert consumer.counts["sink_failed"] == 2
        assert consumer.status.unsettled == 2


async def test_it_starts_before_the_broker_is_there(
    broker: PrivateBroker, queues: Topology, sink: RecordingSink
) -> None:
    """Unreachable at start: it keeps trying until the broker answers."""
    async with TcpProxy(broker.port) as proxy:
        await proxy.refuse()
        link = Link(endpoint(proxy.url()), name="consume")
        consumer = Consumer(link, queue=queues.work_queue, prefetch=10)
        await consumer.open(sink)
        assert not consumer.status.connected
        await proxy.heal()
        async with asyncio.timeout(DEADLINE_S):
            await consumer.wait_consuming()
        await consumer.release()
        await link.close()


async def test_release_while_dialling_leaves_nothing_behind(queues: Topology, sink: RecordingSink) -> None:
    """No task goes on dialling for a consumer that was released."""
    link = Link(endpoint("amqp://127.0.0.1:1/"), name="consume")
    consumer = Consumer(link, queue=queues.work_queue, prefetch=10)
    await consumer.open(sink)
    await asyncio.sleep(0)
    await consumer.release()
    await link.close()

    assert sink.losses == []


async def test_a_rebuild_makes_everything_anew_and_gives_back_what_was_unsettled(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """Another connection, another channel, the same messages, the whole prefetch; while it is dialled as well."""
    await publish(outside, queues, 5)
    async with TcpProxy(broker.port) as proxy, consuming(proxy.url(), queues, sink) as (consumer, _):
        await sink.until_count(5)
        await consumer.rebuild()
        await sink.until_count(10)
        await proxy.refuse()
        await proxy.cut()
        await sink.until(lambda heard: 2 in heard.losses)
        await consumer.rebuild()
        await proxy.heal()
        deliveries = await sink.until_count(15)

        assert sink.losses == [1, 2]
        assert {(each.generation, each.body) for each in deliveries[5:10]} == {
            (2, each.body) for each in deliveries[:5]
        }
        assert await consumer.acknowledge(3, tags(deliveries[10:]))
    await outside.until_ready(queues.work_queue, 0)


async def test_a_rebuild_of_a_consumer_that_was_released_does_not_consume(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """A pause stays a pause."""
    async with consuming(broker.url, queues, sink) as (consumer, _):
        await consumer.release()
        await consumer.rebuild()
        await publish(outside, queues, 1)
        await outside.until_ready(queues.work_queue, 1)

        assert not consumer.status.connected
        assert sink.deliveries == []
