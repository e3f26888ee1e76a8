"""The platform's side, in memory: calls that take time, answers that can be scripted, tokens, and a journal that tells
when it was written."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.pipeline.modelbroker import Effects
from tests.support.modelplatform import ModelPlatform, rest_error
from worker.adapters.journal.memory import MemoryJournal
from worker.core.errors import JournalUnavailable
from worker.core.fields import INT64_MIN
from worker.core.history import IndexedLetter, Pause
from worker.core.journal import BatchRecord, Claim, OrderRow
from worker.core.model import Fields, Scalar
from worker.core.report import CallReport, NoAnswer, NotSent, Reply

CALL_TIMEOUT_S = 15.0

AWAY = NotSent(cause="connection refused")
LOST = NoAnswer(cause="reset by peer")
BUSY = Reply(status=503, payload=None, readable=False, excerpt="busy")
FORBIDDEN = rest_error("you may not", status=403)


@dataclass(slots=True, kw_only=True)
class SentCall:
    """One call as the platform saw it. ``ended`` is None while it is in flight; times of the loop."""

    began: float
    orders: Mapping[int, Fields]
    token: str
    ended: float | None = None

    @property
    def is_control(self) -> bool:
        return not self.orders


class FakePlatform:
    """Implements ``ports.Platform``: half the latency, do it, the other half, answer.

    ``script`` holds the answers of the next calls (the model's own where it says None), then ``down`` is the answer to
    all of them while it is set, ``orders_down`` to all but control calls. Scripted calls change nothing, except that
    LOST ones are done before they get lost.
    """

    def __init__(self, effects: Effects, model: ModelPlatform | None = None) -> None:
        self.model = model or ModelPlatform()
        self.latency_s = 0.05
        self.script: deque[CallReport | None] = deque()
        self.down: CallReport | None = None
        self.orders_down: CallReport | None = None
        self.hangs = False
        self.empty_fails = False
        self.held: dict[int, asyncio.Event] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.good_tokens: Callable[[str], bool] = lambda _token: True
        self.calls: list[SentCall] = []
        self.most_at_once = 0
        self.doubled: list[int] = []
        self.fault: BaseException | None = None
        self._effects = effects

    async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
        requested = {_id_of(order): {k: v for k, v in order.items() if k != "id"} for order in orders}
        call = SentCall(began=_now(), orders=requested, token=token)
        running = [each for each in self.calls if each.ended is None]
        self.doubled += [order_id for each in running for order_id in each.orders if order_id in requested]
        self.calls.append(call)
        self.most_at_once = max(self.most_at_once, len(running) + 1)
        self._effects.append(("sent", sorted(requested)))
        try:
            return await self._answer(requested, token)
        finally:
            call.ended = _now()

    async def _answer(self, requested: Mapping[int, Fields], token: str) -> CallReport:
        scripted = self.script.popleft() if self.script else self.down
        if self.hangs:
            await asyncio.sleep(CALL_TIMEOUT_S)
            return NoAnswer(cause="timeout")
        await asyncio.sleep(self.latency_s / 2)
        await self.gate.wait()
        for order_id in self.held.keys() & requested.keys():
            await self.held[order_id].wait()
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        if not self.good_tokens(token):
            return rest_error("invalid token", status=401)
        if self.empty_fails and not requested:
            return Reply(status=500, payload=None, readable=False, excerpt="index out of range")
        if requested and self.orders_down is not None:
            return self.orders_down
        if scripted is not None and scripted is not LOST:
            return scripted
        answer = self.model(requested)
        await asyncio.sleep(self.latency_s / 2)
        return scripted or answer

    def hold(self, *order_ids: int) -> asyncio.Event:
        """Calls with one of these orders wait for the event, before they are done."""
        let_go = asyncio.Event()
        self.held.update(dict.fromkeys(order_ids, let_go))
        return let_go

    @property
    def sent(self) -> list[list[int]]:
        """The orders of each call, control calls left out."""
        return [sorted(call.orders) for call in self.calls if call.orders]

    @property
    def values(self) -> Mapping[int, Mapping[str, Scalar]]:
        """What it holds."""
        return self.model.values


class FakeTokens:
    """Implements ``ports.TokenSource``: t1, t2 ... after each invalidation. ``failure`` is raised while it is set."""

    def __init__(self) -> None:
        self.number = 1
        self.asked = 0
        self.invalidated: list[str] = []
        self.failure: Exception | None = None

    async def token(self) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return f"t{self.number}"

    def invalidate(self, token: str) -> None:
        self.invalidated.append(token)
        if token == f"t{self.number}":
            self.number += 1


class WatchedJournal(MemoryJournal):
    """The memory journal, taking its time and telling what it wrote."""

    def __init__(self, effects: Effects, takes_s: float = 0.001) -> None:
        super().__init__()
        self._effects = effects
        self._takes_s = takes_s
        self.fault: BaseException | None = None
        self.away = False
        self.looks = 0
        self.horizon = INT64_MIN

    async def claim(self, order_ids: Collection[int], *, wall_us: int) -> Mapping[int, OrderRow]:
        await self._answer()
        return await super().claim(order_ids, wall_us=wall_us)

    async def record(self, record: BatchRecord) -> Mapping[int, Claim | None]:
        await self._answer()
        if self.fault is not None:
            raise self.fault
        moved = await super().record(record)
        if applied := sorted(order_id for order_id, outcome in record.orders.items() if outcome.applied):
            self._effects.append(("journal", applied))
        return moved

    async def add(self, letters: Sequence[IndexedLetter]) -> None:
        await self._answer()
        await super().add(letters)
        self._effects.append(("index", len(letters)))

    async def pause(self, pause: Pause) -> None:
        await self._answer()
        await super().pause(pause)

    async def resume(self, queue: str) -> bool:
        await self._answer()
        return await super().resume(queue)

    async def pauses(self, queue: str) -> Sequence[Pause]:
        await self._answer()
        self.looks += 1
        return await super().pauses(queue)

    async def horizon_us(self) -> int:
        await self._answer()
        return self.horizon

    async def _answer(self) -> None:
        await asyncio.sleep(self._takes_s)
        if self.away:
            raise JournalUnavailable("it is away")


def _id_of(order: Mapping[str, Scalar]) -> int:
    order_id = order["id"]
    assert isinstance(order_id, int)
    return order_id


def _now() -> float:
    return asyncio.get_running_loop().time()
