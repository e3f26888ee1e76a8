"""An idle worker is quick: an event reaches the platform within the linger and one call."""

import statistics
import time
from pathlib import Path

import pytest

from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

LINGER_S = 0.02
CALL_S = 0.02
EVENTS = 30
GENEROUS = 5
"""The machine has other work too; the median is what is judged, and it is printed."""


async def test_one_event_on_an_idle_worker_arrives_within_linger_and_one_call(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """From before the publish to the moment the platform applied it, one event after the other."""
    async with World(broker, tmp_path) as world:
        world.set_options(latency_s=CALL_S)
        worker = await world.start(LINGER_S=str(LINGER_S))
        took: list[float] = []
        for version in range(2, EVENTS + 2):
            asked = time.monotonic()
            await world.publish([stamped(1, version)])
            await world.until_applied({1: version})
            took.append((world.calls[-1].applied_s or 0.0) - asked)
        assert await worker.terminate() == 0

    median = statistics.median(took)
    print(f"idle latency, publish to applied: median {median * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms")  # noqa: T201
    assert median < GENEROUS * (LINGER_S + CALL_S)
