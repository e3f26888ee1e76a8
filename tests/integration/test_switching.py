"""From one number of partitions to another on a real broker: nothing is lost, whenever it is interrupted."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from pamqp.commands import Basic

from tests.support.broker import DEADLINE_S, Outside, RecordingSink, endpoint, unique_topology
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.consumer import Consumer
from worker.adapters.amqp.declaring import declare, verify
from worker.adapters.amqp.moving import Mover, Standing
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.switching import detour_name, switch
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import BrokerRefused, ConnectionLost
from worker.core.headers import read_history

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]

ORDERS = range(1, 61)


def of(names: Topology, partitions: int) -> Topology:
    """The same names with so many partitions; a retry tier of an hour, out of which nothing comes in a test."""
    return unique_topology(like=names, partitions=partitions, retry_delays_s=(3600.0,))


@asynccontextmanager
async def movers(url: str, wanted: Topology, queues: Iterable[str]) -> AsyncIterator[list[Mover]]:
    taking, giving = (Link(endpoint(url), name=name) for name in ("take", "give"))
    publisher = Publisher(giving)
    try:
        yield [Mover(taking, publisher, queue=queue, exchange=wanted.work_queue, version="1.2.3") for queue in queues]
    finally:
        await publisher.close()
        await giving.close()
        await taking.close()


async def migrate(url: str, outside: Outside, wanted: Topology) -> int:
    """All of it; how many messages were moved."""
    others = await switch(outside.connection, wanted)
    async with movers(url, wanted, others) as each, asyncio.timeout(DEADLINE_S):
        return sum(await asyncio.gather(*(mover.run(lambda _: None) for mover in each)))


async def publish(outside: Outside, names: Topology, orders: Iterable[int] = ORDERS) -> None:
    for order in orders:
        await outside.publish(names.exchanges[0].name, str(order), {"id": order})


async def orders_in(outside: Outside, queue: str) -> Counter[str]:
    """The orders of everything that is ready in a queue; it is taken out."""
    assert outside.connection.transport is not None
    channel = await outside.connection.transport.connection.channel()
    mark, found = uuid4().hex.encode(), Counter[str]()
    done = asyncio.Event()

    async def receive(message: object) -> None:
        body, key = getattr(message, "body", b""), getattr(message, "routing_key", "")
        found.update([] if body == mark else [key])
        if body == mark:
            done.set()

    async with asyncio.timeout(DEADLINE_S):
        await channel.basic_consume(queue, receive, no_ack=True)
        await channel.basic_publish(mark, routing_key=queue, properties=Basic.Properties(delivery_mode=2))
        await done.wait()
        await channel.close()
    return found


async def orders_in_all(outside: Outside, names: Topology) -> Counter[str]:
    found: Counter[str] = Counter()
    for queue in names.work_queues:
        found += await orders_in(outside, queue)
    return found


@pytest.fixture
def names() -> Topology:
    return of(unique_topology(), 1)


@pytest.mark.parametrize("path", [(1, 4), (4, 1), (2, 5), (5, 2), (1, 4, 2, 1)])
async def test_every_message_is_moved_once_from_any_number_to_any_other(
    broker: PrivateBroker, outside: Outside, names: Topology, path: tuple[int, ...]
) -> None:
    """What waits in queues that are no longer fed comes into those that are, each order with its key."""
    await declare(outside.connection, of(names, path[0]))
    await publish(outside, names)
    for partitions in path[1:]:
        await migrate(broker.url, outside, of(names, partitions))
        await verify(outside.connection, of(names, partitions))
    await publish(outside, names)

    assert await orders_in_all(outside, of(names, path[-1])) == Counter({str(order): 2 for order in ORDERS})
    left = {name for count in path for name in of(names, count).work_queues} - {*of(names, path[-1]).work_queues}
    assert [await outside.ready(name) for name in sorted(left)] == [0] * len(left)


async def test_doing_it_again_changes_nothing(broker: PrivateBroker, outside: Outside, names: Topology) -> None:
    """As often as you like, on a broker that is there already or that has nothing at all."""
    wanted = of(names, 3)
    for _ in range(3):
        assert await migrate(broker.url, outside, wanted) == 0
    await publish(outside, names)

    assert await migrate(broker.url, outside, wanted) == 0
    assert (await orders_in_all(outside, wanted)).total() == len(ORDERS)


class Interrupted(Exception):
    """Where a test stops it."""


@pytest.mark.parametrize("requests", range(1, 24))
async def test_stopped_anywhere_no_event_is_lost_and_it_can_be_run_again(
    broker: PrivateBroker, outside: Outside, names: Topology, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    """After each request to the broker: whoever publishes then finds a queue, and the next run brings it to its end."""
    await declare(outside.connection, names)
    person = await Outside.connect(broker.url)
    assert person.connection.transport is not None
    raw = person.connection.transport.connection
    opened, real = 0, raw.channel

    async def counted(*arguments: object, **options: object) -> object:
        nonlocal opened
        opened += 1
        if opened > requests:
            raise ConnectionLost("stopped by the test")
        return await real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(raw, "channel", counted)
    with pytest.raises(ConnectionLost, match="stopped by the test"):
        await switch(person.connection, of(names, 3))
    await publish(outside, names)  # mandatory: what has no queue comes back and fails here
    monkeypatch.undo()
    await person.close()
    await migrate(broker.url, outside, of(names, 3))

    found = await orders_in_all(outside, of(names, 3))
    assert set(found) == {str(order) for order in ORDERS}
    with pytest.raises(BrokerRefused):
        await _exists(outside, detour_name(names.work_queue))


async def _exists(outside: Outside, exchange: str) -> None:
    assert outside.connection.transport is not None
    channel = await outside.connection.transport.connection.channel()
    try:
        await channel.exchange_declare(exchange, passive=True)
    except Exception as error:
        raise BrokerRefused(str(error)) from error


async def test_what_is_published_meanwhile_reaches_a_queue(
    broker: PrivateBroker, outside: Outside, names: Topology
) -> None:
    """A producer that never pauses, and three changes of the exchange's type under it: no event is returned."""
    await declare(outside.connection, names)
    producer = await Outside.connect(broker.url)
    over, order = asyncio.Event(), 0

    async def produce() -> None:
        nonlocal order
        while not over.is_set():
            order += 1
            await producer.publish(names.exchanges[0].name, str(order), {"id": order})

    producing = asyncio.create_task(produce())
    for partitions in (3, 1, 3):
        await migrate(broker.url, outside, of(names, partitions))
    over.set()
    await producing
    await producer.close()
    await migrate(broker.url, outside, of(names, 3))

    found = await orders_in_all(outside, of(names, 3))
    assert {int(each) for each in found} == set(range(1, order + 1))
    assert found.total() - order <= order // 4  # some twice, where old and new were fed for a moment


