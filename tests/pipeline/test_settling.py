"""Copies that fail: a pause with that reason, tried again for as long as the delivery is ours."""

import gc
import weakref
from collections.abc import Sequence

from tests.builders import make_delivery
from tests.pipeline.world import World
from worker.core.model import AckReason, Dead, Reason, Settlement
from worker.ports import Index
from worker.settling import Unsettled


def is_dead(settlement: Settlement) -> bool:
    return isinstance(settlement.disposition, Dead)


async def test_a_copy_that_fails_is_tried_again_and_no_further_call_starts(world: World) -> None:
    """Dead letters cannot be placed for a minute: what was decided with them is settled, what comes then waits, and the
    worker says why it is not ready."""
    await world.start()
    world.settler.refuses = is_dead
    good = [world.publish(order_id, 1) for order_id in range(1, 11)]
    poison = world.publish_raw(b"poison")
    await world.until(lambda: set(good) <= world.queue.acked.keys(), 5.0)
    world.publish(11, 1)
    await world.advance(60.0)
    assert poison not in world.queue.acked
    assert world.pipeline.activity.reason == "copies"
    assert world.platform.sent == [list(range(1, 11))]
    world.settler.refuses = lambda _: False
    await world.until_settled(10.0)

    assert world.fates() == {AckReason.APPLIED: 11, "Dead": 1}
    assert len(world.queue.dead) == 1
    assert world.pipeline.counts["dead"] == 1


async def test_one_bad_copy_does_not_hold_up_its_mates(world: World) -> None:
    """Of three poison events in one settlement one cannot be copied: the others are gone, each copied once."""
    await world.start()
    world.settler.refuses = lambda settlement: settlement.delivery.body == b"2"
    numbers = [world.publish_raw(body) for body in (b"1", b"2", b"3")]
    await world.until(lambda: len(world.queue.acked) == 2, 5.0)
    await world.advance(20.0)
    still_open = set(numbers) - world.queue.acked.keys()
    world.settler.refuses = lambda _: False
    await world.until_settled(10.0)

    assert still_open == {numbers[1]}
    assert [copy.body for copy in world.queue.dead] == [b"1", b"3", b"2"]


async def test_copies_are_tried_again_with_backoff_within_bounds(world: World) -> None:
    """Neither a storm of tries nor a silence."""
    await world.start()
    world.settler.refuses = is_dead
    world.publish_raw(b"poison")
    await world.advance(100.0)
    tries = len(world.settler.calls)
    world.settler.refuses = lambda _: False
    await world.until_settled(10.0)

    assert 20 <= tries <= 200


async def test_a_lost_channel_ends_the_tries(world: World) -> None:
    """The delivery is not ours any more: it comes again, and its redelivery gets the one copy."""
    await world.start()
    world.settler.refuses = is_dead
    world.publish_raw(b"poison")
    await world.advance(3.0)
    world.intake.lose()
    await world.until(lambda: len(world.queue.unsettled) == 1)
    world.settler.refuses = lambda _: False
    await world.until_settled(10.0)

    assert len(world.queue.dead) == 1
    assert world.pipeline.counts["dead"] == 1


async def test_copies_that_fail_for_too_long_hand_everything_back_and_it_is_tried_again(world: World) -> None:
    """No delivery stays unsettled beyond the limit, whatever the reason; when the broker takes copies again, all ends
    by itself."""
    await world.start()
    world.settler.refuses = is_dead
    world.publish_raw(b"poison")
    await world.until(lambda: world.intake.releases == 1, 1000.0)
    outage = world.breaker.outage
    await world.until(lambda: len(world.queue.unsettled) == 1, 60.0)
    world.settler.refuses = lambda _: False
    await world.until_settled(10.0)
    await world.until(lambda: world.pipeline.activity.reason is None, 6.0)

    assert outage is not None
    assert "unsettled for 900 s" in outage.detail
    assert "refuses the copy" in outage.detail
    assert len(world.queue.dead) == 1


async def test_what_is_settled_is_free_at_once() -> None:
    """The bodies of what was settled do not wait for the garbage collector: a prefetch of large ones would pile up."""

    class Traceable(Settlement):
        """Without slots of its own, so it can be referred to weakly."""

    class Settled:
        async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
            """All went well."""

    unsettled = Unsettled(Settled(), prefetch=10)
    why = Dead(reason=Reason.INVALID_EVENT, detail="no JSON")
    settlement = Traceable(delivery=make_delivery(b"poison"), disposition=why)
    unsettled.add(settlement.delivery, None, 0.0)
    alive = weakref.ref(settlement)
    gc.disable()
    try:
        await unsettled.settle([settlement])
        del settlement
        assert alive() is None
    finally:
        gc.enable()
