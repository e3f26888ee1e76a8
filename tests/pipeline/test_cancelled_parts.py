"""The parts of the worker that are used by themselves, cancelled at each of their awaits, in virtual time.

The pipeline as a whole, with its recovery, is cut in ``test_cancellation.py``.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pipeline.fakes import FakeTokens
from tests.pipeline.test_caller import REFUSED, REQUESTED, Script
from tests.pipeline.world import World
from tests.support.cutting import Cause, Cut, at_every_await
from tests.test_publishing import EVENT, FakeOutlet, batches, publication
from worker.caller import Caller
from worker.core.errors import CopyFailed
from worker.core.model import Dead, Delivery, Properties, Reason, Settlement
from worker.core.publication import Ended
from worker.core.readiness import IntakeStatus
from worker.core.verdict import Call, Rules
from worker.core.watch import Watch
from worker.linefile import StateFile
from worker.ports import Index
from worker.settling import Unsettled
from worker.watchdog import Watchdog

pytestmark = pytest.mark.usefixtures("no_leaks")


async def test_a_call() -> None:
    """Its outcome is unknown, and the next one is judged as ever."""

    async def trial(cut: Cut) -> None:
        caller = Caller(Script(REFUSED), FakeTokens(), Rules())
        await cut.run(caller.call(REQUESTED))

        assert (await caller.call(REQUESTED)).call is Call.ANSWERED

    await at_every_await(Cause.ASKED, trial)


class OnceFull:
    """Implements ``ports.Settler``: there is no room for the first copy."""

    def __init__(self) -> None:
        self.settled: list[Settlement] = []
        self._full = True

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        if self._full:
            self._full = False
            raise CopyFailed("full")
        self.settled.extend(settlements)


async def test_the_settling_of_a_copy_that_fails() -> None:
    """The books hold it until it is settled, and no longer."""

    async def trial(cut: Cut) -> None:
        settler = OnceFull()
        unsettled = Unsettled(settler, prefetch=1)
        delivery = Delivery(
            generation=1, tag=1, body=b"", properties=Properties(), exchange="", routing_key="", redelivered=False
        )
        unsettled.add({delivery: None}, 0.0)
        settlement = Settlement(delivery=delivery, disposition=Dead(reason=Reason.INVALID_EVENT, detail="no"))
        await cut.run(unsettled.settle([settlement]))
        assert (delivery in unsettled) == (settler.settled == [])
        if delivery in unsettled:
            await unsettled.settle([settlement])

        assert (len(unsettled), settler.settled, unsettled.counts["dead"]) == (0, [settlement], 1)

    await at_every_await(Cause.ASKED, trial)


@pytest.mark.parametrize("point", [1, 2, 3])
async def test_the_watchdog(world: World, point: int) -> None:
    """It looks until it is cancelled."""
    status = IntakeStatus(connected=True, consuming=True, generation=1, unsettled=0, delivered=0)
    watchdog = Watchdog(
        Watch(),
        activity=lambda: world.pipeline.activity,
        intake=lambda: status,
        rebuild=world.intake.release,
        clock=asyncio.get_running_loop().time,
    )
    cut = Cut(Cause.ASKED, point)
    await cut.run(watchdog.run())

    assert cut.reached.is_set()
    assert watchdog.finding == ""


async def test_a_pause_by_hand() -> None:
    """Asked again it is done, and then everything goes on."""

    async def trial(cut: Cut) -> None:
        async with World() as world:
            await world.start()
            world.publish(1, 1)
            await cut.run(world.pipeline.availability.pause("why"))
            await world.pipeline.availability.pause("why")
            await world.pipeline.availability.resume_by_hand()
            await world.until_settled(60.0)

    await at_every_await(Cause.ASKED, trial)


async def test_a_publication(tmp_path: Path) -> None:
    """What it kept is enough for another try to publish the rest, each event under the id of its first try."""
    state = StateFile(tmp_path / "state")
    texts = [EVENT] * 6

    async def trial(cut: Cut) -> None:
        outlet = FakeOutlet(lambda name, tries: CopyFailed("lost") if (name, tries) == ("run-2", 1) else None)
        result = await cut.run(publication(outlet, state=state).run(batches(*texts)))
        if result is None:
            result = await publication(outlet, state=state, begun=state.load()).run(batches(*texts))

        assert result.ended is Ended.DONE
        assert {name for name, _, _ in outlet.stored} == {f"run-{number}" for number in range(1, 7)}
        assert outlet.flying == set()

    await at_every_await(Cause.ASKED, trial, least=5)
