"""Pruning, and what the worker learns from it: what is too old to be judged is not sent."""

import asyncio

from tests.builders import NOW_US
from tests.pipeline.modelbroker import now_us
from tests.pipeline.world import World
from worker.core.fields import INT64_MIN
from worker.core.horizon import Horizon
from worker.pruning import EVERY_S, keep_pruned

OLD = b'{"id": 1, "status": 4, "occurred_at": "1970-01-01T00:00:10Z"}'


async def test_what_happened_before_the_horizon_is_dead_where_the_order_is_unknown(no_leaks: None) -> None:
    """The horizon may move while the worker runs; a known order is judged as ever."""
    horizon = Horizon(days=90)
    async with World(horizon=horizon) as world:
        await world.start()
        world.publish(2, 1)
        await world.until_settled()
        horizon.before_us = NOW_US
        world.publish_raw(OLD)
        world.publish_raw(OLD.replace(b'"id": 1', b'"id": 2'))
        world.publish(3, 1)
        await world.until_settled()
        (copy,) = world.queue.dead

        assert copy.properties.headers["ow-reason"] == "too-old-to-judge"
        assert copy.properties.headers["ow-order-id"] == 1
        assert world.fates() == {"applied": 2, "superseded": 1, "Dead": 1}


async def test_the_hourly_pruning_moves_the_horizon(world: World) -> None:
    """Whoever pruned: the journal says how far, and one that is away is asked again an hour later."""
    horizon = Horizon(days=90)
    pruning = asyncio.create_task(keep_pruned(world.journal, horizon, wall_us=now_us))
    world.journal.horizon = 5
    world.journal.away = True
    await world.advance(EVERY_S + 60.0)
    away = horizon.before_us
    world.journal.away = False
    await world.advance(EVERY_S)
    pruning.cancel()
    await asyncio.wait([pruning])

    assert (away, horizon.before_us) == (INT64_MIN, 5)
