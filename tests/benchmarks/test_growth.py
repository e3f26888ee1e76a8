"""What one event costs, and what memory it takes, as work grows: one row for each step.

    make bench-growth

The large steps take most of an hour, so they are asked for: ``BENCH_GROWTH`` is the largest backlog and number of
orders, 100,000 where it is not given. The yardstick is the step of 100,000, which every run has.
"""

import os
from pathlib import Path

import pytest

from tests.benchmarks.figures import Figures, Median
from tests.benchmarks.loads import Load, even, zipf
from tests.benchmarks.record import Record, Target, at_most, none_wrong
from tests.benchmarks.runs import Stage
from tests.benchmarks.test_main_job import EVENTS
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.benchmark, pytest.mark.broker, pytest.mark.timeout(7200)]

USUAL = 100_000
LARGEST = int(os.environ.get("BENCH_GROWTH") or USUAL)
BACKLOGS = [count for count in (10_000, USUAL, 1_000_000, 3_000_000) if count <= LARGEST]
ORDERS = [count for count in (100, 10_000, USUAL, 1_000_000) if count <= LARGEST]
PARTITIONS = (1, 4) if LARGEST == USUAL else (1, 2, 4, 8, 16, 32)
BATCHES = (1, 10, 100, 500, 1000)
IN_FLIGHT = 4
PREFETCH = 2000
MOST_CPU_RATIO = 1.2
"""What "as with 100,000" means: two runs of the same differ by as much on a machine that others use."""
MOST_MB_MORE = 10.0

Steps = list[tuple[int, list[Figures]]]


async def test_a_longer_backlog_costs_no_more_for_each_event(stage: Stage, record: Record) -> None:
    """Orders are the same 10,000: what grows is how much waits in the queue, not how much there is to know."""
    steps: Steps = [(count, [await stage.worker(zipf("C", events=count, seed=1))]) for count in BACKLOGS]
    medians = dict(zip(BACKLOGS, record.grew("backlog", steps), strict=True))
    targets = [none_wrong(*medians.values())]
    for count in BACKLOGS:
        if count > USUAL:
            targets += _as_usual(f"backlog {count:,}", medians[count], medians[USUAL])

    record.judge(*targets)


def _as_usual(what: str, large: Median, usual: Median) -> list[Target]:
    share = large.cpu_per_100k_s / usual.cpu_per_100k_s
    return [
        at_most(f"{what}: CPU per event, times that of {USUAL:,}", MOST_CPU_RATIO, share),
        at_most(f"{what}: peak memory", usual.peak_mb + MOST_MB_MORE, large.peak_mb, " MB"),
    ]


async def test_more_orders(stage: Stage, record: Record) -> None:
    """Memory may grow with what a journal in memory has to know of each order, and with nothing else."""
    steps: Steps = [(count, [await stage.worker(_over(count))]) for count in ORDERS]

    record.judge(none_wrong(*record.grew("orders", steps)))


def _over(orders: int) -> Load:
    events = max(EVENTS, orders)
    return even("orders", orders=orders, per_order=events // orders, seed=1)


async def test_more_partitions(broker: PrivateBroker, record: Record, tmp_path: Path) -> None:
    """The same load over more queues; partitions need a journal that lasts."""
    steps: Steps = []
    for count in PARTITIONS:
        folder = tmp_path / str(count)
        folder.mkdir()
        journal_url = f"sqlite:///{folder / 'journal.db'}"
        async with Stage.set_up(broker, folder, partitions=count) as stage:
            load = zipf("C", events=EVENTS, seed=1)
            steps.append((count, [await stage.worker(load, journal_url=journal_url)]))

    record.judge(none_wrong(*record.grew("partitions", steps)))


async def test_larger_batches(stage: Stage, record: Record) -> None:
    """Calls cost the more the smaller they are; at one order a call 4 in flight make 200 calls a second."""
    steps: Steps = []
    for batch in BATCHES:
        load = even("A", orders=min(EVENTS, 4_000 * batch), per_order=1, seed=1)
        in_flight = min(IN_FLIGHT, PREFETCH // batch)
        steps.append((batch, [await stage.worker(load, max_batch=str(batch), max_in_flight=str(in_flight))]))

    record.judge(none_wrong(*record.grew("batch", steps)))
