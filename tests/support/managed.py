"""A private broker with the management plugin, on loopback like the rest of it."""

import socket
import time
from pathlib import Path
from typing import Self

from worker.adapters.privatebroker import PrivateBroker

START_S = 30.0
POLL_S = 0.05


class ManagedBroker(PrivateBroker):
    """Its management API answers when ``start`` returns."""

    def __init__(self) -> None:
        super().__init__(plugins=("rabbitmq_management",))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.management_port = int(probe.getsockname()[1])

    @property
    def management_url(self) -> str:
        """With the credentials of the default user."""
        return f"http://guest:guest@127.0.0.1:{self.management_port}/"

    def start(self) -> Self:
        """As any private broker; then wait for the port of the API."""
        super().start()
        deadline = time.monotonic() + START_S
        while not _listens(self.management_port):
            assert time.monotonic() < deadline, self.log_text
            time.sleep(POLL_S)
        return self

    def _prepare_home(self) -> Path:
        home = super()._prepare_home()
        config = home / "rabbitmq.conf"
        # The API tells policies from statistics: a minute is too long to wait for them.
        usual = config.read_text().replace("interval = 60000", "interval = 1000")
        lines = f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
        config.write_text(usual + lines)
        return home


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
