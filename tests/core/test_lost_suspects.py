"""Suspects whose deliveries are gone with their channel: nothing is decided about them, and nobody waits for them."""

import pytest

from tests.builders import make_update
from tests.support.driver import Driver, redelivered
from tests.support.modelplatform import ModelPlatform
from worker.core.entry import Batch
from worker.core.model import Ack, AckReason, Dead, Fields, Reason, Update
from worker.core.suspects import TROUBLED_ORDERS
from worker.core.turn import Effects
from worker.core.verdict import Call, Item, ItemVerdict, Judgement

REFUSED = Judgement(call=Call.REFUSED, detail="HTTP 400: no", status=400)
BUSY = Judgement(call=Call.REFUSED, detail="HTTP 200: Internal server error", status=200, transient=True)
ACCEPTED = Judgement(call=Call.ANSWERED)
APPLIED = Judgement(call=Call.ANSWERED, items={1: ItemVerdict(item=Item.APPLIED)})


def worker(*updates: Update) -> Driver:
    driver = Driver(ModelPlatform(), linger_s=0.0)
    driver.add(*updates)
    return driver


def started(driver: Driver) -> tuple[Batch, dict[int, Fields]]:
    batch = driver.pop()
    assert batch is not None
    return batch, driver.requested(batch)


def judged(driver: Driver, judgement: Judgement, *, lost: int = 0) -> Effects:
    """Start the next batch and give it this verdict; meanwhile the channel of this generation is lost."""
    batch, sent = started(driver)
    if lost:
        driver.lose(lost)
    return driver.finish(batch, sent, judgement)


def suspected(driver: Driver) -> None:
    """The next order is refused alone, and a witness found: it is about to be sent once more."""
    assert judged(driver, REFUSED).suspected
    assert judged(driver, ACCEPTED).accepted


def test_an_order_refused_after_its_channel_was_lost_is_no_suspect() -> None:
    """No control call is made for it, and the order is free for what comes again."""
    update = make_update(1)
    driver = worker(update)
    effects = judged(driver, REFUSED, lost=1)

    assert (effects.settlements, effects.suspected, effects.outage) == ([], [], None)
    assert driver.coalescer.idle
    driver.add(redelivered(update, 2, 2))
    assert judged(driver, REFUSED).suspected == [1]


def test_a_second_refusal_after_the_channel_was_lost_condemns_nothing() -> None:
    """Its dead letter would be there twice, as the delivery comes again. That one is judged from the beginning."""
    update = make_update(1)
    driver = worker(update)
    suspected(driver)
    effects = judged(driver, REFUSED, lost=1)
    again = redelivered(update, 2, 2)
    driver.add(again)

    assert effects.settlements == []
    assert judged(driver, REFUSED).suspected == [1]
    judged(driver, ACCEPTED)
    judged(driver, REFUSED)
    assert driver.dead == {again.delivery: Dead(reason=Reason.REJECTED, detail=REFUSED.detail)}
    assert driver.coalescer.idle


def test_what_came_again_meanwhile_waits_for_the_verdict_and_starts_innocent() -> None:
    """Never two calls for one order: the entry of the new channel goes when the old one's call is over."""
    update = make_update(1)
    driver = worker(update)
    suspected(driver)
    batch, sent = started(driver)
    driver.lose(1)
    driver.add(redelivered(update, 2, 2))
    assert driver.pop() is None
    driver.finish(batch, sent, REFUSED)

    assert judged(driver, REFUSED).suspected == [1]
    assert driver.dead == {}


def test_a_held_suspect_is_let_go_and_the_control_call_it_asked_for_settles_nothing() -> None:
    """Its entry is not sent again; only what is delivered again is."""
    update = make_update(1)
    driver = worker(update)
    judged(driver, REFUSED)
    driver.lose(1)
    control = judged(driver, ACCEPTED)

    assert (control.settlements, control.accepted) == ([], True)
    assert driver.pop() is None
    assert driver.coalescer.idle


def test_a_suspect_that_waits_for_its_second_call_is_dropped() -> None:
    """The witness was there, the call had not begun."""
    driver = worker(make_update(1))
    suspected(driver)
    driver.lose(1)

    assert driver.pop() is None
    assert driver.coalescer.idle


def test_a_suspect_that_is_applied_after_all_keeps_its_version() -> None:
    """The settlement is nobody's any more, but what comes again is a duplicate."""
    update = make_update(1)
    driver = worker(update)
    suspected(driver)
    assert judged(driver, APPLIED, lost=1).accepted
    again = redelivered(update, 2, 2)
    driver.add(again)
    driver.run()

    assert driver.calls == []
    assert driver.fate(again) == Ack(AckReason.DUPLICATE)


@pytest.mark.parametrize("judgement", [REFUSED, BUSY])
def test_a_merged_order_of_a_lost_channel_leaves_nothing_behind(judgement: Judgement) -> None:
    """Whatever would have become of its updates: they come again."""
    driver = worker(make_update(1, status=8, at=1, tag=1), make_update(1, carrier="x", at=2, tag=2))
    judged(driver, judgement, lost=1)

    assert driver.settled == {}
    assert driver.coalescer.idle


def test_what_is_alive_of_a_suspect_gets_its_own_try() -> None:
    """The newer value is gone with its channel and refused twice: the older one, of a newer channel, stays."""
    gone, alive = make_update(1, status=8, at=2, tag=1), make_update(1, status=4, at=1, tag=2, generation=2)
    driver = worker(gone, alive)
    suspected(driver)
    judged(driver, REFUSED, lost=1)
    _, sent = started(driver)

    assert driver.settled == {}
    assert sent == {1: {"status": 4}}


def test_suspects_that_are_gone_speak_for_no_outage() -> None:
    """They may be another worker's now; those that come again count once."""
    updates = [make_update(n, tag=n) for n in range(1, TROUBLED_ORDERS)]
    driver = worker()
    for update in updates:
        driver.add(update)
        assert judged(driver, REFUSED).outage is None
        driver.coalescer.pop_ready(driver.now)  # its control call, not answered yet
    driver.lose(1)
    driver.add(make_update(99, tag=99, generation=2))

    assert judged(driver, REFUSED).outage is None
