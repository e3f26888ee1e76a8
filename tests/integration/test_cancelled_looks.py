"""Declaring, inspecting and looking into dead letters, cancelled at each await: by somebody, and by the library."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace

import pytest
from aio_pika.abc import AbstractConnection

from tests.support.broker import Outside, endpoint
from tests.support.cutting import Cause, Cut, at_every_await
from worker.adapters.amqp.connection import Link
from worker.adapters.amqp.deadletters import DeadLetterQueue
from worker.adapters.amqp.declaring import declare, verify
from worker.adapters.amqp.inspecting import connected, objects, rights
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.deadletter import DeadLetter
from worker.core.errors import ConnectionLost

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.broker]

both_causes = pytest.mark.parametrize("cause", Cause)
Work = Callable[[AbstractConnection, Topology], Awaitable[object]]


async def look_at_objects(connection: AbstractConnection, wanted: Topology) -> object:
    return await objects(connection, wanted, rpc_timeout_s=5.0)


async def try_rights(connection: AbstractConnection, wanted: Topology) -> object:
    queues, exchanges = [each.name for each in wanted.queues], [each.name for each in wanted.exchanges]
    return await rights(connection, queues=queues, exchanges=exchanges, rpc_timeout_s=5.0)


@both_causes
@pytest.mark.parametrize("work", [declare, verify, look_at_objects, try_rights], ids=lambda work: work.__name__)
async def test_questions_about_the_topology(broker: PrivateBroker, queues: Topology, cause: Cause, work: Work) -> None:
    """The connection closes, and on the next one the answer is what it would have been."""
    few = replace(queues, exchanges=queues.exchanges[:1], queues=queues.queues[1:2], bindings=queues.bindings[-1:])
    async with connected(broker.url, timeout_s=5.0) as connection:
        expected = await work(connection, few)

    async def asked(connection: AbstractConnection) -> object:
        return await work(connection, few)

    async def trial(cut: Cut) -> None:
        async with connected(broker.url, timeout_s=5.0) as connection:
            await cut.run(asked(connection), fails=(ConnectionLost,))
        async with connected(broker.url, timeout_s=5.0) as connection:
            assert await work(connection, few) == expected

    await at_every_await(cause, trial, least=5)


@asynccontextmanager
async def looking(broker: PrivateBroker, names: Topology) -> AsyncIterator[DeadLetterQueue]:
    link = Link(endpoint(broker.url), name="look")
    spec = next(queue for queue in names.queues if queue.name == names.dead_queue)
    try:
        yield DeadLetterQueue(link, spec)
    finally:
        await link.close()


@both_causes
async def test_a_look_into_the_dead_letters(
    broker: PrivateBroker, outside: Outside, queues: Topology, cause: Cause
) -> None:
    """Everything is back in the queue, for the next look of the same person, in its order."""
    await outside.publish("", queues.dead_queue, b"1", b"2", b"3")

    async def trial(cut: Cut) -> None:
        async with looking(broker, queues) as queue:
            await cut.run(queue.look(lambda _: True, holder="kim"), fails=(ConnectionLost,))
            bodies: list[bytes] = []

            def see(letter: DeadLetter) -> bool:
                bodies.append(letter.delivery.body)
                return True

            while len(bodies) < 3:
                bodies.clear()
                # aiormq may keep a failed close to itself; then the next look is the one to find the connection lost.
                with nullcontext() if cut.asked else suppress(ConnectionLost):
                    await queue.look(see, holder="kim")
            assert sorted(bodies) == [b"1", b"2", b"3"]

    await at_every_await(cause, trial, least=5)
