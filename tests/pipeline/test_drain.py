"""Stopping: what is buffered is sent, what is sent is settled, the rest goes back, and it takes bounded time."""

from collections.abc import Awaitable, Callable

import pytest

from tests.pipeline.fakes import AWAY, CALL_TIMEOUT_S
from tests.pipeline.world import World
from tests.support.modelplatform import rest_error
from worker.core.model import AckReason, Dead
from worker.core.report import Reply

GRACE_S = 25.0


async def test_a_drain_sends_what_is_buffered() -> None:
    """No lingering any more: 150 orders leave at once and are settled."""
    async with World(linger_s=10.0) as world:
        await world.start()
        for order_id in range(1, 151):
            world.publish(order_id, 1)
        await world.advance(0.01)
        took_s = await world.stop()

        assert took_s < 1.0
        assert world.fates() == {AckReason.APPLIED: 150}
        assert world.queue.quiet


async def test_intake_stops_before_anything_else(world: World) -> None:
    """What is published after stop stays with the broker."""
    await world.start()
    world.publish(1, 1)
    await world.advance(0.01)
    world.pipeline.stop()
    await world.advance(0.001)
    late = world.publish(2, 1)
    await world.stop()

    assert world.intake.cancels == 1
    assert [message.number for message in world.queue.ready] == [late]
    assert world.fates() == {AckReason.APPLIED: 1}


async def test_calls_in_flight_are_waited_for_and_settled(world: World) -> None:
    """A slow answer is still an answer."""
    await world.start()
    world.platform.latency_s = 8.0
    world.publish(1, 1)
    await world.advance(1.0)
    took_s = await world.stop()

    assert took_s == pytest.approx(7.0, abs=0.1)
    assert world.fates() == {AckReason.APPLIED: 1}


async def idle(world: World) -> None:
    """Nothing to do."""


async def buffered(world: World) -> None:
    world.publish(1, 1)
    await world.advance(0.001)


async def in_flight(world: World) -> None:
    world.platform.latency_s = 5.0
    world.publish(1, 1)
    await world.advance(0.1)


async def hung(world: World) -> None:
    world.platform.hangs = True
    for order_id in range(1, 9):
        world.publish(order_id, 1)
        await world.advance(0.05)


async def holding(world: World) -> None:
    world.platform.down = AWAY
    world.publish(1, 1)
    await world.until(lambda: world.holding)


async def probing(world: World) -> None:
    await holding(world)
    world.platform.hangs = True
    calls = len(world.platform.calls)
    await world.until(lambda: len(world.platform.calls) > calls)


async def sitting_out(world: World) -> None:
    world.platform.down = Reply(status=429, retry_after="200")
    world.publish(1, 1)
    await world.until(lambda: world.holding)
    await world.advance(20.0)


async def paused(world: World) -> None:
    world.platform.down = rest_error("gone", 404)
    world.publish(1, 1)
    await world.until(lambda: world.paused and not world.intake.channel_open)


async def copy_failing(world: World) -> None:
    world.settler.refuses = lambda settlement: isinstance(settlement.disposition, Dead)
    world.publish_raw(b"poison")
    await world.advance(3.0)


async def disconnected(world: World) -> None:
    world.publish(1, 1)
    await world.advance(0.001)
    world.intake.reopen_s = 1000.0
    world.intake.lose()


State = Callable[[World], Awaitable[None]]


@pytest.mark.parametrize(
    ("state", "most_s"),
    [
        (idle, 0.1),
        (buffered, 0.2),
        (in_flight, 5.0),
        (hung, GRACE_S),
        (holding, 0.1),
        (probing, 0.1),
        (sitting_out, 0.1),
        (paused, 0.1),
        (copy_failing, GRACE_S),
        (disconnected, 0.1),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_drain_takes_bounded_time_in_every_state(world: World, state: State, most_s: float, times: int) -> None:
    """And whatever was not settled is with the broker. Stopping twice is no different."""
    await world.start()
    await state(world)
    if times == 2:
        world.pipeline.stop()
    took_s = await world.stop()

    assert took_s <= most_s + 0.01
    assert len(world.queue.ready) + len(world.queue.acked) == world.queue.published
    assert world.queue.unsettled == {}


async def test_a_worker_that_is_stopped_before_it_runs_ends_at_once(world: World) -> None:
    """Stop before start is harmless."""
    world.publish(1, 1)
    world.pipeline.stop()
    await world.pipeline.run()

    assert len(world.queue.ready) == 1


async def test_an_outage_during_the_drain_ends_it(world: World) -> None:
    """The platform goes while we leave: hand back, do not probe for the whole grace."""
    await world.start()
    world.platform.latency_s = 2.0
    world.platform.script.append(AWAY)
    world.publish(1, 1)
    await world.advance(0.1)
    took_s = await world.stop()

    assert took_s < 2.0
    assert len(world.queue.ready) == 1


async def test_a_refused_order_is_judged_before_the_worker_leaves(world: World) -> None:
    """The search for the bad one goes on during the drain: no half-finished suspicion is lost."""
    await world.start()
    world.platform.model.refuses = lambda order_id, _fields: order_id == 7
    for order_id in range(1, 21):
        world.publish(order_id, 1)
    await world.advance(0.03)
    await world.stop()

    assert world.fates() == {AckReason.APPLIED: 19, "Dead": 1}


async def test_a_recovery_that_succeeds_during_the_drain_does_not_consume_again(world: World) -> None:
    """Paused, the probe is answered just when we leave: intake stays closed."""
    await world.start()
    world.platform.hold(1)
    world.publish(1, 1)
    await world.advance(0.1)
    world.publish(2, 1)
    world.platform.down = rest_error("gone", 404)
    await world.until(lambda: world.paused and not world.intake.channel_open)
    world.platform.down = None
    world.platform.latency_s = 10.0
    calls = len(world.platform.calls)
    await world.until(lambda: len(world.platform.calls) > calls)
    generation = world.intake.generation
    took_s = await world.stop()

    assert took_s == pytest.approx(GRACE_S)
    assert world.intake.generation == generation
    assert len(world.queue.ready) == 2


async def test_hung_calls_are_cut_off_at_the_grace() -> None:
    """A grace shorter than the call timeout (which the settings refuse) still ends in time."""
    async with World(drain_grace_s=CALL_TIMEOUT_S / 3) as world:
        await world.start()
        await hung(world)
        took_s = await world.stop()

        assert took_s == pytest.approx(CALL_TIMEOUT_S / 3, abs=0.1)
        assert world.pipeline.counts["released"] == 8
