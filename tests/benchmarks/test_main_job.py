"""The whole job beside what a user would write: the worker, aio-pika's bare loop, one call per message; in turns.

make bench ROUNDS=5 EVENTS=100000
"""

import os

import pytest

from tests.benchmarks.figures import Figures, Median
from tests.benchmarks.loads import load_named
from tests.benchmarks.record import Record, Target, at_least, at_most, none_wrong
from tests.benchmarks.runs import BASELINE_EVENTS, MAX_BATCH, Stage

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("ROUNDS") or 5)
EVENTS = int(os.environ.get("EVENTS") or 100_000)
MOST_CPU_S = 1.0
MOST_MB = 90.0
MOST_CALLS_C = 120
FIELD = (
    "beside it, the same loads, measured elsewhere (events/s, CPU s per 100,000 events):",
    "  Node amqplib and a batcher      24,000-30,000/s   1.3-1.6 s",
    "  Celery and celery-batches         4,200-5,200/s    17-21 s",
    "  FastStream and a buffer           1,900-2,000/s    45-48 s",
)
FIELD_RATE, FIELD_CPU_S = 30_000, 1.3


@pytest.mark.parametrize("letter", ["A", "B", "C"])
async def test_the_worker_is_ahead_of_whatever_a_user_would_write(stage: Stage, record: Record, letter: str) -> None:
    """Medians of several rounds, each a process of its own; ratios and CPU seconds are asserted, never rates."""
    load = load_named(letter, EVENTS)
    few = load.first(min(BASELINE_EVENTS, EVENTS))
    worker: list[Figures] = []
    bare: list[Figures] = []
    baseline: list[Figures] = []
    for _ in range(ROUNDS):
        worker.append(await stage.worker(load))
        bare.append(await stage.bare(load))
        baseline.append(await stage.baseline(few))
    ours, loop, single = record.compare(worker, bare, baseline)

    ahead = ("behind", "ahead")
    rate, cpu = ahead[ours.rate > FIELD_RATE], ahead[ours.cpu_per_100k_s < FIELD_CPU_S]
    record.say(*FIELD, f"  this worker is {rate} in events/s, {cpu} in CPU seconds")
    record.judge(none_wrong(ours), *(_targets(letter, ours, loop, single) if letter != "B" else ()))


def _targets(letter: str, ours: Median, loop: Median, single: Median) -> list[Target]:
    most_calls = 1.1 * ours.fill * ours.calls / MAX_BATCH + 5 if letter == "A" else MOST_CALLS_C
    return [
        at_most(f"{letter}: CPU seconds per 100,000 events", MOST_CPU_S, ours.cpu_per_100k_s, " s"),
        at_most(f"{letter}: CPU, share of the bare loop's", 0.1, ours.cpu_per_100k_s / loop.cpu_per_100k_s),
        at_least(f"{letter}: events/s, times the bare loop's", 3.5, ours.rate / loop.rate),
        at_least(f"{letter}: events/s, times one call per message", 15, ours.rate / single.rate),
        at_most(f"{letter}: calls", most_calls, ours.calls),
        at_most(f"{letter}: peak memory", MOST_MB, ours.peak_mb, " MB"),
    ]
