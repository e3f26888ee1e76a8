"""``order-worker check`` with the management API: what AMQP does not tell, on a broker with the plugin."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.broker import Outside
from tests.support.doctor import PASSWORD, check, platform
from tests.support.httpserver import refusing_port
from tests.support.managed import ManagedBroker
from tests.support.tool import Tool
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.management import ManagementApi

pytestmark = pytest.mark.broker

POLL_S = 0.05


@pytest.fixture(scope="module")
def managed() -> Iterator[ManagedBroker]:
    """One node for the file."""
    with ManagedBroker() as node:
        yield node


@pytest.fixture
async def person(managed: ManagedBroker) -> AsyncIterator[Outside]:
    """Somebody with a connection of their own."""
    person = await Outside.connect(managed.url)
    yield person
    await person.close()


@pytest.fixture
async def tool(tmp_path: Path, managed: ManagedBroker, person: Outside, names: Topology) -> Tool:
    """The command; everything is declared."""
    await declare(person.connection, names)
    return Tool(tmp_path, managed.url, names)


async def until_told(managed: ManagedBroker, names: Topology, key: str = "") -> None:
    """Wait until the API tells the policy of every queue: the broker sends it there with its statistics."""
    async with asyncio.timeout(30.0), ManagementApi(managed.management_url) as api:
        for queue in names.queues:
            while not await _tells(api, queue.name, key):  # noqa: ASYNC110 - only the broker knows, so it is polled
                await asyncio.sleep(POLL_S)


async def _tells(api: ManagementApi, queue: str, key: str) -> bool:
    told = await api.get("queues", "/", queue)
    policy = (told.payload or {}).get("effective_policy_definition")
    return policy is not None and (not key or key in policy)


async def test_all_well_has_no_gaps(managed: ManagedBroker, tool: Tool, names: Topology) -> None:
    """Arguments, bindings, consumers and permissions are read."""
    await until_told(managed, names)
    async with platform() as (_, settings):
        found = await check(tool, MANAGEMENT_URL=managed.management_url, **settings)

    assert (found.code, found.of("broken"), found.of("warning")) == (0, {}, {})
    assert len(found.about("binding ")) == len(names.bindings)
    assert f"queue {names.work_queue} (management)" in found.of("ok")
    assert "read permission of guest (management)" in found.of("ok")


async def test_policies_and_bindings_are_judged(
    managed: ManagedBroker, person: Outside, tool: Tool, names: Topology
) -> None:
    """A policy that empties the queues, and a binding that somebody took away."""
    stem = names.exchanges[0].name
    await asyncio.to_thread(_set_policy, managed, stem, json.dumps({"delivery-limit": 5, "message-ttl": 1000}))
    await until_told(managed, names, "delivery-limit")
    channel = await person.channel()
    await channel.exchange_unbind(destination=names.work_queue, source=stem, routing_key="#")
    async with platform() as (_, settings):
        found = await check(tool, MANAGEMENT_URL=managed.management_url, **settings)
    await asyncio.to_thread(managed.ctl, "clear_policy", stem)

    seen = " | ".join(each["seen"] for each in found.findings if each["level"] == "broken")
    assert found.code == 1
    assert "lowers the delivery limit to 5" in seen
    assert "sets message-ttl" in seen
    assert f"binding {stem} -> {names.work_queue} (management)" in found.of("broken")


async def test_a_refused_login_is_a_warning(managed: ManagedBroker, tool: Tool) -> None:
    """Not being allowed to look breaks no promise; the password is not shown."""
    url = managed.management_url.replace("guest:guest", f"guest:{PASSWORD}")
    async with platform() as (_, settings):
        found = await check(tool, MANAGEMENT_URL=url, **settings)

    assert found.code == 0
    assert found.of("warning")["management API: login"] == "HTTP 401"


async def test_an_api_that_is_down_is_a_warning(tool: Tool) -> None:
    """What AMQP tells is told all the same."""
    async with platform() as (_, settings), refusing_port() as port:
        found = await check(tool, MANAGEMENT_URL=f"http://u:{PASSWORD}@127.0.0.1:{port}/", **settings)

    assert found.code == 0
    assert "management API: login" in found.of("warning")
    assert "may declare" in found.of("ok")


def _set_policy(managed: ManagedBroker, stem: str, definition: str) -> None:
    managed.ctl("set_policy", stem, f"^{stem}", definition, "--apply-to", "queues")
