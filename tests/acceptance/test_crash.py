"""Killed at random moments of a load and started again each time: the same final states, and nothing lost."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

ORDERS = range(1, 301)
VERSIONS = range(2, 12)
KILLS = 5
SEED = 20261121
SMALL = {"PREFETCH": "200", "MAX_BATCH": "20"}
"""Many small calls, so that a kill nearly always meets some in flight and some being settled."""


FORGETFUL = {"JOURNAL_URL": "memory"}


@pytest.mark.parametrize("any_order", [False, True], ids=["in sequence, in memory", "any order, durable journal"])
async def test_kill_9_at_random_moments_changes_nothing_in_the_end(
    broker: PrivateBroker, tmp_path: Path, *, any_order: bool
) -> None:
    """3,000 stamped events of 300 orders, five kills: every order at its greatest version, no dead letter.

    With versions in memory the events of one order come oldest first: only a durable journal can tell a new process
    that a later value than the ones still in the queue was applied and acknowledged by an earlier process.
    """
    chance = random.Random(SEED)
    events = [stamped(order_id, version) for version in VERSIONS for order_id in chance.sample(ORDERS, len(ORDERS))]
    settings = SMALL | ({} if any_order else FORGETFUL)
    if any_order:
        chance.shuffle(events)
    async with World(broker, tmp_path) as world:
        world.set_options(latency_s=(0.0, 0.02), seed=SEED)
        history = world.simulator.platform.orders.history
        await world.publish(events[:1500])
        publishing = asyncio.create_task(world.publish(events[1500:]), name="publish")
        for _ in range(KILLS):
            worker = await world.start(**settings)
            # By progress, not by time: a moment that is random, and in the middle of work on any machine.
            mark = len(history) + chance.randint(1, 50 if any_order else 150)
            await world.until(lambda mark=mark: len(history) >= mark)  # type: ignore[misc]
            await worker.kill()
        worker = await world.start(**settings)
        await publishing
        await world.until_applied(dict.fromkeys(ORDERS, VERSIONS[-1]))
        assert await worker.terminate() == 0

        assert (world.dead, await world.leftover()) == ([], 0)
        assert {world.status(order_id) for order_id in ORDERS} == {VERSIONS[-1]}
