"""How much a consumer takes at a time: narrow at the start, wide on good days, nothing while suspects are handled.

    narrow (prefetch 1) --first delivery that did not come back often--> wide (the whole prefetch)
       ^                                                                    |  one that did is set aside
       `--- all settled --- alone (no consumer; one at a time from aside) <-'

A message that kills the process takes part of the delivery limit of everything in its prefetch with it. So one that
came back often is handled with nothing else unsettled. A prefetch cannot be changed (RabbitMQ applies a new one to new
consumers only), so a second consumer replaces the first. With a single active consumer and a second replica that hands
the queue over to the replica, which then does the same: after one round every replica is wide.

A process with several partitions dies with the deliveries of all of them: while one of its channels is alone, the
others are without consumer, too, and all begin narrow again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

import structlog

from worker.adapters.amqp.generation import Generation, Phase
from worker.core.errors import BrokerRefused, ConnectionLost
from worker.core.model import Delivery

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """What the consumer lends: ``turn`` is held by whoever changes what is registered at the broker.

    ``listen`` registers a consumer with a prefetch and raises ConnectionLost; ``deafen`` cancels one by name and ends
    the generation where that fails; ``consume`` starts anew.
    """

    turn: asyncio.Lock
    listen: Callable[[Generation, int], Awaitable[None]]
    deafen: Callable[[Generation, str], Awaitable[None]]
    consume: Callable[[Generation], Awaitable[None]]
    hand_over: Callable[[Generation, Sequence[Delivery]], None]
    end: Callable[[Generation, str], None]


class Width:
    """Decides for every delivery whether it may be handed over now. ``alone_from`` counts returns."""

    def __init__(self, steps: Steps, *, prefetch: int, alone_from: int) -> None:
        self._steps = steps
        self._prefetch = prefetch
        self._alone_from = alone_from

    def sort_all(self, generation: Generation, deliveries: Sequence[Delivery], *, calm: bool) -> None:
        """Hand over or set aside what came together; at once where they are ``calm``: none of them came back."""
        if calm and generation.wide:
            self._steps.hand_over(generation, deliveries)
            return
        for delivery in deliveries:
            self.sort(generation, delivery)

    def sort(self, generation: Generation, delivery: Delivery) -> None:
        """Hand over or set aside, and start what follows from it."""
        suspect = delivery.unexplained >= self._alone_from
        if suspect and (generation.wide or generation.company.shared or generation.ledger.open_count > 1):
            self._set_aside(generation, delivery)
            return
        if not suspect and not generation.wide and self._prefetch > 1:
            generation.wide = True
            self._start(generation, self._widen(generation), "widen the consumer")
        self._steps.hand_over(generation, (delivery,))

    def _set_aside(self, generation: Generation, delivery: Delivery) -> None:
        generation.aside.append(delivery)
        if not generation.alone:
            generation.alone = True
            log.warning(
                "broker.narrowed",
                generation=generation.number,
                returns=delivery.unexplained,
                unsettled=generation.ledger.open_count,
            )
            self._start(generation, self._go_alone(generation), "hand over one by one")
            generation.company.hush(generation)

    def hush(self, generation: Generation) -> None:
        """Consume nothing while another channel is alone."""
        generation.alone = True
        self._start(generation, self._go_alone(generation), "leave another one alone")

    async def _widen(self, generation: Generation) -> None:
        """A consumer with the whole prefetch takes over. It is registered first, so that there always is one."""
        started = time.monotonic()
        await generation.opened()
        async with self._steps.turn:
            if generation.phase is not Phase.CONSUMING or generation.alone:
                return
            generation.wide, narrow = True, generation.consumer_tag
            try:
                await self._steps.listen(generation, self._prefetch)
            except ConnectionLost as error:
                self._steps.end(generation, str(error))
                return
            await self._steps.deafen(generation, narrow)
        took_s = round(time.monotonic() - started, 4)
        log.debug("broker.widened", generation=generation.number, prefetch=self._prefetch, took_s=took_s)

    async def _go_alone(self, generation: Generation) -> None:
        """Hand over what was set aside, one by one, each when all the rest is settled; then start narrow again.

        Without anything set aside: wait until nobody has anything."""
        await generation.opened()
        async with self._steps.turn:
            await self._steps.deafen(generation, generation.consumer_tag)
        while (delivery := await generation.next_alone()) is not None:
            self._steps.hand_over(generation, (delivery,))
        async with self._steps.turn:
            generation.alone = False
            if generation.phase is Phase.CONSUMING:
                try:
                    await self._steps.consume(generation)
                except (ConnectionLost, BrokerRefused) as error:
                    self._steps.end(generation, str(error))

    def _start(self, generation: Generation, work: Coroutine[object, object, None], name: str) -> None:
        """In a task of its own: the library's callback must not wait. It ends by itself when the generation does."""
        task = asyncio.create_task(work, name=name)
        generation.shifts.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            generation.shifts.discard(task)
            if task.cancelled():
                # Half a shift leaves a channel that nobody consumes on, or that nobody hands over from.
                self._steps.end(generation, f"cancelled: {name}")

        task.add_done_callback(ended)
