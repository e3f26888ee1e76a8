"""Probes with entries about which nothing is left to ask the platform."""

from tests.pipeline.world import World
from tests.support.modelplatform import ModelPlatform, Refusal
from worker.core.model import AckReason
from worker.core.times import format_time

CANCELLED = 128
BUSY = range(101, 106)
OVER = range(1, 41)


def event(order_id: int, at_s: int, status: int) -> dict[str, object]:
    return {"id": order_id, "occurred_at": format_time(at_s * 1_000_000), "status": status}


async def test_an_entry_that_needs_no_call_is_no_probe(no_leaks: None) -> None:
    """Forty orders that are over wait in front of a good one, while busy ones look like an outage: each would have
    cost a wait, and told nothing of the platform."""
    model = ModelPlatform(lambda order_id, _: order_id in BUSY, Refusal.PATH, text="Internal server error")
    async with World(model=model, milestones=[CANCELLED]) as world:
        await world.start()
        for order_id in OVER:
            world.publish_raw(event(order_id, 10, CANCELLED))
        await world.until_settled()
        for order_id in BUSY:
            world.publish_raw(event(order_id, 10, 4))
        await world.until(lambda: world.holding)
        for order_id in OVER:
            world.publish_raw(event(order_id, 20, 4))
        world.publish_raw(event(200, 10, 4))
        await world.advance(30.0)

        assert model.values.get(200) == {"status": 4}
        model.refuses = lambda _order_id, _fields: False
        await world.until_settled(600.0)
        assert world.fates()["Dead"] == len(OVER)
        assert world.fates()[AckReason.APPLIED] >= len(OVER) + 1
