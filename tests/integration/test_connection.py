"""Dialling: what is refused, what is worth another try, and what a cancelled dial leaves behind (nothing)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.support.broker import endpoint
from tests.support.proxy import TcpProxy
from worker.adapters.amqp.connection import Endpoint, Link, dial, is_open, shown
from worker.adapters.amqp.deadline import within
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import BrokerRefused, ConnectionLost, UsageError

pytestmark = pytest.mark.usefixtures("no_leaks")


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Accepts and says nothing; the event tells that somebody has connected."""
    connected, over = asyncio.Event(), asyncio.Event()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], connected
    finally:
        over.set()
        server.close()


@pytest.mark.broker
@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (("guest:guest", "guest:s3cret-w0rd"), "check name and password"),
        (("guest:guest", "nobody:s3cret-w0rd"), "check name and password"),
        (("/", "/no-such-vhost"), "vhost 'no-such-vhost'"),
    ],
)
async def test_what_a_person_must_change_is_refused_without_the_password(
    broker: PrivateBroker, change: tuple[str, str], hint: str
) -> None:
    """Wrong password, unknown user and unknown vhost are BrokerRefused and say what to do."""
    old, new = change
    head, _, tail = broker.url.rpartition(old)
    link = Link(endpoint(head + new + tail), name="test")

    with pytest.raises(BrokerRefused, match=hint) as caught:
        await link.get()
    await link.close()
    assert "s3cret" not in str(caught.value)
    assert "guest:guest" not in str(caught.value)


async def test_a_refused_port_is_tried_again_and_says_why() -> None:
    """Every failed try is logged with URL, class and reason, without the password."""
    link = Link(endpoint(f"amqp://guest:s3cret@127.0.0.1:{free_port()}/"), name="test")
    with capture_logs() as logs, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await link.get()
    await link.close()
    tries = [entry for entry in logs if entry["event"] == "broker.unreachable"]

    assert len(tries) >= 2
    assert tries[0]["error"] == "ConnectionRefusedError"
    assert "127.0.0.1" in tries[0]["detail"]
    assert "s3cret" not in str(logs)


@pytest.mark.broker
async def test_the_next_url_is_tried_when_one_does_not_answer(broker: PrivateBroker) -> None:
    """A list of URLs is a ring."""
    link = Link(endpoint(f"amqp://127.0.0.1:{free_port()}/", broker.url), name="test")
    connection = await link.get()

    assert is_open(connection)
    assert await link.get() is connection
    await link.close()
    assert not is_open(connection)


@pytest.mark.broker
async def test_a_lost_connection_is_replaced_at_the_next_url(broker: PrivateBroker) -> None:
    """The node that was lost may be frozen, and would cost the whole connect timeout before another is asked."""
    async with TcpProxy(broker.port) as proxy:
        link = Link(endpoint(proxy.url(), broker.url), name="test")
        await link.get()
        await link.drop()
        proxy.blackhole()

        assert is_open(await link.get())
        assert proxy.accepted == 1
        await link.close()


async def test_a_silent_peer_costs_the_connect_timeout() -> None:
    """The library would wait for ever."""
    async with silent_server() as (port, _):
        with pytest.raises(ConnectionLost):
            await dial(f"amqp://127.0.0.1:{port}/", name="test", heartbeat_s=10, timeout_s=0.2)


async def test_cancelling_a_dial_leaves_nothing_behind() -> None:
    """Neither a task nor a socket that connects later."""
    async with silent_server() as (port, connected):
        dialling = asyncio.create_task(dial(f"amqp://127.0.0.1:{port}/", name="test", heartbeat_s=10, timeout_s=30.0))
        await connected.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


@pytest.mark.broker
async def test_a_caller_that_gives_up_does_not_stop_the_dialling(broker: PrivateBroker) -> None:
    """One impatient publish must not keep the link from ever coming up."""
    async with TcpProxy(broker.port) as proxy:
        proxy.blackhole()
        link = Link(endpoint(proxy.url()), name="test")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await link.get()
        await proxy.heal()

        assert is_open(await link.get())
        assert proxy.accepted == 1
        await link.close()


@pytest.mark.broker
async def test_a_lost_connection_is_dialled_anew(broker: PrivateBroker) -> None:
    """After a reset the next get brings a new connection."""
    async with TcpProxy(broker.port) as proxy:
        link = Link(endpoint(proxy.url()), name="test")
        first = await link.get()
        assert first.transport is not None
        lost = asyncio.Event()
        closing = first.transport.connection.closing
        closing.add_done_callback(lambda _: lost.set())
        await proxy.cut()
        await lost.wait()
        second = await link.get()

        assert second is not first
        assert link.connects == 2
        await link.close()


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    """aiormq raises CancelledError in our task when a connection is stuck."""
    with pytest.raises(ConnectionLost, match="stuck"):
        async with within(5.0, "acking"):
            raise asyncio.CancelledError


@pytest.mark.parametrize(
    "becomes", [None, RuntimeError("closed"), BrokerRefused("no")], ids=["nothing", "error", "ours"]
)
async def test_a_real_cancellation_that_the_library_swallows_comes_out(becomes: Exception | None) -> None:
    """Closing a channel, aiormq takes our cancellation for one of its own."""
    entered = asyncio.Event()

    async def close() -> None:
        async with within(5.0, "closing"):
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if becomes is not None:
                    raise becomes from None

    task = asyncio.create_task(close())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_real_cancellation_passes() -> None:
    """Ours stays a cancellation."""
    entered = asyncio.Event()

    async def wait() -> None:
        async with within(5.0, "acking"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_twice_or_before_use_is_harmless() -> None:
    """A link that never dialled has nothing to close."""
    link = Link(endpoint("amqp://127.0.0.1:1/"), name="test")

    await link.close()
    await link.close()


@pytest.mark.parametrize("urls", [(), ("http://localhost/",), ("amqp://guest:s3cret@/",), ("amqp://[/",)])
def test_what_is_no_amqp_url_is_a_usage_error(urls: tuple[str, ...]) -> None:
    """And is not repeated: it may hold a password."""
    with pytest.raises(UsageError) as caught:
        Endpoint(urls=urls)
    assert "s3cret" not in str(caught.value)


def test_a_shown_url_has_no_password() -> None:
    """Nor a query, nor does the endpoint's repr."""
    url = "amqps://me:s3cret@host/v?keyfile=/k"

    assert shown(url) == "amqps://me@host/v"
    assert "s3cret" not in repr(Endpoint(urls=(url,)))
