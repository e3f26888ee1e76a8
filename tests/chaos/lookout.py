"""A person at the broker who empties the dead-letter queue into the accounts and reads how deep the queues are.

The broker is killed, frozen and restarted under them: they come back as soon as it lets them.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from tests.support.accounting import Accounting
from worker.adapters.amqp.connection import dial
from worker.adapters.amqp.deadline import within
from worker.core.errors import BrokerRefused, ConnectionLost

LOOK_EVERY_S = 0.5
ANSWER_S = 5.0
PREFETCH = 200


class Lookout:
    """Runs as long as its block. ``depths`` are of the last look, ``looks`` counts them; ``dead`` counts letters."""

    def __init__(self, url: str, accounting: Accounting, *, dead_queue: str, queues: Sequence[str]) -> None:
        self.depths = dict.fromkeys(queues, 0)
        self.looks = 0
        self.dead = 0
        self.dead_left = 0
        self._url = url
        self._accounting = accounting
        self._dead_queue = dead_queue
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="lookout")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @property
    def queued(self) -> int:
        """Events that were in no worker's hands at the last look."""
        return sum(self.depths.values())

    async def _run(self) -> None:
        while True:
            with suppress(ConnectionLost, BrokerRefused):
                await self._watch()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _watch(self) -> None:
        connection = await dial(self._url, name="lookout", heartbeat_s=10, timeout_s=ANSWER_S)
        try:
            channel = await self._collect(connection)
            while True:
                async with within(ANSWER_S, "looking at the queues"):
                    for queue in self.depths:
                        self.depths[queue] = await _depth(channel, queue)
                    self.dead_left = await _depth(channel, self._dead_queue)
                self.looks += 1
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            with suppress(ConnectionLost):
                async with within(ANSWER_S, "closing the lookout's connection"):
                    await connection.close()

    async def _collect(self, connection: AbstractConnection) -> AbstractChannel:
        assert connection.transport is not None
        async with within(ANSWER_S, "opening the lookout's channel"):
            channel = await connection.transport.connection.channel()
            await channel.basic_qos(prefetch_count=PREFETCH)

            async def receive(message: DeliveredMessage) -> None:
                # Booked before it is acknowledged: a letter may be read twice, never missed.
                self.dead += 1
                self._accounting.note_dead(message.body)
                with suppress(ConnectionLost):
                    async with within(ANSWER_S, "acknowledging a dead letter"):
                        await channel.basic_ack(message.delivery_tag or 0)

            await channel.basic_consume(self._dead_queue, receive)
        return channel


async def _depth(channel: AbstractChannel, queue: str) -> int:
    return (await channel.queue_declare(queue, passive=True)).message_count or 0
