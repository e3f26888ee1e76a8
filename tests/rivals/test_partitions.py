"""Several workers share the partitions: one is killed, one comes, and every order is right in the end."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.rivals.conftest import Tell
from tests.support import generation
from tests.support.crew import Crew
from tests.support.postgres import PrivatePostgres
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.core.partition import heeds_priorities

pytestmark = [pytest.mark.broker, pytest.mark.postgres]

GAP_S = 30.0
"""No partition may be longer without an active consumer."""


@pytest.fixture
def journal_url(postgres: PrivatePostgres, postgres_url: str, tmp_path: Path) -> str:
    return postgres.create(tmp_path.name, like="empty_journal")


@dataclass(slots=True, frozen=True, kw_only=True)
class Ended:
    """What was published and what became of it, how much the first and the last worker took, the longest gap."""

    events: int
    right: int
    first: int
    last: int
    gap_s: float


async def one_killed_one_added(crew: Crew, *, orders: int, tell: Tell) -> Ended:
    """20 events for each order. The last worker is killed while half of them come in, and another one takes its place
    for the rest; ends when all arrived."""
    began = time.monotonic()
    keys = crew.events(range(1, orders + 1), 20)
    half = len(keys) // 2
    workers = [await crew.start(index) for index in range(crew.members)]
    async with crew.watched():
        publishing = asyncio.create_task(crew.arena.publish(keys[:half]), name="publish")
        try:
            await crew.applied(half // 20)
            await workers[-1].kill()
            await crew.start(len(workers) - 1)
        finally:
            await publishing
        await crew.arena.publish(keys[half:])
        await crew.arrived(deadline_s=300.0)
    verdict = await crew.ended()
    tell(f"longest gap {crew.longest_gap_s:.1f} s,", time.monotonic() - began, verdict)
    return Ended(
        events=verdict.figures["events"],
        right=verdict.figures["applied"] + verdict.figures["superseded"],
        first=workers[0].counts.get("delivered", 0),
        last=crew.arena.worker.counts.get("delivered", 0),
        gap_s=crew.longest_gap_s,
    )


@pytest.mark.timeout(240)
async def test_two_workers_on_four_partitions_leave_every_order_right_when_one_is_killed(
    broker: PrivateBroker, journal_url: str, tmp_path: Path, tell: Tell
) -> None:
    """4,000 events; both work, and what the killed one had goes to the other one and then to the new one."""
    async with Crew(broker, tmp_path, journal_url, partitions=4, members=2) as crew:
        ended = await one_killed_one_added(crew, orders=200, tell=tell)

    assert ended.events == ended.right == 4_000
    assert ended.first > 0
    if heeds_priorities(generation.version()):  # else the one that is left keeps what it has
        assert ended.last > 0
    assert ended.gap_s < GAP_S


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_three_workers_on_twelve_partitions_leave_100_000_events_right(
    broker: PrivateBroker, journal_url: str, tmp_path: Path, tell: Tell
) -> None:
    """One is killed and one is added meanwhile."""
    async with Crew(broker, tmp_path, journal_url, partitions=12, members=3) as crew:
        ended = await one_killed_one_added(crew, orders=5_000, tell=tell)

    assert ended.events == ended.right == 100_000
    assert ended.gap_s < GAP_S


@dataclass(slots=True, frozen=True, kw_only=True)
class Measured:
    """CPU of all workers together for an event, and events a second."""

    cost_us: float
    rate: float


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_two_workers_do_more_than_one_and_an_event_costs_the_same(
    broker: PrivateBroker, postgres: PrivatePostgres, postgres_url: str, tmp_path: Path
) -> None:
    """1.6 times as much, where the platform's latency is what limits one of them; 30,000 orders, one event each.

    All events wait in the queues when the workers may begin, and calls are slow: else producer or processor set the
    pace, calls are not full, and the same number of events takes more of them.
    """
    made: dict[int, Measured] = {}
    for members in (1, 2):
        folder = tmp_path / str(members)
        folder.mkdir()
        url = postgres.create(f"{tmp_path.name}_{members}", like="empty_journal")
        made[members] = await _measured(broker, folder, url, members)
    print(made)  # noqa: T201

    assert made[2].cost_us <= 1.1 * made[1].cost_us
    if heeds_priorities(generation.version()):
        assert made[2].rate >= 1.6 * made[1].rate


async def _measured(broker: PrivateBroker, folder: Path, url: str, members: int) -> Measured:
    async with Crew(broker, folder, url, partitions=12, members=members, latency_s=0.3) as crew:
        port = str(free_port())
        workers = [await crew.start(index, ADMIN_PORT=port if index == 0 else "0") for index in range(members)]
        keys = crew.events(range(1, 30_001), 1)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as admin:
            await admin.post("/pause")
            for worker in workers:
                await worker.until_heard("worker.paused")
            await crew.arena.publish(keys)
            before = sum(worker.cpu_s for worker in workers)
            await admin.post("/resume")
            await crew.arena.arrived(deadline_s=240.0)
        cost_s = sum(worker.cpu_s for worker in workers) - before
        at = [call.started_s for call in crew.arena.simulator.platform.calls.recent for _ in call.order_ids]
        await crew.ended()
    # From a fifth to four fifths: one begins up to 2 s before the others, and takes all partitions at first.
    return Measured(cost_us=1e6 * cost_s / len(keys), rate=0.6 * len(at) / (at[len(at) * 4 // 5] - at[len(at) // 5]))
