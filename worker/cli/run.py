"""``order-worker run``: the worker itself."""

import asyncio

from worker.app import run as work
from worker.cli.config import start


def run() -> None:
    """Consume events and bring them to the platform until SIGTERM or SIGINT; then drain and leave.

    A second signal ends the process at once; unsettled messages go back to the broker either way.
    """
    asyncio.run(work(start()))
