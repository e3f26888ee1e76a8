"""What every settler does (``ports.Settler``): the real one, and the model of the pipeline tests."""

from collections.abc import AsyncIterator, Sequence

import pytest

from tests.contract.stages import PARAMS, Opener, Stage, opener, until, until_ready
from tests.support.broker import update_of
from worker.core.errors import CopyFailed
from worker.core.history import IndexedLetter
from worker.core.model import Ack, AckReason, Dead, Delivery, Disposition, Reason, Release, Retry, Settlement

pytestmark = pytest.mark.usefixtures("no_leaks")

APPLIED = Ack(AckReason.APPLIED)
DEAD = Dead(reason=Reason.REJECTED, detail="the platform refuses it")
RETRY = Retry(tier=0, reason=Reason.BUSY, detail="try later")


@pytest.fixture(params=PARAMS)
def how(request: pytest.FixtureRequest) -> Opener:
    return opener(request)


@pytest.fixture
async def stage(how: Opener) -> AsyncIterator[Stage]:
    async with how() as made:
        await made.intake.open(made.sink)
        yield made


def settlements(deliveries: Sequence[Delivery], *dispositions: Disposition) -> list[Settlement]:
    """One for each delivery; the order id is the routing key."""
    return [
        Settlement(
            delivery=delivery,
            disposition=disposition,
            update=update_of(delivery, order_id=int(delivery.routing_key)),
            batch_id="b1",
        )
        for delivery, disposition in zip(deliveries, dispositions, strict=True)
    ]


async def left(stage: Stage) -> int:
    """How many of the deliveries were not settled."""
    still_held = sum(stage.holds(each) for each in stage.sink.deliveries)
    await stage.intake.release()
    await until_ready(stage, still_held)
    return still_held


async def test_each_disposition_ends_where_it_should(stage: Stage) -> None:
    """Ack is gone, Dead is a dead letter, Retry comes again with attempt 2, Release stays with the broker."""
    await stage.publish(1, 2, 3, 4)
    deliveries = list(await stage.sink.until_count(4))
    await stage.settler().settle(settlements(deliveries, APPLIED, DEAD, RETRY, Release()))
    again = (await stage.sink.until_count(5))[4]

    assert [stage.holds(each) for each in deliveries] == [False, False, False, True]
    assert (again.body, again.routing_key) == (deliveries[2].body, "3")
    assert again.properties.headers["ow-attempt"] == 2
    assert await stage.dead() == [deliveries[1].body]
    assert await left(stage) == 2


async def test_the_same_settlements_again_do_nothing(stage: Stage) -> None:
    """No second copy, no second ack, and the channel lives."""
    await stage.publish(1, 2)
    decided = settlements(await stage.sink.until_count(2), DEAD, APPLIED)
    for _ in range(2):
        await stage.settler().settle(decided)

    assert len(await stage.dead()) == 1
    assert stage.sink.losses == []
    assert await left(stage) == 0


async def test_a_copy_that_fails_keeps_its_entry_open_from_there_on_and_no_other(stage: Stage) -> None:
    """Order 1: the older is settled, the one whose copy failed and the younger stay. Order 2 is settled. Then again."""
    await stage.publish(1, 1, 1, 2)
    deliveries = list(await stage.sink.until_count(4))
    decided = settlements(deliveries, APPLIED, DEAD, APPLIED, APPLIED)

    with pytest.raises(CopyFailed):
        await stage.settler(places_copies=False).settle(decided)
    assert [stage.holds(each) for each in deliveries] == [False, True, True, False]
    await stage.settler().settle(decided)
    assert not any(stage.holds(each) for each in deliveries)
    assert await stage.dead() == [deliveries[1].body]