async def test_a_worker_that_still_consumes_finishes_its_queue_first(
    broker: PrivateBroker, outside: Outside, names: Topology
) -> None:
    """The mover waits for it, and for what it has in hand after it was cancelled; then it moves what came back."""
    await declare(outside.connection, names)
    await publish(outside, names)
    link, sink = Link(endpoint(broker.url), name="worker"), RecordingSink()
    worker = Consumer(link, queue=names.work_queue, prefetch=20)
    await worker.open(sink)
    await sink.until_count(20)
    wanted, looks = of(names, 3), list[Standing]()
    others = await switch(outside.connection, wanted)
    async with movers(broker.url, wanted, others) as [mover]:
        moving = asyncio.create_task(mover.run(looks.append))
        await _until(lambda: looks and looks[-1].consumers)
        assert (await worker.acknowledge(1, [[tag] for tag in range(1, 6)]), looks[-1].moved) == (True, 0)
        await worker.cancel()
        before = len(looks)
        await _until(lambda: len(looks) > before + 1)
        assert looks[-1].consumers
        assert looks[-1].moved == 0

        await worker.release()
        async with asyncio.timeout(DEADLINE_S):
            moved = await moving
    await link.close()
    taken = {each.routing_key for each in sink.deliveries if each.tag < 6}
    assert moved == len(ORDERS) - 5
    assert set(await orders_in_all(outside, wanted)) == {str(order) for order in ORDERS} - taken


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the mover's looks
            await asyncio.sleep(0.02)


async def test_a_moved_message_keeps_its_key_body_and_attempt_and_the_time_of_its_first_sight(
    broker: PrivateBroker, outside: Outside, names: Topology
) -> None:
    """An event without a time of its own must not become newer than what came behind it."""
    await declare(outside.connection, names)
    await publish(outside, names, [7])
    wanted = of(names, 2)
    assert await migrate(broker.url, outside, wanted) == 1
    queue = await _first_with_any(outside, wanted)
    message = await outside.take(queue)
    history = read_history(message.header.properties.headers or {})

    assert (message.body, message.routing_key) == (b'{"id": 7}', "7")
    assert (history.attempt, history.reason, history.worker) == (1, "moved", "1.2.3")
    assert history.first_seen_us is not None


async def _first_with_any(outside: Outside, names: Topology) -> str:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for queue in names.work_queues:
                if await outside.ready(queue):
                    return queue
            await asyncio.sleep(0.02)


async def test_another_difference_is_refused_and_changes_nothing(
    broker: PrivateBroker, outside: Outside, names: Topology
) -> None:
    """Only the type of the exchange is what a migration may change."""
    await declare(outside.connection, names)
    wanted = unique_topology(like=names, partitions=2, delivery_limit=7, retry_delays_s=(3600.0,))
    await declare(outside.connection, unique_topology(like=names, retry_delays_s=(3600.0,)))
    channel = await outside.channel()
    await channel.queue_declare(wanted.work_queues[0], durable=True, arguments={**of(names, 2).queues[0].arguments})

    with pytest.raises(BrokerRefused, match="x-delivery-limit"):
        await switch(outside.connection, wanted)
    await verify(outside.connection, names)
