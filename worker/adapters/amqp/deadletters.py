"""Looking at the dead-letter queue without changing it.

AMQP has no reading without taking. So the messages are taken with manual acknowledgement, held, and handed back all at
once, by closing the channel; whatever happens to this process, the broker puts everything back. One channel can hold
65,535 messages, so a larger queue takes several, closed in order.

A quorum queue keeps what was returned in front of what was never handed out, and puts what returns now *behind* what
returned earlier (seen on 3.10). So the order stays only if everything that was ever returned is held together: a look
that has enough stops at the first message that was never handed out, not before.

The price is one of the queue's delivery limit per look (``x-delivery-count``), and a queue that others declared may
have a limit of 20, beyond which RabbitMQ drops. The limit cannot be read over AMQP, but a queue that can be declared
again with our arguments has our limit of a million (unless a policy lowers it). In any other one the first message is
looked at alone, because it has been in every look, and a count of ``LIMIT_AT`` ends it. (That one message then goes to
the back; the order of a queue is worth less than its messages.)
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.deadline import within
from worker.adapters.amqp.generation import properties_of
from worker.adapters.amqp.topology import QueueSpec
from worker.core.deadletter import DeadLetter, read_dead_letter
from worker.core.errors import ConnectionLost
from worker.core.model import Delivery

log = structlog.get_logger(__name__)

MOST_PER_CHANNEL = 65_535
"""The largest prefetch that AMQP can say."""
LIMIT_AT = 15
"""Delivery count from which looking is refused; the default limit of RabbitMQ 4 is 20."""
QUIET_S = 5.0
"""So long nothing more came: others took the rest."""

Receive = Callable[[DeadLetter], bool]


@dataclass(slots=True, frozen=True, kw_only=True)
class Look:
    """What came of it: ``there`` were ready when it began, ``seen`` were shown; ``consumers`` are others at the queue.

    ``worn`` is the delivery count that ended it early, 0 if none did.
    """

    there: int
    seen: int
    consumers: int
    worn: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class _Facts:
    messages: int
    consumers: int
    ours: bool


class DeadLetterQueue:
    """A dead-letter queue to look into. ``spec`` is how we would declare it."""

    def __init__(
        self, link: Link, spec: QueueSpec, *, most_per_channel: int = MOST_PER_CHANNEL, quiet_s: float = QUIET_S
    ) -> None:
        self._link = link
        self._spec = spec
        self._most = most_per_channel
        self._quiet_s = quiet_s

    async def look(self, receive: Receive, *, first: int = MOST_PER_CHANNEL, worn_too: bool = False) -> Look | None:
        """Show ``receive`` the dead letters that are there now, oldest first, until it says False; None: no such queue.

        ``first`` are taken at first, as a guess of how many will be enough. ``worn_too`` goes on whatever the delivery
        counts are. Raises ConnectionLost; then, too, everything is back in the queue.
        """
        connection = await self._link.get()
        try:
            facts = await self._facts(connection)
        except BaseException:
            # A request that is given up costs its channel, and closing one twice costs the connection.
            await self._link.drop()
            raise
        if facts is None:
            return None
        visit = _Visit(receive, limit=None if facts.ours or worn_too else LIMIT_AT)
        hands: list[_Hand] = []
        try:
            first = 1 if visit.limit is not None else min(first, self._most)
            await self._take(connection, visit, hands, wanted=facts.messages, first=first)
        finally:
            await self._hand_back(hands)
        return Look(there=facts.messages, seen=visit.seen, consumers=facts.consumers, worn=visit.worn)

    async def _take(
        self, connection: AbstractConnection, visit: "_Visit", hands: list["_Hand"], *, wanted: int, first: int
    ) -> None:
        while visit.taken < wanted and not visit.over:
            capacity = min(wanted - visit.taken, self._most if hands else first)
            hand = _Hand(await self._channel(connection), visit, capacity=capacity)
            hands.append(hand)
            async with within(self._link.endpoint.rpc_timeout_s, f"consuming from {self._spec.name!r}"):
                await hand.open(self._spec.name)
            if not await hand.filled(self._quiet_s):
                return
            async with within(self._link.endpoint.rpc_timeout_s, "cancelling the consumer"):
                await hand.cancel()

    async def _hand_back(self, hands: list["_Hand"]) -> None:
        """Nobody of us may consume any more when the first message returns; the channels close in their order."""
        try:
            async with within(self._link.endpoint.rpc_timeout_s, "handing the dead letters back"):
                for hand in hands:
                    await hand.cancel()
                for hand in hands:
                    await hand.channel.close()
        except ConnectionLost as error:
            log.info("broker.close_failed", connection=self._link.name, detail=str(error))
            await self._link.drop()
        except BaseException:
            # Only the connection can still give them back: a channel whose close is given up may stay open.
            await self._link.drop()
            raise

    async def _channel(self, connection: AbstractConnection) -> AbstractChannel:
        async with within(self._link.endpoint.rpc_timeout_s, "opening a channel"):
            if connection.transport is None:
                raise ConnectionLost("the connection was closed")
            return await connection.transport.connection.channel(publisher_confirms=False)

    async def _facts(self, connection: AbstractConnection) -> _Facts | None:
        name, timeout_s = self._spec.name, self._link.endpoint.rpc_timeout_s
        async with within(timeout_s, f"queue {name!r}"):
            channel = await self._channel(connection)
            try:
                found = await channel.queue_declare(name, passive=True)
            except ChannelNotFoundEntity:
                return None
            # A passive declaration compares nothing; this one does, and changes nothing: the queue exists.
            try:
                await channel.queue_declare(name, durable=True, arguments={**self._spec.arguments})
            except (ChannelPreconditionFailed, ChannelAccessRefused):
                ours = False
            else:
                ours = True
                await channel.close()
        return _Facts(messages=found.message_count or 0, consumers=found.consumer_count or 0, ours=ours)


class _Visit:
    """What all channels of one look share."""

    def __init__(self, receive: Receive, *, limit: int | None) -> None:
        self.limit = limit
        self.taken = 0
        self.seen = 0
        self.worn = 0
        self.over = False
        self.failure: Exception | None = None
        self._enough = False
        self._receive = receive

    def show(self, letter: DeadLetter) -> None:
        self.taken += 1
        if self.over:
            return
        if self.limit is not None and letter.deliveries >= self.limit:
            self.over, self.worn = True, letter.deliveries
            return
        if not self._enough:
            self.seen += 1
            self._enough = not self._receive(letter)
        self.over = self._enough and not letter.delivery.redelivered


class _Hand:
    """One channel that takes up to ``capacity`` messages and holds them until it is closed."""

    def __init__(self, channel: AbstractChannel, visit: _Visit, *, capacity: int) -> None:
        self.channel = channel
        # aiormq hands out a new observer at each look and keeps none of them.
        self._closing: asyncio.Future[object] = channel.closing
        self._visit = visit
        self._capacity = capacity
        self._count = 0
        self._moved = asyncio.Event()
        self._consuming = False

    async def open(self, queue: str) -> None:
        await self.channel.basic_qos(prefetch_count=self._capacity)
        await self.channel.basic_consume(queue, self._take, consumer_tag="look")
        self._consuming = True

    async def cancel(self) -> None:
        """Take no more; what is held stays held. Twice is harmless."""
        if self._consuming:
            self._consuming = False
            await self.channel.basic_cancel("look")

    async def filled(self, quiet_s: float) -> bool:
        """Wait until nothing more is to come. False: nothing came although there was room, others have the rest.

        Raises ConnectionLost, and whatever the receiver raised.
        """
        self._closing.add_done_callback(lambda _: self._moved.set())
        while self._count < self._capacity and not self._visit.over:
            try:
                async with asyncio.timeout(quiet_s):
                    await self._moved.wait()
            except TimeoutError:
                return self._count > 0
            self._moved.clear()
            if self._closing.done():
                raise ConnectionLost("the channel was lost while looking; everything is back in the queue")
        if self._visit.failure is not None:
            raise self._visit.failure
        return True

    async def _take(self, message: DeliveredMessage) -> None:
        self._count += 1
        try:
            self._visit.show(read_dead_letter(_delivery(message)))
        except Exception as error:  # noqa: BLE001 - the library's task is the boundary; raised where it is waited for
            self._visit.failure, self._visit.over = error, True
        self._moved.set()


def _delivery(message: DeliveredMessage) -> Delivery:
    return Delivery(
        generation=0,
        tag=message.delivery_tag or 0,
        body=message.body,
        properties=properties_of(message.header.properties),
        exchange=message.exchange or "",
        routing_key=message.routing_key or "",
        redelivered=bool(message.redelivered),
    )
