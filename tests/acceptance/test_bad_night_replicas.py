"""The morning after a bad night with an active worker and a standby: the active one goes in the middle of the replay.

Two workers may step on each other for a moment, and put that right by themselves; so what counts here is the end.
"""

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import Tell
from tests.support.deadworld import DeadWorld
from tests.support.morning import Morning
from tests.support.night import LONG_S, REFUSED, SETTINGS, Night
from tests.support.postgres import PrivatePostgres
from tests.support.rivals import owed
from tests.support.workerprocess import WorkerProcess
from worker.adapters.journal.database import Database
from worker.adapters.privatebroker import PrivateBroker

IMPATIENT = ("tests.support.impatient",)
ALERT = "?heartbeat=1"
"""The broker gives a silent worker up after 3 s."""

pytestmark = [pytest.mark.broker, pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(500)]


class Replicas:
    """Two workers on one journal, of which the broker lets one work."""

    def __init__(self, world: DeadWorld, journal_url: str) -> None:
        self.world = world
        self.night = Night(world)
        self.morning = Morning(self.night, world.yard(journal_url))
        self.active: WorkerProcess
        self.journal_url = journal_url

    async def start(self) -> WorkerProcess:
        """One more worker, registered with the broker when this returns."""
        settings = SETTINGS | {"JOURNAL_URL": self.journal_url, "AMQP_URL": self.world.broker.url + ALERT}
        worker = await self.world.launch(program=IMPATIENT, **settings)
        await worker.until_heard("worker.ready", deadline_s=LONG_S)
        return worker

    async def agreed(self) -> None:
        """Wait until nobody owes an echo or holds a claim."""
        await self.night.until_right()
        journal = Database(self.journal_url)
        try:
            await self._until_none_owed(journal)
        finally:
            await journal.close()
        await self.night.until_right()

    async def calling(self) -> None:
        """Wait until the active worker has a call in flight."""
        await self.world.until(lambda: self.world.simulator.platform.calls.open)

    async def _until_none_owed(self, journal: Database) -> None:
        async with asyncio.timeout(LONG_S):
            while await owed(journal):  # noqa: ASYNC110 - only the journal knows, so it is polled
                await asyncio.sleep(0.1)


@asynccontextmanager
async def after_the_night(
    broker: PrivateBroker, folder: Path, postgres: PrivatePostgres, tell: Tell
) -> AsyncIterator[Replicas]:
    """An active worker and its standby at dawn; what the block leaves has to come to its end, and all be right."""
    url = postgres.create(folder.name, like="empty_journal")
    async with DeadWorld(broker, folder) as world:
        replicas = Replicas(world, url)
        replicas.active = await replicas.start()
        await replicas.start()
        await replicas.night.whole()
        morning = replicas.morning
        await morning.look()
        world.set_options(latency_s=(0.02, 0.06))
        yield replicas
        await morning.clean_up()
        await replicas.agreed()
        await morning.settled()
        await morning.wind_up()
        found = replicas.night.platform_problems(since=morning.began)
        tell(morning.figures | {"stepped back": len(found.pop("went backwards", []))})

        assert found.keys() <= {"repeated with effect"}


async def test_the_active_worker_is_killed_in_the_middle_of_a_replay(
    broker: PrivateBroker, tmp_path: Path, postgres: PrivatePostgres, postgres_url: str, tell: Tell
) -> None:
    """The standby goes on where it was; the tool notices nothing."""

    async def kill_worker(_: Process) -> None:
        await replicas.calling()
        await replicas.active.kill()

    async with after_the_night(broker, tmp_path, postgres, tell) as replicas:
        await replicas.morning.replay(kill_worker)


async def test_the_active_worker_is_frozen_in_the_middle_of_a_replay(
    broker: PrivateBroker, tmp_path: Path, postgres: PrivatePostgres, postgres_url: str, tell: Tell
) -> None:
    """The standby goes on; what the frozen one had begun does no harm when it is back."""

    async def freeze_worker(_: Process) -> None:
        await replicas.calling()
        replicas.active.send(signal.SIGSTOP)

    async with after_the_night(broker, tmp_path, postgres, tell) as replicas:
        await replicas.morning.replay(freeze_worker)
        await replicas.night.until_right(replicas.night.size.orders(REFUSED))
        replicas.active.send(signal.SIGCONT)
        await replicas.active.until(lambda worker: len(worker.heard("broker.consuming")) > 1)
