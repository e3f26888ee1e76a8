"""Several work queues on a real broker: which orders go where, who is active, and what a bad one does to the others."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from tests.support import generation
from tests.support.broker import DEADLINE_S, Outside, RecordingSink, endpoint, unique_topology
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.partitions import Partitions
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.settler import BrokerSettler
from worker.adapters.amqp.topology import Topology, topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core import partition
from worker.core.errors import BrokerRefused
from worker.core.model import Delivery, Reason, Retry, Settlement
from worker.core.partition import assigned, heeds_priorities, partition_of

pytestmark = [pytest.mark.usefixtures("each_lane", "no_leaks"), pytest.mark.broker]

PARTITIONS = 4
ORDERS = range(1, 201)
PREFETCH = 80


@pytest.fixture
def names() -> Topology:
    return unique_topology(partitions=PARTITIONS)


@pytest.fixture
def heeding() -> bool:
    """Whether this RabbitMQ heeds priorities."""
    return heeds_priorities(generation.version())


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standing by takes no 10 s."""
    monkeypatch.setattr(partition, "STANDBY_S", 0.5)


@dataclass
class Member:
    """The intake of a worker, which acknowledges what it is handed as soon as it is asked to."""

    intake: Partitions
    sink: RecordingSink = field(default_factory=RecordingSink)
    settled: int = 0

    @property
    def took(self) -> list[tuple[int, str]]:
        """(partition, order) of everything it was handed."""
        return [(partition_of(each.generation, PARTITIONS), each.routing_key) for each in self.sink.deliveries]

    async def settle(self) -> None:
        """Acknowledge all that came."""
        fresh, self.settled = self.sink.deliveries[self.settled :], len(self.sink.deliveries)
        for each in fresh:
            await self.intake.acknowledge(each.generation, [[each.tag]])


@asynccontextmanager
async def member(
    url: str, names: Topology, name: str, *, index: int | None = None, workers: int = 1, prefetch: int = PREFETCH
) -> AsyncIterator[Member]:
    link = Link(endpoint(url), name=name)
    made = assigned(names.work_queue, PARTITIONS, worker=name, index=index, workers=workers)
    one = Member(Partitions(link, made, prefetch=prefetch))
    try:
        await one.intake.open(one.sink)
        async with asyncio.timeout(DEADLINE_S):
            await one.intake.wait_consuming()
        yield one
    finally:
        await one.intake.release()
        await link.close()


async def publish(outside: Outside, names: Topology, orders: Sequence[int] = ORDERS) -> None:
    for order in orders:
        await outside.publish(names.exchanges[0].name, str(order), {"id": order})


async def until_taken(members: Sequence[Member], orders: int) -> None:
    """Wait until they were handed so many together; whatever comes is acknowledged."""
    async with asyncio.timeout(DEADLINE_S):
        while sum(len(each.sink.deliveries) for each in members) < orders:
            for each in members:
                await each.settle()
            await asyncio.sleep(0.01)
    for each in members:
        await each.settle()


