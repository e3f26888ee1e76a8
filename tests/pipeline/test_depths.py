"""Queue depths: asked when somebody looks, cached, bounded in time, and absent rather than wrong."""

import asyncio
from collections.abc import Mapping, Sequence

from worker.core.vitals import Depth, QueueKind
from worker.depths import DEADLINE_S, FRESH_S, PATIENCE_S, STALE_S, QueueDepths

QUEUES = {QueueKind.WORK: ["w"], QueueKind.RETRY: ["r1", "r2"], QueueKind.DEAD: ["d"]}


class FakeBroker:
    """Answers what it is told to, as long as ``open`` is set."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def ask(self, queues: Sequence[str]) -> Mapping[str, int]:
        self.asked += 1
        await self.open.wait()
        return {queue: self.counts[queue] for queue in queues if queue in self.counts}


def now() -> float:
    return asyncio.get_running_loop().time()


def depths(broker: FakeBroker, unacked: FakeBroker | None = None) -> QueueDepths:
    return QueueDepths(QUEUES, ready=broker.ask, unacked=None if unacked is None else unacked.ask, clock=now)


async def test_queues_of_a_kind_are_summed() -> None:
    """Ready and, where somebody can be asked, unacknowledged ones."""
    broker = FakeBroker({"w": 5, "r1": 1, "r2": 2, "d": 0})
    async with depths(broker, FakeBroker({"w": 7, "r1": 0, "r2": 0})) as asked, depths(broker) as plain:
        assert await asked.look() == {
            QueueKind.WORK: Depth(ready=5, unacked=7),
            QueueKind.RETRY: Depth(ready=3, unacked=0),
            QueueKind.DEAD: Depth(ready=0, unacked=None),
        }
        assert (await plain.look())[QueueKind.WORK] == Depth(ready=5, unacked=None)


async def test_a_part_of_a_sum_is_no_sum() -> None:
    """One of the retry queues is missing: the others' messages alone would look like all there are."""
    async with depths(FakeBroker({"w": 5, "r1": 1, "d": 0})) as asked:
        assert set(await asked.look()) == {QueueKind.WORK, QueueKind.DEAD}


async def test_many_looks_are_one_question() -> None:
    """At the same time, and for a while after."""
    broker = FakeBroker({"w": 5})
    async with depths(broker) as asked:
        await asyncio.gather(*(asked.look() for _ in range(10)))
        await asyncio.sleep(FRESH_S - 0.1)
        await asked.look()
        assert broker.asked == 1
        broker.counts["w"] = 6
        await asyncio.sleep(0.2)

        assert await asked.look() == {QueueKind.WORK: Depth(ready=6)}
        assert broker.asked == 2


async def test_a_broker_that_does_not_answer_costs_a_second_and_no_more(no_leaks: None) -> None:
    """The last answer counts until it is stale; then there is none. When it answers again, so do we."""
    broker = FakeBroker({"w": 5})
    async with depths(broker) as asked:
        await asked.look()
        broker.open.clear()
        await asyncio.sleep(FRESH_S)
        began = now()
        assert await asked.look() == {QueueKind.WORK: Depth(ready=5)}
        assert now() - began <= PATIENCE_S
        await asyncio.sleep(STALE_S)
        assert await asked.look() == {}
        broker.open.set()
        await asyncio.sleep(DEADLINE_S)

        assert await asked.look() == {QueueKind.WORK: Depth(ready=5)}


async def test_the_end_takes_a_question_along(no_leaks: None) -> None:
    """Nothing is asked after it, and nothing known any more."""
    broker = FakeBroker({"w": 5})
    asked = depths(broker)
    async with asked:
        broker.open.clear()
        looking = asyncio.create_task(asked.look(), name="look")
        await asyncio.sleep(0.1)

    assert await looking == {}
    assert await asked.look() == {}
    assert broker.asked == 1
