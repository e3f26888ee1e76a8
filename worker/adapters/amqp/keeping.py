"""The life of the consuming channel: one after the other is opened, for as long as that is wanted.

    opening -> consuming -> cancelled        (cancel: the channel stays, for settling)
        \\          \\            \\
         `----------`------------`--> gone   (release, channel or connection lost, consumer cancelled by the broker)

What comes on it goes to ``receiving.py``; how much may come at a time is decided in ``width.py``.
"""

import asyncio
import time
from functools import partial

import structlog

from worker.adapters.amqp.connection import Link, close_channel
from worker.adapters.amqp.deadline import root_cause, within
from worker.adapters.amqp.declaring import is_hidden
from worker.adapters.amqp.generation import Company, Generation, Phase
from worker.adapters.amqp.receiving import Outlet, Receiving
from worker.adapters.amqp.width import Steps, Width
from worker.core.errors import BrokerRefused, ConnectionLost
from worker.core.partition import Partition, generation_number, standby_s
from worker.core.returns import Survived
from worker.ports import WallClock
from worker.retrying import forever

log = structlog.get_logger(__name__)

STEADY_S = 10.0
"""A channel lost sooner than this counts as a failed try: the backoff goes on instead of starting anew."""


class Keeper:
    """Keeps one channel consuming while ``wanted``, in a task of its own.

    Whoever changes what is registered at the broker holds ``turn`` meanwhile. ``current`` is the channel of now,
    ``opened`` counts them; ``standing_by`` is whether another worker is to be the first to register.
    """

    def __init__(
        self,
        link: Link,
        outlet: Outlet,
        *,
        queue: str,
        prefetch: int,
        alone_from: int,
        partition: Partition,
        partitions: int,
        company: Company,
        wall_us: WallClock,
    ) -> None:
        self.turn = asyncio.Lock()
        self.wanted = False
        self.current: Generation | None = None
        self.opened = 0
        self.standing_by = False
        self._link = link
        self._outlet = outlet
        self._queue = queue
        self._partition = partition
        self._partitions = partitions
        self._company = company
        self._wall_us = wall_us
        self._task: asyncio.Task[None] | None = None
        self._consuming = asyncio.Event()
        self._answered = asyncio.Event()
        self._refusal: BrokerRefused | None = None
        steps = Steps(
            turn=self.turn,
            listen=self._listen,
            deafen=self._deafen,
            consume=self.consume,
            hand_over=outlet.hand_over,
            end=self.end,
        )
        self._width = Width(steps, prefetch=prefetch, alone_from=alone_from)
        self._receiving = Receiving(outlet, self._width, survived=Survived(2 * prefetch), wall_us=wall_us)

    @property
    def consuming(self) -> bool:
        """Whether the broker let us consume, and the channel lives."""
        return self._consuming.is_set()

    async def wait_consuming(self) -> None:
        """See ``Consumer.wait_consuming``."""
        await self._answered.wait()
        if self._refusal is not None:
            raise self._refusal
        if not self.standing_by:
            await self._consuming.wait()

    # -- what it is told, by who has the turn -----------------------------------------------------------------------

    def start(self) -> None:
        """See to it that a task keeps a channel. Twice is harmless."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep(), name="keep consuming")

    async def stop(self) -> None:
        """End the task, and with it the channel. Without one it is harmless."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("broker.keeper_failed", error=type(error).__name__, detail=str(error))

    async def consume(self, generation: Generation) -> None:
        """Register the first consumer of this channel. Raises ConnectionLost; BrokerRefused where we may not read."""
        try:
            if not generation.alone:
                generation.wide = False
                await self._listen(generation, 1)
        except ConnectionLost as error:
            if is_hidden(error):
                raise BrokerRefused(f"{error}: grant read permission on the queue") from error.__cause__
            raise
        if generation.phase is Phase.GONE:
            raise ConnectionLost("the channel closed while the consumer was registered")
        generation.phase = Phase.CONSUMING
        self._consuming.set()
        self._answered.set()
        lane = "ordinary" if generation.lane is None else "fast"
        log.info("broker.consuming", queue=self._queue, generation=generation.number, lane=lane)

    async def cancel(self, current: Generation) -> None:
        """Deregister it; the channel stays."""
        current.phase = Phase.CANCELLED
        self._consuming.clear()
        await self._deafen(current, current.consumer_tag)

    def end(self, generation: Generation, cause: str) -> None:
        """The channel is of no more use; tells the sink, once."""
        if generation.phase is Phase.GONE:
            return
        heard_of = generation.phase is not Phase.OPENING or generation.ledger.delivered_count > 0
        generation.phase = Phase.GONE
        generation.gone.set()
        if self.current is generation:
            self.current = None
            self._consuming.clear()
        if heard_of:
            self._outlet.lost(generation, cause)

    # -- one channel after the other ----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        end = self._link.endpoint
        while self.wanted:
            async for attempt in forever(first_s=end.retry_first_s, cap_s=end.retry_cap_s, noticed=self._tell):
                with attempt:
                    await self._live()

    async def _live(self) -> None:
        """Open a channel, consume, and stay until it is gone. Raises where it did not come to that, or not for long."""
        if not self._partition.own:
            await self._stand_by()
        generation = await self._begin()
        try:
            await self.consume(generation)
            since = time.monotonic()
            await generation.gone.wait()
        finally:
            await self._finish(generation)
        if self.wanted and time.monotonic() - since < STEADY_S:
            raise ConnectionLost("the channel was lost soon after it was opened")

    async def _stand_by(self) -> None:
        """Let the worker whose partition it is be the first to register, where that decides who is active."""
        connection = await self._link.get()
        transport = connection.transport
        properties = transport.connection.server_properties if transport is not None else {}
        if delay_s := standby_s(self._partition, str(properties.get("version", ""))):
            self.standing_by = True
            self._answered.set()
            log.info("broker.standing_by", queue=self._queue, delay_s=delay_s)
            try:
                await asyncio.sleep(delay_s)
            finally:
                self.standing_by = False

    async def _begin(self) -> Generation:
        connection = await self._link.get()
        async with within(self._link.endpoint.rpc_timeout_s, "opening the consuming channel"):
            if connection.transport is None:
                raise ConnectionLost("the connection was closed")
            channel = await connection.transport.connection.channel(publisher_confirms=False)
        self.opened += 1
        number = generation_number(self.opened, self._partition.number, self._partitions)
        generation = Generation(number, channel, opened_us=self._wall_us(), company=self._company)
        generation.closing.add_done_callback(lambda future: self.end(generation, _why(future)))
        channel.on_consumer_cancel_callbacks.add(lambda _: self.end(generation, "the broker cancelled the consumer"))
        generation.lane = self._link.lane(connection)
        if generation.lane is not None:
            generation.lane.register(channel.number, partial(self._receiving.cuts, generation))
        self.current = generation
        self._company.join(generation, partial(self._width.hush, generation))
        return generation

    async def _listen(self, generation: Generation, prefetch: int) -> None:
        receive = partial(self._receiving.message, generation)
        timeout_s, priority = self._link.endpoint.rpc_timeout_s, self._partition.priority
        await generation.listen(self._queue, prefetch, receive, timeout_s=timeout_s, priority=priority)

    async def _deafen(self, current: Generation, consumer_tag: str) -> None:
        try:
            await current.deafen(consumer_tag, timeout_s=self._link.endpoint.rpc_timeout_s)
        except ConnectionLost as error:
            self.end(current, str(error))

    async def _finish(self, generation: Generation) -> None:
        if not generation.registered and not generation.channel.is_closed:
            # aiormq half-closes a channel whose request was given up. Deliveries that still come for it fill its queue,
            # and that blocks the reader of the whole connection: no other channel gets an answer any more.
            self.end(generation, "released before the consumer was registered")
            await self._link.drop()
            return
        self.end(generation, "released")
        await generation.rest()
        timeout_s = self._link.endpoint.rpc_timeout_s
        # Left open, it would keep its messages, and its place as the single active consumer.
        await close_channel(generation.channel, self._link, "closing the consuming channel", timeout_s=timeout_s)

    def _tell(self, error: Exception, attempt: int, wait_s: float) -> None:
        event = "broker.refused" if isinstance(error, BrokerRefused) else "broker.not_consuming"
        if isinstance(error, BrokerRefused) and not self._answered.is_set():
            self._refusal = error
            self._answered.set()
        kind = type(root_cause(error)).__name__
        log.warning(
            event, queue=self._queue, error=kind, detail=str(error), attempt=attempt, next_try_s=round(wait_s, 3)
        )


def _why(closing: "asyncio.Future[object]") -> str:
    error = None if closing.cancelled() else closing.exception()
    return f"{type(error).__name__}: {error}" if error is not None else "closed"
