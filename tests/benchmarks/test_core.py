"""What the parts that run for every event cost by themselves: no broker, no platform, no event loop.

    make bench-core

Each round is one batch of 500; pytest-benchmark says how long a round took, so divide by 500 for one event.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.loads import FIRST_ORDER, Event
from tests.builders import make_delivery, make_update
from worker.core.acks import AckLedger
from worker.core.coalesce import Coalescer
from worker.core.decode import EventSchema
from worker.core.model import Ack, AckReason, Settlement, Update
from worker.core.report import Reply
from worker.core.verdict import Call, Rules, judge
from worker.ports import Index
from worker.settling import Unsettled

pytestmark = pytest.mark.benchmark

EVENTS = 500
ROUNDS = 200
SCHEMA = EventSchema({}, ())


def rounds(benchmark: BenchmarkFixture, work: Callable[..., Any], setup: Callable[[], tuple[Any, ...]]) -> Any:
    """Measure ``work`` on what ``setup`` makes anew for each round; what the last one returned."""
    return benchmark.pedantic(  # type: ignore[no-untyped-call]
        work, setup=lambda: (setup(), {}), rounds=ROUNDS, warmup_rounds=5
    )


def updates(per_order: int) -> list[Update]:
    """One batch's worth of updates, each order's own in sequence."""
    return [
        make_update(
            FIRST_ORDER + number // per_order, status=1000 + number, carrier="DPD", at=1e9 + number, tag=number + 1
        )
        for number in range(EVENTS)
    ]


def test_decode(benchmark: BenchmarkFixture) -> None:
    """A delivery becomes an update."""
    deliveries = [
        make_delivery(Event(FIRST_ORDER + number, 0).body, number + 1, message_id=f"m-{number}")
        for number in range(EVENTS)
    ]
    decoded = benchmark(lambda: [SCHEMA.decode(delivery) for delivery in deliveries])

    assert all(isinstance(each, Update) for each in decoded)


@pytest.mark.parametrize("per_order", [1, 10])
def test_coalescer(benchmark: BenchmarkFixture, per_order: int) -> None:
    """Updates go in, one full batch comes out and is finished."""
    given = updates(per_order)

    def setup() -> tuple[Coalescer]:
        return (Coalescer(max_batch=EVENTS // per_order, max_bytes=2**30, linger_s=0.02),)

    def work(coalescer: Coalescer) -> int:
        for update in given:
            coalescer.add(update, 0.0)
        batch = coalescer.pop_ready(1.0)
        assert batch is not None
        for entry in batch.entries:
            coalescer.finish(entry)
        return len(batch.entries)

    assert rounds(benchmark, work, setup) == EVENTS // per_order


@pytest.mark.parametrize("per_order", [1, 10])
def test_ack_planner(benchmark: BenchmarkFixture, per_order: int) -> None:
    """Tags are delivered and planned in groups, the window four batches wide as with four calls in flight."""
    groups = [range(start, start + per_order) for start in range(1, EVENTS + 1, per_order)]

    def setup() -> tuple[AckLedger]:
        ledger = AckLedger()
        for tag in range(1, 4 * EVENTS + 1):
            ledger.delivered(tag)
        return (ledger,)

    frames = rounds(benchmark, lambda ledger: ledger.plan(groups), setup)

    assert [(frame.tag, frame.multiple) for frame in frames] == [(EVENTS, True)]


def test_verdict(benchmark: BenchmarkFixture) -> None:
    """The platform's answer is judged: everything was applied."""
    requested = {FIRST_ORDER + number: Event(FIRST_ORDER + number, 0).fields for number in range(EVENTS)}
    entries = [{"id": order_id, "status_name": "Unknown", **fields} for order_id, fields in requested.items()]
    report = Reply(status=200, payload=json.loads(json.dumps({"data": {"core": {"updateOrders": entries}}})))
    rules = Rules()
    judgement = benchmark(lambda: judge(report, requested, rules))

    assert judgement.call is Call.ANSWERED


class Nobody:
    """Implements ``ports.Settler``: everything is settled at once."""

    async def settle(self, settlements: Sequence[Settlement], index: Index | None = None) -> None:
        """Nothing to do."""


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """For what is awaited although nothing in it waits."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_settle(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
    """A batch of applied updates is taken into the books and out again."""
    given = updates(1)
    applied = [
        Settlement(delivery=update.delivery, disposition=Ack(AckReason.APPLIED), update=update) for update in given
    ]

    def setup() -> tuple[Unsettled]:
        unsettled = Unsettled(Nobody(), prefetch=2000)
        unsettled.add({update.delivery: update for update in given}, 0.0)
        return (unsettled,)

    def work(unsettled: Unsettled) -> int:
        loop.run_until_complete(unsettled.settle(applied))
        return len(unsettled)

    assert rounds(benchmark, work, setup) == 0
