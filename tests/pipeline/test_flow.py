"""The good days: deliveries become batches, batches become calls, and every message is settled by its own outcome."""

import pytest

from tests.pipeline.fakes import LOST
from tests.pipeline.world import FIRST_STATUS, World
from tests.support.modelplatform import ModelPlatform, Refusal
from worker.core.model import Ack, AckReason, Dead, Reason, Settlement

BAD = FIRST_STATUS + 99


def refuses_99(_order_id: int, fields: object) -> bool:
    """Event 99 of every order is one that the platform does not take."""
    assert isinstance(fields, dict)
    return fields.get("status") == BAD


@pytest.fixture
def picky() -> ModelPlatform:
    return ModelPlatform(refuses_99, Refusal.PATH)


async def test_a_lone_event_leaves_after_linger(world: World) -> None:
    """Idle worker, one event: linger, one call, settled."""
    await world.start()
    began = world.now
    world.publish(1, 1)
    await world.until_settled()

    assert world.platform.sent == [[1]]
    assert began + 0.02 <= world.platform.calls[-1].began <= began + 0.03
    assert world.status_of(1) == 1
    assert world.fates() == {AckReason.APPLIED: 1}


async def test_an_event_that_comes_alone_to_an_idle_worker_leaves_at_once(world: World) -> None:
    """It is only at the start that nobody knows whether more are on their way."""
    await world.start()
    world.publish(1, 1)
    await world.until_settled()
    await world.advance(1.0)
    began = world.now
    world.publish(2, 1)
    await world.until_settled()

    assert world.platform.sent == [[1], [2]]
    assert world.platform.calls[-1].began < began + 0.005


async def test_a_full_batch_does_not_linger(world: World) -> None:
    """100 orders are a call at once, the rest waits for company."""
    await world.start()
    began = world.now
    for order_id in range(1, 131):
        world.publish(order_id, 1)
    await world.until_settled()

    assert [len(orders) for orders in world.platform.sent] == [100, 30]
    assert world.platform.calls[-2].began < began + 0.02 <= world.platform.calls[-1].began


async def test_only_so_many_calls_are_in_flight_and_meanwhile_entries_merge(world: World) -> None:
    """Four slots busy: 50 updates of one order wait and travel as one value."""
    await world.start()
    world.platform.gate.clear()
    for order_id in range(1, 5):
        world.publish(order_id, 1)
        await world.advance(0.1)
    for number in range(1, 51):
        world.publish(9, number)
        await world.advance(0.05)
    assert world.platform.sent == [[1], [2], [3], [4]]
    world.platform.gate.set()
    await world.until_settled()

    assert world.platform.most_at_once == 4
    assert world.platform.sent[4:] == [[9]]
    assert world.status_of(9) == 50
    assert world.fates() == {AckReason.APPLIED: 5, AckReason.SUPERSEDED: 49}


async def test_a_batch_that_is_not_full_waits_longer_while_calls_are_in_flight(world: World) -> None:
    """One linger more for each of them: under load fuller calls are worth more than more calls."""
    await world.start()
    let_go = world.platform.hold(1, 2, 3)
    for order_id in (1, 2, 3):
        world.publish(order_id, 1)
        await world.advance(0.07)
    began = world.now
    world.publish(4, 1)
    await world.advance(0.09)
    waited_s = world.platform.calls[-1].began - began
    let_go.set()
    await world.until_settled()

    assert world.platform.sent == [[1], [2], [3], [4]]
    assert 0.08 <= waited_s <= 0.085


async def test_an_order_is_never_in_two_calls(world: World) -> None:
    """What comes while an order is in flight gathers in the next entry."""
    await world.start()
    world.platform.latency_s = 0.2
    for number in range(1, 40):
        world.publish(1, number)
        await world.advance(0.03)
    await world.until_settled()

    assert world.platform.doubled == []
    assert 5 <= len(world.platform.sent) <= 9
    assert world.status_of(1) == 39


