"""A broker in memory: a queue, a prefetch, channel generations, redelivery, and what becomes of each message.

Intake and settler on it pass the same contract as the real ones (``tests/contract/test_intake_contract.py`` and
``test_settler_contract.py``). Times are those of the running loop, so they may be virtual.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from msgspec import structs

from tests.builders import NOW_US
from worker.core.errors import CopyFailed
from worker.core.headers import Copy, dead_copy, retry_copy
from worker.core.history import IndexedLetter
from worker.core.identity import identity
from worker.core.letterindex import placed
from worker.core.model import Ack, Dead, Delivery, Properties, Release, Retry, Settlement
from worker.core.returns import Survived
from worker.ports import Index, Sink

Effects = list[tuple[str, object]]
"""What happened in which order: ("sent", orders), ("journal", orders), ("copy", number), ("ack", number)."""


@dataclass(slots=True, eq=False, kw_only=True)
class Message:
    """A message in the queue. ``number`` counts the publishes; copies in retry tiers are messages of their own."""

    number: int
    body: bytes
    properties: Properties
    routing_key: str
    handed_over: int = 0


@dataclass(slots=True)
class Queue:
    """The work queue, and the books: ``acked`` and ``dead`` by number, wrong acknowledgements (must stay empty)."""

    effects: Effects = field(default_factory=list)
    ready: deque[Message] = field(default_factory=deque)
    unsettled: dict[tuple[int, int], Message] = field(default_factory=dict)
    acked: dict[int, Settlement] = field(default_factory=dict)
    dead: list[Copy] = field(default_factory=list)
    wrong_acks: list[tuple[int, int]] = field(default_factory=list)
    delayed: int = 0
    published: int = 0
    on_publish: Callable[[], object] = lambda: None
    reorder: Callable[[list[Message]], Iterable[Message]] = iter

    def publish(self, body: bytes, properties: Properties, routing_key: str = "") -> int:
        """Put a message at the end; its number."""
        self.published += 1
        self.ready.append(Message(number=self.published, body=body, properties=properties, routing_key=routing_key))
        self.on_publish()
        return self.published

    def publish_later(self, delay_s: float, copy: Copy, routing_key: str) -> None:
        """A retry tier: the copy is in the queue after the delay."""
        self.delayed += 1

        def arrive() -> None:
            self.delayed -= 1
            self.publish(copy.body, copy.properties, routing_key)

        asyncio.get_running_loop().call_later(delay_s, arrive)

    def hand_back(self, generation: int) -> None:
        """A channel is gone: what was unsettled is ready again, in front, in its order or another (``reorder``)."""
        tags = [key for key in self.unsettled if key[0] == generation]
        back = self.reorder([self.unsettled.pop(key) for key in tags])
        self.ready.extendleft(reversed(list(back)))

    @property
    def all_messages(self) -> list[Message]:
        """Ready or unsettled."""
        return [*self.ready, *self.unsettled.values()]

    @property
    def quiet(self) -> bool:
        """Nothing ready, unsettled or waiting in a tier."""
        return not self.ready and not self.unsettled and not self.delayed


class ModelIntake:
    """Implements ``ports.Intake``. A task keeps the channel open, as the real one does."""

    def __init__(self, queue: Queue, *, prefetch: int = 2000, reopen_s: float = 0.05) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.reopen_s = reopen_s
        self.generation = 0
        self.channel_open = False
        self.consuming = False
        self.releases = 0
        self.cancels = 0
        self.fault: BaseException | None = None
        self.slow: asyncio.Event | None = None
        self._tag = 0
        self._survived = Survived(2 * prefetch)
        self._opened_us = 0
        self._sink: Sink | None = None
        self._gone = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        queue.on_publish = self._pump_soon

    async def open(self, sink: Sink) -> None:
        await self._step()
        if self.slow is not None:
            await self.slow.wait()
        self._sink = sink
        if self.channel_open:
            self.consuming = True
            self._pump_soon()
        elif self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name="keep consuming")

    async def cancel(self) -> None:
        self.cancels += 1
        if not self.channel_open:
            await self._stop_keeper()
        await self._step()
        self.consuming = False

    async def release(self) -> None:
        self.releases += 1
        await self._stop_keeper()
        self._end()
        await self._step()

    def lose(self) -> None:
        """The connection breaks."""
        self._end()

    def holds(self, delivery: Delivery) -> bool:
        """Whether it can still be settled."""
        return self.channel_open and (delivery.generation, delivery.tag) in self.queue.unsettled

    def acknowledge(self, settlement: Settlement) -> None:
        """Like the broker: what is not open on the living channel is an error there."""
        key = settlement.delivery.generation, settlement.delivery.tag
        message = self.queue.unsettled.pop(key, None)
        if message is None or key[0] != self.generation or message.number in self.queue.acked:
            self.queue.wrong_acks.append(key)
            return
        self.queue.effects.append(("ack", message.number))
        self.queue.acked[message.number] = settlement
        self._pump_soon()

    async def _step(self) -> None:
        await asyncio.sleep(0)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self.reopen_s)
            self.generation, self._tag = self.generation + 1, 0
            self._opened_us = now_us()
            self._gone.clear()
            self.channel_open = self.consuming = True
            self._pump_soon()
            await self._gone.wait()

    async def _stop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    def _end(self) -> None:
        if not self.channel_open:
            return
        self.channel_open = self.consuming = False
        self._gone.set()
        self.queue.hand_back(self.generation)
        if self._sink is not None:
            self._sink.lost(self.generation)

    def _pump_soon(self) -> None:
        # Anybody may publish, inside a loop or outside.
        if self.consuming:
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        while self.consuming and self.queue.ready and len(self.queue.unsettled) < self.prefetch:
            message = self.queue.ready.popleft()
            self._tag += 1
            self.queue.unsettled[self.generation, self._tag] = message
            message.handed_over += 1
            assert self._sink is not None
            self._sink.deliver([self._delivery(message)])

    def _delivery(self, message: Message) -> Delivery:
        delivery = Delivery(
            generation=self.generation,
            tag=self._tag,
            body=message.body,
            properties=message.properties,
            exchange="order-updates",
            routing_key=message.routing_key,
            redelivered=message.handed_over > 1,
            arrived_us=now_us(),
            opened_us=self._opened_us,
            returns=message.handed_over - 1,
        )
        if delivery.returns:
            delivery.unexplained = self._survived.unexplained(identity(delivery), delivery.returns)
        return delivery


class ModelSettler:
    """Implements ``ports.Settler``. ``refuses`` says which copies cannot be placed now."""

    def __init__(self, intake: ModelIntake, *, delays_s: Sequence[float] = (5.0, 30.0), takes_s: float = 0.002) -> None:
        self.intake = intake
        self.delays_s = tuple(delays_s)
        self.takes_s = takes_s
        self.refuses: Callable[[Settlement], bool] = lambda _: False
        self.calls: list[Sequence[Settlement]] = []

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        self.calls.append(settlements)
        groups: dict[object, list[Settlement]] = {}
        for settlement in settlements:
            if not isinstance(settlement.disposition, Release) and self.intake.holds(settlement.delivery):
                update = settlement.update
                entry = settlement.delivery if update is None else (settlement.delivery.generation, update.order_id)
                groups.setdefault(entry, []).append(settlement)
        letters: list[IndexedLetter] = []
        failed = [failure for group in groups.values() if (failure := await self._place(group, letters))]
        if letters and index is not None:
            await index(letters)
        await asyncio.sleep(self.takes_s)
        for settlement in [each for group in groups.values() for each in group]:
            if self.intake.holds(settlement.delivery):
                self.intake.acknowledge(settlement)
        if failed:
            raise CopyFailed(failed[0])

    async def _place(self, group: list[Settlement], letters: list[IndexedLetter]) -> str:
        """Places the copies of one entry; cuts the group down to what may be acknowledged, and says what failed."""
        for index, settlement in enumerate(group):
            if isinstance(settlement.disposition, Ack):
                continue
            await asyncio.sleep(self.takes_s)
            if not self.intake.holds(settlement.delivery) or self.refuses(settlement):
                del group[index:]
                return "the broker refuses the copy"
            self._copy(settlement, letters)
        return ""

    def _copy(self, settlement: Settlement, letters: list[IndexedLetter]) -> None:
        queue, delivery = self.intake.queue, settlement.delivery
        queue.effects.append(("copy", queue.unsettled[delivery.generation, delivery.tag].number))
        match settlement.disposition:
            case Dead():
                copy, copy_id = dead_copy(settlement, now_us=now_us(), worker="test"), f"dead-{len(queue.dead) + 1}"
                named = structs.replace(copy.properties, message_id=copy_id)
                queue.dead.append(replace(copy, properties=named))
                letters.append(placed(settlement, copy, copy_id, queue="dead", now_us=now_us()))
            case Retry(tier=tier):
                copy = retry_copy(settlement, now_us=now_us(), worker="test")
                queue.publish_later(self.delays_s[min(tier, len(self.delays_s) - 1)], copy, delivery.routing_key)
            case Ack() | Release():
                raise AssertionError("these have no copy")


def now_us() -> int:
    """Wall clock: it goes with the loop's clock, virtual or not."""
    return NOW_US + round(asyncio.get_running_loop().time() * 1_000_000)
