"""Outages in which an accepted empty list proves nothing, or none is taken: a waiting entry has to be the probe."""

import pytest

from tests.pipeline.fakes import AWAY
from tests.pipeline.world import World
from tests.support.modelplatform import ModelPlatform, Refusal


async def test_a_platform_that_takes_no_empty_lists_recovers_through_an_entry() -> None:
    """It refused the control call while it was well; after an outage only a waiting entry can show that it is back."""
    model = ModelPlatform(takes_empty=False)
    async with World(model=model) as world:
        await world.start()
        world.publish(1, 1)
        await world.until_settled()
        world.platform.down = AWAY
        world.publish(2, 1)
        await world.until(lambda: not world.breaker.running)
        await world.advance(30.0)
        world.platform.down = None
        await world.until_settled(20.0)

        assert world.status_of(2) == 1
        assert world.breaker.running


async def test_a_platform_that_fails_on_empty_lists_recovers_through_an_entry() -> None:
    """A fault for every empty list sounds like an outage; as none was ever accepted, entries are tried in turn."""
    async with World() as world:
        world.platform.empty_fails = True
        await world.start()
        world.publish(1, 1)
        world.publish(2, 1)
        await world.until_settled(20.0)

        assert [world.status_of(order_id) for order_id in (1, 2)] == [1, 1]
        assert world.breaker.running
        assert len(world.queue.dead) == 0


async def test_a_pause_on_such_a_platform_consumes_again_to_have_an_entry() -> None:
    """Everything was handed back, so a probe needs a delivery first."""
    async with World(model=ModelPlatform(takes_empty=False), hold_limit_s=20.0) as world:
        await world.start()
        world.publish(1, 1)
        await world.until_settled()
        world.platform.down = AWAY
        world.publish(2, 1)
        await world.until(lambda: world.intake.releases == 2)
        world.platform.down = None
        await world.until_settled(60.0)

        assert world.status_of(2) == 1
        assert world.intake.generation >= 2


@pytest.mark.parametrize("text", ["Internal server error", "something odd"])
async def test_a_platform_that_fails_every_order_dead_letters_nothing(text: str) -> None:
    """Every order is refused, the control call is not: an outage, one entry at a time as a probe."""
    model = ModelPlatform(lambda _order_id, _fields: True, Refusal.NO_PATH, text=text, takes_empty=text[0] == "I")
    async with World(model=model) as world:
        await world.start()
        for order_id in range(1, 21):
            world.publish(order_id, 1)
        await world.advance(2000.0)
        dead = len(world.queue.dead)
        model.refuses, model.takes_empty = (lambda _order_id, _fields: False), True
        await world.until_settled(120.0)

        assert dead == 0
        assert [world.status_of(order_id) for order_id in range(1, 21)] == [1] * 20
