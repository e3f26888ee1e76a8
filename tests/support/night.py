"""A bad night: an ordinary evening, an outage, poison, and orders that the platform refuses or is too busy for.

night = Night(world)
await night.evening()       # every order is applied
await night.outage()        # the platform is away: nothing is dead-lettered
await night.trouble()       # thousands of dead letters of four reasons, ordinary work in between
await night.dawn()          # the platform is well, and for many of these orders newer events are applied
night.platform_problems()   # at any time

Of each kind of trouble a third of the orders has newer values for all of their fields afterwards, a third only a newer
status, and a third none.
"""

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tests.support.deadworld import DeadWorld
from tests.support.nightbooks import Books, Event, Problems
from tests.support.orderbooks import FIELDS
from tests.support.world import WINDOW
from worker.core.model import Reason
from worker.core.terminal import STATUS
from worker.simulator.orders import Change, Values

SETTINGS = {"STORM_RATIO": "1", "MAX_ATTEMPTS": "2"}
PER_ORDER = 5
PER_BUSY_ORDER = 17
BUSY_AT_ONCE = 4
"""One more, and the worker takes it for an outage."""
CALM_AT_ONCE = 20
LONG_S = 150.0
POLL_S = 0.05
CALM, REFUSED, BUSY, DISPATCHED = 0, 1000, 2000, 3000
"""Orders of a kind are numbered from here on."""
UNSTAMPED = 5
"""Every so manyth refused order has events without a time of their own."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Size:
    """Orders of each kind, and poisonous events. Each troubled order gets ``PER_ORDER`` dead letters, busy
    ones ``PER_BUSY_ORDER``."""

    calm: int = 120
    refused: int = 180
    busy: int = 12
    dispatched: int = 120
    invalid: int = 600

    def orders(self, first: int) -> range:
        """The ids of one kind."""
        counts = {CALM: self.calm, REFUSED: self.refused, BUSY: self.busy, DISPATCHED: self.dispatched}
        return range(first + 1, first + 1 + counts[first])


@dataclass(slots=True)
class Night:
    """One night in one world, whose workers it does not start."""

    world: DeadWorld
    size: Size = field(default_factory=Size)
    books: Books = field(default_factory=Books)
    chance: random.Random = field(default_factory=lambda: random.Random(20261122))

    @property
    def history(self) -> Sequence[Change]:
        """What the platform wrote, in order."""
        return self.world.simulator.platform.orders.history

    # -- the story ----------------------------------------------------------------------------------------------------

    async def evening(self) -> None:
        """Two events for each order, all applied; those of one kind are dispatched."""
        first = [
            self._make(order_id, FIELDS) for kind in (CALM, REFUSED, BUSY, DISPATCHED) for order_id in self._of(kind)
        ]
        second = [self._make(event.order_id, FIELDS, over=event.order_id > DISPATCHED) for event in first]
        await self.publish(first)
        await self.publish(second)
        await self.until_right(healthy=True)

    async def outage(self) -> None:
        """Nobody answers at the platform's address while orders come in; it comes back, and they are applied."""
        calls = self.world.all_calls
        await self.world.fault(kind="refuse", standing=True)
        await self.publish([self._make(order_id) for order_id in self._of(CALM)])
        await self.world.until(lambda: any(worker.heard("platform.hold") for worker in self.world.workers))
        assert self.world.all_calls == calls
        await self.world.simulator.clear_faults()
        await self.until_right(healthy=True)

    async def trouble(self) -> None:
        """Everything that dies tonight, in any order of orders, and ordinary work until all of it is dead."""
        over = asyncio.Event()
        working = asyncio.create_task(self._work(over), name="ordinary work")
        try:
            self.world.set_options(rejected_orders=dict.fromkeys(self._of(REFUSED), "Invalid order"))
            await self._die(self._doomed())
            busy_ones = self._of(BUSY)
            for start in range(0, len(busy_ones), BUSY_AT_ONCE):
                busy = busy_ones[start : start + BUSY_AT_ONCE]
                self.world.set_options(busy_orders=dict.fromkeys(busy, -1))
                turns = [order_id for order_id in busy for _ in range(PER_BUSY_ORDER)]
                await self._die([self._make(order_id, reason=Reason.RETRIES_EXHAUSTED) for order_id in turns])
        finally:
            over.set()
            await working

    async def dawn(self) -> None:
        """The platform takes everything again. Newer events for some of the troubled orders."""
        self.world.set_options(rejected_orders={}, busy_orders={})
        await self.publish(
            self._make(order_id, names, over=kind == DISPATCHED)
            for kind in (REFUSED, BUSY, DISPATCHED)
            for order_id in self._of(kind)
            if (names := self._newer(order_id))
        )
        await self.until_right(healthy=True)

    async def whole(self) -> None:
        """From evening to dawn."""
        await self.evening()
        await self.outage()
        await self.trouble()
        await self.dawn()

    # -- its parts ----------------------------------------------------------------------------------------------------

    def _of(self, kind: int) -> range:
        return self.size.orders(kind)

    def _newer(self, order_id: int) -> Collection[str]:
        return (FIELDS, (STATUS,), ())[order_id % 3]

    def _make(
        self, order_id: int, names: Collection[str] | None = None, *, over: bool = False, reason: Reason | None = None
    ) -> Event:
        stamped = not (order_id % UNSTAMPED == 0 and REFUSED < order_id < BUSY)
        return self.books.make(order_id, names, over=over, reason=reason, stamped=stamped)

    def _doomed(self) -> list[Event]:
        """The events of one order in their sequence, the orders in any."""
        kinds = (
            (REFUSED, Reason.REJECTED, None),
            (DISPATCHED, Reason.TERMINAL_ORDER, (STATUS, "shipping_method")),
        )
        turns = [
            (order_id, reason, names)
            for first, reason, names in kinds
            for order_id in self._of(first)
            for _ in range(PER_ORDER)
        ]
        calm = self._of(CALM)
        turns += [(self.chance.choice(calm), Reason.INVALID_EVENT, None) for _ in range(self.size.invalid)]
        self.chance.shuffle(turns)
        return [self._make(order_id, names, reason=reason) for order_id, reason, names in turns]

    async def _die(self, events: Iterable[Event]) -> None:
        """Publish what dies, and wait until all of the night is dead."""
        await self.publish(events)
        async with asyncio.timeout(LONG_S):
            while await self.world.outside.ready(self.world.dead_queue) < len(self.books.dead):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def _work(self, over: asyncio.Event) -> None:
        """Ordinary events, so many at once, until that is over."""
        while not over.is_set():
            events = [self._make(order_id) for order_id in self.chance.sample(self._of(CALM), CALM_AT_ONCE)]
            await self.publish(events)
            await self.until_right([event.order_id for event in events], healthy=True)

    async def publish(self, events: Iterable[Event]) -> None:
        """As producers do, confirmed, in this sequence."""
        waiting = list(events)
        for first in range(0, len(waiting), WINDOW):
            await asyncio.gather(*map(self._publish, waiting[first : first + WINDOW]))

    async def _publish(self, event: Event) -> None:
        await self.world.publish_raw(event.body, str(event.order_id), message_id=event.message_id)

    # -- judging ------------------------------------------------------------------------------------------------------

    def shown(self, order_ids: Iterable[int] | None = None) -> dict[int, Values]:
        """What the platform shows of these orders (None: of all)."""
        orders = self.world.simulator.platform.orders
        return {order_id: orders.get(order_id) for order_id in (order_ids or self.books.order_ids)}

    async def until_right(self, order_ids: Iterable[int] | None = None, *, healthy: bool = False) -> None:
        """Wait until the platform shows the greatest versions; ``healthy``: of those that did not die."""
        ids = order_ids if order_ids is None else list(order_ids)
        await self.world.until(lambda: not self.books.wrong(self.shown(ids), healthy=healthy), deadline_s=LONG_S)

    def platform_problems(self, *, since: int = 0) -> Problems:
        """What is wrong with the orders now, or went wrong from change number ``since`` on."""
        found = {
            "not at its greatest version": self.books.wrong(self.shown()),
            "went backwards": self.books.backwards(self.history, since),
            "repeated with effect": self.books.repeated(self.history, since),
        }
        return {kind: cases for kind, cases in found.items() if cases}
