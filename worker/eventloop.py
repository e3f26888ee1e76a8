"""Which event loop there is: ``EVENT_LOOP`` decides. uvloop is an extra, and asyncio's own does the same work."""

import asyncio
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from worker.core.errors import UsageError
from worker.core.settings import EventLoop

OLDEST = (0, 23)
"""In older ones a connection that is given up while it is being opened may close another one later: its descriptor is
closed twice (MagicStack/uvloop#738). A call that ends at its deadline is just that."""
_NUMBERS = re.compile(r"\d+")


def loop_factory(wanted: EventLoop) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop, for ``asyncio.Runner``; None stands for asyncio's own.

    AUTO takes uvloop where it is installed and not too old. Raises UsageError where it was asked for by name and cannot
    be had.
    """
    if wanted is EventLoop.ASYNCIO:
        return None
    if (found := _installed()) is not None and found >= OLDEST:
        import uvloop

        return uvloop.new_event_loop
    if wanted is EventLoop.AUTO:
        return None
    state = "is not installed" if found is None else "is too old"
    raise UsageError(
        f"ORDER_WORKER_EVENT_LOOP: uvloop {state}; install the extra `uvloop` of order-update-worker, or set "
        "EVENT_LOOP=auto"
    )


def _installed() -> tuple[int, ...] | None:
    """The first numbers of its version, None without uvloop."""
    try:
        return tuple(map(int, _NUMBERS.findall(version("uvloop"))[:2]))
    except PackageNotFoundError:
        return None
