"""Copies that fail: a pause with that reason, tried again for as long as the delivery is ours."""

import gc
import weakref
from collections.abc import Sequence

from msgspec.structs import replace

from tests.builders import make_delivery, make_update
from tests.pipeline.world import World
from worker.core.model import Ack, AckReason, Dead, Delivery, Properties, Reason, Settlement, Update
from worker.ports import Index
from worker.settling import Early, Unsettled


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


class Settled:
    """All goes well."""

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        """Nothing to do."""


def test_a_lost_channel_takes_its_own_deliveries_and_no_others() -> None:
    """Of two partitions; the first sight of what was lost is remembered, and that of the other one not."""
    unsettled = Unsettled(Settled(), prefetch=10, partitions=2)
    updates = {
        number: make_update(number, status=4, tag=1, generation=number, message_id=f"m-{number}")
        for number in (2, 3, 4, 5)
    }
    for update in updates.values():
        unsettled.add({update.delivery: update}, 0.0)
    unsettled.lost(4)

    assert [number for number, update in updates.items() if update.delivery in unsettled] == [3, 5]
    assert [unsettled.version_of(_again(updates[number])) is not None for number in (2, 3, 4, 5)] == [
        True, False, True, False,
    ]  # fmt: skip


async def test_acks_that_a_lost_channel_may_have_lost_are_those_of_that_channel() -> None:
    """Others that settle a lot do not push them out."""
    unsettled = Unsettled(Settled(), prefetch=4, partitions=2)
    quiet = make_update(7, status=4, tag=1, generation=2, message_id="quiet")
    busy = [
        make_update(number, status=4, tag=number, generation=3, message_id=f"m-{number}") for number in range(100, 120)
    ]
    for update in (quiet, *busy):
        unsettled.add({update.delivery: update}, 0.0)
        ack = Ack(AckReason.APPLIED)
        await unsettled.settle([Settlement(delivery=update.delivery, disposition=ack, update=update)])
    unsettled.lost(2)

    assert unsettled.version_of(_again(quiet)) == quiet.version
    unsettled.lost(3)
    assert [unsettled.version_of(_again(update)) is not None for update in busy] == [False] * 18 + [True] * 2


def test_invalid_events_wait_for_what_arrived_before_them_on_any_partition() -> None:
    """By arrival: numbers of channels say nothing about that."""
    unsettled = Unsettled(Settled(), prefetch=10, partitions=2)
    early = Early(unsettled)
    good, bad = make_update(1, status=4, tag=1, generation=9), make_delivery(b"no JSON", tag=1, generation=2)
    unsettled.add({good.delivery: good, bad: None}, 0.0)
    early.add([Settlement(delivery=bad, disposition=Dead(reason=Reason.INVALID_EVENT, detail="no JSON"))])
    assert early.take() == []

    unsettled.lost(9)
    assert [each.delivery for each in early.take()] == [bad]


def _again(update: Update) -> Delivery:
    """The same message, handed over again."""
    return replace(update.delivery, generation=update.delivery.generation + 10, redelivered=True)


async def test_what_is_settled_is_free_at_once() -> None:
    """The bodies of what was settled do not wait for the garbage collector: a prefetch of large ones would pile up."""

    class Held:
        """Something that can be referred to weakly."""

    held = Held()
    delivery = make_delivery(b"poison")
    delivery.properties = Properties(headers={"held": held})
    unsettled = Unsettled(Settled(), prefetch=10)
    why = Dead(reason=Reason.INVALID_EVENT, detail="no JSON")
    settlement = Settlement(delivery=delivery, disposition=why)
    unsettled.add({delivery: None}, 0.0)
    alive = weakref.ref(held)
    gc.disable()
    try:
        await unsettled.settle([settlement])
        del settlement, delivery, held
        assert alive() is None
    finally:
        gc.enable()
