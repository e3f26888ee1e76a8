"""Looking into a real queue and leaving it as it was: order, bodies, and nothing lost by whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.builders import NOW_US
from tests.support.broker import Outside, endpoint
from tests.support.proxy import TcpProxy
from tests.support.tool import take_all
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.deadletters import LIMIT_AT, DeadLetterQueue
from worker.adapters.amqp.topology import QueueSpec, Topology
from worker.adapters.journal.memory import MemoryJournal
from worker.adapters.privatebroker import PrivateBroker
from worker.core.deadletter import DeadLetter
from worker.core.errors import ConnectionLost, QueueHeld, QueueMissing, QueueWorn

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


@pytest.mark.parametrize("first", [1000, 7, 1])
async def test_looks_change_nothing(link: Link, outside: Outside, spec: QueueSpec, first: int) -> None:
    """On one channel or many: all are seen in order, and again, and then they are all still there in order."""
    bodies = await put(outside, spec.name, 120)
    queue = DeadLetterQueue(link, spec)
    for before in (0, 1):
        await outside.until_ready(spec.name, 120)
        eyes = Eyes()
        look = await queue.look(eyes, first=first, holder="kim")
        assert (look.there, look.seen, look.worn) == (120, 120, 0)
        assert eyes.bodies == bodies
        assert set(eyes.deliveries) <= {0, before}  # from 4.3 on a look costs nothing
    await outside.until_ready(spec.name, 120)

    assert [message.body for message in await take_all(outside, spec.name, 120)] == bodies


@pytest.mark.parametrize("first", [4, 2, 1000])
async def test_short_looks_leave_the_order_alone(link: Link, outside: Outside, spec: QueueSpec, first: int) -> None:
    """The broker puts what returns behind what returned before, so a look may have to hold more than it shows."""
    bodies = await put(outside, spec.name, 20)
    queue = DeadLetterQueue(link, spec)
    for enough in (4, 6, 20, 1, 3):
        eyes = Eyes(enough)
        look = await queue.look(eyes, first=first, holder="kim")
        await outside.until_ready(spec.name, 20)
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

    look = await DeadLetterQueue(link, spec).look(receive, holder="kim")
    await publishing[0]
    await outside.until_ready(spec.name, 4)

    assert look.seen == 3
    assert [message.body for message in await take_all(outside, spec.name, 4)] == [*bodies, b"new"]


async def test_a_missing_queue_stays_missing(link: Link, names: Topology) -> None:
    """Looking must not create anything."""
    queue = DeadLetterQueue(link, QueueSpec(name=names.dead_queue, arguments={"x-queue-type": "quorum"}))

    for _ in range(2):
        with pytest.raises(QueueMissing, match="there is no queue"):
            await queue.look(Eyes(), holder="kim")


async def test_an_empty_queue_is_seen_at_once(link: Link, spec: QueueSpec) -> None:
    """No waiting for what is not there."""
    async with asyncio.timeout(4):
        look = await DeadLetterQueue(link, spec).look(Eyes(), holder="kim")

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
        look = await queue.look(Eyes(), holder="kim")
        assert (look.seen, look.worn) == (3, 0)
    await outside.until_ready(theirs.name, 3)
    eyes = Eyes()
    refused = await queue.look(eyes, holder="kim")
    await outside.until_ready(theirs.name, 3)
    insisting = await queue.look(Eyes(), worn_too=True, holder="kim")
    await outside.until_ready(theirs.name, 3)

    assert (refused.worn, refused.seen, eyes.bodies) == (LIMIT_AT, 0, [])
    assert (insisting.worn, insisting.seen) == (0, 3)
    # The one message that was refused went behind the others.
    assert [message.body for message in await take_all(outside, theirs.name, 3)] == [*bodies[1:], bodies[0]]


async def test_our_queue_may_be_looked_at_for_ever(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """Its limit is a million: no question is asked."""
    await put(outside, spec.name, 1)
    for seen in range(LIMIT_AT + 8):
        await outside.until_ready(spec.name, 1)
        eyes = Eyes()
        await DeadLetterQueue(link, spec).look(eyes, holder="kim")
        assert eyes.deliveries in ([seen], [0])  # from 4.3 on a look costs nothing


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
            await DeadLetterQueue(link, spec).look(receive, holder="kim")
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
        await DeadLetterQueue(link, spec).look(receive, holder="kim")
    await outside.until_ready(spec.name, 3)


async def test_what_another_consumer_holds_is_not_waited_for(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """A program without our lock has some: the look shows the rest, and says that somebody is there."""
    bodies = await put(outside, spec.name, 4)
    channel = await outside.channel()
    await channel.basic_qos(prefetch_count=3)
    held: list[object] = []
    full = asyncio.Event()

    async def hold(message: object) -> None:
        held.append(message)
        if len(held) == 3:
            full.set()

    await channel.basic_consume(spec.name, hold)
    await full.wait()
    eyes = Eyes()
    look = await DeadLetterQueue(link, spec, quiet_s=0.2).look(eyes, holder="kim")

    assert (look.consumers, eyes.bodies) == (1, bodies[3:])


@pytest.mark.parametrize("window", [1000, 50, 7, 1])
async def test_what_is_removed_is_gone_and_the_rest_stays_in_order(
    link: Link, outside: Outside, spec: QueueSpec, window: int
) -> None:
    """Every third of 120 is removed, window by window, on one channel or many."""
    bodies = await put(outside, spec.name, 120)
    queue = DeadLetterQueue(link, spec)
    sizes = []
    async with queue.taking("kim") as taking:
        async for letters in taking.windows(window):
            sizes.append(len(letters))
            await taking.remove([each for each in letters if int(each.delivery.body) % 3 == 0])
        complete = taking.complete
    rest = [body for body in bodies if int(body) % 3]
    await outside.until_ready(spec.name, len(rest))

    assert complete
    assert sum(sizes) == 120
    assert max(sizes) <= window
    assert [message.body for message in await take_all(outside, spec.name, len(rest))] == rest


async def test_an_early_end_keeps_the_order(link: Link, outside: Outside, spec: QueueSpec) -> None:
    """All were handed out before, and the taking ends after the first window: the rest goes back behind it."""
    bodies = await put(outside, spec.name, 12)
    queue = DeadLetterQueue(link, spec)
    await queue.look(Eyes(), holder="kim")
    await outside.until_ready(spec.name, 12)
    async with queue.taking("kim") as taking:
        async for letters in taking.windows(3):
            await taking.remove(letters[:1])
            break
        assert not taking.complete
    await outside.until_ready(spec.name, 11)

    assert [message.body for message in await take_all(outside, spec.name, 11)] == bodies[1:]


async def test_a_queue_is_taken_by_one_at_a_time(broker: PrivateBroker, outside: Outside, spec: QueueSpec) -> None:
    """The second one is told who has it, and since when; after the end it is free."""
    await put(outside, spec.name, 1)
    holders = MemoryJournal()
    mine, other = (Link(endpoint(broker.url), name=name) for name in ("kim", "sam"))
    queue = DeadLetterQueue(mine, spec, holders=holders, wall_us=lambda: NOW_US)
    rival = DeadLetterQueue(other, spec, holders=holders)
    async with queue.taking("kim on line 4"):
        with pytest.raises(QueueHeld, match=r"kim on line 4 \(since 2026-11-21T10:00:00.000000Z\)"):
            await rival.look(Eyes(), holder="sam")
        assert await rival.size() == 1
    look = await rival.look(Eyes(), holder="sam")
    await mine.close()
    await other.close()

    assert look.seen == 1


async def test_a_lock_ends_with_its_holder(broker: PrivateBroker, outside: Outside, spec: QueueSpec) -> None:
    """A tool that is cut off holds nothing: neither messages nor, in a moment, the lock."""
    await put(outside, spec.name, 5)
    async with TcpProxy(broker.port) as proxy:
        first, second = Link(endpoint(proxy.url()), name="first"), Link(endpoint(broker.url), name="second")

        async def cut_off() -> None:
            async with DeadLetterQueue(first, spec).taking("first") as taking:
                async for _ in taking.windows(2):
                    await proxy.cut()

        with pytest.raises(ConnectionLost):
            await cut_off()
        await outside.until_ready(spec.name, 5)
        look = await DeadLetterQueue(second, spec).look(Eyes(), holder="second")
        await first.close()
        await second.close()

    assert look.seen == 5


async def test_a_worn_foreign_queue_is_not_taken(link: Link, outside: Outside, names: Topology) -> None:
    """Near the limit it refuses, and is free and complete afterwards."""
    theirs = QueueSpec(name=names.dead_queue, arguments={"x-queue-type": "quorum", "x-delivery-limit": 20})
    channel = await outside.channel()
    await channel.queue_declare(theirs.name, durable=True, arguments={**theirs.arguments})
    await put(outside, theirs.name, 2)
    queue = DeadLetterQueue(link, replace(theirs, arguments={**theirs.arguments, "x-delivery-limit": 1_000_000}))
    for _ in range(LIMIT_AT):
        await queue.look(Eyes(), holder="kim")
        await outside.until_ready(theirs.name, 2)

    async def take() -> None:
        async with queue.taking("kim") as taking:
            async for _ in taking.windows(10):
                pytest.fail("nothing may be handed out")

    with pytest.raises(QueueWorn) as refused:
        await take()
    await outside.until_ready(theirs.name, 2)
    async with queue.taking("kim", worn_too=True) as taking:
        taken = [letter async for letters in taking.windows(10) for letter in letters]

    assert refused.value.deliveries == LIMIT_AT
    assert len(taken) == 2
