"""What every intake does (``ports.Intake``): the real consumer, and the model of the pipeline tests."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.stages import PARAMS, Opener, Stage, opener, until_ready

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture(params=PARAMS)
def how(request: pytest.FixtureRequest) -> Opener:
    return opener(request)


@pytest.fixture
async def stage(how: Opener) -> AsyncIterator[Stage]:
    async with how() as made:
        yield made


async def test_everything_in_the_queue_is_delivered_in_order(stage: Stage) -> None:
    """What was there before, and what comes later; stamped with generation, tag and both times."""
    await stage.publish(1, 2)
    await stage.intake.open(stage.sink)
    await stage.sink.until_count(2)
    await stage.publish(3)
    deliveries = await stage.sink.until_count(3)

    assert [(each.generation, each.tag, each.routing_key) for each in deliveries] == [
        (1, 1, "1"),
        (1, 2, "2"),
        (1, 3, "3"),
    ]
    assert not any(each.redelivered for each in deliveries)
    assert all(0 < each.opened_us <= each.arrived_us for each in deliveries)
    assert all(stage.holds(each) for each in deliveries)


async def test_opening_twice_is_harmless(stage: Stage) -> None:
    """One consumer, each message once."""
    await stage.intake.open(stage.sink)
    await stage.intake.open(stage.sink)
    await stage.publish(1, 2)
    deliveries = await stage.sink.until_count(2)

    assert [each.tag for each in deliveries] == [1, 2]
    assert stage.sink.losses == []


async def test_a_loss_is_told_once_and_everything_comes_again(stage: Stage) -> None:
    """A new generation, tags from 1, marked as redelivered; the old deliveries can no longer be settled."""
    await stage.intake.open(stage.sink)
    await stage.publish(1, 2)
    first = list(await stage.sink.until_count(2))
    await stage.lose()
    deliveries = await stage.sink.until_count(4)

    assert stage.sink.losses == [1]
    assert [(each.generation, each.redelivered) for each in deliveries[2:]] == [(2, True)] * 2
    assert {each.body for each in deliveries[2:]} == {each.body for each in first}
    assert not any(stage.holds(each) for each in first)


async def test_cancel_stops_deliveries_and_keeps_what_is_unsettled(stage: Stage) -> None:
    """Nothing new comes; what was delivered is still ours, and no loss was told."""
    await stage.intake.open(stage.sink)
    await stage.publish(1)
    (first,) = await stage.sink.until_count(1)
    await stage.intake.cancel()
    await stage.intake.cancel()
    await stage.publish(2)
    await until_ready(stage, 1)

    assert stage.holds(first)
    assert len(stage.sink.deliveries) == 1
    assert stage.sink.losses == []


async def test_release_hands_everything_back_and_open_starts_anew(stage: Stage) -> None:
    """The sink hears of the loss, once; the messages are ready again, and a new generation gets them."""
    await stage.intake.open(stage.sink)
    await stage.publish(1, 2, 3)
    first = list(await stage.sink.until_count(3))
    await stage.intake.release()
    await stage.intake.release()
    await until_ready(stage, 3)

    assert stage.sink.losses == [1]
    assert not any(stage.holds(each) for each in first)
    await stage.intake.open(stage.sink)
    assert {each.generation for each in (await stage.sink.until_count(6))[3:]} == {2}


async def test_cancel_then_release_is_a_drain(stage: Stage) -> None:
    """The order in which a worker leaves: nothing is lost on the way."""
    await stage.intake.open(stage.sink)
    await stage.publish(1)
    await stage.sink.until_count(1)
    await stage.intake.cancel()
    await stage.intake.release()

    await until_ready(stage, 1)
    assert stage.sink.losses == [1]


async def test_cancel_and_release_before_open_are_harmless(stage: Stage) -> None:
    """Nothing to stop, nothing to tell."""
    await stage.intake.cancel()
    await stage.intake.release()

    assert stage.sink.losses == []
