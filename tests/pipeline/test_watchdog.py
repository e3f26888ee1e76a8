"""The watchdog at work, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
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


async def _no_rebuild() -> None:
    raise AssertionError("too early")


async def test_deliveries_that_nobody_settles_are_told_once_and_again_when_it_is_over(world: World, logs: Logs) -> None:
    """A call that hangs beyond every limit: something is wrong with us, and people hear of it."""
    watchdog = Watchdog(
        Watch(),
        activity=lambda: world.pipeline.activity,
        intake=lambda: IntakeStatus(connected=True, consuming=True, generation=1, unsettled=1, delivered=1),
        rebuild=_no_rebuild,
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
        rebuild=_no_rebuild,
        clock=clock,
    )
    watching = asyncio.create_task(watchdog.run(), name="watchdog")
    await done.wait()

    assert watchdog.finding == "the event loop was blocked for 8.0 s"
    watching.cancel()
    await asyncio.wait([watching])
    assert [line["event"] for line in logs] == ["watchdog.stalled"]


class Deaf:
    """A consumer that is connected and does not consume, until ``cure_after`` rebuilds. Remembers when they were."""

    def __init__(self, cure_after: int | None = None) -> None:
        self.rebuilds: list[float] = []
        self._cure_after = cure_after

    @property
    def status(self) -> IntakeStatus:
        well = self._cure_after is not None and len(self.rebuilds) >= self._cure_after
        return IntakeStatus(connected=True, consuming=well, generation=1, unsettled=0, delivered=0)

    async def rebuild(self) -> None:
        self.rebuilds.append(asyncio.get_running_loop().time())


@asynccontextmanager
async def watched(consumer: Deaf, rebuild: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[Watchdog]:
    watchdog = Watchdog(
        Watch(),
        activity=_idle,
        intake=lambda: consumer.status,
        rebuild=rebuild or consumer.rebuild,
        clock=asyncio.get_running_loop().time,
    )
    watching = asyncio.create_task(watchdog.run(), name="watchdog")
    yield watchdog
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_finding_that_stays_is_answered_with_new_connections(logs: Logs) -> None:
    """People are told after half a minute, after another one everything is rebuilt, and that cures it."""
    consumer = Deaf(cure_after=1)
    async with watched(consumer) as watchdog:
        await asyncio.sleep(400.0)

        assert (len(consumer.rebuilds), watchdog.finding, watchdog.alive) == (1, "", True)
    assert [line["event"] for line in logs] == ["watchdog.stalled", "watchdog.rebuilding", "watchdog.moving"]


async def test_where_new_connections_do_not_help_liveness_fails(logs: Logs) -> None:
    """Only a new process will do; it is rebuilt once, not again and again."""
    consumer = Deaf()
    async with watched(consumer) as watchdog:
        await asyncio.sleep(110.0)
        patient = watchdog.alive
        await asyncio.sleep(300.0)

        assert (patient, watchdog.alive, len(consumer.rebuilds)) == (True, False, 1)
    assert [line["event"] for line in logs] == ["watchdog.stalled", "watchdog.rebuilding", "watchdog.gave_up"]


async def test_a_rebuild_that_hangs_or_fails_is_one_more_reason_to_give_up(logs: Logs) -> None:
    """It is bounded, and whatever it raises is told."""
    for failing in (asyncio.Event().wait, _no_rebuild):
        async with watched(Deaf(), rebuild=failing) as watchdog:  # type: ignore[arg-type]
            await asyncio.sleep(200.0)

            assert not watchdog.alive
    assert [line["event"] for line in logs].count("watchdog.rebuild_failed") == 2
