"""Dead letters and the journal's index of them: whatever was acknowledged as dead is in it."""

import asyncio
from functools import partial

from tests.pipeline.world import World
from worker.core.history import GroupBy, IndexedLetter, Sought
from worker.core.model import Settlement

DEAD = Sought(queue="dead")


async def indexed(world: World) -> list[IndexedLetter]:
    return list(await world.journal.page(DEAD))


def goes_away(world: World, _: Settlement) -> bool:
    """The journal, in the moment in which a copy is placed."""
    world.journal.away = True
    return False


async def test_dead_letters_are_indexed_before_they_are_acknowledged(world: World) -> None:
    """Copy, index, ack, in this order; the row names copy, order, reason and batch."""
    world.platform.model.refuses = lambda order_id, _fields: order_id == 2
    await world.start()
    world.publish(1, 1)
    world.publish(2, 1)
    await world.until_settled()
    (letter,) = await indexed(world)
    kinds = [kind for kind, what in world.effects if kind in ("copy", "index") or (kind, what) == ("ack", 2)]

    assert kinds == ["copy", "index", "ack"]
    assert (letter.copy_id, letter.order_id, letter.reason) == ("dead-1", 2, "rejected")
    assert letter.fields == {"status": 1001}
    assert letter.batch_id


async def test_many_dead_letters_of_one_settlement_are_indexed_at_once(world: World) -> None:
    """The journal is written once, not once per letter; and never where nothing died."""
    await world.start()
    for number in range(10):
        world.publish_raw(b"poison %d" % number)
    await world.until_settled()
    world.publish(1, 1)
    await world.until_settled()
    (tally,) = await world.journal.tallies(DEAD, GroupBy.REASON)

    assert (tally.key, tally.count) == ("invalid-event", 10)
    assert sum(kind == "index" for kind, _ in world.effects) <= 2


async def test_a_dead_letter_waits_for_the_journal_that_went_away_behind_its_copy(world: World) -> None:
    """The copy is placed, the index is not to be reached: nothing is acknowledged, readiness says journal, and it goes
    on by itself without a second copy."""
    await world.start()
    world.settler.refuses = partial(goes_away, world)
    poison = world.publish_raw(b"poison")
    await world.until(lambda: world.queue.dead)
    world.publish(1, 1)
    await world.advance(60.0)
    acked, reason, sent = dict(world.queue.acked), world.pipeline.activity.reason, list(world.platform.sent)
    world.settler.refuses = lambda _: False
    world.journal.away = False
    await world.until_settled(10.0)

    assert (acked, reason, sent) == ({}, "journal", [])
    assert poison in world.queue.acked
    assert len(world.queue.dead) == len(await indexed(world)) == 1
    assert world.pipeline.activity.reason is None


async def test_a_crash_behind_the_copy_leaves_at_worst_a_copy_that_is_not_indexed(no_leaks: None) -> None:
    """The message comes again, and its second copy is in the index."""
    async with World() as first:
        await first.start()
        first.settler.refuses = partial(goes_away, first)
        first.publish_raw(b"poison")
        await first.until(lambda: first.pipeline.activity.reason == "journal")
        assert first.task is not None
        dead, first.task = first.task, None
        dead.cancel()
        await asyncio.wait([dead])
    first.journal.away = False
    async with World(before=first) as second:
        await second.start()
        await second.until_settled()

        assert len(second.queue.dead) == 2
        assert [letter.copy_id for letter in await indexed(second)] == ["dead-2"]
