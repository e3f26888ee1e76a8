"""The journal as part of the work: nothing is acknowledged that it does not know, and its absence is an outage."""

from tests.pipeline.fakes import LOST
from tests.pipeline.world import World
from worker.core.model import AckReason, Dead
from worker.echoes import GIVE_UP_AFTER


async def test_a_journal_that_is_away_stops_the_worker_and_it_goes_on_by_itself(world: World) -> None:
    """A minute without it: no call starts, nothing is settled, readiness has the reason; then everything is applied."""
    await world.start()
    world.journal.away = True
    for order_id in range(1, 11):
        world.publish(order_id, 1)
    await world.advance(60.0)
    sent, acked, reason = list(world.platform.sent), dict(world.queue.acked), world.pipeline.activity.reason
    world.journal.away = False
    await world.until_settled(10.0)

    assert (sent, acked, reason) == ([], {}, "journal")
    assert world.fates() == {AckReason.APPLIED: 10}
    assert world.pipeline.activity.reason is None


async def test_what_was_answered_while_the_journal_went_away_is_settled_when_it_is_back(world: World) -> None:
    """The call is over, its outcome waits: nothing is sent twice, nothing is acknowledged before."""
    await world.start()
    let_go = world.platform.hold(1)
    world.publish(1, 1)
    await world.advance(0.1)
    world.journal.away = True
    let_go.set()
    world.publish(1, 2)
    await world.advance(60.0)
    acked = dict(world.queue.acked)
    world.journal.away = False
    await world.until_settled(10.0)

    assert acked == {}
    assert world.platform.sent == [[1], [1]]
    assert world.fates() == {AckReason.APPLIED: 2}


async def test_poison_and_what_is_covered_wait_for_the_journal_too(world: World) -> None:
    """What needs no call is journalled before it is settled, like everything else."""
    await world.start()
    world.publish(1, 2)
    await world.until_settled()
    world.journal.away = True
    world.publish(1, 1)
    world.publish_raw(b"poison")
    await world.advance(10.0)
    waiting = len(world.queue.unsettled)
    world.journal.away = False
    await world.until_settled(10.0)

    assert waiting == 2
    assert world.fates() == {AckReason.APPLIED: 1, AckReason.SUPERSEDED: 1, "Dead": 1}


async def test_the_history_says_what_became_of_each_event(world: World) -> None:
    """Merged, applied, too late, dead: a row each, with the batch that carried it."""
    await world.start()
    world.publish(1, 1)
    world.publish(1, 3)
    await world.until_settled()
    world.publish(1, 2)
    world.publish_raw(b"poison")
    await world.until_settled()
    rows = [row for _, row in await world.journal.history(1)]

    assert [(row.disposition, row.reason, row.attempt) for row in rows] == [
        ("ack", "superseded", 1),
        ("ack", "applied", 1),
        ("ack", "superseded", 1),
    ]
    assert rows[0].batch_id == rows[1].batch_id != ""
    assert rows[1].fields == {"status": 1003}


async def test_a_call_that_is_executed_late_is_undone_by_an_echo(world: World) -> None:
    """No answer, a newer value applied, then the old call is executed after all: the newest value is sent once more."""
    await world.start()
    world.platform.hangs = True
    world.publish(1, 1)
    await world.until(lambda: world.pipeline.activity.in_flight)
    await world.advance(1.0)
    world.publish(1, 2)
    await world.advance(14.5)
    world.platform.hangs = False
    await world.until(lambda: world.status_of(1) == 2)
    world.platform.model.values[1]["status"] = 1001
    world.may_step_back = True
    await world.until(lambda: world.status_of(1) == 2, 120.0)
    await world.until(lambda: world.pipeline.counts["echoed"])
    await world.until_settled()

    assert world.pipeline.counts["echoed"] == 1
    assert AckReason.APPLIED in world.fates()


async def test_an_answered_call_owes_no_echo(world: World) -> None:
    """The usual case is one call."""
    await world.start()
    for number in range(1, 6):
        world.publish(1, number)
        await world.until_settled()
    await world.advance(300.0)

    assert world.pipeline.counts["echoed"] == 0
    assert len(world.platform.sent) == 5


async def test_an_answer_that_got_lost_is_followed_by_one_echo(world: World) -> None:
    """The values went out again and were answered; the lost call may still come, so they go out once more, later."""
    await world.start()
    world.platform.script.append(LOST)
    world.publish(1, 1)
    await world.until_settled()
    soon = len(world.platform.sent)
    await world.advance(300.0)

    assert soon == 2
    assert world.platform.sent == [[1], [1], [1]]


async def test_an_echo_that_is_refused_again_and_again_is_given_up(world: World) -> None:
    """The platform moved on and does not want the old values: the order is as it is, and nothing is dead-lettered."""
    await world.start()
    world.platform.script.append(LOST)
    world.publish(1, 1)
    await world.until_settled()
    world.platform.model.refuses = lambda _order_id, _fields: True
    await world.advance(300.0)
    calls = len(world.platform.sent)
    await world.advance(300.0)

    assert len(world.platform.sent) == calls == 2 + GIVE_UP_AFTER
    assert not any(isinstance(each.disposition, Dead) for each in world.queue.acked.values())
