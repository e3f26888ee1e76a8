"""A private broker with the management plugin, on loopback like the rest of it."""

import socket
import time
from typing import Self

from tests.support.generation import chosen
from worker.adapters.freeports import free_port
from worker.adapters.privatebroker import PrivateBroker

START_S = 30.0
POLL_S = 0.05


class ManagedBroker(PrivateBroker):
    """Its management API answers when ``start`` returns."""

    def __init__(self) -> None:
        self.management_port = free_port()
        settings = {
            # The API tells policies from statistics: a minute is too long to wait for them.
            "collect_statistics_interval": "1000",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self.management_port),
        }
        super().__init__(plugins=("rabbitmq_management",), settings=settings, installation=chosen())

    @property
    def management_url(self) -> str:
        """With the credentials of the default user."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}/"

    def start(self) -> Self:
        """As any private broker; then wait for the port of the API."""
        super().start()
        until_listening(self, self.management_port)
        return self


def until_listening(node: PrivateBroker, port: int) -> None:
    """Wait for a further port of a node that runs: it answers on the one for AMQP before it opens the others."""
    deadline = time.monotonic() + START_S
    while not _listens(port):
        assert time.monotonic() < deadline, node.log_text
        time.sleep(POLL_S)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
