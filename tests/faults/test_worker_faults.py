"""The worker's own end under load, sudden or in good order, with a next one that goes on."""

import signal
import time

import pytest

from tests.faults.conftest import Told
from tests.support.arena import Arena

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=lambda number: number.name,
)
async def test_the_next_worker_goes_on_where_one_ended(arena: Arena, tell: Told, number: signal.Signals) -> None:
    """Three times in the middle of the load; what the last one had in hand is delivered again."""
    slowest_s = 0.0
    await arena.start()
    async with arena.load() as load:
        for _ in range(3):
            await arena.flowing(300)
            arena.worker.send(number)
            assert await arena.worker.ended() == (-signal.SIGKILL if number is signal.SIGKILL else 0)
            ended = time.monotonic()
            await arena.start()
            slowest_s = max(slowest_s, time.monotonic() - ended + await arena.recovered(time.monotonic()))
        await arena.assert_full_prefetch()
    verdict = await arena.settled()

    assert load.unsure == 0
    tell(slowest_s, verdict)


async def test_a_drain_under_load_settles_what_it_took(arena: Arena, tell: Told) -> None:
    """Nothing handed over is handed back: everything delivered is settled, the rest waits in the queue."""
    worker = await arena.start()
    async with arena.load(refused_every=0) as load:
        await arena.flowing()
        began = time.monotonic()
        assert await worker.terminate() == 0
        took_s = time.monotonic() - began
        await arena.start()
        await arena.recovered(time.monotonic())
    verdict = await arena.settled()

    counts = worker.counts
    assert counts["released"] == 0
    assert counts["delivered"] == counts["applied"] + counts.get("superseded", 0) + counts.get("duplicate", 0)
    assert load.unsure == 0
    tell(took_s, verdict)
