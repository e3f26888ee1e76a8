"""Going live: only the orders of the list are sent, whatever else is in the queue."""

from collections.abc import Sequence

from tests.builders import NOW_US, applied_record
from tests.pipeline.world import World
from worker.core.journal import BatchRecord, OrderOutcome
from worker.core.model import AckReason, Version
from worker.echoes import EVERY_S


def sent_orders(world: World) -> set[int]:
    """The orders that the platform ever heard of."""
    return {order_id for order_id, _ in world.platform.model.history}


def reasons(world: World) -> Sequence[str]:
    """Why the dead letters are there, in their order."""
    return [copy.properties.headers["ow-reason"] for copy in world.queue.dead]


async def test_only_allowed_orders_are_sent_and_others_are_dead_letters_with_their_version(no_leaks: None) -> None:
    """The copies carry order and version, so that a replay is judged like any other event."""
    async with World(allowed=frozenset({1, 3})) as world:
        await world.start()
        for order_id in (1, 2, 3, 4):
            world.publish(order_id, 1)
        await world.until_settled()
        headers = [copy.properties.headers for copy in world.queue.dead]

        assert sent_orders(world) == {1, 3}
        assert reasons(world) == ["not-allowed", "not-allowed"]
        assert {each["ow-order-id"] for each in headers} == {2, 4}
        assert all("ow-occurred-at" in each and each["ow-attempt"] == 1 for each in headers)
        assert world.fates() == {AckReason.APPLIED: 2, "Dead": 2}


async def test_a_queue_full_of_other_orders_is_no_storm(no_leaks: None) -> None:
    """Nearly everything is dead-lettered, on purpose: the worker goes on, and still finds its few orders."""
    async with World(allowed=frozenset({7}), storm_ratio=0.5) as world:
        await world.start()
        for order_id in range(100, 400):
            world.publish(order_id, 1)
        world.publish(7, 1)
        await world.until_settled()

        assert sent_orders(world) == {7}
        assert len(reasons(world)) == 300
        assert not world.paused


async def test_an_echo_of_an_order_that_is_not_allowed_is_owed_on(no_leaks: None) -> None:
    """The journal remembers it from earlier; it goes out when the order may."""
    async with World(allowed=frozenset({1})) as world:
        for order_id in (1, 2):
            value = {"status": (Version(NOW_US, -1, NOW_US, "m"), 8)}
            await world.journal.record(applied_record({order_id: value}))
            owed = OrderOutcome(revision=-1, echo_us=NOW_US - 1)
            await world.journal.record(BatchRecord(wall_us=NOW_US, orders={order_id: owed}))
        await world.start()
        await world.advance(3 * EVERY_S)
        await world.until(lambda: sent_orders(world))
        world.may_step_back = True

        assert sent_orders(world) == {1}
        assert await world.journal.due_echoes(NOW_US + 10**12, 10) == [2]
