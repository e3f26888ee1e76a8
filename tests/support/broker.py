"""What tests on a real broker share: names that never collide, a sink that remembers, and a look from outside."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from msgspec.structs import replace
from pamqp.commands import Basic

from tests.support import generation
from worker.adapters.amqp.connection import Endpoint, dial
from worker.adapters.amqp.topology import Topology, topology
from worker.core.model import Delivery, Properties, Update, Version

DEADLINE_S = 20.0


class Lanes:
    """Which way deliveries take in this test; see the fixture ``each_lane``."""

    fast: bool = True


def endpoint(*urls: str, heartbeat_s: int = 10, rpc_timeout_s: float = 5.0) -> Endpoint:
    """An endpoint that loses no time in tests."""
    return Endpoint(
        urls=urls,
        heartbeat_s=heartbeat_s,
        connect_timeout_s=3.0,
        rpc_timeout_s=rpc_timeout_s,
        retry_first_s=0.02,
        retry_cap_s=0.2,
        fast_lane=Lanes.fast,
    )


def unique_topology(
    *,
    retry_delays_s: tuple[float, ...] = (0.2, 60.0),
    delivery_limit: int = 100,
    partitions: int = 1,
    like: Topology | None = None,
) -> Topology:
    """A topology whose names no other test has, or those of ``like`` with another number of partitions."""
    stem = f"t{uuid4().hex[:12]}" if like is None else like.exchanges[0].name
    return topology(
        exchange=stem,
        queue=f"{stem}.work",
        dead_queue=f"{stem}.dead",
        retry_delays_s=retry_delays_s,
        delivery_limit=delivery_limit,
        partitions=partitions,
        hash_exchange=None if partitions == 1 else generation.hash_exchange(),
    )


@dataclass
class RecordingSink:
    """Implements ``ports.Sink``: keeps what came and lets tests wait for it."""

    deliveries: list[Delivery] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)
    failure: Exception | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries.extend(deliveries)
        self._changed.set()
        if self.failure is not None:
            raise self.failure

    def lost(self, generation: int) -> None:
        self.losses.append(generation)
        self._changed.set()

    async def until(self, condition: Callable[["RecordingSink"], bool]) -> None:
        """Wait until the condition holds. Raises TimeoutError after 20 s."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def until_count(self, count: int) -> list[Delivery]:
        """Wait for at least ``count`` deliveries."""
        await self.until(lambda sink: len(sink.deliveries) >= count)
        return self.deliveries


async def until_channels(connection: AbstractConnection, count: int) -> None:
    """Wait until the connection has no more channels than these. A number is free once the broker confirmed it."""
    assert connection.transport is not None
    numbers = connection.transport.connection.channels
    async with asyncio.timeout(DEADLINE_S):
        while len(numbers) > count:  # noqa: ASYNC110 - the library does not tell
            await asyncio.sleep(0.001)


def update_of(delivery: Delivery, *, order_id: int, time_us: int = 0, attempt: int = 1) -> Update:
    """An update as the decoder might make it of this delivery."""
    version = Version(time_us, -1, time_us, delivery.properties.message_id or "")
    return Update(order_id=order_id, fields={"status": 4}, version=version, delivery=delivery, attempt=attempt)


class Outside:
    """A person with a connection of their own, who looks at queues and puts messages in."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._open: AbstractChannel | None = None

    @classmethod
    async def connect(cls, url: str) -> "Outside":
        return cls(await dial(url, name="test", heartbeat_s=10, timeout_s=5.0))

    @property
    def connection(self) -> AbstractConnection:
        return self._connection

    async def channel(self) -> AbstractChannel:
        """One channel, kept."""
        if self._open is None or self._open.is_closed:
            assert self._connection.transport is not None
            self._open = await self._connection.transport.connection.channel()
        return self._open

    async def publish(
        self, exchange: str, routing_key: str, *bodies: object, properties: Properties | None = None
    ) -> None:
        """Publish JSON bodies (bytes go as they are), confirmed."""
        channel = await self.channel()
        given = replace(properties) if properties is not None else Properties()
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            wire = Basic.Properties(
                headers={**given.headers},
                message_id=given.message_id or uuid4().hex,
                content_type=given.content_type,
                delivery_mode=2,
            )
            await channel.basic_publish(
                raw, exchange=exchange, routing_key=routing_key, properties=wire, mandatory=True
            )

    async def take(self, queue: str, *, hand_back: bool = False) -> DeliveredMessage:
        """Remove one message, or hand it back by a reject (from RabbitMQ 4.3 on a nack is not counted).

        Waits up to 20 s for it. Consumes, on a channel of its own: RabbitMQ refuses basic.get on quorum queues with a
        single active consumer.
        """
        assert self._connection.transport is not None
        channel = await self._connection.transport.connection.channel()
        came: asyncio.Future[DeliveredMessage] = asyncio.get_running_loop().create_future()

        async def receive(message: DeliveredMessage) -> None:
            came.set_result(message)

        async with asyncio.timeout(DEADLINE_S):
            await channel.basic_qos(prefetch_count=1)
            await channel.basic_consume(queue, receive, consumer_tag="taker")
            message = await came
            await channel.basic_cancel("taker")
            assert message.delivery_tag is not None
            if hand_back:
                await channel.basic_reject(message.delivery_tag)
            else:
                await channel.basic_ack(message.delivery_tag)
            await channel.close()
        return message

    async def ready(self, queue: str) -> int:
        """Messages that nobody has in hand."""
        channel = await self.channel()
        declared = await channel.queue_declare(queue, passive=True)
        return declared.message_count or 0

    async def until_some(self, queue: str) -> None:
        """Wait until there are any."""
        async with asyncio.timeout(DEADLINE_S):
            while not await self.ready(queue):  # noqa: ASYNC110 - only the broker knows, so it is polled
                await asyncio.sleep(0.02)

    async def until_ready(self, queue: str, count: int) -> None:
        """Wait for the broker's count: quorum queues publish it with a delay."""
        async with asyncio.timeout(DEADLINE_S):
            while await self.ready(queue) != count:  # noqa: ASYNC110 - only the broker knows, so it is polled
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        await self._connection.close()
