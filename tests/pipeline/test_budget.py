"""A budget of calls in a running worker: the fewest calls that apply everything, and no delivery held for too long."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from tests.pipeline.fakes import AWAY, FakePlatform
from tests.pipeline.world import World
from worker.core.model import AckReason, Scalar
from worker.core.report import CallReport, Reply


async def test_a_backlog_leaves_in_full_batches_and_every_order_is_applied() -> None:
    """100 calls an hour and 2,000 orders: 20 calls, as 2,000 orders in batches of 100 need, not one more."""
    async with World(calls_per_hour=100, prefetch=1600) as world:
        for order_id in range(1, 2001):
            world.publish(order_id, 1)
        await world.start()
        await world.until_settled(3600.0)

        assert world.fates() == {AckReason.APPLIED: 2000}
        assert [len(sent) for sent in world.platform.sent] == [100] * 20


async def test_a_steady_stream_is_gathered_instead_of_sent_one_by_one() -> None:
    """An event every second and a call every 36 s: each call carries what came meanwhile, none waits longer."""
    async with World(calls_per_hour=100, prefetch=1600) as world:
        await world.start()
        for order_id in range(1, 601):
            world.publish(order_id, 1)
            await world.advance(1.0)
        await world.until_settled(60.0)
        starts = [call.began for call in world.platform.calls]

        assert world.fates() == {AckReason.APPLIED: 600}
        assert len(starts) <= 600 / 36 + 3
        assert min(later - earlier for earlier, later in pairwise(starts)) > 35.9


async def test_events_of_the_same_orders_merge_while_they_wait() -> None:
    """Ten events each of fifty orders, and one call in ten minutes: the last values, in two calls."""
    async with World(calls_per_hour=6, prefetch=1000) as world:
        await world.start()
        for number in range(1, 11):
            for order_id in range(1, 51):
                world.publish(order_id, number)
            await world.advance(5.0)
        await world.until_settled(1300.0)

        assert [len(sent) for sent in world.platform.sent] == [50]
        assert {world.status_of(order_id) for order_id in range(1, 51)} == {10}


async def test_probes_of_an_outage_spend_the_budget_evenly_too() -> None:
    """An hour away with 60 calls an hour: a probe a minute, and the budget is not gone when the platform is back."""
    async with World(calls_per_hour=60, hold_limit_s=300.0) as world:
        await world.start()
        world.platform.down = AWAY
        world.publish(1, 1)
        await world.advance(3600.0)
        probes = len(world.platform.calls)
        world.platform.down = None
        await world.until_settled(130.0)

        assert 50 <= probes <= 62
        assert world.fates() == {AckReason.APPLIED: 1}


async def test_an_idle_worker_with_a_budget_arms_no_timer_for_it() -> None:
    """A permit that is not there is waited for, not asked for again and again."""
    async with World(calls_per_hour=6) as world:
        await world.start()
        world.publish(1, 1)
        await world.advance(300.0)

        assert world.pipeline.activity.buffered == 1
        assert world.platform.sent == []
        await world.until_settled(400.0)


class HourlyPlatform(FakePlatform):
    """Takes 100 calls in any hour; the rest gets 429 and hears when to come again."""

    async def update_orders(self, orders: Sequence[Mapping[str, Scalar]], *, token: str) -> CallReport:
        now = asyncio.get_running_loop().time()
        recent = [at for at in self.taken if at > now - 3600.0]
        if len(recent) >= 100:
            self.throttled += 1
            return Reply(status=429, retry_after=str(math.ceil(recent[-100] + 3600.0 - now)))
        self.taken.append(now)
        return await super().update_orders(orders, token=token)

    taken: list[float]
    throttled = 0


async def test_without_a_budget_a_throttling_platform_is_obeyed_and_still_gets_few_calls() -> None:
    """100 calls an hour, 15,000 orders, and nobody told the worker: full batches, waits as asked, hardly a call more
    than there are batches, and nothing is dead-lettered."""
    async with World(max_batch=100) as world:
        world.platform.__class__ = HourlyPlatform
        assert isinstance(world.platform, HourlyPlatform)
        world.platform.taken = []
        for order_id in range(1, 15_001):
            world.publish(order_id, 1)
        await world.start()
        await world.until_settled(2.5 * 3600.0)

        assert world.fates() == {AckReason.APPLIED: 15_000}
        assert len(world.platform.taken) <= 150 + 5
        assert world.platform.throttled <= 10
        assert world.queue.dead == []
