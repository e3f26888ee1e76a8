"""The queues of one benchmark: made for it, looked at from outside, and deleted with what is in them."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel

from tests.benchmarks.feeding import Feeder
from tests.benchmarks.loads import Event
from tests.benchmarks.program import cpu_seconds
from tests.support.broker import unique_topology
from worker.adapters.amqp.connection import dial
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.config import Settings

DEADLINE_S = 3600.0
LOOK_EVERY_S = 0.02
RESTING_S = 0.25
RESTING_SHARE = 0.1
"""Of one CPU: less than that and the broker has nothing left to write."""
RESTING_LOOKS = 60


class Queues:
    """The producers' side of one topology, and a look at its queues."""

    def __init__(
        self, broker: PrivateBroker, connection: AbstractConnection, channel: AbstractChannel, names: Topology
    ) -> None:
        self.url = broker.url
        self.names = names
        self._broker_pid = broker.pids[0]
        self._connection = connection
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def made(cls, broker: PrivateBroker, *, partitions: int = 1) -> AsyncIterator["Queues"]:
        """Declare them as the worker does with its defaults, and delete them in the end."""
        defaults = Settings.model_fields
        names = unique_topology(
            retry_delays_s=defaults["retry_delays_s"].default,
            delivery_limit=defaults["delivery_limit"].default,
            partitions=partitions,
        )
        connection = await dial(broker.url, name="benchmark", heartbeat_s=60, timeout_s=10.0)
        try:
            await declare(connection, names)
            assert connection.transport is not None
            queues = cls(broker, connection, await connection.transport.connection.channel(), names)
            yield queues
            await queues.delete()
        finally:
            await connection.close()

    async def delete(self) -> None:
        """So that the broker's memory and disk are those of one run."""
        for queue in self.names.queues:
            await self._channel.queue_delete(queue.name)
        for exchange in self.names.exchanges:
            await self._channel.exchange_delete(exchange.name)

    async def purge(self) -> None:
        """Drop what is left in them."""
        for queue in self.names.queues:
            await self._channel.queue_purge(queue.name)

    async def publish(self, events: Iterable[Event]) -> None:
        """Publish, each confirmed, and let the broker rest."""
        async with self.feeder() as feeder:
            await feeder.publish(events)
        await self.until_put_away()

    def feeder(self) -> AbstractAsyncContextManager[Feeder]:
        """A producer of its own."""
        return Feeder.open(self.url, self.names.exchanges[0].name)

    async def until_put_away(self) -> None:
        """Wait until the broker is done with what was published: quorum queues go on writing it for seconds."""
        for _ in range(RESTING_LOOKS):
            before_s = cpu_seconds(self._broker_pid)
            await asyncio.sleep(RESTING_S)
            if cpu_seconds(self._broker_pid) - before_s < RESTING_SHARE * RESTING_S:
                return

    async def ready(self) -> tuple[int, int]:
        """Ready messages of the work queues, and the fewest consumers that one of them has, as the broker counts."""
        counts = [await self._channel.queue_declare(name, passive=True) for name in self.names.work_queues]
        return sum(each.message_count or 0 for each in counts), min(each.consumer_count or 0 for each in counts)

    async def left(self) -> int:
        """Messages in all queues of the topology; exact only when nobody consumes."""
        counts = [await self._channel.queue_declare(each.name, passive=True) for each in self.names.queues]
        return sum(count.message_count or 0 for count in counts)

    async def until_taken(self, at_most: int = 0, *, steady_s: float = 0.0) -> None:
        """Wait until at most so many messages are ready, and stay so for ``steady_s``.

        Without a consumer the count means nothing: a quorum queue too busy to answer is reported as 0 and 0. What a
        killed consumer held comes back only when the broker has worked off what that one wrote last: until then the
        count is too low, and ``steady_s`` has to be longer. Raises TimeoutError after ``DEADLINE_S``.
        """
        async with asyncio.timeout(DEADLINE_S):
            since = math.inf
            while time.monotonic() - since < steady_s or since == math.inf:
                messages, consumers = await self.ready()
                taken = consumers and messages <= at_most
                since = min(since, time.monotonic()) if taken else math.inf
                await asyncio.sleep(LOOK_EVERY_S)
