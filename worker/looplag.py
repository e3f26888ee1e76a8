"""How late the event loop comes: the time that anything else in this process waits while one thing keeps it busy."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

EVERY_S = 0.5
KEPT_S = 60.0
"""Longer than scrapes are apart: a single stall of seconds must not fall between two of them."""


class LoopLag:
    """Looks from ``async with`` on, without a task: a timer that notes how late it is called, and sets the next."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=int(KEPT_S / EVERY_S))
        self._timer: asyncio.TimerHandle | None = None

    @property
    def most_s(self) -> float:
        """The latest it came in the last minute, in seconds; 0 before the first look."""
        since = asyncio.get_running_loop().time() - KEPT_S
        return max((late_s for at, late_s in self._late if at >= since), default=0.0)

    async def __aenter__(self) -> Self:
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + EVERY_S
        self._timer = loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        now = asyncio.get_running_loop().time()
        self._late.append((now, max(0.0, now - due)))
        self._arm()
