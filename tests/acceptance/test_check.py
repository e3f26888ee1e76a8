"""``order-worker check`` on a real broker: what is wrong is named, and nothing changes."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.broker import Outside
from tests.support.doctor import PASSWORD, SECRET, check, platform
from tests.support.httpserver import mute_port, refusing_port
from tests.support.tool import Tool
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker


@pytest.fixture
def tool(tmp_path: Path, broker: PrivateBroker, names: Topology) -> Tool:
    """The command with the names of this test."""
    return Tool(tmp_path, broker.url, names)


@pytest.fixture
def nowhere(tmp_path: Path, names: Topology) -> Tool:
    """The command where no broker is: for tests of the platform."""
    return Tool(tmp_path, "amqp://guest:guest@127.0.0.1:9/", names)


async def snapshot(outside: Outside, names: Topology) -> list[int]:
    """Messages of every queue."""
    return [await outside.ready(queue.name) for queue in names.queues]


@pytest.mark.broker
async def test_all_well_is_exit_code_0_and_changes_nothing(tool: Tool, outside: Outside, queues: Topology) -> None:
    """No order is touched, no message is taken or published, no consumer is left."""
    await outside.publish(queues.exchanges[0].name, "7", {"id": 7})
    await outside.until_ready(queues.work_queue, 1)
    async with platform() as (simulator, settings):
        found = await check(tool, **settings)

    assert (found.code, found.of("broken")) == (0, {})
    assert found.of("warning") == {}
    assert "is not there yet" in found.of("ok")["journal"]
    assert found.of("ok")["graphql mutation"] == "updateOrders is allowed: it accepted an empty list"
    assert "3.10" in found.of("ok")["broker version"] or "4." in found.of("ok")["broker version"]
    assert found.of("ok")[f"queue {queues.work_queue}"]
    assert found.of("ok")["may declare"] == "yes"
    assert all(each["level"] == "ok" for each in found.about("may "))
    assert "bindings" in found.of("note")["management API"]
    assert list(simulator.platform.orders.changes()) == []
    assert await snapshot(outside, queues) == [1, 0, 0, 0]
    message = await outside.take(queues.work_queue)
    assert (message.redelivered, message.body) == (False, b'{"id": 7}')


@pytest.mark.broker
async def test_the_table_for_people_says_the_same(tool: Tool, queues: Topology) -> None:
    """Level, what, seen, what to do, and the counts."""
    async with platform() as (_, settings):
        done = await tool.run("check", stdin=b"", **settings, JOURNAL_URL="memory")

    assert done.code == 0
    assert "JOURNAL_URL=memory" in done.stdout
    assert "1 warning" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert queues.work_queue in done.stdout


@pytest.mark.broker
async def test_every_wrong_argument_of_a_queue_is_named(tool: Tool, outside: Outside, names: Topology) -> None:
    """AMQP names one at a time; the doctor goes on until it knows them all, of all queues, and changes none."""
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "elsewhere",
    }
    channel = await outside.channel()
    for name in (names.work_queue, names.dead_queue):
        await channel.queue_declare(name, durable=True, arguments=arguments)
    async with platform() as (_, settings):
        found = await check(tool, **settings)

    work = {each["seen"].split()[0] for each in found.about(f"queue {names.work_queue}")}
    dead = {each["seen"].split()[0] for each in found.about(f"queue {names.dead_queue}")}
    assert found.code == 1
    assert {"x-delivery-limit", "x-dead-letter-exchange", "x-single-active-consumer"} <= work
    assert {"x-delivery-limit", "x-dead-letter-exchange"} <= dead
    assert f"x-delivery-limit is 20, wanted is {names.queues[0].arguments['x-delivery-limit']}" in {
        each["seen"] for each in found.findings
    }
    await channel.queue_declare(names.work_queue, durable=True, arguments=arguments)


@pytest.mark.broker
async def test_a_classic_queue_is_broken(tool: Tool, outside: Outside, names: Topology) -> None:
    """A queue that somebody made by hand."""
    channel = await outside.channel()
    await channel.queue_declare(names.work_queue, durable=True)
    async with platform() as (_, settings):
        found = await check(tool, **settings)

    assert found.code == 1
    assert {each["level"] for each in found.about(f"queue {names.work_queue}")} == {"broken"}


@pytest.mark.broker
async def test_missing_objects_are_named_and_not_created(tool: Tool, outside: Outside, names: Topology) -> None:
    """On a new broker everything is missing; a look changes that as little as a second one."""
    async with platform() as (_, settings):
        await check(tool, **settings)
        await declare(outside.connection, names)
        channel = await outside.channel()
        await channel.queue_delete(names.dead_queue)
        found = await check(tool, **settings)

    assert found.code == 1
    assert found.of("broken") == {f"queue {names.dead_queue}": "is missing"}
    [missing] = found.about(f"queue {names.dead_queue}")
    assert "order-worker topology" in missing["advice"]


@pytest.mark.broker
async def test_missing_rights_are_named(broker: PrivateBroker, tool: Tool, queues: Topology) -> None:
    """Tried without consuming or publishing; what TOPOLOGY=passive does not need is not broken."""
    user, url = f"u-{queues.work_queue}", broker.url.replace("guest:guest", f"u-{queues.work_queue}:{PASSWORD}")
    await asyncio.to_thread(broker.ctl, "add_user", user, PASSWORD)
    await asyncio.to_thread(broker.ctl, "set_permissions", user, "^$", "^$", "^$")
    async with platform() as (_, settings):
        nothing = await check(tool, AMQP_URL=url, **settings)
        await asyncio.to_thread(broker.ctl, "set_permissions", user, "^$", ".*", ".*")
        declaring = await check(tool, AMQP_URL=url, **settings)
        passive = await check(tool, AMQP_URL=url, TOPOLOGY="passive", **settings)

    assert nothing.of("broken").keys() == {
        "may declare",
        f"may read queue {queues.work_queue}",
        *(f"may write exchange {name}" for name in ("amq.default", *queues.retry_exchanges)),
    }
    assert (declaring.code, set(declaring.of("broken"))) == (1, {"may declare"})
    assert (passive.code, passive.of("broken")) == (0, {})
    assert "could not be compared" in passive.of("note")[f"queue {queues.work_queue}"]


@pytest.mark.broker
async def test_a_refused_login_is_a_finding(broker: PrivateBroker, tool: Tool) -> None:
    """Like anything else that a person has to change."""
    async with platform() as (_, settings):
        found = await check(tool, AMQP_URL=broker.url.replace("guest:guest", f"guest:{PASSWORD}"), **settings)

    [seen] = found.of("broken").values()
    assert "refuses the login of user 'guest'" in seen
    assert found.code == 1


@pytest.mark.broker
async def test_one_address_of_several_is_enough(broker: PrivateBroker, tool: Tool, queues: Topology) -> None:
    """The worker tries them in turn, so a dead one is a warning."""
    async with platform() as (_, settings), refusing_port() as port:
        found = await check(tool, AMQP_URL=f"amqp://guest:{PASSWORD}@127.0.0.1:{port}/,{broker.url}", **settings)

    assert found.code == 0
    assert f"broker amqp://guest@127.0.0.1:{port}/" in found.of("warning")
    assert found.of("ok")[f"queue {queues.work_queue}"]


async def test_a_broker_that_is_down_is_a_finding(nowhere: Tool) -> None:
    """The platform is looked at all the same."""
    async with platform() as (_, settings):
        found = await check(nowhere, **settings)

    assert (found.code, list(found.of("broken"))) == (1, ["broker amqp://guest@127.0.0.1:9/"])
    assert "graphql mutation" in found.of("ok")


async def test_a_broker_that_never_answers_costs_seconds(nowhere: Tool) -> None:
    """Every wait has a deadline."""
    async with platform() as (_, settings), mute_port() as port:
        started = time.monotonic()
        found = await check(nowhere, AMQP_URL=f"amqp://127.0.0.1:{port}/", **settings)

    assert f"broker amqp://127.0.0.1:{port}/" in found.of("broken")
    assert time.monotonic() - started < 20.0
