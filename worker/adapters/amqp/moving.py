"""What waits in a work queue that is no longer fed goes back through the exchange, into the queues that are.

Each message is moved as any copy is: published and confirmed first, acknowledged then, with the time of its first sight
in our headers. So it may be stopped at any time and run again.

As long as workers are there they finish the queue; the mover takes over what the last of them leaves. It goes by the
number of consumers that a passive declaration tells. For a queue with a single active consumer that is the active one,
and each that was cancelled and still has messages in hand (seen on 3.10.8 and 4.3.6); those that wait for their turn
are not counted, so the mover is not registered while it looks. None, and nothing ready: the queue is empty for good.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.declaring import look
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.core.errors import ConnectionLost, CopyFailed
from worker.core.model import Delivery, Reason, Retry, Settlement
from worker.retrying import forever

log = structlog.get_logger(__name__)

POLL_S = 0.25
PREFETCH = 500
NEVER = 1_000_000_000
"""Messages are not handled here, so none is a suspect."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Standing:
    """A queue that is being emptied: ``ready`` messages that nobody has in hand, ``consumers`` of others, ``moved`` so
    far."""

    queue: str
    ready: int
    consumers: int
    moved: int


class Mover:
    """Implements ``ports.Sink`` for one queue. ``exchange`` is where its messages go, ``version`` is ours."""

    def __init__(self, link: Link, publisher: Publisher, *, queue: str, exchange: str, version: str) -> None:
        self._link = link
        self._queue = queue
        self._consumer = Consumer(link, queue=queue, prefetch=PREFETCH, alone_from=NEVER)
        # A retry without delay: the copy, its confirm and the acknowledgement are the same.
        self._settler = BrokerSettler(
            self._consumer, publisher, dead_queue="", retry_exchanges=(exchange,), worker=version
        )
        self._waiting: list[Delivery] = []
        self._came = asyncio.Event()
        self._moved = 0

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """See ``ports.Sink``."""
        self._waiting.extend(deliveries)
        self._came.set()

    def lost(self, generation: int) -> None:
        """See ``ports.Sink``."""
        self._waiting = [each for each in self._waiting if each.generation != generation]

    async def run(self, tell: Callable[[Standing], None]) -> int:
        """Until the queue is empty and nobody else has anything of it; returns how many were moved.

        ``tell`` hears of every look. Raises BrokerRefused where we may not consume. Waits for a broker that is away.
        Cancelled, it leaves the rest where it is.
        """
        while True:
            standing = await self._look()
            if standing is not None:
                tell(standing)
                if not standing.consumers and not standing.ready:
                    return self._moved
                if not standing.consumers:
                    await self._empty()
                    continue
            await asyncio.sleep(POLL_S)

    async def _empty(self) -> None:
        """Move until nothing more comes."""
        await self._consumer.open(self)
        try:
            await self._consumer.wait_consuming()
            while await self._next():
                await self._move()
        finally:
            await self._consumer.release()

    async def _next(self) -> bool:
        """Wait for deliveries; False when there are none for a while, which the next look judges."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._came.wait()
        except TimeoutError:
            pass
        self._came.clear()
        return bool(self._waiting)

    async def _move(self) -> None:
        waiting, self._waiting = self._waiting, []
        again = Retry(tier=0, reason=Reason.MOVED, detail="its queue is no longer fed", counts=False)
        settlements = [Settlement(delivery=delivery, disposition=again) for delivery in waiting]
        async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(CopyFailed,), noticed=_failed):
            with attempt:
                await self._settler.settle(settlements)
        self._moved += len(waiting)

    async def _look(self) -> Standing | None:
        """None where nobody can say. A queue that somebody deleted meanwhile is empty for good."""
        try:
            told = await look(await self._link.get(), self._queue, self._link.endpoint.rpc_timeout_s)
        except ConnectionLost:
            return None
        ready, consumers = (0, 0) if told is None else (told.message_count or 0, told.consumer_count or 0)
        return Standing(queue=self._queue, ready=ready, consumers=consumers, moved=self._moved)


def _failed(error: Exception, attempt: int, wait_s: float) -> None:
    log.error("broker.copy_failed", reason=str(error), attempt=attempt, wait_s=round(wait_s, 3))
