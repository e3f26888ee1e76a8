"""A lost channel: what was in flight is journalled and not settled, what comes again is known and keeps its age."""

from tests.builders import NOW_US, make_delivery
from tests.pipeline.fakes import AWAY
from tests.pipeline.world import FIRST_STATUS, World
from worker.core.model import AckReason, Properties
from worker.core.times import format_time


async def test_a_result_of_a_lost_channel_is_journalled_and_its_redelivery_a_duplicate(world: World) -> None:
    """The call goes on; nothing is acknowledged on the old channel, and nothing is sent twice."""
    await world.start()
    world.platform.latency_s = 2.0
    world.publish(1, 1)
    await world.advance(0.5)
    world.intake.lose()
    await world.until_settled()

    assert world.platform.sent == [[1]]
    assert world.fates() == {AckReason.DUPLICATE: 1}
    assert world.kinds() == ["sent", "journal", "ack"]
    assert next(iter(world.queue.acked.values())).delivery.generation == 2


async def test_merged_away_events_of_a_lost_channel_are_superseded(world: World) -> None:
    """Both values come again; the newer one is applied already."""
    await world.start()
    world.platform.latency_s = 2.0
    world.publish(1, 1)
    world.publish(1, 2)
    await world.advance(0.5)
    world.intake.lose()
    await world.until_settled()

    assert world.platform.sent == [[1]]
    assert world.fates() == {AckReason.DUPLICATE: 1, AckReason.SUPERSEDED: 1}


async def test_a_late_word_of_an_old_loss_spares_the_living(world: World) -> None:
    """Only deliveries of that channel and older ones are forgotten."""
    await world.start()
    world.platform.latency_s = 2.0
    world.intake.lose()
    world.publish(1, 1)
    await world.until(lambda: world.queue.unsettled)
    world.pipeline.sink.lost(1)
    await world.until_settled()

    assert world.fates() == {AckReason.APPLIED: 1}
    assert world.pipeline.counts["delivered"] == 1
    assert world.pipeline.counts["applied"] == 1


async def test_what_was_only_buffered_is_forgotten_and_comes_again(world: World) -> None:
    """One call, with the redelivered event; the first delivery is nobody's business any more."""
    await world.start()
    world.publish(1, 1)
    await world.advance(0.001)
    world.intake.lose()
    await world.until_settled()

    assert world.platform.sent == [[1]]
    assert world.pipeline.counts["delivered"] == 2
    assert world.pipeline.counts["applied"] == 1


async def test_a_channel_lost_during_an_outage_loses_nothing(world: World) -> None:
    """Held entries are dropped and delivered again, suspects and all."""
    await world.start()
    world.platform.down = AWAY
    for order_id in range(1, 11):
        world.publish(order_id, 1)
    await world.until(lambda: world.holding)
    for _ in range(5):
        await world.advance(3.0)
        world.intake.lose()
    world.platform.down = None
    await world.until_settled()

    assert world.fates() == {AckReason.APPLIED: 10}


async def test_suspects_of_a_lost_channel_are_let_go(world: World) -> None:
    """A refused order waits for a witness when the channel goes: its redelivery is judged anew."""
    await world.start()
    world.platform.model.refuses = lambda order_id, _fields: order_id == 1
    world.platform.script.extend([None])
    world.publish(1, 1)
    await world.until(lambda: len(world.platform.calls) == 3)  # asked for a witness
    world.intake.lose()
    await world.until_settled()

    assert world.fates() == {"Dead": 1}
    assert len(world.queue.dead) == 1


def unstamped(world: World, order_id: int, number: int) -> int:
    """An event that does not say when it happened."""
    return world.publish_raw({"id": order_id, "status": FIRST_STATUS + number})


async def test_unstamped_events_keep_their_order_however_they_come_again(world: World) -> None:
    """Quorum queues hand over again in another order: the first sight counts, through several losses."""
    await world.start()
    world.queue.reorder = lambda messages: messages[::-1]
    world.platform.down = AWAY
    for number in range(1, 6):
        unstamped(world, 1, number)
        await world.advance(1.0)
    for _ in range(3):
        world.intake.lose()
        await world.advance(2.0)
    world.platform.down = None
    await world.until_settled()

    assert world.status_of(1) == 5


async def test_an_unknown_redelivery_stays_older_than_what_is_new(world: World) -> None:
    """Of an earlier life of the worker, so as old as the channel. A second loss must not make it younger."""
    world.platform.down = AWAY
    await world.start()
    await world.advance(5.0)
    unstamped(world, 1, 2)
    await world.advance(1.0)
    world.queue.on_publish = lambda: None
    unstamped(world, 1, 1)
    world.queue.ready[-1].handed_over = 1
    world.intake._pump()
    await world.advance(1.0)
    world.intake.lose()
    await world.advance(1.0)
    world.platform.down = None
    await world.until_settled()

    assert world.status_of(1) == 2


async def test_a_stamped_event_keeps_its_stamp_through_a_loss(world: World) -> None:
    """The stamp outranks when we saw it."""
    await world.start()
    world.platform.down = AWAY
    world.publish(1, 2)
    await world.advance(1.0)
    world.publish(1, 1)
    await world.advance(1.0)
    world.intake.lose()
    await world.advance(1.0)
    world.platform.down = None
    await world.until_settled()

    assert world.status_of(1) == 2


async def test_poison_of_a_lost_channel_gets_one_copy(world: World) -> None:
    """Lost before it could be settled: the redelivery is the one that is dead-lettered."""
    await world.start()
    world.settler.takes_s = 1.0
    world.publish_raw(b"poison")
    await world.advance(0.5)
    world.intake.lose()
    await world.until_settled()

    assert len(world.queue.dead) == 1


async def test_our_version_headers_outrank_first_sight(world: World) -> None:
    """A retry copy that is lost and comes again is as old as its headers say."""
    await world.start()
    world.publish(1, 5)
    await world.until_settled()
    headers = {
        "ow-attempt": 2,
        "ow-first-seen": format_time(NOW_US),
        "ow-occurred-at": format_time(NOW_US + 1_000_000),
        "ow-message-id": "m0",
    }
    body = b'{"id": 1, "status": 1001}'
    world.queue.publish(body, Properties(headers=headers, content_type="application/json"))
    await world.until_settled()

    assert world.status_of(1) == 5
    assert world.fates() == {AckReason.APPLIED: 1, AckReason.SUPERSEDED: 1}


async def test_a_redelivery_whose_ack_was_lost_keeps_its_first_sight() -> None:
    """Acks are not confirmed. An event without a stamp that was settled and comes again is not newer than those that
    came after it."""
    async with World() as world:
        await world.start()
        tags = iter(range(1, 4))

        def arrive(number: int, *, generation: int) -> None:
            event = {"id": 1, "status": FIRST_STATUS + number}
            delivery = make_delivery(
                event,
                next(tags),
                generation,
                message_id=f"m{number}",
                redelivered=generation > 1,
                arrived_us=NOW_US + generation * 1_000_000 + number,
                opened_us=NOW_US + generation * 1_000_000,
            )
            world.pipeline.sink.deliver([delivery])

        for number in (1, 2):
            arrive(number, generation=1)
            await world.advance(1.0)
        world.pipeline.sink.lost(1)
        arrive(1, generation=2)
        await world.advance(1.0)

        assert world.status_of(1) == 2
