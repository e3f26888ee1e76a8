"""The topology on a real broker: declared, declared again, verified, and wrong in one argument."""

import re
from dataclasses import replace

import pytest

from tests.support.broker import Outside, unique_topology
from worker.adapters.amqp.connection import dial
from worker.adapters.amqp.declaring import declare, verify
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import BrokerRefused

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("no_leaks")]


async def test_declaring_twice_changes_nothing(outside: Outside, names: Topology) -> None:
    """What is there with the same arguments is fine."""
    await declare(outside.connection, names)
    await declare(outside.connection, names)

    await verify(outside.connection, names)


async def test_an_event_reaches_the_work_queue_with_its_key(outside: Outside, queues: Topology) -> None:
    """Producers publish to the topic exchange with the order id as key."""
    await outside.publish(queues.exchanges[0].name, "46140199", {"id": 46140199})

    assert (await outside.take(queues.work_queue)).routing_key == "46140199"


async def test_a_retry_copy_comes_back_to_the_work_queue_with_its_key(outside: Outside, queues: Topology) -> None:
    """The first tier holds a message for its delay and keeps the routing key."""
    await outside.publish(queues.retry_exchanges[0], "46140199", {"id": 46140199})
    message = await outside.take(queues.work_queue)

    assert message.routing_key == "46140199"
    assert "x-death" in (message.header.properties.headers or {})


async def test_the_safety_net_ends_in_the_dead_letter_queue(outside: Outside) -> None:
    """A message that came back more often than the limit is dead-lettered by the broker itself, with its key."""
    names = unique_topology(delivery_limit=1)
    await declare(outside.connection, names)
    await outside.publish(names.exchanges[0].name, "7", {"id": 7})
    for _ in range(2):
        await outside.take(names.work_queue, hand_back=True)
    message = await outside.take(names.dead_queue)

    assert message.routing_key == "7"


async def test_a_missing_queue_is_named_and_not_created(outside: Outside, names: Topology) -> None:
    """Passive means passive: the check finds nothing, says so and leaves nothing behind."""
    with pytest.raises(BrokerRefused, match=re.escape(names.exchanges[0].name) + ".*is missing.*TOPOLOGY=declare"):
        await verify(outside.connection, names)
    with pytest.raises(BrokerRefused, match="is missing"):
        await verify(outside.connection, replace(names, exchanges=()))


async def test_a_wrong_argument_is_named_with_both_values(outside: Outside, queues: Topology) -> None:
    """The person learns which queue, which argument, what we want and what is there."""
    work = queues.queues[0]
    other = replace(work, arguments={**work.arguments, "x-delivery-limit": 20})
    wanted = replace(queues, queues=(other, *queues.queues[1:]))

    with pytest.raises(BrokerRefused, match=f"queue '{work.name}' exists with another x-delivery-limit") as caught:
        await verify(outside.connection, wanted)
    assert "we want '20', the broker has '100'" in str(caught.value)
    with pytest.raises(BrokerRefused, match="x-delivery-limit"):
        await declare(outside.connection, wanted)


async def test_a_wrong_exchange_type_is_named(outside: Outside, queues: Topology) -> None:
    """The same for exchanges."""
    events = replace(queues.exchanges[0], type="direct")

    with pytest.raises(BrokerRefused, match="is of another type"):
        await verify(outside.connection, replace(queues, exchanges=(events,)))


async def test_without_configure_permission_verify_checks_existence_only(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """A consumer's user need not be allowed to declare; declaring says what is missing."""
    user = f"reader-{queues.work_queue}"
    broker.ctl("add_user", user, "secret-word")
    broker.ctl("set_permissions", user, "^$", ".*", ".*")
    reader = await dial(
        broker.url.replace("guest:guest", f"{user}:secret-word"), name="reader", heartbeat_s=10, timeout_s=5.0
    )
    try:
        await verify(reader, queues)
        with pytest.raises(BrokerRefused, match="grant configure and write permission") as caught:
            await declare(reader, queues)
    finally:
        await reader.close()

    assert "secret-word" not in str(caught.value)


async def test_without_any_permission_verify_says_what_it_could_not_look_at(
    broker: PrivateBroker, outside: Outside, queues: Topology
) -> None:
    """A worker's user needs nothing on the exchange of the producers; RabbitMQ 4.3 then hides whether it exists."""
    user = f"nobody-{queues.work_queue}"
    broker.ctl("add_user", user, "secret-word")
    broker.ctl("set_permissions", user, "^$", "^$", "^$")
    nobody = await dial(
        broker.url.replace("guest:guest", f"{user}:secret-word"), name="nobody", heartbeat_s=10, timeout_s=5.0
    )
    try:
        unverified = await verify(nobody, queues)
    finally:
        await nobody.close()

    assert len(unverified) == len(queues.exchanges) + len(queues.queues)
