"""The private broker itself: it starts, survives a power cut with its data, and leaves nothing behind."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.broker import Outside
from tests.support.generation import chosen
from worker.adapters import brokerinstallation
from worker.adapters.brokerinstallation import ensure_rabbitmq
from worker.adapters.privatebroker import PrivateBroker
from worker.core.errors import UsageError


def nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.broker
async def test_data_survive_a_kill_and_nothing_survives_a_stop() -> None:
    """kill -9 and a start later the confirmed message is there; after stop there is no port, process or folder."""
    node = PrivateBroker(installation=chosen())
    node.start()
    try:
        outside = await Outside.connect(node.url)
        # A classic queue: a quorum queue that is younger than a second may have no leader after a kill (3.10, 4.0).
        await (await outside.channel()).queue_declare("kept", durable=True)
        for number in range(20):
            await outside.publish("", "kept", {"id": number})
        await outside.close()
        # RabbitMQ 3.x keeps queue names in Mnesia, which writes behind: without this the fresh name may be lost.
        node.ctl("eval", "mnesia:dump_log().")
        home, server = node._home, node._server
        node.kill()
        assert nobody_listens(node.port)
        node.start()
        outside = await Outside.connect(node.url)
        bodies = [(await outside.take("kept")).body for _ in range(20)]
        await outside.close()
    finally:
        node.stop()
        node.stop()

    assert len(bodies) == 20
    assert home is not None
    assert not home.exists()
    assert server is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(server.pid, 0)


@pytest.mark.broker
def test_a_frozen_node_answers_nothing_until_it_goes_on(broker: PrivateBroker) -> None:
    """SIGSTOP reaches the node itself, in whatever it runs: the port is open, and silent."""
    broker.pause()
    try:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=0.5) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            with pytest.raises(TimeoutError):
                probe.recv(1)
            broker.resume()
            probe.settimeout(20.0)

            assert probe.recv(1) == b"\x01"
    finally:
        broker.resume()


@pytest.mark.broker
def test_everything_of_it_listens_on_loopback_only(broker: PrivateBroker) -> None:
    """AMQP, the distribution and epmd: no other machine can reach them."""
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    ]
    ours = [address for address in listening if int(address.split(":")[1], 16) in broker.ports]

    assert len(ours) == 3
    assert {address.split(":")[0] for address in ours} == {"0100007F"}


def test_an_installed_broker_is_used_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed where the script is found."""
    monkeypatch.setattr(brokerinstallation, "find_script", lambda name: Path("/somewhere") / name)

    assert ensure_rabbitmq() == Path("/somewhere/rabbitmq-server")


def test_without_apt_the_person_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install it, or name a running broker."""
    monkeypatch.setattr(brokerinstallation, "find_script", lambda _: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(UsageError, match="ORDER_WORKER_AMQP_URL"):
        ensure_rabbitmq()
