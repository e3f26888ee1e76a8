"""The demo's line to the broker: publish the load, read queue lengths and dead letters, remove what was declared."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from aiormq.abc import AbstractChannel, DeliveredMessage

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.deadline import within
from worker.adapters.amqp.publisher import Publisher
from worker.core.errors import ConnectionLost
from worker.core.headers import message_id_of, read_history
from worker.core.model import Properties
from worker.demo.broker import Broker
from worker.demo.load import Event

CONNECT_S: Final = 60.0
RPC_S: Final = 10.0
READ_S: Final = 20.0
CHUNK: Final = 50
"""Events published at once. The same message id must not be in flight twice, so a repeat starts a new chunk."""


class Depths(NamedTuple):
    """Messages waiting in the queues; what the worker has in hand is not among them."""

    work: int = 0
    retry: int = 0
    dead: int = 0


class Queues:
    """An async context manager. Entering it waits up to 60 s for a broker that is still coming up.

    Raises BrokerRefused where that refuses us, else ConnectionLost.
    """

    def __init__(self, broker: Broker) -> None:
        endpoint = Endpoint(urls=broker.urls)
        self._names = broker.names
        self._plan = broker.names.topology
        self._link = Link(endpoint, name="order-worker demo")
        self._publishing = Link(endpoint, name="order-worker demo publish")
        self._publisher = Publisher(self._publishing)
        self._looking: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        try:
            async with within(CONNECT_S, "connecting to the broker"):
                await self._link.get()
        except BaseException:
            await self._link.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._publisher.close()
        await self._publishing.close()
        await self._link.close()

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish these as a producer does: persistent, JSON, key = order id, confirmed. Raises CopyFailed."""
        async with asyncio.TaskGroup() as group:
            for event in events:
                properties = Properties(
                    message_id=event.message_id, content_type="application/json", delivery_mode=2, app_id="demo"
                )
                publishing = self._publisher.publish(self._names.exchange, str(event.order_id), event.body, properties)
                group.create_task(publishing, name="publish")

    async def depths(self) -> Depths:
        """The lengths of all queues now. Raises ConnectionLost, also where a queue is missing."""
        if self._looking is None or self._looking.is_closed:
            self._looking = await self._channel()
        length = {queue.name: await self._length(self._looking, queue.name) for queue in self._plan.queues}
        return Depths(
            work=sum(length[name] for name in self._plan.work_queues),
            retry=sum(length[name] for name in self._plan.retry_exchanges),  # queues of the same names
            dead=length[self._plan.dead_queue],
        )

    async def dead_letters(self) -> Counter[tuple[str, str]]:
        """(reason, the producer's message id) of all dead letters. They stay in the queue."""
        expected = (await self.depths()).dead
        found: Counter[tuple[str, str]] = Counter()
        everything = asyncio.Event()

        async def receive(message: DeliveredMessage) -> None:
            headers = message.header.properties.headers or {}
            history = read_history(headers)
            own = Properties(message_id=message.header.properties.message_id, headers=headers)
            found[history.reason or "without a reason", message_id_of(own, history)] += 1
            if found.total() >= expected:
                everything.set()

        if not expected:
            return found
        async with self._throwaway() as channel, within(READ_S, "reading the dead letters"):
            # Never acknowledged: closing the channel puts them back.
            await channel.basic_consume(self._plan.dead_queue, receive, exclusive=True)
            await everything.wait()
        return found

    async def remove(self) -> None:
        """Delete the demo's queues and exchanges. What is not there is no error."""
        async with self._throwaway() as channel, within(RPC_S, "removing the demo's queues"):
            for queue in self._plan.queues:
                await channel.queue_delete(queue.name)
            for exchange in self._plan.exchanges:
                await channel.exchange_delete(exchange.name)

    async def _length(self, channel: AbstractChannel, name: str) -> int:
        async with within(RPC_S, f"looking at queue {name!r}"):
            return (await channel.queue_declare(name, passive=True)).message_count or 0

    async def _channel(self) -> AbstractChannel:
        connection = await self._link.get()
        if connection.transport is None:
            raise ConnectionLost("the connection was closed")
        async with within(RPC_S, "opening a channel"):
            return await connection.transport.connection.channel()

    @contextlib.asynccontextmanager
    async def _throwaway(self) -> AsyncIterator[AbstractChannel]:
        channel = await self._channel()
        try:
            yield channel
        finally:
            async with within(RPC_S, "closing a channel"):
                await channel.close()


def chunks(events: Sequence[Event]) -> Iterator[list[Event]]:
    """The events in order, in pieces of at most ``CHUNK``, none with the same message id twice."""
    chunk: dict[str, Event] = {}
    for event in events:
        if len(chunk) == CHUNK or event.message_id in chunk:
            yield list(chunk.values())
            chunk = {}
        chunk[event.message_id] = event
    yield list(chunk.values())
