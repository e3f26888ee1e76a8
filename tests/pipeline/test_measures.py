"""What a whole worker counts: each thing once, and everything that was settled."""

from collections import Counter

from tests.pipeline.fakes import LOST
from tests.pipeline.world import World
from worker.core.entry import FlushReason
from worker.core.measures import CallKind, Outcome
from worker.core.model import AckReason, Reason
from worker.core.verdict import Call


async def test_a_run_is_counted_from_end_to_end(world: World) -> None:
    """30 events of 10 orders, applied in one call each or merged, and two that are none."""
    await world.start()
    for number in (1, 2, 3):
        for order_id in range(1, 11):
            world.publish(order_id, number)
    world.publish_raw(b"poison")
    world.publish_raw(b"{}")
    await world.until_settled(10.0)
    measures = world.pipeline.measures

    assert sum(measures.outcomes.values()) == 32 == world.pipeline.counts["delivered"]
    assert measures.outcomes[Outcome.DEAD, Reason.INVALID_EVENT] == 2 == world.pipeline.counts["dead"]
    merged = Counter({reason: measures.outcomes[Outcome.ACKED, reason] for reason in AckReason})
    assert merged.total() == 30
    assert merged[AckReason.APPLIED] == world.pipeline.counts["applied"] >= 10
    assert sum(measures.age_occurred_s.counts) == merged[AckReason.APPLIED]
    calls = [call for call in world.platform.sent if call]
    assert sum(measures.batches.values()) == len(calls) == sum(measures.entries.counts)
    assert measures.entries.total == sum(map(len, calls)) == world.pipeline.counts["sent"]
    assert sum(count for (kind, _), count in measures.calls.items() if kind is CallKind.ORDERS) == len(calls)
    assert sum(measures.call_s.counts) == sum(measures.calls.values())


async def test_a_journal_that_goes_away_is_seen_without_any_work(world: World) -> None:
    """An idle worker asks it for pauses every other second; busy or not, it is up again with its next answer."""
    await world.start()
    before = world.pipeline.activity.journal_up
    world.journal.away = True
    await world.advance(10.0)
    idle = world.pipeline.activity.journal_up
    world.journal.away = False
    await world.advance(10.0)

    assert (before, idle, world.pipeline.activity.journal_up) == (True, False, True)


async def test_what_is_left_of_the_budget_and_of_the_patience_is_seen() -> None:
    """One call to begin with, one for a batch; one dead letter of two decisions."""
    async with World(calls_per_hour=60, storm_ratio=0.5) as world:
        await world.start()
        world.publish(1, 1)
        world.publish_raw(b"poison")
        await world.until_settled(120.0)
        activity = world.pipeline.activity

    assert (activity.budget, activity.budget_left) == (60, 60 - len(world.platform.calls))
    assert (activity.storm_tripped, activity.storm_share) == (False, 0.5)


async def test_calls_are_told_apart_by_what_they_are_for_and_how_they_end(world: World) -> None:
    """A lost answer, the same values again, and later an echo; the control call of the beginning besides."""
    await world.start()
    world.platform.script.append(LOST)
    world.publish(1, 1)
    await world.until_settled()
    await world.advance(300.0)

    assert world.pipeline.measures.calls == {
        (CallKind.CONTROL, Call.ANSWERED): 1,
        (CallKind.ORDERS, Call.UNKNOWN): 1,
        (CallKind.ORDERS, Call.ANSWERED): 1,
        (CallKind.ECHO, Call.ANSWERED): 1,
    }
    assert world.pipeline.measures.batches == {FlushReason.LINGER: 2}
