"""One active worker and one standby on a journal in PostgreSQL: the active one goes in the middle of its work.

What a frozen one had in hand is delivered to the other, and it goes on with it all the same when it is back.
"""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.rivals.conftest import Tell
from tests.support.arena import Arena
from tests.support.postgres import PrivatePostgres
from tests.support.rivals import until_agreed
from tests.support.workerprocess import PROGRAM, WorkerProcess
from worker.adapters.journal.database import Database
from worker.adapters.privatebroker import PrivateBroker

IMPATIENT = ("tests.support.impatient",)
ALERT = "?heartbeat=1"
"""The broker gives a silent worker up after 3 s."""
OURS_S = 1.0
"""Every call that the lost one had begun is executed by then."""
TAKEN_OVER_S = 25.0
"""A frozen one may be in the middle of a transaction, whose locks PostgreSQL keeps for 10 s."""

pytestmark = [
    pytest.mark.broker,
    pytest.mark.postgres,
    pytest.mark.timeout(240),
    pytest.mark.parametrize(
        ("program", "times"),
        [(IMPATIENT, 1), pytest.param(PROGRAM, 3, marks=pytest.mark.slow)],
        ids=["short claims", "as it is"],
    ),
]


class Pair:
    """An active worker and its standby under load; they change places when the standby has taken over."""

    def __init__(self, arena: Arena, program: tuple[str, ...], **settings: str) -> None:
        self.arena = arena
        self.active: WorkerProcess
        self.standby: WorkerProcess
        self._program = program
        self._settings = settings

    async def start(self) -> WorkerProcess:
        """One more worker, registered with the broker when this returns."""
        return await self.arena.start(program=self._program, **self._settings)

    async def taken_over(self, since: float) -> float:
        """Wait until the standby does the work; the seconds that took."""
        took_s = OURS_S + await self.arena.recovered(since + OURS_S, limit_s=TAKEN_OVER_S)
        self.active, self.standby = self.standby, self.active
        return took_s

    async def thaw(self) -> None:
        """The one that was frozen goes on, finds its connections closed, and registers anew, now as the standby."""
        before = len(self.standby.heard("broker.consuming"))
        self.standby.send(signal.SIGCONT)
        await self.standby.until(lambda worker: len(worker.heard("broker.consuming")) > before)


@asynccontextmanager
async def under_load(
    broker: PrivateBroker, folder: Path, postgres: PrivatePostgres, program: tuple[str, ...], tell: Tell
) -> AsyncIterator[Pair]:
    """Active, standby and load; in the end every order has to be right."""
    url = postgres.create(folder.name, like="empty_journal")
    began = time.monotonic()
    async with Arena(broker, folder) as arena:
        pair = Pair(arena, program, AMQP_URL=broker.url + ALERT, JOURNAL_URL=url)
        pair.active, pair.standby = await pair.start(), await pair.start()
        async with arena.load() as load:
            await arena.flowing()
            yield pair
        await arena.arrived(deadline_s=150.0)
        journal = Database(url)
        try:
            await until_agreed(arena, journal)
        finally:
            await journal.close()
        for worker in arena.workers:
            if worker.is_running:
                assert await worker.terminate() == 0
        verdict = await arena.verdict(alone=False)
    tell("", time.monotonic() - began, verdict)

    verdict.assert_good()
    assert (load.unsure, verdict.figures["queued"]) == (0, 0)


async def test_the_active_one_is_killed(
    broker: PrivateBroker,
    tmp_path: Path,
    postgres: PrivatePostgres,
    postgres_url: str,
    program: tuple[str, ...],
    times: int,
    tell: Tell,
) -> None:
    """The standby goes on, and a new one stands by for it."""
    async with under_load(broker, tmp_path, postgres, program, tell) as pair:
        for _ in range(times):
            await pair.active.kill()
            await pair.taken_over(time.monotonic())
            pair.standby = await pair.start()
            await pair.arena.flowing()


async def test_the_active_one_is_frozen(
    broker: PrivateBroker,
    tmp_path: Path,
    postgres: PrivatePostgres,
    postgres_url: str,
    program: tuple[str, ...],
    times: int,
    tell: Tell,
) -> None:
    """The standby goes on; the frozen one comes back with what it had begun, and stands by."""
    async with under_load(broker, tmp_path, postgres, program, tell) as pair:
        for _ in range(times):
            pair.active.send(signal.SIGSTOP)
            await pair.taken_over(time.monotonic())
            await pair.arena.flowing()
            await pair.thaw()
            await pair.arena.flowing()
