"""Looking up how deep queues are, on a real broker: what is known, what is not, and nothing left behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.broker import Outside, endpoint
from tests.support.cutting import Cause, Cut, at_every_await
from tests.support.proxy import TcpProxy
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.depths import QueueLook
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]


@asynccontextmanager
async def looking(url: str, *, wanted: bool = True, rpc_timeout_s: float = 5.0) -> AsyncIterator[QueueLook]:
    """A look over a connection of its own, closed in the end."""
    link = Link(endpoint(url, rpc_timeout_s=rpc_timeout_s), name="look")
    try:
        yield QueueLook(link, wanted=lambda: wanted)
    finally:
        await link.close()


async def test_ready_messages_are_counted_and_what_is_missing_is_absent(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """A queue that does not exist closes its channel, not the look; the next look is as good as the first."""
    await outside.publish("", queues.dead_queue, b"1", b"2")
    await outside.until_ready(queues.dead_queue, 2)
    names = ["no-such-queue", queues.dead_queue, queues.work_queue]
    async with looking(broker.url) as look:
        first, second = await look.ready(names), await look.ready(names)

    assert first == second == {queues.dead_queue: 2, queues.work_queue: 0}


async def test_nobody_dials_for_a_figure_while_the_worker_is_not_connected(broker: PrivateBroker) -> None:
    """A broker that is away has enough of us."""
    async with TcpProxy(broker.port) as proxy, looking(proxy.url(), wanted=False) as look:
        assert await look.ready(["q"]) == {}
        assert proxy.accepted == 0


async def test_a_broker_that_falls_silent_costs_one_deadline_and_the_connection(
    broker: PrivateBroker, queues: Topology
) -> None:
    """Whatever was asked is given up with it; when the line is back, so is the figure."""
    async with TcpProxy(broker.port) as proxy, looking(proxy.url(), rpc_timeout_s=0.3) as look:
        assert await look.ready([queues.work_queue]) == {queues.work_queue: 0}
        proxy.blackhole()
        assert await look.ready([queues.work_queue]) == {}
        await proxy.cut()
        await proxy.heal()

        assert await look.ready([queues.work_queue]) == {queues.work_queue: 0}
        assert proxy.accepted == 2


@pytest.mark.parametrize("cause", Cause)
async def test_a_look_that_is_cancelled_leaves_nothing(broker: PrivateBroker, queues: Topology, cause: Cause) -> None:
    """At each await, by somebody and by the library: then the next look works."""
    names = [queues.work_queue]

    async def trial(cut: Cut) -> None:
        async with looking(broker.url) as look:
            await look.ready(names)
            await cut.run(look.ready(names))

            assert await look.ready(names) == {queues.work_queue: 0}

    await at_every_await(cause, trial, least=3)
