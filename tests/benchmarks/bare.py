"""The other yardstick: aio-pika's own way to consume, with nothing to do but to acknowledge each message.

    python -m tests.benchmarks.bare AMQP_URL QUEUE EVENTS PREFETCH

It prints a line when it consumes, and how long it took from the first delivery to the last acknowledgement.
"""

import asyncio
import json
import sys
import time

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


async def run(amqp_url: str, queue_name: str, events: int, prefetch: int) -> float:
    """Take so many events; the seconds it took."""
    done = asyncio.Event()
    started = 0.0
    left = events

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal started, left
        started = started or time.monotonic()
        await message.ack()
        left -= 1
        if not left:
            done.set()

    async with await aio_pika.connect_robust(amqp_url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        queue = await channel.get_queue(queue_name)
        await queue.consume(on_message)
        print(json.dumps({"consuming": queue_name}), flush=True)  # noqa: T201 - what the benchmark reads
        await done.wait()
        took_s = time.monotonic() - started
    return took_s


if __name__ == "__main__":
    url, name, count, window = sys.argv[1:]
    print(json.dumps({"took_s": asyncio.run(run(url, name, int(count), int(window)))}))  # noqa: T201 - the same
