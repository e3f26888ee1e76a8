"""The intake: consumes from the work queue through every loss, until told otherwise, and acknowledges what came.

``keeping.py`` keeps the channel, ``receiving.py`` takes what comes on it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.generation import Company, Generation, Phase
from worker.adapters.amqp.keeping import Keeper
from worker.adapters.amqp.receiving import Outlet
from worker.core.errors import BrokerRefused, ConnectionLost
from worker.core.model import Delivery, Settlement
from worker.core.partition import Partition
from worker.core.readiness import IntakeStatus
from worker.ports import Sink, WallClock, wall_us

ALONE_FROM = 5
"""Returns from which a delivery is handled alone: it may be what kills the process."""


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
        self._outlet = Outlet(self.counts)
        self._keeper = Keeper(
            link,
            self._outlet,
            queue=queue,
            prefetch=prefetch,
            alone_from=alone_from,
            partition=partition or Partition(number=0, queue=queue),
            partitions=partitions,
            company=company or Company(),
            wall_us=wall_us,
        )

    @property
    def status(self) -> IntakeStatus:
        """A snapshot of now."""
        keeper, current = self._keeper, self._keeper.current
        delivered = current.ledger.delivered_count if current is not None else 0
        return IntakeStatus(
            connected=self._link.connected,
            consuming=keeper.consuming or keeper.standing_by,
            generation=keeper.opened,
            unsettled=current.ledger.open_count if current is not None else 0,
            delivered=delivered,
            serving=1 if delivered else 0,
            fast_lane=current is not None and current.lane is not None and not current.lane.fault,
        )

    async def wait_consuming(self) -> None:
        """Wait for the broker's consume-ok, unless it is others' turn to register. It may be lost again at any time.

        Raises BrokerRefused if the broker refuses us before it ever let us consume: at the start a person is there.
        """
        await self._keeper.wait_consuming()

    # -- ports.Intake ---------------------------------------------------------------------------------------------

    async def open(self, sink: Sink) -> None:
        """Start to consume into ``sink`` and return at once; a task of ours keeps doing so. After ``cancel``: go on."""
        keeper = self._keeper
        async with keeper.turn:
            self._outlet.sink = sink
            keeper.wanted = True
            current = keeper.current
            if current is not None and current.phase is Phase.CANCELLED:
                try:
                    await keeper.consume(current)
                except (ConnectionLost, BrokerRefused) as error:
                    keeper.end(current, str(error))
            keeper.start()

    async def cancel(self) -> None:
        """Stop the broker from handing over more; the channel stays. Returns when none can come any more."""
        keeper = self._keeper
        async with keeper.turn:
            keeper.wanted = False
            current = keeper.current
            if current is not None and current.ledger.delivered_count:
                # On the fast lane a delivery is there before the library has read the consume-ok in front of it.
                await current.opened()
                current = keeper.current
            if current is None or current.phase is Phase.OPENING:
                await keeper.stop()
            elif current.phase is Phase.CONSUMING:
                await keeper.cancel(current)

    async def release(self) -> None:
        """Close the channel: everything unsettled goes back to the broker, and the sink hears ``lost``.

        The consumer is not cancelled first: with a single active consumer the next one would get newer messages while
        the older are still ours. So each release counts as a return, on RabbitMQ 4.3 too: a nack would not count there,
        but with a consumer it comes straight back.
        """
        async with self._keeper.turn:
            self._keeper.wanted = False
            await self._keeper.stop()

    async def rebuild(self) -> None:
        """Begin from scratch: no connection is kept, and everything unsettled goes back to the broker. Consumes again
        if it was meant to."""
        await self.halt()
        await self._link.close()
        await self.go_on()

    async def halt(self) -> None:
        """The first half of ``rebuild``: close the channel, and open none."""
        async with self._keeper.turn:
            await self._keeper.stop()

    async def go_on(self) -> None:
        """The second half: consume again if that is wanted."""
        async with self._keeper.turn:
            if self._keeper.wanted:
                self._keeper.start()

    # -- settling -------------------------------------------------------------------------------------------------

    @property
    def _current(self) -> Generation | None:
        return self._keeper.current

    def holds(self, delivery: Delivery) -> bool:
        """Whether this delivery can still be settled: its channel lives, and it was not acknowledged yet."""
        current = self._current
        return current is not None and current.number == delivery.generation and current.ledger.is_open(delivery.tag)

    def still_held(self, settlements: Iterable[Settlement]) -> Sequence[Settlement]:
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
            self._keeper.end(current, str(error))
            self.counts["failed_acks"] += sum(map(len, groups))
            return False
        except asyncio.CancelledError:
            self._keeper.end(current, "an acknowledgement was cancelled half-way")
            raise
        self.counts["acked"] += sum(map(len, groups))
        self.counts["ack_frames"] += frames
        return True
