"""The fast lane on a real broker: lists, bodies of all sizes, signs of life, TLS, and the way back to the library."""

import asyncio
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiormq
import pytest
from structlog.testing import capture_logs

from tests.support import generation
from tests.support.broker import DEADLINE_S, Lanes, Outside, RecordingSink, unique_topology
from tests.support.consuming import consuming
from tests.support.managed import until_listening
from tests.support.proxy import TcpProxy
from worker.adapters.amqp import lane
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.receiving import Receiving
from worker.adapters.amqp.topology import Topology
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]

GARBAGE = b"\x05\x00\x01\x00\x00\x00\x00\xce"


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


def raw(connection: object) -> aiormq.Connection:
    """The library's connection below."""
    inner = connection.transport.connection  # type: ignore[attr-defined]
    assert isinstance(inner, aiormq.Connection)
    return inner


async def test_deliveries_come_past_the_library(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None reaches its channel; what was settled out of order, one by one, is gone from the queue.

    A quorum queue may forget acks that were written right before the channel is closed (seen on 4.3.6: of 101 frames
    about 33 had an effect). That all were heeded shows in what comes in their place.
    """
    by_the_library: list[object] = []

    async def receive(_: Receiving, *arguments: object) -> None:
        by_the_library.append(arguments)

    monkeypatch.setattr(Receiving, "message", receive)
    await asyncio.gather(*(outside.publish(queues.exchanges[0].name, str(n), {"id": n}) for n in range(400)))
    async with consuming(broker.url, queues, sink, prefetch=200) as (consumer, _):
        deliveries = (await sink.until_count(200))[:200]

        assert consumer.status.fast_lane
        assert await consumer.acknowledge(1, [[each.tag] for each in deliveries[100:]])
        assert await consumer.acknowledge(1, [[each.tag] for each in deliveries[:100]])
        assert consumer.counts["ack_frames"] == 101
        assert len({each.body for each in await sink.until_count(400)}) == 400
    await outside.until_ready(queues.work_queue, 200)
    assert by_the_library == []


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_bodies_of_any_size_arrive_whole(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink, size: int
) -> None:
    """One frame, several, and none at all."""
    async with consuming(broker.url, queues, sink, prefetch=500) as (consumer, _):
        await outside.publish(queues.exchanges[0].name, "1", b"x" * size, b"after")
        deliveries = await sink.until_count(2)

        assert consumer.status.fast_lane
    assert [each.body for each in deliveries] == [b"x" * size, b"after"]


async def test_the_library_takes_what_it_is_told_as_a_sign_of_life(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """It would close the connection as stuck where deliveries alone keep the broker from sending heartbeats."""
    async with consuming(broker.url, queues, sink, prefetch=500) as (_, link):
        connection = raw(await link.get())
        seen = getattr(connection, "_Connection__last_frame_time")  # noqa: B009 - mangled
        await outside.publish(queues.exchanges[0].name, "1", {"id": 1})
        await sink.until_count(1)
        async with asyncio.timeout(DEADLINE_S):
            while getattr(connection, "_Connection__last_frame_time") == seen:  # noqa: ASYNC110, B009 - nobody tells
                await asyncio.sleep(0.001)

        assert not connection.is_connection_was_stuck


async def test_garbage_costs_the_connection_and_nothing_else(
    broker: PrivateBroker, outside: Outside, queues: Topology, sink: RecordingSink
) -> None:
    """The library finds the same bytes as ever, gives up the connection, and the next one has a fast lane again."""
    await outside.publish(queues.exchanges[0].name, "1", {"id": 1})
    async with TcpProxy(broker.port) as proxy, consuming(proxy.url(), queues, sink, prefetch=500) as (consumer, _):
        await sink.until_count(1)
        with capture_logs() as logs:
            proxy.inject(GARBAGE)
            await sink.until_count(2)
            async with asyncio.timeout(DEADLINE_S):
                await consumer.wait_consuming()

        assert [line["event"] for line in logs].count("broker.lane_left") == 1
        assert sink.losses == [1]
        assert consumer.status.fast_lane


async def test_a_library_that_is_not_known_has_the_ordinary_lane(
    broker: PrivateBroker,
    outside: Outside,
    queues: Topology,
    sink: RecordingSink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told once, with what was not recognised; everything arrives all the same."""
    monkeypatch.setattr(lane, "version", lambda _: "8.1.0")
    with capture_logs() as logs:
        async with consuming(broker.url, queues, sink, prefetch=500) as (consumer, link):
            await outside.publish(queues.exchanges[0].name, "1", {"id": 1}, {"id": 2})
            await sink.until_count(2)

            assert not consumer.status.fast_lane
            await consumer.rebuild()
            await sink.until_count(4)
            assert link.connects == 2
    told = [line for line in logs if line["event"] == "broker.lane_ordinary"]

    assert [(line["connection"], line["detail"]) for line in told] == [("consume", "aiormq 8.1.0; known is 7")]


async def test_the_ordinary_lane_is_not_told_where_it_was_asked_for(
    broker: PrivateBroker, queues: Topology, sink: RecordingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no fault then."""
    monkeypatch.setattr(Lanes, "fast", False)
    with capture_logs() as logs:
        async with consuming(broker.url, queues, sink, prefetch=500) as (consumer, _):
            assert not consumer.status.fast_lane

    assert "broker.lane_ordinary" not in [line["event"] for line in logs]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command, *names], cwd=folder, check=True, capture_output=True, timeout=60)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def tls_broker(certificate: Path) -> Iterator[tuple[PrivateBroker, str]]:
    """A node that listens with TLS as well, and the address of that."""
    port = free_port()
    settings = {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": str(certificate / "cert.pem"),
        "ssl_options.certfile": str(certificate / "cert.pem"),
        "ssl_options.keyfile": str(certificate / "key.pem"),
        "ssl_options.verify": "verify_none",
    }
    with PrivateBroker(installation=generation.chosen(), settings=settings) as node:
        until_listening(node, port)
        yield node, f"amqps://guest:guest@127.0.0.1:{port}/?cafile={certificate / 'cert.pem'}"


@pytest.mark.parametrize("fast", [True, False])
async def test_tls_carries_both_lanes(
    tls_broker: tuple[PrivateBroker, str], sink: RecordingSink, monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    """TLS cuts the stream into records of 16 KB; what arrives is the same."""
    monkeypatch.setattr(Lanes, "fast", fast)
    node, url = tls_broker
    names = unique_topology()
    outside = await Outside.connect(node.url)
    await declare(outside.connection, names)
    bodies = [b"%d" % number * 50_000 for number in range(10)]
    await outside.publish(names.exchanges[0].name, "1", *bodies)
    async with consuming(url, names, sink, prefetch=500) as (consumer, link):
        deliveries = await sink.until_count(10)

        assert consumer.status.fast_lane == fast
        assert raw(await link.get()).url.scheme == "amqps"
        assert await consumer.acknowledge(1, [[each.tag] for each in deliveries])
    await outside.until_ready(names.work_queue, 0)
    await outside.close()
    assert [each.body for each in deliveries] == bodies


async def test_a_certificate_that_is_not_trusted_is_refused_as_ever(tls_broker: tuple[PrivateBroker, str]) -> None:
    """By the library's own context; the lane adds nothing to it."""
    _, url = tls_broker
    factory = lane.LaneFactory()
    connection = aiormq.Connection(url.partition("?")[0], transport_factory=factory)  # type: ignore[arg-type]

    with pytest.raises(aiormq.exceptions.AMQPConnectionError) as refused:
        await connection.connect()
    assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)
    await connection.close()
