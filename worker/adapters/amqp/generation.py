"""One life of the consuming channel: its number, its ledger, and the moment it is gone.

A tag means something on the channel that delivered it only, so everything that is settled carries the number of its
generation, and what belongs to one that is gone is dropped: the broker hands it over again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum

from aiormq.abc import AbstractChannel, ChannelFrame, ConsumerCallback, DeliveredMessage
from pamqp.common import Arguments

from worker.adapters.amqp.deadline import within
from worker.adapters.amqp.deliveries import frame_of, of_cuts, of_message
from worker.adapters.amqp.framelayouts import ack_frame
from worker.adapters.amqp.frames import Cut
from worker.adapters.amqp.lane import Lane
from worker.core.acks import AckFrame, AckLedger
from worker.core.model import Delivery

HEEDED_AT_ONCE = 32
"""Acks that a channel of RabbitMQ hands on to a quorum queue before it waits for their effect (its fifo client)."""
REST_S = 0.25
"""What so many take to have their effect, many times over."""


class Phase(StrEnum):
    """What the broker's consumer of this channel is doing."""

    OPENING = "opening"
    CONSUMING = "consuming"
    CANCELLED = "cancelled"
    GONE = "gone"


class Generation:
    """A channel, what it delivered and what of that is open. Made by the consumer, one per channel.

    ``wide`` is whether its consumer has the whole prefetch, ``listening`` whether it has a consumer, ``alone`` whether
    it does without while the suspects set ``aside`` are handed over one by one. ``lane`` is the one it is registered
    with, None on the ordinary one.
    """

    def __init__(
        self, number: int, channel: AbstractChannel, *, opened_us: int, company: "Company | None" = None
    ) -> None:
        self.number = number
        self.channel = channel
        self.opened_us = opened_us
        self.ledger = AckLedger()
        self._phase = Phase.OPENING
        self.lane: Lane | None = None
        self.company = company or Company()
        self.wide = self.listening = self.alone = False
        self.aside: deque[Delivery] = deque()
        self.shifts: set[asyncio.Task[None]] = set()
        self.registered = True  # False where a request to consume, or to stop it, has no answer
        self.gone = asyncio.Event()
        self._consumers = 0
        self._changed = asyncio.Event()
        # aiormq hands out a new observer at each look and keeps none of them: this one has to live as long as we do.
        self.closing: asyncio.Future[object] = channel.closing
        self._writing = asyncio.Lock()
        self._wrote: deque[float] = deque(maxlen=HEEDED_AT_ONCE)
        if company is None:
            self.company.join(self, lambda: None)

    @property
    def phase(self) -> Phase:
        """What the broker's consumer is doing, as we want it."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        if phase is Phase.GONE:
            self.company.leave(self)
        self._stir()

    def _stir(self) -> None:
        self._changed.set()
        self.company.stir()

    def stir(self) -> None:
        """Something changed on a channel at its side."""
        self._changed.set()

    @property
    def consumer_tag(self) -> str:
        """The name of the current consumer."""
        return f"order-worker-{self.number}-{self._consumers}"

    def new_consumer_tag(self) -> str:
        """Never the same twice on a channel: RabbitMQ 3.10 closes the connection (INTERNAL_ERROR) where a tag comes
        again while a delivery of its first life is unsettled."""
        self._consumers += 1
        return self.consumer_tag

    async def opened(self) -> None:
        """Wait until it is known whether the first consumer was registered."""
        while self.phase is Phase.OPENING:
            self._changed.clear()
            await self._changed.wait()

    async def listen(
        self, queue: str, prefetch: int, receive: ConsumerCallback, *, timeout_s: float, priority: int | None = None
    ) -> None:
        """Register a consumer under a new name; an older one stays. Raises ConnectionLost."""
        arguments: Arguments = None if priority is None else {"x-priority": priority}
        async with within(timeout_s, f"consuming from {queue!r}"):
            await self.channel.basic_qos(prefetch_count=prefetch)
            self.registered = False
            tag = self.new_consumer_tag()
            await self.channel.basic_consume(queue, receive, consumer_tag=tag, arguments=arguments)
            self.registered = self.listening = True

    async def deafen(self, consumer_tag: str, *, timeout_s: float) -> None:
        """Cancel the consumer of this name, if there is one. Raises ConnectionLost."""
        if not self.listening:
            return
        self.listening = consumer_tag != self.consumer_tag
        # A request without an answer costs the channel: aiormq half-closes it (see ``Consumer._finish``).
        self.registered = False
        async with within(timeout_s, "cancelling the consumer"):
            await self.channel.basic_cancel(consumer_tag)
        self.registered = True
        self._stir()

    async def next_alone(self) -> Delivery | None:
        """The next one set aside, once nothing else is unsettled here or on a channel at its side. None when that holds
        and none is left on any of them, or the channel is gone."""
        while self.phase is not Phase.GONE:
            if self.phase is Phase.CONSUMING and self.company.silent:
                if self.aside:
                    return self.aside.popleft()
                if not self.company.has_suspects:
                    return None
            self._changed.clear()
            await self._changed.wait()
        return None

    async def acknowledge(self, groups: Sequence[Sequence[int]], *, timeout_s: float) -> int:
        """Plan and write the acks of these tags; the number of frames. Raises ConnectionLost.

        One plan at a time: the frames have to reach the broker in the order they were planned in, because a later
        multiple frame may cover what an earlier plan named.
        """
        async with within(timeout_s, "acknowledging"), self._writing:
            frames = self.ledger.plan(groups)
            await self._write(frames)
        self._stir()
        return len(frames)

    async def _write(self, frames: Sequence[AckFrame]) -> None:
        """One by one costs the library 60 us a frame. Where it is one that we know, those in the middle go as one
        piece; the first finds out whether the channel still takes any, the last waits until all are out."""
        if not frames:
            return
        *before, last = frames
        self._wrote.extend([asyncio.get_running_loop().time()] * min(len(frames), HEEDED_AT_ONCE))
        single, piece = (before[:1], before[1:]) if self.lane is not None else (before, [])
        for frame in single:
            await self.channel.basic_ack(frame.tag, frame.multiple, wait=False)
        if piece:
            payload = b"".join([ack_frame(self.channel.number, frame.tag, frame.multiple) for frame in piece])
            await self.channel.connection.write_queue.put(ChannelFrame(payload=payload, should_close=False))
        await self.channel.basic_ack(last.tag, last.multiple)

    async def rest(self) -> None:
        """Before the channel is closed: give the broker time to heed the acks that were written last.

        A quorum queue's channel hands on 32 of them at a time, the next when those took effect, and forgets the rest
        when it is closed; all of it would come again. There is no sign of it, so this waits, where they were that many.
        """
        if len(self._wrote) == HEEDED_AT_ONCE:
            await asyncio.sleep(max(0.0, self._wrote[0] + REST_S - asyncio.get_running_loop().time()))

    def delivery(self, message: DeliveredMessage, *, arrived_us: int) -> Delivery:
        """The message as the core sees it. Its tag is noted as open first: what fails from here on stays open."""
        self.ledger.delivered(frame_of(message)[1])
        return of_message(message, generation=self.number, arrived_us=arrived_us, opened_us=self.opened_us)

    def deliveries(self, cuts: Sequence[Cut], *, arrived_us: int) -> list[Delivery]:
        """The same for what came by the fast lane, many at a time."""
        self.ledger.delivered_many([cut[0] for cut in cuts])
        return of_cuts(cuts, generation=self.number, arrived_us=arrived_us, opened_us=self.opened_us)


class Company:
    """The channels of one worker, side by side: what kills the process takes down the deliveries of all of them.

    ``shared`` is whether there is more than one. Members come and go with their channels.
    """

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self._members: dict[Generation, Callable[[], None]] = {}

    def join(self, generation: Generation, hush: Callable[[], None]) -> None:
        """A channel was opened; ``hush`` makes it consume no more until all are done with their suspects."""
        alone = any(member.alone for member in self._members)
        self._members[generation] = hush
        if alone:
            hush()

    def leave(self, generation: Generation) -> None:
        """It is gone. Twice is harmless."""
        self._members.pop(generation, None)

    def hush(self, speaker: Generation) -> None:
        """One of them has to be alone with a suspect: the others are to be silent."""
        for member, hush in list(self._members.items()):
            if member is not speaker and not member.alone:
                hush()

    def stir(self) -> None:
        """Something changed on one of them; those that wait look again."""
        for member in self._members:
            member.stir()

    @property
    def open_count(self) -> int:
        """Deliveries that are not acknowledged."""
        return sum(member.ledger.open_count for member in self._members)

    @property
    def has_suspects(self) -> bool:
        """Whether anything is set aside."""
        return any(member.aside for member in self._members)

    @property
    def silent(self) -> bool:
        """Whether nothing is unsettled but what is set aside, and nothing can come."""
        return self.open_count == sum(len(member.aside) for member in self._members) and not any(
            member.listening or not member.registered for member in self._members
        )
