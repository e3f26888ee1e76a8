"""How deep the queues are, for metrics and people, without ever making them wait.

The broker is asked when somebody looks, and not again for ``FRESH_S``: scrapes by several, or a person who keeps
reloading, cost it nothing more. A look waits ``PATIENCE_S`` for the answer; one that is slower is there for the next.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from worker.core.vitals import Depth, Depths, QueueKind
from worker.ports import Clock

FRESH_S = 5.0
STALE_S = 30.0
"""An older answer is none: a gauge that stands still would look like a queue that does."""
PATIENCE_S = 1.0
DEADLINE_S = 5.0

Ask = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
"""Messages by queue; queues that are not known are absent. Must not raise."""


class QueueDepths:
    """Asks while in ``async with``. ``unacked`` is None where nobody can be asked for it."""

    def __init__(
        self, queues: Mapping[QueueKind, Sequence[str]], *, ready: Ask, unacked: Ask | None, clock: Clock
    ) -> None:
        self._queues = {kind: tuple(names) for kind, names in queues.items() if names}
        self._ready = ready
        self._unacked = unacked
        self._clock = clock
        self._asked_at = float("-inf")
        self._known_at = float("-inf")
        self._known: Depths = {}
        self._flight: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed, self._known = True, {}
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})

    async def look(self) -> Depths:
        """What is known by now, at most ``STALE_S`` old; takes at most ``PATIENCE_S`` and raises nothing."""
        if self._closed:
            return {}
        now = self._clock()
        if self._flight is None and now >= self._asked_at + FRESH_S:
            self._asked_at = now
            self._flight = asyncio.create_task(self._ask(), name="look at the queues")
            self._flight.add_done_callback(self._landed)
        if self._flight is not None:
            await asyncio.wait({self._flight}, timeout=PATIENCE_S)
        return self._known if self._clock() <= self._known_at + STALE_S else {}

    def _landed(self, _flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _ask(self) -> None:
        names = [name for queues in self._queues.values() for name in queues]
        try:
            async with asyncio.timeout(DEADLINE_S):
                ready, unacked = await asyncio.gather(self._ready(names), self._ask_unacked(names))
        except TimeoutError:
            return
        self._known = {
            kind: Depth(ready=total, unacked=_sum(queues, unacked))
            for kind, queues in self._queues.items()
            if (total := _sum(queues, ready)) is not None
        }
        self._known_at = self._clock()

    async def _ask_unacked(self, names: Sequence[str]) -> Mapping[str, int]:
        return {} if self._unacked is None else await self._unacked(names)


def _sum(queues: Sequence[str], counts: Mapping[str, int]) -> int | None:
    """Of all of them, or nothing: a part of a sum would look like the whole."""
    known = [counts[queue] for queue in queues if queue in counts]
    return sum(known) if len(known) == len(queues) else None
