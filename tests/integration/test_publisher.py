"""Publishing on a real broker: what is confirmed is there, and everything else is told with its reason."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.broker import DEADLINE_S, Outside, endpoint
from tests.support.proxy import TcpProxy
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import CopyFailed, CopyUnencodable
from worker.core.model import Properties

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]


@pytest.fixture
async def publisher(broker: PrivateBroker) -> AsyncIterator[Publisher]:
    link = Link(endpoint(broker.url), name="publish")
    publisher = Publisher(link)
    yield publisher
    await publisher.close()
    await publisher.close()
    await link.close()


async def bounded_queue(outside: Outside, names: Topology) -> str:
    """A queue that holds one message and refuses the next."""
    name = f"{names.dead_queue}.full"
    channel = await outside.channel()
    await channel.queue_declare(name, durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    return name


async def test_a_returned_publish_is_in_the_queue(publisher: Publisher, outside: Outside, queues: Topology) -> None:
    """After the confirm the broker has it, with its properties."""
    properties = Properties(headers={"ow-attempt": 2}, content_type="application/json", delivery_mode=2, app_id="me")
    await publisher.publish("", queues.dead_queue, b"{}", properties)
    message = await outside.take(queues.dead_queue)
    given = message.header.properties

    assert message.body == b"{}"
    assert (given.headers, given.content_type, given.app_id) == ({"ow-attempt": 2}, "application/json", "me")


async def test_every_copy_has_a_message_id_of_its_own(publisher: Publisher, outside: Outside, queues: Topology) -> None:
    """Two in flight with one id could swap their outcomes."""
    same = Properties(message_id="one-and-the-same")
    await asyncio.gather(*(publisher.place("", queues.dead_queue, b"", same) for _ in range(5)))
    ids = {(await outside.take(queues.dead_queue)).header.properties.message_id for _ in range(5)}

    assert len(ids) == 5
    assert "one-and-the-same" not in ids


async def test_a_producers_message_id_stays(publisher: Publisher, outside: Outside, queues: Topology) -> None:
    """It is part of the event's identity."""
    await publisher.publish("", queues.dead_queue, b"", Properties(message_id="event-1"))

    assert (await outside.take(queues.dead_queue)).header.properties.message_id == "event-1"


async def test_several_hundred_at_once_are_all_confirmed(
    publisher: Publisher, outside: Outside, queues: Topology
) -> None:
    """More than the window: they wait for a place, none is lost."""
    await asyncio.gather(*(publisher.publish("", queues.dead_queue, b"x", Properties()) for _ in range(500)))

    await outside.until_ready(queues.dead_queue, 500)


async def test_an_unroutable_copy_is_told(publisher: Publisher, queues: Topology) -> None:
    """Without mandatory and raising returns the library would report success."""
    with pytest.raises(CopyFailed, match="returned"):
        await publisher.place("", "no-such-queue", b"", Properties())


async def test_a_full_queue_is_told(publisher: Publisher, outside: Outside, names: Topology) -> None:
    """reject-publish is a nack."""
    full = await bounded_queue(outside, names)
    await publisher.place("", full, b"1", Properties())

    with pytest.raises(CopyFailed, match="nack"):
        await publisher.place("", full, b"2", Properties())
    await (await outside.channel()).queue_delete(full)


async def test_a_missing_exchange_costs_the_channel_and_the_next_publish_has_a_new_one(
    publisher: Publisher, outside: Outside, queues: Topology
) -> None:
    """404 closes the channel; the failure names it, and the publisher goes on."""
    with pytest.raises(CopyFailed, match="no exchange"):
        await publisher.place("no-such-exchange", "k", b"", Properties())
    await publisher.place("", queues.dead_queue, b"after", Properties())

    assert (await outside.take(queues.dead_queue)).body == b"after"


@pytest.mark.parametrize(
    "properties",
    [
        Properties(headers={"raw": b"\xff"}),
        Properties(headers={"big": 2**70}),
        Properties(headers={"long": "x" * 140_000}),
        Properties(headers={"surrogate": "\ud800"}),
        Properties(correlation_id="x" * 300),
        Properties(priority=1000),
    ],
    ids=["bytes", "70 bits", "140 kB", "surrogate", "long id", "priority"],
)
async def test_what_cannot_be_encoded_is_its_own_fault(
    publisher: Publisher, outside: Outside, queues: Topology, properties: Properties
) -> None:
    """Nothing is sent, the channel and the connection live on."""
    with pytest.raises(CopyUnencodable):
        await publisher.place("", queues.dead_queue, b"", properties)
    await publisher.place("", queues.dead_queue, b"after", Properties())

    assert (await outside.take(queues.dead_queue)).body == b"after"


async def test_an_unanswering_broker_costs_the_deadline(broker: PrivateBroker, queues: Topology) -> None:
    """No confirm: CopyFailed after the deadline, and after healing it works again."""
    async with TcpProxy(broker.port) as proxy:
        link = Link(endpoint(proxy.url(), heartbeat_s=1), name="publish")
        publisher = Publisher(link, deadline_s=0.3)
        await publisher.place("", queues.dead_queue, b"1", Properties())
        proxy.blackhole()
        with pytest.raises(CopyFailed, match="no answer within"):
            await publisher.place("", queues.dead_queue, b"2", Properties())
        await proxy.heal()
        await publisher.place("", queues.dead_queue, b"3", Properties())
        await publisher.close()
        await link.close()


async def test_a_cut_connection_fails_what_is_in_flight_and_heals(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """Every publish ends, with a confirm or with CopyFailed; what was confirmed is there."""
    async with TcpProxy(broker.port) as proxy:
        link = Link(endpoint(proxy.url()), name="publish")
        publisher = Publisher(link)
        await publisher.place("", queues.dead_queue, b"x", Properties())
        flying = [asyncio.create_task(publisher.place("", queues.dead_queue, b"x", Properties())) for _ in range(50)]
        await asyncio.sleep(0)
        await proxy.cut()
        async with asyncio.timeout(DEADLINE_S):
            results = await asyncio.gather(*flying, return_exceptions=True)
        await publisher.place("", queues.dead_queue, b"x", Properties())

        assert {type(result) for result in results} <= {type(None), CopyFailed}
        assert await outside.ready(queues.dead_queue) >= 2
        await publisher.close()
        await link.close()


async def test_no_connection_at_all_is_told_in_time(queues: Topology) -> None:
    """The broker is away: the publish fails at its deadline, it does not wait for ever."""
    link = Link(endpoint("amqp://127.0.0.1:1/"), name="publish")
    publisher = Publisher(link, deadline_s=0.1)

    with pytest.raises(CopyFailed):
        await publisher.place("", queues.dead_queue, b"", Properties())
    await link.close()
