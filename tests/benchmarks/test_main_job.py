"""The main job as a whole: a backlog of 50,000 events for 10,000 orders, against one call per message."""

import json
import signal

import pytest

from tests.benchmarks.conftest import Stage
from tests.benchmarks.load import Load
from tests.benchmarks.measure import HEADING, Figures, Program, conditions, mean_fill, running, show

pytestmark = [pytest.mark.benchmark, pytest.mark.broker]

ORDERS = 10_000
PER_ORDER = 5
BASELINE_EVENTS = 5_000
LEAST_RATE = 4_000.0
LEAST_RATIO = 3.0
LEAST_FILL = 83.0
MOST_MB = 150.0


@pytest.mark.parametrize("in_order", [False, True], ids=["any order", "in sequence"])
async def test_main_job_is_fast_full_small_and_right(stage: Stage, *, in_order: bool) -> None:
    """Every order ends right and nothing is lost, at 4,000 events/s or three times the baseline, whichever is more.

    In any order about half of the events are older than what is applied when they come, so they fill no call. In
    sequence (per order; orders are mixed) every event is news.
    """
    measured_under = conditions()
    load = Load.make(orders=ORDERS, per_order=PER_ORDER, seed=1, in_order=in_order)
    await stage.queues.publish(load.events)
    worker, peak_mb = await work_off(stage)
    ours = await figures(stage, load, worker, peak_mb)
    counts = worker.logged("worker.stopped")[-1]["counts"]
    wrong = load.wrong(await stage.platform.orders())
    lost = len(load.events) - sum(counts.get(why, 0) for why in ("applied", "superseded", "duplicate"))
    overlaps = (await stage.platform.state())["calls"]["overlaps"]
    left = await stage.queues.left()
    baseline = await measure_baseline(stage)
    ratio = ours.rate / baseline.rate
    outcome = f"ratio {ratio:.1f}; wrong {len(wrong)}, lost {lost}, left in queues {left}; {counts}"
    show(
        measured_under,
        HEADING,
        ours.row(f"worker, {'in sequence' if in_order else 'any order'}"),
        baseline.row("one call per message"),
        outcome,
    )

    assert not wrong, wrong[:5]
    assert (lost, left, overlaps) == (0, 0, {})
    assert ours.fill >= LEAST_FILL
    assert ours.peak_mb < MOST_MB
    assert ours.rate >= max(LEAST_RATE, LEAST_RATIO * baseline.rate)


async def work_off(stage: Stage, *, journal_url: str = "memory") -> tuple[Program, float]:
    """Run a worker until the queue is empty and everything is settled; it, and the memory it had at most.

    It is told to stop when nothing is ready any more. Then it settles what it holds, and what it could not settle is
    back in the queue.
    """
    async with running(stage.worker(journal_url=journal_url)) as worker:
        await worker.until_logged("broker.consuming")
        await stage.queues.until_taken()
        peak_mb = worker.peak_mb
        assert await worker.end(signal.SIGTERM) == 0
    return worker, peak_mb


async def figures(stage: Stage, load: Load, worker: Program, peak_mb: float) -> Figures:
    """From consume-ok to the end of the last settlement."""
    state = await stage.platform.state()
    events = len(load.events)
    return Figures(
        events=events,
        rate=events / (worker.wall_s("worker.stopped") - worker.wall_s("broker.consuming")),
        platform_rate=events / await platform_took_s(stage),
        calls=state["calls"]["started"],
        fill=mean_fill(state),
        cpu_s=worker.cpu_s,
        peak_mb=peak_mb,
    )


async def platform_took_s(stage: Stage) -> float:
    """From the first call that named an order to the last answer."""
    calls = [call for call in await stage.platform.calls() if call["order_ids"]]
    return float(max(call["answered_s"] for call in calls) - min(call["started_s"] for call in calls))


async def measure_baseline(stage: Stage) -> Figures:
    """The same platform and queue, one call per message."""
    await stage.platform.reset()
    load = Load.make(orders=BASELINE_EVENTS // PER_ORDER, per_order=PER_ORDER, seed=2)
    await stage.queues.publish(load.events)
    addresses = stage.platform.addresses
    script = Program(
        stage.folder,
        "baseline",
        "tests.benchmarks.baseline",
        stage.amqp_url,
        stage.queues.names.work_queue,
        addresses["oauth_url"],
        addresses["graphql_url"],
        str(BASELINE_EVENTS),
    )
    async with running(script):
        await stage.queues.until_taken()
        peak_mb = script.peak_mb
        assert await script.end(None) == 0
    state = await stage.platform.state()
    return Figures(
        events=BASELINE_EVENTS,
        rate=BASELINE_EVENTS / json.loads(script.stdout)["took_s"],
        platform_rate=BASELINE_EVENTS / await platform_took_s(stage),
        calls=state["calls"]["started"],
        fill=mean_fill(state),
        cpu_s=script.cpu_s,
        peak_mb=peak_mb,
    )
