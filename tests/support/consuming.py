"""A consumer on a real broker, for the length of a block."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.broker import DEADLINE_S, RecordingSink, endpoint
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import ALONE_FROM, Consumer
from worker.adapters.amqp.topology import Topology


@asynccontextmanager
async def consuming(
    url: str,
    names: Topology,
    sink: RecordingSink,
    *,
    prefetch: int = 100,
    alone_from: int = ALONE_FROM,
    heartbeat_s: int = 10,
) -> AsyncIterator[tuple[Consumer, Link]]:
    """It has its consume-ok, on a link of its own; both are closed in the end."""
    link = Link(endpoint(url, heartbeat_s=heartbeat_s, rpc_timeout_s=2.0), name="consume")
    consumer = Consumer(link, queue=names.work_queue, prefetch=prefetch, alone_from=alone_from)
    try:
        await consumer.open(sink)
        async with asyncio.timeout(DEADLINE_S):
            await consumer.wait_consuming()
        yield consumer, link
    finally:
        await consumer.release()
        await link.close()
