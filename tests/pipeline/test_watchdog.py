"""The watchdog at work, in virtual time."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from tests.pipeline.world import World
from worker.core.readiness import Activity, IntakeStatus
from worker.core.watch import Watch
from worker.watchdog import Watchdog

Logs = list[MutableMapping[str, Any]]


def _idle() -> Activity:
    return Activity(
        mode="running", reason=None, detail="", since_s=0.0, draining=False, unsettled=0, oldest_s=0.0, in_flight=0,
        calls_allowed=4, buffered=0, counts={},
    )  # fmt: skip


async def test_deliveries_that_nobody_settles_are_told_once_and_again_when_it_is_over(world: World, logs: Logs) -> None:
    """A call that hangs beyond every limit: something is wrong with us, and people hear of it."""
    watchdog = Watchdog(
        Watch(),
        activity=lambda: world.pipeline.activity,
        intake=lambda: IntakeStatus(connected=True, consuming=True, generation=1, unsettled=1, delivered=1),
        clock=asyncio.get_running_loop().time,
    )
    watching = asyncio.create_task(watchdog.run(), name="watchdog")
    await world.start()
    let_go = world.platform.hold(1)
    world.publish(1, 1)
    await world.until(lambda: watchdog.finding, 150.0)
    await world.advance(10.0)
    let_go.set()
    await world.until(lambda: not watchdog.finding)
    watching.cancel()
    await asyncio.wait([watching])

    assert [line["event"] for line in logs if line["event"].startswith("watchdog")] == [
        "watchdog.stalled",
        "watchdog.moving",
    ]


async def test_a_blocked_loop_is_found_afterwards(logs: Logs) -> None:
    """The clock went on while nothing else did."""
    times = iter([0.0, 9.0])
    done = asyncio.Event()

    def clock() -> float:
        try:
            return next(times)
        except StopIteration:
            done.set()
            return 9.0

    watchdog = Watchdog(
        Watch(),
        activity=_idle,
        intake=lambda: IntakeStatus(connected=True, consuming=True, generation=1, unsettled=0, delivered=0),
        clock=clock,
    )
    watching = asyncio.create_task(watchdog.run(), name="watchdog")
    await done.wait()

    assert watchdog.finding == "the event loop was blocked for 8.0 s"
    watching.cancel()
    await asyncio.wait([watching])
    assert [line["event"] for line in logs] == ["watchdog.stalled"]
