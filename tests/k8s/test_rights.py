"""The rights that the overlay rabbitmq-operator grants are enough for a worker, on a real broker."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.k8s.overlays import WORKER, rendered
from tests.support.kustomize import find
from tests.support.tool import Tool
from tests.support.world import World, stamped
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

PASSWORD = "a-password-of-the-broker"


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A world whose topology is there already, as the operator makes it."""
    async with World(broker, tmp_path) as made:
        yield made


async def login(broker: PrivateBroker, stem: str) -> str:
    """The address of a user with the overlay's rights, on the names of a test instead of ``order-updates``."""
    granted = find(rendered("overlays/rabbitmq-operator"), "Permission", WORKER)["spec"]["permissions"]
    patterns = [granted[verb].replace("order-updates", re.escape(stem)) for verb in ("configure", "write", "read")]
    user = f"u{uuid4().hex[:12]}"
    await asyncio.to_thread(broker.ctl, "add_user", user, PASSWORD)
    await asyncio.to_thread(broker.ctl, "set_permissions", user, *patterns)
    return f"amqp://{user}:{PASSWORD}@127.0.0.1:{broker.port}/"


async def test_a_worker_with_these_rights_applies_retries_and_dead_letters(broker: PrivateBroker, world: World) -> None:
    """Reading, copies into both kinds of queues, and their way back; nothing is refused."""
    url = await login(broker, world.settings["EXCHANGE"])
    worker = await world.start(AMQP_URL=url, TOPOLOGY="passive", ADMIN_PORT="0")
    await world.fault(kind="masked", standing=True)
    await world.publish([stamped(7, 4)])
    await world.publish_raw(b'{"id": "no number"}', key="1")
    await worker.until_heard("message.retry")
    await world.simulator.clear_faults()

    await world.until_applied({7: 4})
    await world.until_dead(1)
    assert not worker.heard("broker.refused")
    assert not worker.heard("broker.copy_failed")


async def test_people_with_these_rights_publish_and_look_at_dead_letters(
    broker: PrivateBroker, queues: Topology, tmp_path: Path
) -> None:
    """With `--yes`, because who may not configure a queue cannot see how many looks it bears."""
    url = await login(broker, queues.exchanges[0].name)
    tool = Tool(tmp_path, url, queues)
    (tmp_path / "events.ndjson").write_text('{"id": 7, "status": 4}\n')

    assert (await tool.run("publish", "events.ndjson")).code == 0
    assert (await tool.run("dead", "show", "--yes")).code == 0
    assert (await tool.run("dead", "sync", "--yes")).code == 0
