"""An event loop whose clock jumps: when nothing can run, it is already the time of the next timer.

Minutes of backoff cost no time, and the same test runs the same way each time. A loop in which everything waits for
something that is not a timer would wait for ever, so that is an error here: a lost wake-up fails its test at once.
Another one is spinning: code that runs again and again without time passing.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

START_S = 1000.0
MOST_TURNS = 20_000
"""Turns of the loop without time passing that are taken for a busy loop."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits. Files are looked at (the loop wakes itself through one), the time that was to be waited is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s = 0.0
        self.turns = 0
        self.total = 0
        self.at_turn: tuple[int, Callable[[], object]] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        self.total += 1
        if self.at_turn is not None and self.total >= self.at_turn[0]:
            (_, action), self.at_turn = self.at_turn, None
            action()
        if self.turns > MOST_TURNS:
            self.turns = 0
            raise RuntimeError("busy loop: the same moment goes on and on")
        if events := super().select(0):
            return events
        if timeout is None:
            raise RuntimeError("deadlock: everything waits, and no timer is set")
        if timeout > 0:
            self.waited_s += timeout
            self.turns = 0
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its ``time()`` starts at 1000 s and moves only while nothing can run."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual monotonic seconds."""
        return START_S + self._jumping.waited_s

    def keep_busy(self, seconds: float) -> None:
        """Time passes, and nothing runs meanwhile: as in a call that blocks."""
        self._jumping.waited_s += seconds

    def after_turns(self, turns: int, action: Callable[[], object]) -> None:
        """Call ``action`` between two steps of whatever runs, so many turns of the loop from now."""
        self._jumping.at_turn = self._jumping.total + turns, action


def run_virtual(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a loop of its own, for tests that need many."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(work)
