"""Dead letters, taken in windows and held until the end.

AMQP has no reading without taking. So messages are taken with manual acknowledgement and held; what is not acknowledged
goes back when its channel closes, whatever happens to this process. Each window has a channel of its own with a
prefetch of what the window may hold, so no more bodies are in memory than that, and no channel holds more than AMQP can
say.

Acknowledgements have no answer, and a quorum queue's channel keeps those beyond the 32nd under way to itself and
forgets them when it closes: the messages come back (seen on 3.10 and 4.3). So they go in a transaction, which is one
command to the queue, and answered.

A quorum queue keeps what was returned in front of what was never handed out, and puts what returns now *behind* what
returned earlier. So the order stays only if everything that was ever returned is held together: a taking that has
enough goes on to the first message that was never handed out, and stops there. And it stays only if the channels close
one after the other, each when the queue knows of the one before, which it hears of behind the broker's answer: what one
consumer held returns oldest first, but several consumers of one channel, or more than 32 messages handed back by name,
return in any order (seen on 3.10).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage

from worker.adapters.amqp.deadline import within
from worker.adapters.amqp.deliveries import known_properties
from worker.core.deadletter import DeadLetter, read_dead_letter
from worker.core.errors import ConnectionLost, QueueWorn
from worker.core.model import Delivery

MOST_PER_CHANNEL = 65_535
"""The largest prefetch that AMQP can say."""
WINDOWS = 1000
"""At most: RabbitMQ allows 2,047 channels on a connection by default. A longer queue is taken in larger windows."""
RETURNING = 1000
"""Messages in a window of which nothing is wanted but that they go back in order."""
NOTICED_S = 1.0
"""Until a queue knows of a channel that closed: 5 ms at most were seen. Only the order depends on it."""
_POLL_S = 0.005


class BrokerTaking:
    """Implements ``ports.Taking``. ``there`` messages were ready when it began, ``consumers`` of others are at the
    queue; ``quiet_s`` without another message means that they have the rest. From a delivery count of ``limit`` on
    nothing is taken. Each request to the broker may take ``timeout_s``.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        queue: str,
        *,
        timeout_s: float,
        there: int,
        consumers: int,
        limit: int | None,
        quiet_s: float,
    ) -> None:
        self.there = there
        self.consumers = consumers
        self._connection = connection
        self._timeout_s = timeout_s
        self._queue = queue
        self._limit = limit
        self._quiet_s = quiet_s
        self._windows: dict[int, _Window] = {}
        self._opened = 0
        self._taken = 0
        self._over = False
        self._fresh = False
        self._asking: AbstractChannel | None = None

    @property
    def complete(self) -> bool:
        """See ``ports.Taking``."""
        return self._taken >= self.there and not self.consumers

    async def windows(self, most: int) -> AsyncIterator[Sequence[DeadLetter]]:
        """See ``ports.Taking``. Raises QueueWorn, too."""
        while letters := await self._take(most):
            self._check(letters)
            yield letters

    async def remove(self, letters: Sequence[DeadLetter]) -> None:
        """See ``ports.Taking``."""
        tags: dict[int, list[int]] = {}
        for letter in letters:
            tags.setdefault(letter.delivery.generation, []).append(letter.delivery.tag)
        for number, some in tags.items():
            window = self._windows[number]
            async with within(self._timeout_s, "acknowledging dead letters"):
                await window.remove(some)
                if not window.held:
                    del self._windows[number]
                    await window.close()

    async def hand_back(self, *, in_order: bool = True) -> None:
        """Return what was not removed. Raises ConnectionLost; then it is returned as well."""
        while in_order and self._taken and not self._fresh and await self._take(RETURNING):
            pass
        ready = await self._ready() if in_order and len(self._windows) > 1 else None
        for window in self._windows.values():
            async with within(self._timeout_s, "handing the dead letters back"):
                await window.close()
            if ready is not None:
                ready += window.held
                await self._until_ready(ready)
        if self._asking is not None:
            await self._asking.close()

    async def _until_ready(self, count: int) -> None:
        """Wait until the queue knows of what went back. Not for long: another program may have taken it again.

        By the clock: aiormq closes a channel whose request is cancelled.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + NOTICED_S
        while await self._ready() < count and clock() < until:  # noqa: ASYNC110 - only the broker knows
            await asyncio.sleep(_POLL_S)

    async def _ready(self) -> int:
        async with within(self._timeout_s, "asking for the length of the queue"):
            if self._asking is None:
                self._asking = await open_channel(self._connection, timeout_s=self._timeout_s)
            declared = await self._asking.queue_declare(self._queue, passive=True)
        return declared.message_count or 0

    async def _take(self, most: int) -> list[DeadLetter]:
        """The next letters; none at the end."""
        most = max(most, self.there // WINDOWS)
        if self._limit is not None and not self._taken:
            most = 1  # the first has been in every look
        wanted = min(most, self.there - self._taken, MOST_PER_CHANNEL)
        if wanted <= 0 or self._over:
            return []
        window = _Window(await open_channel(self._connection, timeout_s=self._timeout_s), number=self._opened)
        self._windows[self._opened] = window
        self._opened += 1
        letters = await window.fill(self._queue, wanted, timeout_s=self._timeout_s, quiet_s=self._quiet_s)
        self._taken += len(letters)
        self._over = not letters
        self._fresh = any(not letter.delivery.redelivered for letter in letters)
        return letters

    def _check(self, letters: Sequence[DeadLetter]) -> None:
        most = max(letter.deliveries for letter in letters)
        if self._limit is not None and most >= self._limit:
            raise QueueWorn(f"a message of {self._queue!r} was handed out {most} times before", deliveries=most)


class _Window:
    """One channel, and ``held`` messages of it that are not acknowledged."""

    def __init__(self, channel: AbstractChannel, *, number: int) -> None:
        self.held = 0
        self._channel = channel
        # aiormq hands out a new observer at each look and keeps none of them.
        self._closing: asyncio.Future[object] = channel.closing
        self._closing.add_done_callback(lambda _: self._moved.set())
        self._number = number
        self._moved = asyncio.Event()
        self._messages: list[DeliveredMessage] = []

    async def fill(self, queue: str, most: int, *, timeout_s: float, quiet_s: float) -> list[DeadLetter]:
        """Take ``most`` messages, or as many as there are. To be called once."""
        async with within(timeout_s, f"consuming from {queue!r}"):
            await self._channel.tx_select()
            await self._channel.basic_qos(prefetch_count=most)
            await self._channel.basic_consume(queue, self._receive, consumer_tag="window")
        await self._filled(most, quiet_s)
        # From here on nobody of us consumes: what returns must not be handed out again.
        async with within(timeout_s, "cancelling the consumer"):
            await self._channel.basic_cancel("window")
        messages, self._messages = self._messages, []
        self.held = len(messages)
        return [read_dead_letter(self._delivery(message)) for message in messages]

    async def remove(self, tags: Sequence[int]) -> None:
        """Acknowledge, all or none."""
        for tag in tags:
            await self._channel.basic_ack(tag, wait=False)
        await self._channel.tx_commit()
        self.held -= len(tags)

    async def close(self) -> None:
        await self._channel.close()

    async def _filled(self, most: int, quiet_s: float) -> None:
        while len(self._messages) < most:
            try:
                async with asyncio.timeout(quiet_s):
                    await self._moved.wait()
            except TimeoutError:
                return
            self._moved.clear()
            if self._closing.done():
                raise ConnectionLost("the channel was lost while looking; everything is back in the queue")

    async def _receive(self, message: DeliveredMessage) -> None:
        self._messages.append(message)
        self._moved.set()

    def _delivery(self, message: DeliveredMessage) -> Delivery:
        return Delivery(
            generation=self._number,
            tag=message.delivery_tag or 0,
            body=message.body,
            properties=known_properties(message.header.properties),
            exchange=message.exchange or "",
            routing_key=message.routing_key or "",
            redelivered=bool(message.redelivered),
        )


async def open_channel(connection: AbstractConnection, *, timeout_s: float) -> AbstractChannel:
    """A bare channel. Raises ConnectionLost."""
    async with within(timeout_s, "opening a channel"):
        if connection.transport is None:
            raise ConnectionLost("the connection was closed")
        return await connection.transport.connection.channel(publisher_confirms=False)
