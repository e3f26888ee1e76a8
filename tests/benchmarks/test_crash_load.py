"""A load while the worker is killed again and again."""

import asyncio
import random
import signal

import pytest

from tests.benchmarks.figures import calls_of
from tests.benchmarks.loads import even
from tests.benchmarks.program import running
from tests.benchmarks.record import Record
from tests.benchmarks.runs import Stage

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(900)]

ORDERS = 10_000
PER_ORDER = 5
KILLS = 10
SEED = 3


async def test_kill_9_at_random_moments_changes_no_final_state(stage: Stage, record: Record) -> None:
    """Killed ten times in mid-work and started again, the workers leave every order at its newest values.

    The events of one order are published in sequence. Versions live in memory here, so a worker that was killed has
    forgotten what it applied, and an older event that had never been delivered before would count as news.
    """
    load = even("crash", orders=ORDERS, per_order=PER_ORDER, seed=SEED)
    await stage.platform.reset()
    await stage.queues.publish(load)
    chance = random.Random(SEED)
    moments = sorted(chance.sample(range(len(load)), KILLS), reverse=True)
    for number, ready in enumerate(moments):
        async with running(stage.start_worker(f"worker-{number}")) as worker:
            await worker.until_logged("broker.consuming")
            await stage.queues.until_taken(ready)
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            assert await worker.end(signal.SIGKILL) == -signal.SIGKILL
    async with running(stage.start_worker("worker-last")) as worker:
        await worker.until_logged("broker.consuming")
        await stage.queues.until_taken(steady_s=2.0)
        assert await worker.end(signal.SIGTERM) == 0
    wrong = await stage.platform.wrong(load)
    left = await stage.queues.left()
    state = await stage.platform.state()
    calls, entries = calls_of(state)
    outcome = f"{KILLS} kills at {moments} ready: {len(wrong)} wrong, {left} left, fill {entries / calls:.1f}"
    record.say(outcome, f"changes beyond one per order: {state['changes'] - ORDERS}")

    assert not wrong, wrong[:5]
    assert left == 0
    assert state["calls"]["overlaps"] == {}
