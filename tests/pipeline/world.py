"""A whole worker in memory: the real core, pipeline, recovery and caller between a model broker and a model platform.

Events are numbered per order, and the number is also the status and the time at which it happened. So "no order goes
backwards" is: the statuses that an order got never fall; and a message may be acknowledged as applied or superseded
when the platform shows its number or a greater one.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tests.builders import NOW_US
from tests.pipeline.fakes import FakePlatform, FakeTokens, WatchedJournal
from tests.pipeline.modelbroker import Effects, ModelIntake, ModelSettler, Queue, now_us
from tests.support.modelplatform import ModelPlatform
from worker.caller import Caller
from worker.core.allowed import EVERY_ORDER, Allowed
from worker.core.breaker import Breaker, Mode
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.horizon import Horizon
from worker.core.model import Ack, Properties
from worker.core.outcome import Outcomes
from worker.core.storm import StormGuard
from worker.core.times import format_time
from worker.core.verdict import Rules
from worker.pipeline import Limits, Pipeline

if TYPE_CHECKING:
    from worker.adapters.tracing.wrapping import Tracing

FIRST_STATUS = 1000
"""Statuses of numbered events start above all that mean something."""


class World:
    """Everything around one pipeline. Use it as ``async with``: in the end it stops the worker and looks at the
    books."""

    def __init__(
        self,
        *,
        model: ModelPlatform | None = None,
        max_batch: int = 100,
        linger_s: float = 0.02,
        milestones: Sequence[int] = (),
        max_in_flight: int = 4,
        hold_limit_s: float = 300.0,
        max_unsettled_s: float = 900.0,
        drain_grace_s: float = 25.0,
        prefetch: int = 2000,
        max_attempts: int = 5,
        storm_ratio: float = 1.0,
        calls_per_hour: int | None = None,
        delivery_limit: int = 100,
        before: "World | None" = None,
        beside: "World | None" = None,
        name: str = "worker",
        horizon: Horizon | None = None,
        allowed: Allowed = EVERY_ORDER,
        tracing: "Tracing | None" = None,
    ) -> None:
        """``before`` is a worker that died: broker, platform and a durable journal are still the same. ``beside`` is
        another worker that lives: they share the journal."""
        self.effects: Effects = before.effects if before else []
        self.queue: Queue = before.queue if before else Queue(self.effects)
        self.intake = ModelIntake(self.queue, prefetch=prefetch)
        self.settler = ModelSettler(self.intake)
        self.platform: FakePlatform = before.platform if before else FakePlatform(self.effects, model)
        self.tokens = FakeTokens()
        shared = before or beside
        self.journal: WatchedJournal = shared.journal if shared else WatchedJournal(self.effects)
        self.breaker = Breaker(hold_limit_s=hold_limit_s)
        self.coalescer = Coalescer(
            max_batch=max_batch, max_bytes=1 << 20, linger_s=linger_s, milestones=milestones, name="t"
        )
        delays_s = self.settler.delays_s
        self.outcomes = Outcomes(self.coalescer, max_attempts=max_attempts, delays_s=delays_s)
        self.pipeline = Pipeline(
            schema=EventSchema({}, ()),
            coalescer=self.coalescer,
            outcomes=self.outcomes,
            breaker=self.breaker,
            storm=StormGuard(ratio=storm_ratio, window=200),
            caller=Caller(
                self.platform if tracing is None else tracing.platform(self.platform, "https://platform.test/graphql"),
                self.tokens,
                Rules(),
            ),
            journal=self.journal,
            settler=self.settler if tracing is None else tracing.settler(self.settler),
            intake=self.intake if tracing is None else tracing.intake(self.intake),
            limits=Limits(
                max_in_flight=max_in_flight,
                max_unsettled_s=max_unsettled_s,
                drain_grace_s=drain_grace_s,
                prefetch=prefetch,
                calls_per_hour=calls_per_hour,
                delivery_limit=delivery_limit,
            ),
            name=name,
            horizon=horizon,
            allowed=allowed,
            tracer=tracing,
            clock=asyncio.get_running_loop().time,
            wall_us=now_us,
        )
        self.events: dict[int, tuple[int, int]] = before.events if before else {}
        self.task: asyncio.Task[None] | None = None
        self.may_step_back = False

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.task is not None and error is None:
            self.pipeline.stop()
            await self.task
        elif self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if error is None:
            self.audit()

    async def start(self) -> None:
        """Run until it consumes and its first control call is answered."""
        self.task = asyncio.create_task(self.pipeline.run(), name="pipeline")
        await self.until(lambda: self.intake.consuming)
        await self.advance(0.1)

    async def stop(self) -> float:
        """Drain; the virtual seconds that took."""
        assert self.task is not None
        began = self.now
        self.pipeline.stop()
        task, self.task = self.task, None
        await task
        return self.now - began

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(seconds)

    async def until(self, condition: Callable[[], object], within_s: float = 60.0) -> None:
        """Look every virtual 10 ms (later less often) until it holds. Fails after so many virtual seconds, or when the
        worker ends."""
        began = self.now
        while not condition():
            if self.task is not None and self.task.done():
                self.task.result()
            assert self.now < began + within_s, f"not within {within_s} s"
            await asyncio.sleep(0.01 if self.now < began + 2.0 else 0.25)

    async def until_settled(self, within_s: float = 60.0) -> None:
        """Until the broker has nothing left for us, retry tiers included."""
        await self.until(lambda: self.queue.quiet, within_s)

    # -- producers ------------------------------------------------------------------------------------------------

    def publish(self, order_id: int, number: int, **fields: Any) -> int:
        """Event ``number`` of an order; the number of the message. ``fields`` come on top of the status."""
        event = {
            "id": order_id,
            "status": FIRST_STATUS + number,
            "occurred_at": format_time(NOW_US + number * 1_000_000),
            **fields,
        }
        message = self.publish_raw(event)
        self.events[message] = order_id, FIRST_STATUS + number
        return message

    def publish_raw(self, event: Mapping[str, Any] | bytes, *, message_id: str | None = None) -> int:
        """Any event, or bytes that are none."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        name = message_id or f"m{self.queue.published + 1}"
        properties = Properties(message_id=name, content_type="application/json")
        return self.queue.publish(body, properties)

    # -- the books ------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        return self.breaker.mode is Mode.PAUSED

    @property
    def holding(self) -> bool:
        return self.breaker.mode is Mode.HOLDING

    def status_of(self, order_id: int) -> object:
        """What the platform holds for an order, as the number of the event."""
        status = self.platform.values.get(order_id, {}).get("status")
        return status - FIRST_STATUS if isinstance(status, int) else None

    def fates(self) -> Counter[str]:
        """How many messages were settled how."""
        kinds = Counter[str]()
        for settlement in self.queue.acked.values():
            disposition = settlement.disposition
            kinds[disposition.reason if isinstance(disposition, Ack) else type(disposition).__name__] += 1
        return kinds

    def kinds(self) -> list[str]:
        """The kinds of effects in their order, control calls left out."""
        return [kind for kind, what in self.effects if what != []]

    def audit(self) -> None:
        """Nothing settled twice, no order in two calls at once or backwards, nothing acknowledged that was not applied,
        no task left."""
        self.assert_acked_means_applied()
        if not self.may_step_back:
            self.assert_never_backwards()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        ours = {"keep consuming", "recovery", "pipeline", "settle invalid", "follow pauses"}

        assert self.queue.wrong_acks == []
        assert self.platform.doubled == []
        assert [task for task in left if task.get_name() in ours or task.get_name().startswith(("call ", "sett"))] == []
        assert not self.intake.channel_open

    def assert_acked_means_applied(self) -> None:
        """Promise 1 for numbered events; and in the end no order is behind what was acknowledged."""
        for number, settlement in self.queue.acked.items():
            if isinstance(settlement.disposition, Ack) and number in self.events:
                order_id, status = self.events[number]
                shown = self.platform.values.get(order_id, {}).get("status")
                assert isinstance(shown, int), f"order {order_id} was never applied"
                assert shown >= status, f"order {order_id} is at {shown}, acknowledged was {status}"

    def assert_never_backwards(self) -> None:
        """Promise 2 at each moment, not only in the end."""
        latest: dict[int, int] = {}
        for order_id, fields in self.platform.model.history:
            sent = fields["status"]
            assert isinstance(sent, int)
            assert sent >= latest.get(order_id, 0), f"order {order_id} went backwards"
            latest[order_id] = sent
