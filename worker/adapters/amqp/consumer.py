"""The intake: keeps one channel consuming from the work queue, through every loss, until told otherwise.

    opening -> consuming -> cancelled        (cancel: the channel stays, for settling)
        \\          \\            \\
         `----------`------------`--> gone   (release, channel or connection lost, consumer cancelled by the broker)

Deliveries come by the fast lane where the connection has one (``lane.py``): many at a time, in the callback of the
transport. The ordinary lane is the aiormq channel below aio-pika, whose message object costs twice the time and nothing
here needs it. aiormq runs the callback as a task that it cancels when the channel goes, and a message whose callback
raises stays unsettled for ever. So on both lanes the callback stamps, converts and hands over, and neither waits nor
raises.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial

import structlog
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.deadline import root_cause, within
from worker.adapters.amqp.frames import Cut
from worker.adapters.amqp.generation import Company, Generation, Phase
from worker.adapters.amqp.width import Steps, Width
from worker.core.errors import BrokerRefused, ConnectionLost
from worker.core.identity import identity
from worker.core.model import Delivery, Settlement
from worker.core.partition import Partition, generation_number, standby_s
from worker.core.readiness import IntakeStatus
from worker.core.returns import Survived
from worker.ports import Sink, WallClock, wall_us
from worker.retrying import forever

log = structlog.get_logger(__name__)

ALONE_FROM = 5
"""Returns from which a delivery is handled alone: it may be what kills the process."""
STEADY_S = 10.0
"""A channel lost sooner than this counts as a failed try: the backoff goes on instead of starting anew."""


class Consumer:
    """Implements ``ports.Intake``, and acknowledges what it handed over.

    ``prefetch`` bounds the unsettled deliveries (per consumer: quorum queues refuse the global form; so for as long as
    the very first one is unsettled it is one more).

    A consumer starts with a prefetch of 1, and what came back ``alone_from`` times is handled alone (``width.py``).

    Where there are several ``partitions`` it consumes one of them, ``partition``, at the side of its ``company``.
    """

    def __init__(
        self,
        link: Link,
        *,
        queue: str,
        prefetch: int,
        alone_from: int = ALONE_FROM,
        partition: Partition | None = None,
        partitions: int = 1,
        company: Company | None = None,
        wall_us: WallClock = wall_us,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._link = link
        self._queue = queue
        self._partition = partition or Partition(number=0, queue=queue)
        self._partitions = partitions
        self._company = company or Company()
        self._standing_by = False
        self._wall_us = wall_us
        self._sink: Sink | None = None
        self._wanted = False
        self._current: Generation | None = None
        self._opened = 0
        self._keeper: asyncio.Task[None] | None = None
        self._consuming = asyncio.Event()
        self._answered = asyncio.Event()
        self._refusal: BrokerRefused | None = None
        self._turn = asyncio.Lock()
        self._survived = Survived(2 * prefetch)
        steps = Steps(
            turn=self._turn,
            listen=self._listen,
            deafen=self._deafen,
            consume=self._consume,
            hand_over=self._hand_over,
            end=self._end,
        )
        self._width = Width(steps, prefetch=prefetch, alone_from=alone_from)

    @property
    def status(self) -> IntakeStatus:
        """A snapshot of now."""
        current = self._current
        delivered = current.ledger.delivered_count if current is not None else 0
        return IntakeStatus(
            connected=self._link.connected,
            consuming=self._consuming.is_set() or self._standing_by,
            generation=self._opened,
            unsettled=current.ledger.open_count if current is not None else 0,
            delivered=delivered,
            serving=1 if delivered else 0,
            fast_lane=current is not None and current.lane is not None and not current.lane.fault,
        )

    async def wait_consuming(self) -> None:
        """Wait for the broker's consume-ok, unless it is others' turn to register. It may be lost again at any time.

        Raises BrokerRefused if the broker refuses us before it ever let us consume: at the start a person is there.
        """
        await self._answered.wait()
        if self._refusal is not None:
            raise self._refusal
        if not self._standing_by:
            await self._consuming.wait()

    # -- ports.Intake ---------------------------------------------------------------------------------------------

    async def open(self, sink: Sink) -> None:
        """Start to consume into ``sink`` and return at once; a task of ours keeps doing so. After ``cancel``: go on."""
        async with self._turn:
            self._sink = sink
            self._wanted = True
            current = self._current
            if current is not None and current.phase is Phase.CANCELLED:
                try:
                    await self._consume(current)
                except (ConnectionLost, BrokerRefused) as error:
                    self._end(current, str(error))
            if self._keeper is None or self._keeper.done():
                self._keeper = asyncio.create_task(self._keep(), name="keep consuming")

    async def cancel(self) -> None:
        """Stop the broker from handing over more; the channel stays. Returns when none can come any more."""
        async with self._turn:
            self._wanted = False
            current = self._current
            if current is not None and current.ledger.delivered_count:
                # On the fast lane a delivery is there before the library has read the consume-ok in front of it.
                await current.opened()
                current = self._current
            if current is None or current.phase is Phase.OPENING:
                await self._stop_keeper()
            elif current.phase is Phase.CONSUMING:
                await self._cancel(current)

    async def release(self) -> None:
        """Close the channel: everything unsettled goes back to the broker, and the sink hears ``lost``.

        The consumer is not cancelled first: with a single active consumer the next one would get newer messages while
        the older are still ours. So each release counts as a return, on RabbitMQ 4.3 too: a nack would not count there,
        but with a consumer it comes straight back.
        """
        async with self._turn:
            self._wanted = False
            await self._stop_keeper()

    async def rebuild(self) -> None:
        """Begin from scratch: no connection is kept, and everything unsettled goes back to the broker. Consumes again
        if it was meant to."""
        await self.halt()
        await self._link.close()
        await self.go_on()

    async def halt(self) -> None:
        """The first half of ``rebuild``: close the channel, and open none."""
        async with self._turn:
            await self._stop_keeper()

    async def go_on(self) -> None:
        """The second half: consume again if that is wanted."""
        async with self._turn:
            if self._wanted and self._keeper is None:
                self._keeper = asyncio.create_task(self._keep(), name="keep consuming")

    # -- settling -------------------------------------------------------------------------------------------------

    def holds(self, delivery: Delivery) -> bool:
        """Whether this delivery can still be settled: its channel lives, and it was not acknowledged yet."""
        current = self._current
        return current is not None and current.number == delivery.generation and current.ledger.is_open(delivery.tag)

    def still_held(self, settlements: Sequence[Settlement]) -> Sequence[Settlement]:
        """Those whose delivery can still be settled, in their order."""
        if (current := self._current) is None:
            return ()
        number, open_tags = current.number, current.ledger.open_tags
        return [each for each in settlements if each.delivery.tag in open_tags and each.delivery.generation == number]

    async def acknowledge(self, generation: int, groups: Sequence[Sequence[int]]) -> bool:
        """Acknowledge these tags, each group (one entry) oldest first. False: that channel is gone, nothing was done.

        True means written, not processed: AMQP does not confirm acks. A failure, or a cancellation half-way, ends the
        generation: its ledger and the broker may disagree, and then everything has to come again.
        """
        current = self._current
        if current is None or current.number != generation:
            self.counts["stale_acks"] += sum(map(len, groups))
            return False
        try:
            frames = await current.acknowledge(groups, timeout_s=self._link.endpoint.rpc_timeout_s)
        except ConnectionLost as error:
            self._end(current, str(error))
            self.counts["failed_acks"] += sum(map(len, groups))
            return False
        except asyncio.CancelledError:
            self._end(current, "an acknowledgement was cancelled half-way")
            raise
        self.counts["acked"] += sum(map(len, groups))
        self.counts["ack_frames"] += frames
        return True

    # -- keeping it alive -----------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        end = self._link.endpoint
        while self._wanted:
            async for attempt in forever(first_s=end.retry_first_s, cap_s=end.retry_cap_s, noticed=self._tell):
                with attempt:
                    await self._live()

    async def _live(self) -> None:
        """Open a channel, consume, and stay until it is gone. Raises where it did not come to that, or not for long."""
        if not self._partition.own:
            await self._stand_by()
        generation = await self._begin()
        try:
            await self._consume(generation)
            since = time.monotonic()
            await generation.gone.wait()
        finally:
            await self._finish(generation)
        if self._wanted and time.monotonic() - since < STEADY_S:
            raise ConnectionLost("the channel was lost soon after it was opened")

    async def _stand_by(self) -> None:
        """Let the worker whose partition it is be the first to register, where that decides who is active."""
        connection = await self._link.get()
        transport = connection.transport
        properties = transport.connection.server_properties if transport is not None else {}
        if delay_s := standby_s(self._partition, str(properties.get("version", ""))):
            self._standing_by = True
            self._answered.set()
            log.info("broker.standing_by", queue=self._queue, delay_s=delay_s)
            try:
                await asyncio.sleep(delay_s)
            finally:
                self._standing_by = False

    async def _begin(self) -> Generation:
        connection = await self._link.get()
        async with within(self._link.endpoint.rpc_timeout_s, "opening the consuming channel"):
            if connection.transport is None:
                raise ConnectionLost("the connection was closed")
            channel = await connection.transport.connection.channel(publisher_confirms=False)
        self._opened += 1
        number = generation_number(self._opened, self._partition.number, self._partitions)
        generation = Generation(number, channel, opened_us=self._wall_us(), company=self._company)
        generation.closing.add_done_callback(lambda future: self._end(generation, _why(future)))
        channel.on_consumer_cancel_callbacks.add(lambda _: self._end(generation, "the broker cancelled the consumer"))
        generation.lane = self._link.lane(connection)
        if generation.lane is not None:
            generation.lane.register(channel.number, partial(self._receive_cuts, generation))
        self._current = generation
        self._company.join(generation, partial(self._width.hush, generation))
        return generation

    async def _consume(self, generation: Generation) -> None:
        try:
            if not generation.alone:
                generation.wide = False
                await self._listen(generation, 1)
        except ConnectionLost as error:
            if isinstance(error.__cause__, ChannelAccessRefused):
                raise BrokerRefused(f"{error}: grant read permission on the queue") from error.__cause__
            raise
        if generation.phase is Phase.GONE:
            raise ConnectionLost("the channel closed while the consumer was registered")
        generation.phase = Phase.CONSUMING
        self._consuming.set()
        self._answered.set()
        lane = "ordinary" if generation.lane is None else "fast"
        log.info("broker.consuming", queue=self._queue, generation=generation.number, lane=lane)

    async def _listen(self, generation: Generation, prefetch: int) -> None:
        receive = partial(self._receive, generation)
        timeout_s, priority = self._link.endpoint.rpc_timeout_s, self._partition.priority
        await generation.listen(self._queue, prefetch, receive, timeout_s=timeout_s, priority=priority)

    async def _cancel(self, current: Generation) -> None:
        current.phase = Phase.CANCELLED
        self._consuming.clear()
        await self._deafen(current, current.consumer_tag)

    async def _deafen(self, current: Generation, consumer_tag: str) -> None:
        try:
            await current.deafen(consumer_tag, timeout_s=self._link.endpoint.rpc_timeout_s)
        except ConnectionLost as error:
            self._end(current, str(error))

    async def _finish(self, generation: Generation) -> None:
        if not generation.registered and not generation.channel.is_closed:
            # aiormq half-closes a channel whose request was given up. Deliveries that still come for it fill its queue,
            # and that blocks the reader of the whole connection: no other channel gets an answer any more.
            self._end(generation, "released before the consumer was registered")
            await self._link.drop()
            return
        self._end(generation, "released")
        try:
            async with within(self._link.endpoint.rpc_timeout_s, "closing the consuming channel"):
                await generation.channel.close()
        except ConnectionLost as error:
            # Then only the connection can give the messages back.
            log.info("broker.close_failed", connection=self._link.name, detail=str(error))
            await self._link.drop()
        except BaseException:
            # Released while it closes a channel that was lost: a close that is given up may not even be sent, and the
            # channel would keep its messages, and its place as the single active consumer.
            await self._link.drop()
            raise

    async def _stop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
            if not keeper.cancelled() and (error := keeper.exception()) is not None:
                log.error("broker.keeper_failed", error=type(error).__name__, detail=str(error))

    # -- callbacks of the library ---------------------------------------------------------------------------------

    async def _receive(self, generation: Generation, message: DeliveredMessage) -> None:
        if generation.phase is Phase.GONE or self._sink is None:
            return
        try:
            self._sort(generation, [generation.delivery(message, arrived_us=self._wall_us())])
        except Exception:
            self.counts["sink_failed"] += 1
            log.exception("broker.delivery_failed", generation=generation.number)

    def _receive_cuts(self, generation: Generation, cuts: Sequence[Cut]) -> None:
        if generation.phase is Phase.GONE or self._sink is None:
            return
        try:
            self._sort(generation, generation.deliveries(cuts, arrived_us=self._wall_us()))
        except Exception:
            self.counts["sink_failed"] += len(cuts)
            log.exception("broker.delivery_failed", generation=generation.number)

    def _sort(self, generation: Generation, deliveries: Sequence[Delivery]) -> None:
        returned = [delivery for delivery in deliveries if delivery.returns]
        for delivery in returned:
            delivery.unexplained = self._survived.unexplained(identity(delivery), delivery.returns)
        self._width.sort_all(generation, deliveries, calm=not returned)

    def _hand_over(self, generation: Generation, deliveries: Sequence[Delivery]) -> None:
        if self._sink is None:
            return
        try:
            self._sink.deliver(deliveries)
            self.counts["delivered"] += len(deliveries)
        except Exception:
            # The callback of the library is the boundary: these stay open, the next ones come.
            self.counts["sink_failed"] += len(deliveries)
            log.exception("broker.delivery_failed", generation=generation.number)

    def _end(self, generation: Generation, cause: str) -> None:
        """The channel is of no more use; tells the sink, once."""
        if generation.phase is Phase.GONE:
            return
        heard_of = generation.phase is not Phase.OPENING or generation.ledger.delivered_count > 0
        generation.phase = Phase.GONE
        generation.gone.set()
        if self._current is generation:
            self._current = None
            self._consuming.clear()
        if not heard_of or self._sink is None:
            return
        log.info(
            "broker.channel_gone", generation=generation.number, detail=cause, unsettled=generation.ledger.open_count
        )
        try:
            self._sink.lost(generation.number)
        except Exception:
            # A callback of the library: nobody above could handle it.
            log.exception("broker.delivery_failed", generation=generation.number)

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
