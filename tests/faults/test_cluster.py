"""The private cluster itself: each fault that later tests rely on happens, and is over when it says so."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest
from aiormq.exceptions import DeliveryError
from pamqp.common import FieldValue

from tests.support.broker import Outside
from tests.support.cluster import PrivateCluster
from worker.core.errors import ConnectionLost

# Three nodes at once on a busy machine: starting them takes up to half a minute.
pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(180)]

QUEUE = "kept"
REFUSED_S = 5.0
DEADLINE_S = 40.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    """Three nodes that every test leaves whole."""
    with PrivateCluster() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def queue(cluster: PrivateCluster) -> str:
    """A quorum queue with a member on each node."""
    asyncio.run(_declare(cluster.urls[0]))
    return QUEUE


async def _declare(url: str) -> None:
    outside = await Outside.connect(url)
    arguments: dict[str, FieldValue] = {"x-queue-type": "quorum", "x-quorum-initial-group-size": 3}
    await (await outside.channel()).queue_declare(QUEUE, durable=True, arguments=arguments)
    await outside.close()


async def _through(url: str, body: dict[str, int]) -> None:
    """A message goes in and comes out on this node. Raises DeliveryError or TimeoutError where it does not go in."""
    outside = await Outside.connect(url)
    try:
        async with asyncio.timeout(REFUSED_S):
            await outside.publish("", QUEUE, body)
        taken = await outside.take(QUEUE)
    finally:
        await outside.close()

    assert taken.body.decode() == f'{{"id": {body["id"]}}}'


async def _soon_through(url: str, body: dict[str, int]) -> None:
    """The same, once the queue has a leader again: until then publishes are refused."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            with contextlib.suppress(DeliveryError, TimeoutError):
                return await _through(url, body)


def test_every_node_takes_clients(cluster: PrivateCluster, queue: str) -> None:
    """One cluster: what is declared on one node is used on all."""
    for number, url in enumerate(cluster.urls):
        asyncio.run(_through(url, {"id": number}))


def test_the_leader_of_a_queue_is_told_and_moved(cluster: PrivateCluster, queue: str) -> None:
    """Every node agrees who leads."""
    target = (cluster.leader_of(queue) + 1) % 3
    cluster.move_leader(queue, target)

    assert [cluster.leader_of(queue, asked=asked) for asked in range(3)] == [target] * 3


def test_a_killed_leader_is_replaced_and_comes_back(cluster: PrivateCluster, queue: str) -> None:
    """The two others go on; after the start all three see each other."""
    lost = cluster.leader_of(queue)
    cluster.kill(lost)
    try:
        survivor = (lost + 1) % 3
        asyncio.run(_soon_through(cluster.urls[survivor], {"id": 7}))
        assert cluster.leader_of(queue, asked=survivor) != lost
    finally:
        cluster.start(lost)
        cluster.until_whole()


def test_a_split_cuts_off_and_heals(cluster: PrivateCluster, queue: str) -> None:
    """The majority works on, the minority does not; afterwards every node takes clients again."""
    lost = cluster.leader_of(queue)
    survivor = (lost + 1) % 3
    cluster.partition(lost)
    try:
        asyncio.run(_soon_through(cluster.urls[survivor], {"id": 8}))
        # 3.x pauses a minority, so nobody listens; 4.3 lets clients in and refuses, or does not answer, the publish.
        with pytest.raises((ConnectionLost, DeliveryError, TimeoutError)):
            asyncio.run(_through(cluster.urls[lost], {"id": 9}))
    finally:
        cluster.heal(lost)
    assert cluster.leader_of(queue, asked=lost) != lost


def test_a_frozen_node_answers_nothing_until_it_goes_on(cluster: PrivateCluster, queue: str) -> None:
    """Shorter than the tick: nobody else notices, and it has missed nothing."""
    cluster.pause(2)
    answered = threading.Event()

    def ask() -> None:
        cluster.nodes[2].ctl("eval", "node().")
        answered.set()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert not answered.wait(2.0)
    finally:
        cluster.resume(2)
        asking.join(60.0)
    assert answered.is_set()
    cluster.until_whole()