async def test_every_message_is_settled_by_its_own_outcome(picky: ModelPlatform) -> None:
    """A batch of good, merged, refused and invalid events: nobody shares a fate."""
    async with World(model=picky) as world:
        await world.start()
        numbers = {
            "good": world.publish(1, 1),
            "old": world.publish(2, 1),
            "new": world.publish(2, 2),
            "bad": world.publish(3, 99),
            "invalid": world.publish_raw(b"{"),
        }
        await world.until_settled()
        acked = world.queue.acked

        assert {name: reason_of(acked[number]) for name, number in numbers.items()} == {
            "good": AckReason.APPLIED,
            "old": AckReason.SUPERSEDED,
            "new": AckReason.APPLIED,
            "bad": Reason.REJECTED,
            "invalid": Reason.INVALID_EVENT,
        }
        reasons = sorted(copy.properties.headers["ow-reason"] for copy in world.queue.dead)
        assert reasons == ["invalid-event", "rejected"]
        assert world.pipeline.counts["dead"] == 2


def reason_of(settlement: Settlement) -> Reason | AckReason:
    assert isinstance(settlement.disposition, Dead | Ack)
    return settlement.disposition.reason


async def test_the_journal_is_written_before_the_ack(world: World) -> None:
    """A crash between the two makes the broker deliver again, and the version settles it."""
    await world.start()
    first, second = world.publish(1, 1), world.publish(2, 1)
    await world.until_settled()

    assert [each for each in world.effects if each[1] != []] == [
        ("sent", [1, 2]),
        ("journal", [1, 2]),
        ("ack", first),
        ("ack", second),
    ]


async def test_a_copy_is_confirmed_before_the_ack(picky: ModelPlatform) -> None:
    """First the dead letter is safe, then it is in the index, then the original goes."""
    async with World(model=picky) as world:
        await world.start()
        number = world.publish(1, 99)
        await world.until_settled()

        assert world.effects[-3:] == [("copy", number), ("index", 1), ("ack", number)]
        assert len(world.queue.dead) == 1


async def test_what_the_platform_has_is_acknowledged_without_a_call(world: World) -> None:
    """An older event that comes later is superseded; nothing is sent for it."""
    await world.start()
    world.publish(1, 5)
    await world.until_settled()
    world.publish(1, 3)
    world.publish(1, 4)
    await world.until_settled()

    assert world.platform.sent == [[1]]
    assert world.status_of(1) == 5
    assert world.fates() == {AckReason.APPLIED: 1, AckReason.SUPERSEDED: 2}


async def test_invalid_events_are_settled_in_groups(world: World) -> None:
    """A thousand poison events are one settlement, not a thousand; and no call."""
    await world.start()
    for _ in range(1000):
        world.publish_raw(b"poison")
    await world.until_settled()

    assert len(world.settler.calls) == 1
    assert len(world.queue.dead) == 1000
    assert world.platform.sent == []


async def test_a_lost_answer_is_sent_again_with_the_same_values(world: World) -> None:
    """Sent, no answer: neither success nor failure. The same absolute values go again, nothing is dead-lettered."""
    await world.start()
    world.platform.script.extend([LOST, LOST])
    world.publish(1, 1)
    await world.until_settled()

    assert [call.orders for call in world.platform.calls[-3:]] == [{1: {"status": FIRST_STATUS + 1}}] * 3
    assert world.fates() == {AckReason.APPLIED: 1}


async def test_a_milestone_reaches_the_platform_though_newer_updates_wait() -> None:
    """It is not merged away: two values, in their order."""
    async with World(milestones=(FIRST_STATUS + 2,)) as other:
        await other.start()
        for number in range(1, 5):
            other.publish(1, number)
        await other.until_settled()

        assert [fields["status"] for _, fields in other.platform.model.history] == [FIRST_STATUS + 2, FIRST_STATUS + 4]


async def test_a_busy_order_waits_in_a_delay_tier_and_comes_back() -> None:
    """The platform's own trouble with one order is a Retry; the copy carries attempt 2 and is applied in the end."""
    model = ModelPlatform(lambda order_id, _fields: order_id == 1, Refusal.PATH, text="Internal server error")
    async with World(model=model) as world:
        await world.start()
        world.publish(1, 1)
        world.publish(2, 1)
        await world.until(lambda: world.queue.delayed == 1)
        model.refuses = lambda _order_id, _fields: False
        await world.until_settled()

        assert world.fates() == {AckReason.APPLIED: 2, "Retry": 1}
        assert world.status_of(1) == 1
        assert world.pipeline.counts["retried"] == 1


async def test_poison_does_not_stop_the_others(world: World) -> None:
    """Every second body is broken; all good ones arrive."""
    await world.start()
    for number in range(1, 101):
        world.publish(number, 1)
        world.publish_raw(b"\xff" * number)
    await world.until_settled()

    assert world.fates() == {AckReason.APPLIED: 100, "Dead": 100}
