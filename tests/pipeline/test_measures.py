"""What a whole worker counts: each thing once, and everything that was settled."""

from collections import Counter

from tests.pipeline.world import World
from worker.core.measures import CallKind, Outcome
from worker.core.model import AckReason, Reason


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
