"""A release that comes while the consumer is still being registered, and deliveries already flow."""

import asyncio

import pytest

from tests.support.broker import Outside, RecordingSink, endpoint
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.usefixtures("each_lane", "no_leaks"), pytest.mark.broker]

READY = 200
STEPS = range(2, 62, 2)


async def test_release_at_any_moment_of_opening_leaves_a_connection_that_works(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """The next consumer gets everything at once, whatever the first one was about to do."""
    await asyncio.gather(*(outside.publish(queues.exchanges[0].name, "1", {"id": n}) for n in range(READY)))
    link = Link(endpoint(broker.url, rpc_timeout_s=30.0), name="consume")
    consumer = Consumer(link, queue=queues.work_queue, prefetch=READY, alone_from=1_000)
    try:
        for turns in STEPS:
            await consumer.open(RecordingSink())
            await link.get()
            for _ in range(turns):
                await asyncio.sleep(0)
                if consumer.status.consuming:
                    break
            await consumer.release()

        sink = RecordingSink()
        await consumer.open(sink)
        async with asyncio.timeout(5.0):
            assert len(await sink.until_count(READY)) == READY
    finally:
        await consumer.release()
        await link.close()
