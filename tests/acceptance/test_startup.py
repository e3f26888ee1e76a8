"""The first minute: what is away is waited for, what refuses us for good ends the worker with exit code 2 and why."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.generation import chosen
from tests.support.proxy import TcpProxy
from tests.support.workerprocess import WorkerProcess
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

PASSWORD = "p4ss/w0rd-of-the-broker"
NOWHERE = {"OAUTH_URL": "http://127.0.0.1:9/token", "GRAPHQL_URL": "http://127.0.0.1:9/", "CLIENT_ID": "c"}


@pytest.fixture
async def world(broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[World]:
    """A world with a stand-in platform that has all its defaults."""
    async with World(broker, tmp_path) as made:
        yield made


@contextmanager
def user(broker: PrivateBroker, name: str, *permissions: str) -> Iterator[str]:
    """A user of the broker, as the part of a URL in front of the ``@``; permissions: configure, write, read."""
    broker.ctl("add_user", name, PASSWORD)
    if permissions:
        broker.ctl("set_permissions", name, *permissions)
    try:
        yield f"{name}:{quote(PASSWORD, safe='')}"
    finally:
        broker.ctl("delete_user", name)


def address(broker: PrivateBroker, login: str, vhost: str = "") -> str:
    """The broker's URL for somebody else."""
    return f"amqp://{login}@127.0.0.1:{broker.port}/{vhost}"


async def test_broker_that_starts_later_is_waited_for(tmp_path: Path) -> None:
    """Says where and why without the password, keeps trying, and connects when the node is up."""
    node = PrivateBroker(installation=chosen())
    settings = NOWHERE | {"CLIENT_SECRET": "secret-of-the-client", "AMQP_URL": node.url}
    worker = await WorkerProcess.start(settings, cwd=tmp_path)
    try:
        said = await worker.until_heard("broker.unreachable")
        await worker.until(lambda heard: len(heard.heard("broker.unreachable")) >= 3)
        await asyncio.to_thread(node.start)
        await worker.until_heard("worker.ready", deadline_s=30.0)

        assert f"amqp://guest@127.0.0.1:{node.port}/" in said["detail"]
        assert said["error"] == "ConnectionRefusedError"
        assert ":guest@" not in worker.output
        assert await worker.terminate() == 0
    finally:
        await worker.kill()
        await asyncio.to_thread(node.stop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_waiting_for_the_broker_ends_at_a_signal_with_exit_code_0(world: World, number: signal.Signals) -> None:
    """Nobody has to kill a worker that waits for its broker."""
    async with TcpProxy(world.broker.port) as proxy:
        await proxy.refuse()
        worker = await world.launch(AMQP_URL=proxy.url())
        await worker.until_heard("broker.unreachable")
        worker.send(number)

        assert await worker.ended(deadline_s=5.0) == 0
        assert worker.heard("worker.stopped")


async def test_nothing_is_lost_while_the_platform_is_away_at_the_start(world: World) -> None:
    """Events wait for it and are applied when it comes; none is dead-lettered."""
    await world.simulator.refuse()
    worker = await world.start()
    await world.publish(stamped(order_id, 4) for order_id in range(1, 51))
    said = await worker.until_heard("platform.hold")
    await worker.until(lambda heard: len(heard.heard("call.failed")) >= 2)
    await world.simulator.clear_faults()
    await world.until_applied(dict.fromkeys(range(1, 51), 4))

    assert said["reason"] == "unavailable"
    assert "token" in said["detail"]
    assert await worker.terminate() == 0
    assert (world.dead, await world.leftover()) == ([], 0)


async def test_wrong_broker_password_ends_with_exit_code_2(world: World) -> None:
    """The message names place and user; the password is nowhere."""
    worker = await world.launch(AMQP_URL=address(world.broker, f"guest:{quote(PASSWORD, safe='')}"))

    assert await worker.ended() == 2
    assert "refuses the login of user 'guest'" in worker.output
    assert f"127.0.0.1:{world.broker.port}" in worker.output
    assert PASSWORD not in worker.output
    assert quote(PASSWORD, safe="") not in worker.output
    assert "Traceback" not in worker.output


async def test_unknown_vhost_ends_with_exit_code_2(world: World) -> None:
    """The message names the vhost."""
    worker = await world.launch(AMQP_URL=address(world.broker, "guest:guest", "nowhere"))

    assert await worker.ended() == 2
    assert "refuses vhost 'nowhere' to user 'guest'" in worker.output
    assert ":guest@" not in worker.output


async def test_missing_permission_to_declare_ends_with_exit_code_2(world: World) -> None:
    """The message says what is missing and what else is possible."""
    with user(world.broker, "no-configure", "^$", ".*", ".*") as login:
        worker = await world.launch(AMQP_URL=address(world.broker, login))

        assert await worker.ended() == 2
        assert "grant configure and write permission, or use TOPOLOGY=passive" in worker.output
        assert quote(PASSWORD, safe="") not in worker.output


async def test_missing_permission_to_read_ends_with_exit_code_2(world: World) -> None:
    """Where nothing may be consumed at the start, waiting would help nobody."""
    with user(world.broker, "no-read", ".*", ".*", "^$") as login:
        worker = await world.launch(AMQP_URL=address(world.broker, login), TOPOLOGY="passive")

        assert await worker.ended(deadline_s=10.0) == 2
        assert "access" in worker.output.lower()
        assert "Traceback" not in worker.output


@pytest.mark.parametrize("name", ["CLIENT_ID", "CLIENT_SECRET"])
async def test_missing_credentials_end_with_exit_code_2(world: World, name: str) -> None:
    """Named by their variable, before anything is connected."""
    worker = await world.launch(**{name: ""})

    assert await worker.ended() == 2
    assert f"ORDER_WORKER_{name}: is not set" in worker.output
    assert not worker.heard("broker.connected")


async def test_wrong_client_secret_pauses_and_dead_letters_nothing(world: World) -> None:
    """The token endpoint refuses us: messages go back to the broker, and are applied when it accepts the secret."""
    worker = await world.launch(CLIENT_SECRET="secret-that-comes-later")
    await world.publish(stamped(order_id, 4) for order_id in range(1, 51))
    said = await worker.until_heard("platform.paused")
    await world.until_consumers(0)
    world.set_options(client_secret="secret-that-comes-later")
    await world.until_applied(dict.fromkeys(range(1, 51), 4))

    assert said["reason"] == "auth"
    assert "ORDER_WORKER_CLIENT_SECRET" in said["detail"]
    assert await worker.terminate() == 0
    assert (world.dead, await world.leftover()) == ([], 0)
    assert "secret-that-comes-later" not in worker.output
