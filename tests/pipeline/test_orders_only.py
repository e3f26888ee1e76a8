"""A platform that takes the control call and fails on every order, for hours: a missing scope may look like that.
(Plain refusals, HTTP 400 and 403, are the storm guard's: by the control rule they are the messages' own.)

Every hand-back costs a message one of the returns that the broker allows it, and the broker dead-letters by itself what
has none left. So there must be few of them, and none must ever be the last.
"""

import pytest

from tests.pipeline.fakes import BUSY
from tests.pipeline.world import World
from tests.support.modelplatform import rest_error
from worker.core.model import AckReason
from worker.core.report import CallReport, NoAnswer, Reply

MINUTES = 120
HOLD_LIMIT_S = 30.0
"""Shortened, so that there are more hand-backs than the broker allows returns."""
DELIVERY_LIMIT = 100
CASES: dict[str, CallReport] = {
    "busy": BUSY,
    "unauthorised": rest_error("no scope", status=401),
    "gone": rest_error("gone", status=404),
    "no answer": NoAnswer(cause="timeout"),
    "throttled": Reply(status=429, retry_after="400"),
    "error": rest_error("oops", status=500),
}


@pytest.mark.parametrize("name", CASES)
async def test_hours_of_it_dead_letter_nothing_and_cost_few_returns(name: str) -> None:
    """Nothing is dead-lettered by us, nothing comes near the broker's limit, calls stay few, and it ends by itself."""
    async with World(prefetch=400, hold_limit_s=HOLD_LIMIT_S) as world:
        most = 0
        world.platform.orders_down = CASES[name]
        for order_id in range(1, 101):
            world.publish(order_id, 1)
        await world.start()
        for _ in range(MINUTES):
            await world.advance(60.0)
            most = max([most, *(message.handed_over for message in world.queue.all_messages)])
        calls = len(world.platform.calls)
        world.platform.orders_down = None
        await world.until_settled(1500.0)

        assert world.queue.dead == []
        assert world.fates()[AckReason.APPLIED] == 100
        assert most < DELIVERY_LIMIT
        assert calls < 2 * MINUTES * 60


async def test_messages_near_the_brokers_limit_are_copied_instead_of_released() -> None:
    """A copy is a new message to the broker; its attempt and its version stay."""
    async with World(delivery_limit=20) as world:
        await world.start()
        world.platform.down = rest_error("gone", status=404)
        world.publish(1, 1)
        world.queue.ready[-1].handed_over = 10
        world.publish(2, 1)
        await world.until(lambda: world.intake.releases == 1)
        copied = world.queue.delayed
        world.platform.down = None
        await world.until_settled(60.0)

        assert copied == 1
        assert world.pipeline.counts["renewed"] == 1
        assert world.fates() == {AckReason.APPLIED: 2, "Retry": 1}
        assert world.queue.dead == []


async def test_copies_that_cannot_be_placed_do_not_hold_up_a_release() -> None:
    """It is better to come nearer to the limit than to keep messages that nobody can work on."""
    async with World(delivery_limit=20) as world:
        await world.start()
        world.settler.refuses = lambda _: True
        world.platform.down = rest_error("gone", status=404)
        world.publish(1, 1)
        world.queue.ready[-1].handed_over = 10
        await world.until(lambda: world.intake.releases == 1, 10.0)
        world.platform.down = None
        await world.until_settled(60.0)

        assert world.fates() == {AckReason.APPLIED: 1}
