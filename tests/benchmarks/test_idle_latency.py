"""How long a single event takes while nothing else is going on."""

import asyncio
import signal
import time

import pytest

from tests.benchmarks.conftest import Stage
from tests.benchmarks.load import Load
from tests.benchmarks.measure import LATENCY_S, conditions, percentile, running, show
from worker.config import Settings

pytestmark = [pytest.mark.benchmark, pytest.mark.broker]

EVENTS = 200
INTERVAL_S = 0.1


async def test_single_event_reaches_the_platform_within_linger_and_one_call(stage: Stage) -> None:
    """At ten events a second half of them arrive at the platform within linger + one call, publishing included."""
    measured_under = conditions()
    load = Load.make(orders=EVENTS, per_order=1, seed=4)
    published: dict[int, float] = {}
    async with running(stage.worker()) as worker:
        await worker.until_logged("broker.consuming")
        for event in load.events:
            published[event.order_id] = time.time()
            await stage.queues.publish([event])
            await asyncio.sleep(INTERVAL_S)
        assert await worker.end(signal.SIGTERM) == 0
    calls = [call for call in await stage.platform.calls() if call["order_ids"]]
    reached = [call["wall_s"] - published[order_id] for call in calls for order_id in call["order_ids"]]
    answered = [
        call["answered_s"] - call["started_s"] + call["wall_s"] - published[call["order_ids"][0]] for call in calls
    ]
    show(measured_under, _line("reached the platform", reached), _line("answered", answered), f"calls {len(calls)}")

    assert len(reached) == EVENTS
    assert percentile(reached, 50) <= Settings.model_fields["linger_s"].default + LATENCY_S


def _line(what: str, seconds: list[float]) -> str:
    p50, p99 = (percentile(seconds, percent) * 1000 for percent in (50, 99))
    return f"{what}: p50 {p50:.1f} ms, p99 {p99:.1f} ms"
