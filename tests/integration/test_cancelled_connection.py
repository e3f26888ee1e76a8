"""Dialling and closing, cancelled at each of their awaits: by somebody, and by a library that nobody asked."""

import asyncio

import pytest

from tests.support.broker import endpoint
from tests.support.cutting import Cause, Cut, at_every_await
from worker.adapters.amqp.connection import Link, dial
from worker.adapters.amqp.inspecting import connected
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import ConnectionLost

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]

both_causes = pytest.mark.parametrize("cause", Cause)


@both_causes
async def test_a_dial_leaves_no_socket(broker: PrivateBroker, cause: Cause) -> None:
    """Neither connected nor connecting, from the first byte to the last of the handshake."""

    async def trial(cut: Cut) -> None:
        work = dial(broker.url, name="test", heartbeat_s=10, timeout_s=5.0)
        connection = await cut.run(work, fails=(ConnectionLost,))
        if connection is not None:
            await connection.close()

    assert await at_every_await(cause, trial, least=5) < 200


@both_causes
async def test_a_connection_for_a_block_is_closed(broker: PrivateBroker, cause: Cause) -> None:
    """In its making, in the block, and while it is closed."""

    async def block() -> None:
        async with connected(broker.url, timeout_s=5.0):
            await asyncio.sleep(0)

    async def trial(cut: Cut) -> None:
        await cut.run(block(), fails=(ConnectionLost,))

    await at_every_await(cause, trial, least=5)


@both_causes
@pytest.mark.parametrize("way", ["get", "drop", "close"])
async def test_a_link_can_be_used_and_closed_after_it(broker: PrivateBroker, cause: Cause, way: str) -> None:
    """The next get brings an open connection, and the next close closes it."""

    async def trial(cut: Cut) -> None:
        link = Link(endpoint(broker.url), name="test")
        if way != "get":
            await link.get()
        await cut.run({"get": link.get, "drop": link.drop, "close": link.close}[way]())

        assert await link.get() is not None
        assert link.connected
        await link.close()

    await at_every_await(cause, trial)


async def test_closing_while_dialling(broker: PrivateBroker) -> None:
    """A close that is cancelled while it ends a dial: the next one still finds nothing open."""

    async def trial(cut: Cut) -> None:
        link = Link(endpoint(broker.url), name="test")
        waiting = asyncio.create_task(link.get(), name="waiting")
        await asyncio.sleep(0)
        await cut.run(link.close())
        await link.close()
        await asyncio.wait([waiting])

        assert not link.connected

    await at_every_await(Cause.ASKED, trial)


@both_causes
async def test_the_task_that_dials_for_all(broker: PrivateBroker, cause: Cause) -> None:
    """Cancelled, the next get starts another; where the library fails it tries again by itself."""

    async def trial(cut: Cut) -> None:
        link = Link(endpoint(broker.url), name="test")
        with cut.tasks("dial test"):
            (first,) = await asyncio.gather(link.get(), return_exceptions=True)
        if not isinstance(first, BaseException):
            assert cut.error is None or not cut.asked
        else:
            assert isinstance(first, asyncio.CancelledError)
            assert cut.asked or not cut.in_library

        assert await link.get() is not None
        await link.close()

    await at_every_await(cause, trial, least=5)