async def until_back(outside: Outside, names: Topology, count: int) -> None:
    """Wait until so many messages are ready on all partitions together."""
    async with asyncio.timeout(DEADLINE_S):
        while sum([await outside.ready(name) for name in names.work_queues]) != count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_order_stays_in_its_partition_and_all_partitions_get_some(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """The hash exchange goes by the routing key, which is the order's id."""
    await publish(outside, queues)
    await publish(outside, queues)
    async with member(broker.url, queues, "alone") as only:
        await until_taken([only], 2 * len(ORDERS))
        places = {(number, order) for number, order in only.took}
        status = only.intake.status

    assert len(places) == len(ORDERS)
    assert min(Counter(number for number, _ in places).values()) >= len(ORDERS) // PARTITIONS // 3
    assert len(Counter(number for number, _ in places)) == PARTITIONS
    assert (status.partitions, status.serving, status.consuming) == (PARTITIONS, PARTITIONS, True)


async def test_a_retry_copy_comes_back_into_the_partition_of_its_key(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """The tier dead-letters into the hash exchange with the key kept."""
    await publish(outside, queues, range(1, 31))
    giving = Link(endpoint(broker.url), name="give")
    publisher = Publisher(giving)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(giving.close)
        stack.push_async_callback(publisher.close)
        only = await stack.enter_async_context(member(broker.url, queues, "alone"))
        settler = BrokerSettler(
            only.intake, publisher, dead_queue=queues.dead_queue, retry_exchanges=queues.retry_exchanges, worker="1"
        )
        first = list(await only.sink.until_count(30))
        again = Retry(tier=0, reason=Reason.BUSY, detail="")
        await settler.settle([Settlement(delivery=each, disposition=again) for each in first])
        await only.sink.until_count(60)

    assert sorted(only.took[:30]) == sorted(only.took[30:])


async def test_the_prefetch_bounds_all_partitions_together(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """Each has an equal share; the first delivery of a channel may come on top (AMQP counts it with the narrow one)."""
    await publish(outside, queues)
    async with member(broker.url, queues, "alone", prefetch=40) as only:
        await only.sink.until_count(40)
        await outside.until_ready(queues.work_queues[0], await outside.ready(queues.work_queues[0]))
        per = Counter(number for number, _ in only.took)

    assert max(per.values()) <= 40 // PARTITIONS + 1
    assert len(only.took) <= 40 + PARTITIONS


def foremost(names: Topology, *workers: str) -> dict[int, str]:
    """Which of these workers has a partition foremost, by its number."""
    made = {name: assigned(names.work_queue, PARTITIONS, worker=name) for name in workers}
    return {number: max(made, key=lambda name: made[name][number].priority or 0) for number in range(PARTITIONS)}


async def test_partitions_are_spread_by_priority_and_anew_when_a_worker_comes_or_goes(
    broker: PrivateBroker, outside: Outside, queues: Topology, heeding: bool
) -> None:
    """To the worker that has it foremost, as everybody can work out. Before 4.0 the one that came first keeps all."""
    # Of four partitions one of two workers may have all: seldom, but the queues have other names in every run.
    seconds = (f"b{number}" for number in range(100))
    second = next(name for name in seconds if len(set(foremost(queues, "a", name).values())) == 2)
    wanted = foremost(queues, "a", second)
    if not heeding:
        wanted = dict.fromkeys(wanted, "a")
    async with member(broker.url, queues, "a") as one:
        await publish(outside, queues)
        await until_taken([one], 200)
        async with member(broker.url, queues, second) as other:
            await publish(outside, queues)
            await until_taken([one, other], 400)

            later = {"a": one.took[200:], second: other.took}
            assert {(number, name) for name, took in later.items() for number, _ in took} == set(wanted.items())
        before = len(one.took)
        await publish(outside, queues)
        await until_taken([one], before + 200)

        assert {number for number, _ in one.took[before:]} == set(range(PARTITIONS))


async def test_numbered_workers_have_their_own_partitions_and_stand_by_for_the_others(
    broker: PrivateBroker, outside: Outside, queues: Topology, hurried: None
) -> None:
    """Whoever starts first does not get all; and what an owner leaves the standby has."""
    async with member(broker.url, queues, "a", index=0, workers=2) as one:
        assert one.intake.status.consuming
        async with member(broker.url, queues, "b", index=1, workers=2) as other:
            await publish(outside, queues)
            await until_taken([one, other], 200)

            assert one.intake.status.consuming
            assert {number for number, _ in one.took} == {0, 2}
            assert {number for number, _ in other.took} == {1, 3}
        before = len(one.took)
        await publish(outside, queues)
        await until_taken([one], before + 200)

        assert {number for number, _ in one.took[before:]} == set(range(PARTITIONS))


async def test_what_may_kill_the_process_is_handled_with_nothing_unsettled_on_any_partition(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """A suspect of one partition empties them all first; then all go on."""
    suspect = await _suspect(outside, queues)
    await publish(outside, queues, range(1000, 1100))
    async with member(broker.url, queues, "alone") as only:
        fine: list[Delivery] = []
        async with asyncio.timeout(DEADLINE_S):
            while not any(each.routing_key == str(suspect) for each in only.sink.deliveries):
                held = only.intake.status.unsettled
                await only.settle()
                assert held <= PREFETCH + PARTITIONS
                await asyncio.sleep(0.01)
        handed = next(each for each in only.sink.deliveries if each.routing_key == str(suspect))
        fine = [each for each in only.sink.deliveries if each is not handed]
        assert handed.unexplained >= 5
        assert only.sink.deliveries[-1] is handed
        assert only.intake.status.unsettled == 1
        assert all(not only.intake.holds(each) for each in fine)

        await until_taken([only], 101)
        assert len({each.routing_key for each in only.sink.deliveries}) == 101


async def _suspect(outside: Outside, names: Topology, order: int = 7) -> int:
    """An order whose message came back five times, as after five crashes."""
    await publish(outside, names, [order])
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for name in names.work_queues:
                if await outside.ready(name):
                    for _ in range(5):
                        await outside.take(name, hand_back=True)
                    return order
            await asyncio.sleep(0.02)


async def test_a_lost_connection_gives_back_all_partitions_and_consumes_them_again(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """Each channel tells of its own loss; what was unsettled comes again on newer ones."""
    await publish(outside, queues)
    async with member(broker.url, queues, "alone", prefetch=1000) as only:
        await only.sink.until_count(200)
        await only.intake.rebuild()
        await only.sink.until_count(400)

        assert sorted(only.sink.losses) == [PARTITIONS + number for number in range(PARTITIONS)]
        assert {each.generation for each in only.sink.deliveries[200:]}.isdisjoint(only.sink.losses)
        assert only.intake.status.generation == 2 * PARTITIONS


async def test_cancel_and_open_concern_all_partitions(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """After cancel nothing comes; what is in hand can be settled; open goes on."""
    await publish(outside, queues)
    async with member(broker.url, queues, "alone", prefetch=1000) as only:
        await only.sink.until_count(200)
        await only.intake.cancel()
        await publish(outside, queues)
        await only.settle()
        await until_back(outside, queues, 200)
        assert (len(only.sink.deliveries), only.intake.status.unsettled) == (200, 0)

        await only.intake.open(only.sink)
        await only.sink.until_count(400)


@pytest.mark.parametrize("steps", [0, 1, 3, 10, 30])
async def test_a_release_that_is_cancelled_leaves_nothing_behind(
    broker: PrivateBroker, outside: Outside, queues: Topology, steps: int
) -> None:
    """Whoever stops waiting for it can ask again, and then everything is back at the broker."""
    await publish(outside, queues)
    async with member(broker.url, queues, "alone", prefetch=1000) as only:
        await only.sink.until_count(200)
        releasing = asyncio.create_task(only.intake.release())
        for _ in range(steps):
            await asyncio.sleep(0)
        releasing.cancel()
        await asyncio.wait([releasing])
        await only.intake.release()

        await until_back(outside, queues, 200)


async def test_an_exchange_type_that_the_broker_does_not_have_is_a_refusal(broker: PrivateBroker) -> None:
    """Not something to be waited for; the text says what would help."""
    lacking = "x-consistent-hash" if generation.hash_exchange() == "x-modulus-hash" else "x-modulus-hash"
    other = unique_topology()
    wanted = topology(
        exchange=other.exchanges[0].name,
        queue=other.work_queue,
        dead_queue=other.dead_queue,
        retry_delays_s=(1,),
        delivery_limit=10,
        partitions=2,
        hash_exchange=lacking,
    )
    person = await Outside.connect(broker.url)
    try:
        with pytest.raises(BrokerRefused, match="HASH_EXCHANGE"):
            await declare(person.connection, wanted)
    finally:
        await person.close()
