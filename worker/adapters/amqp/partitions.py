"""The intake of a worker that consumes several work queues: one consumer for each, on one connection.

Each consumer keeps its own channel alive and its own books; a generation's number says whose it is. What is done to
all of them is done side by side, so that it takes no longer than for one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import ALONE_FROM, Consumer
from worker.adapters.amqp.generation import Company
from worker.core.model import Delivery, Settlement
from worker.core.partition import Partition, partition_of, share
from worker.core.readiness import IntakeStatus
from worker.ports import Sink


class Partitions:
    """Implements ``ports.Intake`` and ``settler.Holding`` over the consumers of these partitions, numbered from 0.

    ``prefetch`` bounds what is unsettled on all of them together: each gets an equal share (``core/partition.py``).
    """

    def __init__(
        self, link: Link, partitions: Sequence[Partition], *, prefetch: int, alone_from: int = ALONE_FROM
    ) -> None:
        company = Company(shared=len(partitions) > 1)
        self._link = link
        self._consumers = [
            Consumer(
                link,
                queue=each.queue,
                prefetch=share(prefetch, len(partitions)),
                alone_from=alone_from,
                partition=each,
                partitions=len(partitions),
                company=company,
            )
            for each in partitions
        ]

    @property
    def status(self) -> IntakeStatus:
        """A snapshot of now, of all together."""
        each = [consumer.status for consumer in self._consumers]
        return IntakeStatus(
            connected=self._link.connected,
            consuming=all(one.consuming for one in each),
            generation=sum(one.generation for one in each),
            unsettled=sum(one.unsettled for one in each),
            delivered=sum(one.delivered for one in each),
            partitions=len(each),
            serving=sum(one.serving for one in each),
            fast_lane=all(one.fast_lane for one in each),
        )

    async def wait_consuming(self) -> None:
        """Wait until all are registered, but for those that stand by. Raises BrokerRefused as a consumer does."""
        for consumer in self._consumers:
            await consumer.wait_consuming()

    async def open(self, sink: Sink) -> None:
        """See ``ports.Intake``."""
        await self._all(lambda consumer: consumer.open(sink))

    async def cancel(self) -> None:
        """See ``ports.Intake``."""
        await self._all(Consumer.cancel)

    async def release(self) -> None:
        """See ``ports.Intake``."""
        await self._all(Consumer.release)

    async def rebuild(self) -> None:
        """Begin from scratch, as a consumer does; the connection is closed once."""
        await self._all(Consumer.halt)
        await self._link.close()
        await self._all(Consumer.go_on)

    def holds(self, delivery: Delivery) -> bool:
        """Whether this delivery can still be settled."""
        return self._of(delivery.generation).holds(delivery)

    def still_held(self, settlements: Iterable[Settlement]) -> Sequence[Settlement]:
        """See ``Consumer.still_held``."""
        if len(self._consumers) == 1:
            return self._consumers[0].still_held(settlements)
        return [settlement for settlement in settlements if self.holds(settlement.delivery)]

    async def acknowledge(self, generation: int, groups: Sequence[Sequence[int]]) -> bool:
        """See ``Consumer.acknowledge``."""
        return await self._of(generation).acknowledge(generation, groups)

    def _of(self, generation: int) -> Consumer:
        return self._consumers[partition_of(generation, len(self._consumers))]

    async def _all(self, step: Callable[[Consumer], Awaitable[None]]) -> None:
        """The same for all, side by side. They raise nothing that a broker or network causes."""

        async def one(consumer: Consumer) -> None:
            await step(consumer)

        async with asyncio.TaskGroup() as group:
            for consumer in self._consumers:
                group.create_task(one(consumer), name="one of the partitions")
