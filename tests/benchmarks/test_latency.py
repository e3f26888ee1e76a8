"""How long an event takes from the producer to the platform while there is little to do, and while there is some."""

import signal
from array import array
from collections import defaultdict
from typing import Any

import pytest

from tests.benchmarks.figures import percentile
from tests.benchmarks.loads import FIRST_STATUS, Load, load_named
from tests.benchmarks.program import running
from tests.benchmarks.record import Delays, Record, Target, at_most
from tests.benchmarks.runs import BASELINE, WORKER, Stage
from tests.benchmarks.standin import LATENCY_S, RANDOM_LATENCY_S, Latency
from worker.simulator.calls import KEPT_CALLS

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(900)]

SECONDS = 20
SLOW, FAST = 10.0, 1000.0
MARGIN_MS = 5.0
WARMING_UP = 5
"""Events before those that count: the first calls fetch a token and connect."""

Change = tuple[float, float, int]
"""When the platform applied it and when it had answered the call (seconds since 1970), and the status it set."""


@pytest.mark.parametrize(
    ("letter", "rate", "latency_s", "most_ms"),
    [
        ("A", SLOW, LATENCY_S, LATENCY_S * 1000 + MARGIN_MS),
        ("A", SLOW, RANDOM_LATENCY_S, None),
        ("A", FAST, LATENCY_S, 3 * LATENCY_S * 1000),
        ("B", FAST, LATENCY_S, 3 * LATENCY_S * 1000),
        ("C", FAST, LATENCY_S, 3 * LATENCY_S * 1000),
        ("A", FAST, RANDOM_LATENCY_S, None),
        ("C", FAST, RANDOM_LATENCY_S, None),
    ],
)
async def test_events_reach_the_platform_soon(
    stage: Stage, record: Record, letter: str, rate: float, latency_s: Latency, most_ms: float | None
) -> None:
    """At ten events a second within one call and 5 ms, at 1,000 within three calls, 99 of 100 of them answered."""
    load = load_named(letter, int(rate * SECONDS) + WARMING_UP)
    await stage.platform.reset(latency_s=latency_s, keep_history=True)
    async with running(stage.start_worker()) as worker:
        await worker.until_logged("broker.consuming")
        published = await _paced(stage, load, rate)
        await stage.queues.until_taken()
        assert await worker.end(signal.SIGTERM) == 0
    delays = await _delays(stage, load, rate, published, name=WORKER, latency_s=latency_s)
    record.delayed(delays)
    wrong = len(await stage.platform.wrong(load))
    targets: list[Target] = [at_most(f"{letter}, {rate:g}/s, {delays.platform}: orders wrong", 0, wrong)]
    if most_ms is not None:
        what = f"{letter}, {rate:g}/s, {delays.platform}: p99 from publishing to the answer"
        targets.append(at_most(what, most_ms, delays.answered_p99, " ms"))

    record.judge(*targets)


async def test_one_call_per_message_beside_it(stage: Stage, record: Record) -> None:
    """What a user would write has no batch to wait for; nothing is asked of it."""
    load = load_named("A", KEPT_CALLS - WARMING_UP)
    await stage.platform.reset(keep_history=True)
    async with running(stage.start_baseline(len(load))) as program:
        await program.until_printed()
        published = await _paced(stage, load, FAST)
        assert await program.end(None) == 0

    record.delayed(await _delays(stage, load, FAST, published, name=BASELINE))


async def _paced(stage: Stage, load: Load, rate: float) -> "array[float]":
    async with stage.queues.feeder() as feeder:
        return await feeder.pace(load, rate)


async def _delays(
    stage: Stage, load: Load, rate: float, published: "array[float]", *, name: str, latency_s: Latency = LATENCY_S
) -> Delays:
    applied, answered = _delays_ms(load, published, await _changes(stage))
    return Delays(
        name=name,
        load=load.name,
        rate=rate,
        platform=f"{latency_s * 1000:g} ms" if isinstance(latency_s, float) else "5-60 ms",
        events=len(applied),
        applied_p50=percentile(applied, 50),
        applied_p99=percentile(applied, 99),
        answered_p50=percentile(answered, 50),
        answered_p99=percentile(answered, 99),
    )


async def _changes(stage: Stage) -> dict[int, list[Change]]:
    """What the platform did to each order, in that order."""
    answered = {call["number"]: _answered_wall_s(call) for call in await stage.platform.calls()}
    changes: dict[int, list[Change]] = defaultdict(list)
    for change in await stage.platform.history():
        changes[change["order_id"]].append((change["wall_s"], answered[change["call"]], change["after"]["status"]))
    return changes


def _answered_wall_s(call: dict[str, Any]) -> float:
    return float(call["wall_s"] + call["answered_s"] - call["started_s"])


def _delays_ms(
    load: Load, published: "array[float]", changes: dict[int, list[Change]]
) -> tuple[list[float], list[float]]:
    """For each event but the first few: until it, or a newer one of its order, was applied and answered."""
    applied, answered = [], []
    for place, (event, moment) in enumerate(zip(load, published, strict=True)):
        first = next(each for each in changes[event.order_id] if each[2] >= FIRST_STATUS + event.number)
        if place >= WARMING_UP:
            applied.append((first[0] - moment) * 1000)
            answered.append((first[1] - moment) * 1000)
    return applied, answered
