"""Looking into a real queue and leaving it as it was: order, bodies, and nothing lost by whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.support.broker import Outside, endpoint
from tests.support.proxy import TcpProxy
from tests.support.tool import take_all
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.deadletters import LIMIT_AT, DeadLetterQueue
from worker.adapters.amqp.topology import QueueSpec, Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.deadletter import DeadLetter
from worker.core.errors import ConnectionLost

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]


@pytest.fixture
async def link(broker: PrivateBroker) -> AsyncIterator[Link]:
    made = Link(endpoint(broker.url), name="look")
    yield made
    await made.close()


@pytest.fixture
def spec(queues: Topology) -> QueueSpec:
    """The dead-letter queue, as it is declared."""
    return next(queue for queue in queues.queues if queue.name == queues.dead_queue)


class Eyes:
    """Keeps the bodies that it was shown; has enough after ``enough``."""

    def __init__(self, enough: int = 1_000_000) -> None:
        self.bodies: list[bytes] = []
        self.deliveries: list[int] = []
        self._enough = enough

    def __call__(self, letter: DeadLetter) -> bool:
        self.bodies.append(letter.delivery.body)
        self.deliveries.append(letter.deliveries)
        return len(self.bodies) < self._enough


async def put(outside: Outside, queue: str, count: int) -> list[bytes]:
    """Messages that can be told apart."""
    bodies = [b"%d" % number for number in range(count)]
    await outside.publish("", queue, *bodies)
    return bodies


@pytest.mark.parametrize("most_per_channel", [1000, 7, 1])
async def test_looks_change_nothing(link: Link, outside: Outside, spec: QueueSpec, most_per_channel: int) -> None:
    """On one channel or many: all are seen in order, and again, and then they are all still there in order."""
    bodies = await put(outside, spec.name, 30)
    queue = DeadLetterQueue(link, spec, most_per_channel=most_per_channel)
    for before in (0, 1):
        await outside.until_ready(spec.name, 30)
        eyes = Eyes()
        look = await queue.look(eyes)
        assert look is not None
        assert (look.there, look.seen, look.worn) == (30, 30, 0)
        assert (eyes.bodies, set(eyes.deliveries)) == (bodies, {before})
    await outside.until_ready(spec.name, 30)

    assert [message.body for message in await take_all(outside, spec.name, 30)] == bodies


@pytest.mark.parametrize("first", [4, 2, 1000])
async def test_short_looks_leave_the_order_alone(link: Link, outside: Outside, spec: QueueSpec, first: int) -> None:
    """The broker puts what returns behind what returned before, so a look may have to hold more than it shows."""
    bodies = await put(outside, spec.name, 20)
    queue = DeadLetterQueue(link, spec)
    for enough in (4, 6, 20, 1, 3):
        eyes = Eyes(enough)
        look = await queue.look(eyes, first=first)
        await outside.until_ready(spec.name, 20)
        assert look is not None
        assert look.seen == enough
        assert eyes.bodies == bodies[:enough]

    assert [message.body for message in await take_all(outside, spec.name, 20)] == bodies


async def test_what_comes_during_a_look_stays_behind(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """New dead letters are for the next look, and stay the newest."""
    bodies = await put(outside, spec.name, 3)
    publishing: list[asyncio.Task[None]] = []

    def receive(letter: DeadLetter) -> bool:
        if not publishing:
            publishing.append(asyncio.create_task(outside.publish("", spec.name, b"new")))
        return True

    look = await DeadLetterQueue(link, spec).look(receive)
    await publishing[0]
    await outside.until_ready(spec.name, 4)

    assert look is not None
    assert look.seen == 3
    assert [message.body for message in await take_all(outside, spec.name, 4)] == [*bodies, b"new"]


async def test_a_missing_queue_is_none_and_stays_missing(link: Link, names: Topology) -> None:
    """Looking must not create anything."""
    queue = DeadLetterQueue(link, QueueSpec(name=names.dead_queue, arguments={"x-queue-type": "quorum"}))

    assert await queue.look(Eyes()) is None
    assert await queue.look(Eyes()) is None


async def test_an_empty_queue_is_seen_at_once(link: Link, spec: QueueSpec) -> None:
    """No waiting for what is not there."""
    async with asyncio.timeout(4):
        look = await DeadLetterQueue(link, spec).look(Eyes())

    assert look is not None
    assert (look.there, look.seen) == (0, 0)


async def test_a_foreign_queue_is_not_worn_out(link: Link, outside: Outside, names: Topology) -> None:
    """A queue with a delivery limit of 20 loses nothing, however often one looks without saying yes."""
    theirs = QueueSpec(name=names.dead_queue, arguments={"x-queue-type": "quorum", "x-delivery-limit": 20})
    channel = await outside.channel()
    await channel.queue_declare(theirs.name, durable=True, arguments={**theirs.arguments})
    bodies = await put(outside, theirs.name, 3)
    queue = DeadLetterQueue(link, replace(theirs, arguments={**theirs.arguments, "x-delivery-limit": 1_000_000}))
    for _ in range(LIMIT_AT):
        await outside.until_ready(theirs.name, 3)
        look = await queue.look(Eyes())
        assert look is not None
        assert (look.seen, look.worn) == (3, 0)
    await outside.until_ready(theirs.name, 3)
    eyes = Eyes()
    refused = await queue.look(eyes)
    await outside.until_ready(theirs.name, 3)
    insisting = await queue.look(Eyes(), worn_too=True)
    await outside.until_ready(theirs.name, 3)

    assert refused is not None
    assert (refused.worn, refused.seen, eyes.bodies) == (LIMIT_AT, 0, [])
    assert insisting is not None
    assert (insisting.worn, insisting.seen) == (0, 3)
    # The one message that was refused went behind the others.
    assert [message.body for message in await take_all(outside, theirs.name, 3)] == [*bodies[1:], bodies[0]]


async def test_our_queue_may_be_looked_at_for_ever(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """Its limit is a million: no question is asked."""
    await put(outside, spec.name, 1)
    for seen in range(LIMIT_AT + 8):
        await outside.until_ready(spec.name, 1)
        eyes = Eyes()
        await DeadLetterQueue(link, spec).look(eyes)
        assert eyes.deliveries == [seen]


async def test_a_lost_connection_puts_everything_back(broker: PrivateBroker, outside: Outside, spec: QueueSpec) -> None:
    """The broker does it, so it needs nothing of ours; the error says so."""
    bodies = await put(outside, spec.name, 5)
    async with TcpProxy(broker.port) as proxy:
        link = Link(endpoint(proxy.url()), name="look")
        cutting: list[asyncio.Task[None]] = []

        def receive(letter: DeadLetter) -> bool:
            if not cutting:
                cutting.append(asyncio.create_task(proxy.cut()))
            return True

        with pytest.raises(ConnectionLost):
            # One message per channel: there is still much to do when the first one is seen.
            await DeadLetterQueue(link, spec, most_per_channel=1).look(receive)
        await asyncio.wait(cutting)
        await link.close()
    await outside.until_ready(spec.name, 5)

    assert sorted(message.body for message in await take_all(outside, spec.name, 5)) == bodies


async def test_a_failing_receiver_puts_everything_back(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """A fault of ours is told to the caller, not to the library."""
    await put(outside, spec.name, 3)

    def receive(letter: DeadLetter) -> bool:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        await DeadLetterQueue(link, spec).look(receive)
    await outside.until_ready(spec.name, 3)


async def test_what_another_reader_holds_is_not_waited_for(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """Two people may look at the same time: each sees what the other does not hold."""
    await put(outside, spec.name, 4)
    inside: list[asyncio.Task[object]] = []

    def first(letter: DeadLetter) -> bool:
        if not inside:
            inside.append(asyncio.create_task(DeadLetterQueue(link, spec, quiet_s=0.2).look(Eyes())))
        return True

    look = await DeadLetterQueue(link, spec, quiet_s=0.2).look(first)
    await asyncio.wait(inside)
    await outside.until_ready(spec.name, 4)

    assert look is not None
    assert look.seen == 4
