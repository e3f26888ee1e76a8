"""Every way in which the worker can end in the middle of something.

The cancellations find the awaits by themselves: a scenario is run again and again, cancelled one turn of the event loop
later each time, until it ends before it is cancelled. After each of them a new worker takes over.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.pipeline.fakes import AWAY, LOST
from tests.pipeline.world import FIRST_STATUS, World
from tests.support.modelplatform import ModelPlatform, Refusal, rest_error
from tests.support.virtualtime import VirtualTimeLoop, run_virtual
from worker.core.model import Dead

BAD = FIRST_STATUS + 99
STEP = 3
"""Every scenario is three tests, each of which cuts at every third turn of the loop, from another one on."""


async def a_good_day(world: World) -> None:
    """Batches, merging, a refused order, poison, a lost answer."""
    world.platform.script.append(LOST)
    for order_id in range(1, 4):
        world.publish(order_id, 1)
        world.publish(order_id, 2)
    world.publish(4, 99)
    world.publish_raw(b"poison")
    await world.until_settled()
    world.publish(1, 3)


async def an_outage(world: World) -> None:
    """Hold, probes, recovery, and a channel that is lost meanwhile."""
    world.platform.script.extend([AWAY, AWAY])
    world.publish(1, 1)
    await world.advance(0.1)
    world.intake.lose()
    await world.until_settled()


async def a_pause(world: World) -> None:
    """Release, probes, consume again."""
    world.platform.script.extend([rest_error("gone", 404)] * 2)
    world.publish(1, 1)
    world.publish(2, 1)
    await world.until_settled()


async def failing_copies(world: World) -> None:
    """Dead letters that need several tries, and a drain that cannot wait for them."""
    tries = 0

    def refuses(settlement: object) -> bool:
        nonlocal tries
        tries += 1
        return tries <= 3

    world.settler.refuses = refuses
    world.publish_raw(b"poison")
    world.publish(1, 1)
    await world.until_settled()
    world.settler.refuses = lambda settlement: isinstance(settlement.disposition, Dead)
    world.publish_raw(b"poison")
    await world.advance(0.05)


Scenario = Callable[[World], Awaitable[None]]


def picky() -> ModelPlatform:
    return ModelPlatform(lambda _order_id, fields: fields.get("status") == BAD, Refusal.PATH)


async def cut(scenario: Scenario, turns: int) -> bool:
    """Cancel the worker after so many turns, look at the books, let a new one take over. False: it ended before."""
    world = World(model=picky(), drain_grace_s=2.0)
    working = asyncio.create_task(world.pipeline.run(), name="pipeline")
    playing = asyncio.create_task(play(world, scenario), name="scenario")
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.after_turns(turns, working.cancel)
    await asyncio.wait([working])
    playing.cancel()
    await asyncio.wait([playing])
    world.audit()

    assert world.queue.unsettled == {}
    assert working.cancelled() or working.exception() is None
    await take_over(world)
    return working.cancelled()


async def play(world: World, scenario: Scenario) -> None:
    await world.until(lambda: world.intake.consuming)
    await scenario(world)
    world.pipeline.stop()


async def take_over(dead: World) -> None:
    """The messages that are left come again, and are settled by a worker that was never disturbed."""
    dead.settler.refuses = lambda _: False
    dead.platform.script.clear()
    async with World(before=dead) as heir:
        await heir.start()
        await heir.until_settled()
        assert set(heir.queue.acked) == set(range(1, heir.queue.published + 1))


def places(first: int) -> Iterator[int]:
    """Turns at which to cut."""
    turns = first
    while True:
        yield turns
        turns += STEP


@pytest.mark.parametrize("first", range(1, STEP + 1))
@pytest.mark.parametrize("scenario", [a_good_day, an_outage, a_pause, failing_copies])
def test_cancelled_at_any_await_it_leaves_no_task_and_loses_nothing(scenario: Scenario, first: int) -> None:
    """No task left, nothing settled twice, nothing acknowledged that was not applied, everything else handed back."""
    cuts = 0

    async def one(turns: int) -> None:
        nonlocal cuts
        cuts += await cut(scenario, turns)

    for turns in places(first):
        before = cuts
        run_virtual(one(turns))
        if cuts == before:
            break

    assert cuts > 20


# -- errors ---------------------------------------------------------------------------------------------------------


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a tree of groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


async def in_a_call(world: World, fault: BaseException) -> None:
    world.platform.fault = fault
    world.publish(1, 1)


async def in_the_journal(world: World, fault: BaseException) -> None:
    world.journal.fault = fault
    world.publish(1, 1)


async def in_a_settlement(world: World, fault: BaseException) -> None:
    def refuses(_: object) -> bool:
        raise fault

    world.settler.refuses = refuses
    world.publish_raw(b"poison")


async def in_a_probe(world: World, fault: BaseException) -> None:
    world.platform.script.append(AWAY)
    world.publish(1, 1)
    await world.until(lambda: world.holding)
    world.platform.fault = fault


async def in_the_release_of_a_pause(world: World, fault: BaseException) -> None:
    world.intake.fault = fault
    world.platform.script.append(rest_error("gone", 404))
    world.publish(1, 1)


async def in_the_resume_of_a_pause(world: World, fault: BaseException) -> None:
    world.platform.script.append(rest_error("gone", 404))
    world.publish(1, 1)
    await world.until(lambda: world.intake.releases == 1)
    await world.advance(0.01)
    world.intake.fault = fault


async def in_the_cancel_of_the_drain(world: World, fault: BaseException) -> None:
    world.intake.fault = fault
    world.pipeline.stop()


Place = Callable[[World, BaseException], Awaitable[None]]
PLACES = [
    in_a_call,
    in_the_journal,
    in_a_settlement,
    in_a_probe,
    in_the_release_of_a_pause,
    in_the_resume_of_a_pause,
    in_the_cancel_of_the_drain,
]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "fault", [RuntimeError("a bug"), asyncio.CancelledError("by the library")], ids=["bug", "cancel"]
)
async def test_what_nobody_expected_ends_the_worker_loudly(place: Place, fault: BaseException) -> None:
    """An error of ours, or a cancellation that nobody asked for: run() raises it, and hands everything back."""
    world = World()
    await world.start()
    assert world.task is not None
    await place(world, fault)
    await asyncio.wait([world.task], timeout=60.0)

    assert world.task.done()
    assert not world.task.cancelled()
    error = world.task.exception()
    assert error is not None
    assert all(fault in (leaf, leaf.__cause__) for leaf in leaves(error))
    assert world.queue.unsettled == {}
    world.audit()


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize(
    "fault", [RuntimeError("a bug"), asyncio.CancelledError("by the library")], ids=["bug", "cancel"]
)
async def test_a_worker_that_cannot_open_its_intake_ends_loudly(fault: BaseException) -> None:
    """The very first await."""
    world = World()
    world.intake.fault = fault
    working = asyncio.create_task(world.pipeline.run(), name="pipeline")
    await asyncio.wait([working])

    assert not working.cancelled()
    error = working.exception()
    assert error is not None
    assert all(fault in (leaf, leaf.__cause__) for leaf in leaves(error))
    world.audit()