async def test_dead_letters_are_indexed_all_at_once_between_copies_and_acks(stage: Stage) -> None:
    """One call for those of all entries, while nothing is acknowledged; what is no dead letter is not in it."""
    await stage.publish(1, 2, 3, 4)
    deliveries = list(await stage.sink.until_count(4))
    calls: list[Sequence[IndexedLetter]] = []

    async def index(letters: Sequence[IndexedLetter]) -> None:
        calls.append(letters)
        assert all(stage.holds(each) for each in deliveries)

    await stage.settler().settle(settlements(deliveries, APPLIED, DEAD, RETRY, DEAD), index)
    await stage.sink.until_count(5)

    assert [sorted((each.order_id, each.reason, each.batch_id) for each in letters) for letters in calls] == [
        [(2, "rejected", "b1"), (4, "rejected", "b1")]
    ]
    assert len({each.copy_id for each in calls[0]}) == 2
    assert not any(stage.holds(each) for each in deliveries)


async def test_what_cannot_be_indexed_is_not_acknowledged(stage: Stage) -> None:
    """The copy is there and its message too: at worst it comes again."""
    await stage.publish(1, 2)
    deliveries = list(await stage.sink.until_count(2))

    async def broken(_letters: Sequence[IndexedLetter]) -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError):
        await stage.settler().settle(settlements(deliveries, APPLIED, DEAD), broken)

    assert len(await stage.dead()) == 1
    assert await left(stage) == 2


async def test_without_dead_letters_the_index_is_left_alone(stage: Stage) -> None:
    """Acks, retries, and a dead letter whose copy failed."""
    await stage.publish(1, 2, 3)
    deliveries = list(await stage.sink.until_count(3))
    calls: list[Sequence[IndexedLetter]] = []

    async def index(letters: Sequence[IndexedLetter]) -> None:
        calls.append(letters)

    await stage.settler().settle(settlements(deliveries[:2], APPLIED, RETRY), index)
    with pytest.raises(CopyFailed):
        await stage.settler(places_copies=False).settle(settlements(deliveries[2:], DEAD), index)

    assert calls == []


async def test_deliveries_of_a_lost_channel_get_neither_copy_nor_ack(stage: Stage) -> None:
    """They come again; a copy would be a duplicate. That is no error."""
    await stage.publish(1, 2)
    old = list(await stage.sink.until_count(2))
    await stage.lose()
    await stage.sink.until_count(4)
    await stage.settler().settle(settlements(old, DEAD, APPLIED))

    assert await stage.dead() == []
    assert stage.sink.losses == [1]
    assert await left(stage) == 2


async def test_old_and_new_deliveries_may_be_settled_together(stage: Stage) -> None:
    """Of one entry, one is from a lost channel: the other one is settled."""
    await stage.publish(1)
    old = list(await stage.sink.until_count(1))
    await stage.lose()
    deliveries = list(await stage.sink.until_count(2))
    await stage.settler().settle(settlements([*old, deliveries[1]], APPLIED, APPLIED))
    await until(lambda: not stage.holds(deliveries[1]))

    assert await left(stage) == 0


async def test_bodies_that_could_not_be_decoded_are_entries_of_their_own(stage: Stage) -> None:
    """No update, no order: each is settled for itself."""
    await stage.publish(1, 2)
    deliveries = list(await stage.sink.until_count(2))
    reason = Dead(reason=Reason.INVALID_EVENT, detail="not JSON")
    await stage.settler().settle([Settlement(delivery=each, disposition=reason) for each in deliveries])

    assert sorted(await stage.dead()) == sorted(each.body for each in deliveries)


async def test_after_cancel_settling_goes_on(stage: Stage) -> None:
    """A drain: no more deliveries, but those that are here can be finished."""
    await stage.publish(1, 2)
    deliveries = list(await stage.sink.until_count(2))
    await stage.intake.cancel()
    await stage.settler().settle(settlements(deliveries, DEAD, APPLIED))

    assert len(await stage.dead()) == 1
    assert await left(stage) == 0


async def test_nothing_to_settle_is_fine(stage: Stage) -> None:
    """An empty list."""
    await stage.settler().settle([])

    assert stage.sink.losses == []
