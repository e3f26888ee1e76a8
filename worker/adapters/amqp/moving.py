"""What waits in a work queue that is no longer fed goes back through the exchange, into the queues that are.

The mover is one more consumer of that queue, of the lowest priority: as long as workers are there they finish it, and
the mover takes over what the last of them leaves. Each message is moved as any copy is: published and confirmed first,
acknowledged then, with the time of its first sight in our headers. So it may be stopped at any time and run again.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.declaring import throwaway
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.core.errors import ConnectionLost, CopyFailed
from worker.core.model import Delivery, Reason, Retry, Settlement
from worker.core.partition import Partition
from worker.ports import Clock
from worker.retrying import forever

log = structlog.get_logger(__name__)

POLL_S = 0.2
QUIET_S = 1.0
"""Nobody else consumes and nothing is ready for so long: it is empty."""
PREFETCH = 500
LOWEST = -1
"""Workers have a priority of 0 or more."""
NEVER = 1_000_000_000
"""Messages are not handled here, so none is a suspect."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Standing:
    """A queue that is being emptied: ``ready`` messages nobody has in hand, ``others`` that consume, ``moved`` so
    far."""

    queue: str
    ready: int
    others: int
    moved: int


class Mover:
    """Implements ``ports.Sink`` for one queue. ``exchange`` is where its messages go.

    A worker that stopped consuming may still have some in hand, and they come back: once others were seen, the queue
    has to be quiet for ``grace_s`` after them.
    """

    def __init__(
        self,
        link: Link,
        publisher: Publisher,
        *,
        queue: str,
        exchange: str,
        version: str,
        grace_s: float,
        clock: Clock = time.monotonic,
    ) -> None:
        self._link = link
        self._queue = queue
        self._grace_s = grace_s
        self._clock = clock
        self._consumer = Consumer(
            link,
            queue=queue,
            prefetch=PREFETCH,
            alone_from=NEVER,
            partition=Partition(number=0, queue=queue, priority=LOWEST),
        )
        # A retry without delay: the copy, its confirm and the acknowledgement are the same.
        self._settler = BrokerSettler(
            self._consumer, publisher, dead_queue="", retry_exchanges=(exchange,), worker=version
        )
        self._waiting: list[Delivery] = []
        self._came = asyncio.Event()
        self._moved = 0
        self._needed_s = QUIET_S

    def deliver(self, delivery: Delivery) -> None:
        """See ``ports.Sink``."""
        self._waiting.append(delivery)
        self._came.set()

    def lost(self, generation: int) -> None:
        """See ``ports.Sink``."""
        self._waiting = [each for each in self._waiting if each.generation != generation]

    async def run(self, tell: Callable[[Standing], None]) -> int:
        """Until the queue is empty and nobody else consumes it; returns how many were moved. ``tell`` hears of it.

        Raises BrokerRefused where we may not consume. Waits for a broker that is away. Cancelled, it leaves the rest.
        """
        await self._consumer.open(self)
        try:
            await self._consumer.wait_consuming()
            quiet_since: float | None = None
            while quiet_since is None or self._clock() - quiet_since < self._needed_s:
                await self._nap()
                moved = await self._move()
                standing = await self._look()
                if standing is None or moved or standing.ready or standing.others or self._waiting:
                    quiet_since = None
                elif quiet_since is None:
                    quiet_since = self._clock()
                if standing is not None:
                    tell(standing)
        finally:
            await self._consumer.release()
        return self._moved

    async def _nap(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._came.wait()
        except TimeoutError:
            pass
        self._came.clear()

    async def _move(self) -> int:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return 0
        again = Retry(tier=0, reason=Reason.MOVED, detail="its queue is no longer fed", counts=False)
        settlements = [Settlement(delivery=delivery, disposition=again) for delivery in waiting]
        async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(CopyFailed,), noticed=_failed):
            with attempt:
                await self._settler.settle(settlements)
        self._moved += len(waiting)
        return len(waiting)

    async def _look(self) -> Standing | None:
        """None where nobody can say."""
        if not self._consumer.status.consuming:
            return None
        try:
            async with throwaway(await self._link.get(), self._link.endpoint.rpc_timeout_s, self._queue) as channel:
                told = await channel.queue_declare(self._queue, passive=True)
        except ConnectionLost:
            return None
        others = max(0, (told.consumer_count or 0) - 1)
        if others:
            self._needed_s = max(QUIET_S, self._grace_s)
        return Standing(queue=self._queue, ready=told.message_count or 0, others=others, moved=self._moved)


def _failed(error: Exception, attempt: int, wait_s: float) -> None:
    log.error("broker.copy_failed", reason=str(error), attempt=attempt, wait_s=round(wait_s, 3))
