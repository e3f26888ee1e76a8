"""Two workers on the same orders at once: whatever they do to each other, every order is right in the end.

No single active consumer, calls of 5 to 60 ms, 200 orders. A run with an odd seed publishes the events of an order in
any order, one with an even seed the oldest first.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rivals.conftest import JournalOf, Tell
from tests.support.accounting import Verdict
from tests.support.rivals import PER_ORDER, Rivals
from tests.support.workerprocess import PROGRAM
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

IMPATIENT = ("tests.support.impatient",)
UNCLAIMED = ("tests.support.unclaimed",)
SEEDS = range(1, 21)
KILLED_SEEDS = range(101, 111)
KILLS = 3
FEW = 25
"""Events of an order where a test shall be short: 5,000 in all."""
AT_WORK, ALIVE = 2, 8
"""Runs at a time: of those that publish and work, and of those that wait for the last echo as well."""
TRIES = 5


@dataclass(slots=True, frozen=True)
class Runs:
    """Runs of one test. Those at work share the processor, so there are few; those that wait take none."""

    broker: PrivateBroker
    passive_url: str
    journal_of: JournalOf
    folder: Path
    tell: Tell

    async def run(
        self, seed: int, *, kills: int = 0, program: Sequence[str] = PROGRAM, per_order: int = PER_ORDER
    ) -> Verdict:
        """One run to its end."""
        return await self._run(seed, kills, program, per_order, asyncio.Semaphore(1))

    async def all(self, seeds: Sequence[int], *, kills: int = 0) -> dict[int, Verdict]:
        """A run of the real program for each seed."""
        at_work, alive = asyncio.Semaphore(AT_WORK), asyncio.Semaphore(ALIVE)

        async def one(seed: int) -> Verdict:
            async with alive:
                return await self._run(seed, kills, PROGRAM, PER_ORDER, at_work)

        async with asyncio.TaskGroup() as group:
            tasks = {seed: group.create_task(one(seed), name=f"run {seed}") for seed in seeds}
        return {seed: task.result() for seed, task in tasks.items()}

    async def _run(
        self, seed: int, kills: int, program: Sequence[str], per_order: int, at_work: asyncio.Semaphore
    ) -> Verdict:
        folder = self.folder / f"run{seed}"
        folder.mkdir()
        rivals = Rivals(
            self.broker,
            folder,
            self.journal_of(f"run{seed}"),
            self.passive_url,
            seed,
            program=program,
            per_order=per_order,
            shuffled=bool(seed % 2),
        )
        async with rivals:
            async with at_work:
                began = time.monotonic()
                await rivals.compete(kills=kills)
            if program != UNCLAIMED:
                await rivals.agreed()
            verdict = await rivals.ended()
        self.tell(f"seed {seed}", time.monotonic() - began, verdict)
        return verdict


@pytest.fixture
def runs(broker: PrivateBroker, passive_url: str, journal_of: JournalOf, tmp_path: Path, tell: Tell) -> Runs:
    return Runs(broker, passive_url, journal_of, tmp_path, tell)


def assert_right(verdict: Verdict, events: int) -> None:
    """Every order at its greatest versions, every message acknowledged, none left or dead-lettered."""
    verdict.assert_good()
    assert verdict.figures["applied"] + verdict.figures["superseded"] == verdict.figures["events"] == events


async def test_two_at_once_leave_every_order_right(runs: Runs) -> None:
    """They overwrite each other for a while, and the echoes mend it."""
    verdict = await runs.run(SEEDS[0], program=IMPATIENT, per_order=FEW)

    assert verdict.figures["stepped_back"] > 0
    assert_right(verdict, 5_000)


async def test_two_at_once_leave_every_order_right_when_either_is_killed(runs: Runs) -> None:
    """What a killed one had claimed is looked after by those who live."""
    assert_right(await runs.run(KILLED_SEEDS[0], kills=1, program=IMPATIENT, per_order=FEW), 5_000)


async def test_without_claims_and_revisions_it_goes_wrong(runs: Runs) -> None:
    """An old value stays for good; otherwise the tests around this one would prove nothing."""
    found: set[str] = set()
    for seed in SEEDS[:TRIES]:
        if not found:
            found = set((await runs.run(seed, program=UNCLAIMED, per_order=FEW)).problems)

    assert found == {"went backwards"}


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_every_order_is_right_in_20_of_20_runs(runs: Runs) -> None:
    """20,000 events each, and nobody is killed."""
    for verdict in (await runs.all(SEEDS)).values():
        assert_right(verdict, 20_000)


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_every_order_is_right_in_10_of_10_runs_with_kills(runs: Runs) -> None:
    """20,000 events each, and kill -9 of either worker three times in between."""
    for verdict in (await runs.all(KILLED_SEEDS, kills=KILLS)).values():
        assert_right(verdict, 20_000)
