"""A dead-letter queue: taken by one person or tool at a time, or looked at, which leaves it as it is.

Who takes holds a lock: an exclusive queue named like the dead-letter queue with ``.lock`` behind it. The broker gives
it to one connection only and deletes it with that connection, so a tool that was killed or is cut off holds nothing,
and what it had taken is back by then. The broker needs a moment to notice that a connection is gone, so a lock that
somebody has is asked for again for ``LOCK_PATIENCE_S``: who breaks a look off and starts the next one must not be told
that it is taken. The broker does not say who has it: the journal does (``journalports.Holders``).

The price of taking is one of the queue's delivery limit (``x-delivery-count``) for what goes back, and a queue that
others declared may have a limit of 20, beyond which RabbitMQ drops. The limit cannot be read over AMQP, but a queue
that can be declared again with our arguments has our limit of a million (unless a policy lowers it). In any other one
the first message is taken alone, because it has been in every look, and a count of ``LIMIT_AT`` ends it. (That one
message then goes to the back; the order of a queue is worth less than its messages.)
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.deadline import within
from worker.adapters.amqp.taking import BrokerTaking, open_channel
from worker.adapters.amqp.topology import QueueSpec
from worker.core.deadletter import DeadLetter
from worker.core.errors import BrokerRefused, ConnectionLost, QueueHeld, QueueMissing, QueueWorn
from worker.core.history import Holder
from worker.core.times import format_time
from worker.journalports import Holders
from worker.ports import WallClock, wall_us
from worker.retrying import forever

LIMIT_AT = 15
"""Delivery count from which looking is refused; the default limit of RabbitMQ 4 is 20."""
LOCK_PATIENCE_S = 2.0
"""So long a lock that somebody has is asked for again."""
QUIET_S = 5.0
"""So long nothing more came: others took the rest."""
WINDOW = 1000
"""Messages in memory at a time."""

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
    """Implements ``ports.DeadLetters``. ``spec`` is how we would declare it; ``holders`` knows who has the lock."""

    def __init__(
        self,
        link: Link,
        spec: QueueSpec,
        *,
        holders: Holders | None = None,
        quiet_s: float = QUIET_S,
        wall_us: WallClock = wall_us,
    ) -> None:
        self._link = link
        self._spec = spec
        self._holders = holders
        self._quiet_s = quiet_s
        self._wall_us = wall_us

    @asynccontextmanager
    async def taking(self, holder: str, *, worn_too: bool = False) -> AsyncIterator[BrokerTaking]:
        """See ``ports.DeadLetters``. ``worn_too`` takes whatever the delivery counts are."""
        async with self._guarded() as connection:
            lock = await self._lock(connection, holder)
            facts = await self._facts(connection)
            taking = BrokerTaking(
                connection,
                self._spec.name,
                timeout_s=self._link.endpoint.rpc_timeout_s,
                there=facts.messages,
                consumers=facts.consumers,
                limit=None if facts.ours or worn_too else LIMIT_AT,
                quiet_s=self._quiet_s,
            )
            worn: QueueWorn | None = None
            try:
                yield taking
            except QueueWorn as error:
                worn = error
            await taking.hand_back(in_order=worn is None)
            await self._unlock(lock)
            if worn is not None:
                raise worn

    async def look(self, receive: Receive, *, holder: str, first: int = WINDOW, worn_too: bool = False) -> Look:
        """Show ``receive`` the dead letters that are there now, oldest first, until it says False.

        ``first`` are taken at first, as a guess of how many will be enough. Errors as ``taking``, but for QueueWorn,
        which is in the answer.
        """
        seen = worn = 0
        taking: BrokerTaking | None = None
        try:
            async with self.taking(holder, worn_too=worn_too) as taking:
                async for letter in _one_by_one(taking, first):
                    seen += 1
                    if not receive(letter):
                        break
        except QueueWorn as error:
            worn = error.deliveries
        if taking is None:
            raise ConnectionLost("nothing was taken")  # taking() says why
        return Look(there=taking.there, seen=seen, consumers=taking.consumers, worn=worn)

    async def size(self) -> int:
        """How many messages are ready in the queue; changes nothing. Raises QueueMissing, ConnectionLost."""
        async with self._guarded() as connection:
            return (await self._facts(connection)).messages

    # -- the lock -----------------------------------------------------------------------------------------------------

    async def _lock(self, connection: AbstractConnection, holder: str) -> AbstractChannel:
        name = self._spec.name
        enough = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(LOCK_PATIENCE_S, enough.set)
        try:
            asking = forever(first_s=0.05, cap_s=0.25, stop=enough, retry_on=(QueueHeld,))
            channel: AbstractChannel = await asking(self._declared_lock, connection)
        except QueueHeld:
            raise QueueHeld(
                f"{name!r} is taken by {await self._who()}: dead letters are taken by one at a time; wait until "
                "that is done, or end it (whatever it holds goes back to its place)"
            ) from None
        finally:
            timer.cancel()
        if self._holders is not None:
            await self._holders.hold(name, Holder(by=holder, since_us=self._wall_us()))
        return channel

    async def _declared_lock(self, connection: AbstractConnection) -> AbstractChannel:
        name = _lock_of(self._spec.name)
        async with within(self._link.endpoint.rpc_timeout_s, f"locking {self._spec.name!r}"):
            channel = await self._channel(connection)
            try:
                await channel.queue_declare(name, exclusive=True)
            except ChannelLockedResource:
                raise QueueHeld(f"{name!r} is somebody else's") from None
            except ChannelAccessRefused:
                raise BrokerRefused(
                    f"this user may not declare {name!r}, the lock of the queue: grant the permission to configure it"
                ) from None
        return channel

    async def _unlock(self, channel: AbstractChannel) -> None:
        async with within(self._link.endpoint.rpc_timeout_s, f"unlocking {self._spec.name!r}"):
            await channel.queue_delete(_lock_of(self._spec.name))
            await channel.close()

    async def _who(self) -> str:
        holder = None if self._holders is None else await self._holders.holder(self._spec.name)
        return "somebody else" if holder is None else f"{holder.by} (since {format_time(holder.since_us)})"

    # -- the connection -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[AbstractConnection]:
        """The connection; lost if anything goes wrong in between.

        A request that is given up costs its channel, closing one twice costs the connection, and a channel whose close
        is given up may stay open with what it holds: only the end of the connection gives that back.
        """
        connection = await self._link.get()
        try:
            yield connection
        except (QueueHeld, QueueWorn, BrokerRefused):
            raise
        except BaseException:
            await self._link.drop()
            raise

    async def _channel(self, connection: AbstractConnection) -> AbstractChannel:
        return await open_channel(connection, timeout_s=self._link.endpoint.rpc_timeout_s)

    async def _facts(self, connection: AbstractConnection) -> _Facts:
        name = self._spec.name
        async with within(self._link.endpoint.rpc_timeout_s, f"queue {name!r}"):
            channel = await self._channel(connection)
            try:
                found = await channel.queue_declare(name, passive=True)
            except ChannelNotFoundEntity:
                raise QueueMissing(f"there is no queue {name!r}") from None
            # A passive declaration compares nothing; this one does, and changes nothing: the queue exists.
            try:
                await channel.queue_declare(name, durable=True, arguments={**self._spec.arguments})
            except (ChannelPreconditionFailed, ChannelAccessRefused):
                ours = False
            else:
                ours = True
                await channel.close()
        return _Facts(messages=found.message_count or 0, consumers=found.consumer_count or 0, ours=ours)


def _lock_of(queue: str) -> str:
    return f"{queue}.lock"


async def _one_by_one(taking: BrokerTaking, first: int) -> AsyncIterator[DeadLetter]:
    """Letter by letter, in windows of ``first`` and then larger ones."""
    async for window in taking.windows(min(first, WINDOW)):
        for letter in window:
            yield letter
