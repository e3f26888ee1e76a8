"""What the benchmarks work on: seeded events for many orders, the states that must come out, and the queue in between.

Every event is stamped, so the newest value of each field is known in advance whatever order they arrive in.
"""

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

import aio_pika
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic, Queue

from worker.adapters.amqp.connection import dial
from worker.adapters.amqp.topology import Topology
from worker.core.model import Scalar
from worker.core.times import format_time

FIRST_ORDER = 46_000_000
FIRST_EVENT_US = 1_735_689_600_000_000  # 2025-01-01: only the future is refused
STATUSES = (1, 2, 4, 16, 32)  # none of them terminal: those are never merged away, and this is about merging
CARRIERS = ("Royal Mail", "DPD", "Evri", "UPS", "FedEx")
METHODS = ("Tracked 24", "Tracked 48", "Next Day", "Economy", "Signed For")
DEADLINE_S = 240.0
PUBLISH_WINDOW = 1000
"""Messages that wait for their confirm at a time."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Event:
    """One event of a load: ``number`` is its place in its order's history, from 0."""

    order_id: int
    number: int
    fields: Mapping[str, Scalar]

    @property
    def body(self) -> bytes:
        """As a producer publishes it."""
        time_us = FIRST_EVENT_US + self.order_id % 1000 * 1_000_000 + self.number * 1_500_123
        event = {"id": self.order_id, **self.fields, "occurred_at": format_time(time_us), "sequence": self.number}
        return json.dumps(event).encode()


@dataclass(slots=True, frozen=True)
class Load:
    """Events in the order in which they are published."""

    events: Sequence[Event]

    @classmethod
    def make(cls, *, orders: int, per_order: int, seed: int, in_order: bool = False) -> "Load":
        """``per_order`` events for each of ``orders``, shuffled; ``in_order`` keeps each order's own in sequence."""
        chance = random.Random(seed)
        turns = [FIRST_ORDER + number for number in range(orders) for _ in range(per_order)]
        chance.shuffle(turns)
        so_far: Counter[int] = Counter()
        events = []
        for order_id in turns:
            events.append(Event(order_id=order_id, number=so_far[order_id], fields=_fields(chance, so_far[order_id])))
            so_far[order_id] += 1
        if not in_order:
            chance.shuffle(events)
        return cls(events)

    def expected(self) -> dict[int, dict[str, Scalar]]:
        """For each order the fields that were ever given, with their newest values."""
        states: dict[int, dict[str, Scalar]] = {}
        for event in sorted(self.events, key=lambda event: event.number):
            states.setdefault(event.order_id, {}).update(event.fields)
        return states

    def wrong(self, found: Mapping[int, Mapping[str, Scalar]]) -> list[str]:
        """The orders that are not as they must be, in words."""
        return [
            f"order {order_id}: must be {wanted}, is {found.get(order_id)}"
            for order_id, wanted in self.expected().items()
            if not wanted.items() <= found.get(order_id, {}).items()
        ]


def _fields(chance: random.Random, number: int) -> dict[str, Scalar]:
    """Every event changes the status; about half of them the shipping too, so that fields have different winners."""
    fields: dict[str, Scalar] = {"status": STATUSES[number % len(STATUSES)]}
    if chance.random() < 0.5:
        fields |= {"shipping_carrier": chance.choice(CARRIERS), "shipping_method": chance.choice(METHODS)}
    return fields


class Queues:
    """The producers' side of one topology, and a look at its queues. Closes with ``close``."""

    def __init__(self, connection: aio_pika.abc.AbstractConnection, channel: AbstractChannel, names: Topology) -> None:
        self.connection = connection
        self.names = names
        self._channel = channel

    @classmethod
    async def connect(cls, url: str, names: Topology) -> "Queues":
        """Open a connection of our own."""
        connection = await dial(url, name="benchmark", heartbeat_s=60, timeout_s=10.0)
        assert connection.transport is not None
        return cls(connection, await connection.transport.connection.channel(), names)

    async def close(self) -> None:
        """Leave; the queues stay."""
        await self.connection.close()

    async def publish(self, events: Iterable[Event]) -> None:
        """Publish, each confirmed, ``PUBLISH_WINDOW`` at a time."""
        waiting = list(events)
        for start in range(0, len(waiting), PUBLISH_WINDOW):
            await asyncio.gather(*map(self._publish, waiting[start : start + PUBLISH_WINDOW]))

    async def _publish(self, event: Event) -> None:
        properties = Basic.Properties(message_id=uuid4().hex, content_type="application/json", delivery_mode=2)
        confirmed = await self._channel.basic_publish(
            event.body,
            exchange=self.names.exchanges[0].name,
            routing_key=str(event.order_id),
            properties=properties,
            mandatory=True,
        )
        assert isinstance(confirmed, Basic.Ack)

    async def work(self) -> Queue.DeclareOk:
        """Ready messages and consumers of the work queue, as the broker counts them now."""
        return await self._channel.queue_declare(self.names.work_queue, passive=True)

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
                now = await self.work()
                taken = now.consumer_count and (now.message_count or 0) <= at_most
                since = min(since, time.monotonic()) if taken else math.inf
                await asyncio.sleep(0.02)
