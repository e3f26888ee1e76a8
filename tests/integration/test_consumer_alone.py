"""A consumer starts narrow, widens by itself, and hands over alone what came back too often. On a real broker."""

import asyncio

import pytest
from structlog.testing import capture_logs

from tests.support.broker import DEADLINE_S, Outside, RecordingSink
from tests.support.consuming import consuming
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.model import Properties

pytestmark = [pytest.mark.usefixtures("each_lane", "no_leaks"), pytest.mark.broker]


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


async def publish(outside: Outside, names: Topology, *numbers: int) -> None:
    for number in numbers:
        await outside.publish(names.exchanges[0].name, str(number), {"id": number})


async def hand_back(consumer: Consumer, *tags: int) -> None:
    """Return deliveries to the queue, and wait until all came again, counted, and the consumer is cancelled.

    It is cancelled when the first comes again, for which it needs its turn: not before the last one is here.
    """
    assert consumer._current is not None
    unsettled = consumer.status.unsettled
    async with consumer._keeper.turn, asyncio.timeout(DEADLINE_S):
        consumer._current.ledger.plan([[tag] for tag in tags])
        for tag in tags:
            # A reject: from RabbitMQ 4.3 on a nack is not counted.
            await consumer._current.channel.basic_reject(tag)
        while consumer.status.unsettled != unsettled:  # noqa: ASYNC110 - set aside, so nobody hears of them
            await asyncio.sleep(0.01)
    async with asyncio.timeout(DEADLINE_S):
        await consumer._keeper.turn.acquire()  # turns are given in the order in which they were asked for
        consumer._keeper.turn.release()


async def test_the_first_message_that_never_came_back_widens_the_consumer(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """Everything in the prefetch comes, in its order, without anything being settled, and it costs milliseconds."""
    await publish(outside, queues, *range(20))
    with capture_logs() as logs:
        async with consuming(broker.url, queues, sink, alone_from=1):
            deliveries = await sink.until_count(20)

    assert [each.tag for each in deliveries] == list(range(1, 21))
    assert [each.routing_key for each in deliveries] == [str(number) for number in range(20)]
    (widened,) = [line for line in logs if line["event"] == "broker.widened"]
    assert widened["prefetch"] == 100
    assert widened["took_s"] < 1.0


async def test_what_came_back_is_handed_over_one_at_a_time_at_the_start(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """The next one stays at the broker until the one before is settled; behind the last the consumer widens."""
    await publish(outside, queues, 1, 2, 3)
    async with consuming(broker.url, queues, sink, alone_from=1):
        await sink.until_count(3)
    await outside.until_ready(queues.work_queue, 3)
    await publish(outside, queues, 4, 5)
    again = RecordingSink()
    async with consuming(broker.url, queues, again, alone_from=1) as (consumer, _):
        for tag in (1, 2, 3):
            *_, last = await again.until_count(tag)
            await outside.until_ready(queues.work_queue, 5 - tag)

            assert (last.tag, last.returns, consumer.status.unsettled) == (tag, 1, 1)
            await consumer.acknowledge(1, [[tag]])
        deliveries = await again.until_count(5)
        assert [each.returns for each in deliveries] == [1, 1, 1, 0, 0]


async def test_what_comes_back_to_a_wide_consumer_waits_until_all_else_is_settled(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """Nothing new is taken meanwhile; afterwards the consumer goes on."""
    await publish(outside, queues, 1, 2, 3)
    async with consuming(broker.url, queues, sink, alone_from=1) as (consumer, _):
        await sink.until_count(3)
        with capture_logs() as logs:
            await hand_back(consumer, 2, 3)
        await publish(outside, queues, 4)
        await outside.until_ready(queues.work_queue, 1)
        assert len(sink.deliveries) == 3

        await consumer.acknowledge(1, [[1]])
        for count in (4, 5):
            *_, last = await sink.until_count(count)
            await outside.until_ready(queues.work_queue, 1)
            assert (last.tag, last.returns, len(sink.deliveries)) == (count, 1, count)
            await consumer.acknowledge(1, [[last.tag]])
        assert (await sink.until_count(6))[-1].routing_key == "4"
        assert sink.losses == []
    assert [line["returns"] for line in logs if line["event"] == "broker.narrowed"] == [1]


async def test_what_is_set_aside_stays_there_while_the_intake_is_cancelled(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """After cancel nothing comes, not even from our own memory; open goes on with it."""
    await publish(outside, queues, 1, 2)
    async with consuming(broker.url, queues, sink, alone_from=1) as (consumer, _):
        await sink.until_count(2)
        await hand_back(consumer, 2)
        await consumer.cancel()
        assert await consumer.acknowledge(1, [[1]])
        await publish(outside, queues, 3)
        await outside.until_ready(queues.work_queue, 1)
        assert len(sink.deliveries) == 2

        await consumer.open(sink)
        deliveries = await sink.until_count(3)
        assert deliveries[-1].returns == 1
        await consumer.acknowledge(1, [[deliveries[-1].tag]])
        assert (await sink.until_count(4))[-1].routing_key == "3"


async def test_open_after_cancel_goes_on_with_something_unsettled(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """RabbitMQ 3.10 closes the connection where the old consumer's name is used again."""
    await publish(outside, queues, 1, 2)
    async with consuming(broker.url, queues, sink, alone_from=1) as (consumer, _):
        await sink.until_count(2)
        await consumer.cancel()
        await publish(outside, queues, 3)
        await consumer.open(sink)
        await sink.until_count(3)

        assert sink.losses == []
        assert await consumer.acknowledge(1, [[1], [2], [3]])


async def test_a_count_that_a_producer_wrote_means_nothing(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """A first delivery has no count of the broker's."""
    forged = Properties(headers={"x-delivery-count": 99})
    await outside.publish(queues.exchanges[0].name, "1", {"id": 1}, properties=forged)
    async with consuming(broker.url, queues, sink, alone_from=1):
        (delivery,) = await sink.until_count(1)

        assert delivery.returns == 0


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 12, 20, 40])
async def test_release_at_any_moment_of_widening_hands_everything_back(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink, steps: int
) -> None:
    """And the next life of the consumer gets it."""
    await publish(outside, queues, 1, 2, 3)
    async with consuming(broker.url, queues, sink, alone_from=1_000) as (consumer, _):
        await sink.until_count(1)
        for _ in range(steps):
            await asyncio.sleep(0)
        await consumer.release()
        await outside.until_ready(queues.work_queue, 3)
        again = RecordingSink()
        await consumer.open(again)

        assert len(await again.until_count(3)) == 3
