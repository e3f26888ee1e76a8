"""``order-worker run``: the worker itself."""

import asyncio
import gc
import sys

from worker.app import run as work
from worker.cli.config import start

YOUNG_OBJECTS = 10_000
"""How many new objects Python lets gather before it looks for garbage in circles; 700 if nobody says so."""
SWITCH_S = 0.0005
"""How long a thread that has its answer from SQLite waits for a busy event loop to let it go on; 5 ms if nobody says
so, and each batch has a dozen such answers."""


def run() -> None:
    """Consume events and bring them to the platform until SIGTERM or SIGINT; then drain and leave.

    A second signal ends the process at once; unsettled messages go back to the broker either way.
    """
    settings = start()
    _tune()
    asyncio.run(work(settings))


def _tune() -> None:
    """A fifth of the worker's time went into looking for garbage, mostly among what the libraries made when they were
    imported, and into nothing but that: what belongs to a batch is freed without it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    sys.setswitchinterval(SWITCH_S)
