"""The tasks of the pipeline: those that live as long as it does, those that pass, and what wakes its loop."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from worker.ports import Clock

Work = Callable[[], Coroutine[object, object, None]]
"""A coroutine that is made when its task runs first: one cancelled before that leaves nothing that is never awaited."""


class Alarm:
    """Wakes the loop: when something happened, and at a time that was asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Something happened. Nobody may be waiting: then the next wait is over at once."""
        self._rung.set()

    async def wait(self, until: float | None) -> None:
        """Wait for something to happen, at most until the given time."""
        timer = None
        if until is not None:
            delay = max(0.0, until - self._clock())
            timer = asyncio.get_running_loop().call_later(delay, self._rung.set)
        try:
            await self._rung.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._rung.clear()


class Tasks:
    """Owns tasks, none of which outlives ``group``. ``passing`` are those that end by themselves: calls, settlements.

    Each of their ends rings the alarm, because it may be what the loop waits for.
    """

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.group = asyncio.TaskGroup()
        self.passing: set[asyncio.Task[None]] = set()

    def own(self, work: Work, name: str) -> asyncio.Task[None]:
        """Start a task that goes on until it is cancelled."""
        return self.group.create_task(owned(work), name=name)

    def spawn(self, work: Work, name: str) -> None:
        """Start a task that passes."""
        task = self.own(work, name)
        self.passing.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self.passing.discard(task)
        self._alarm.ring()


async def owned(work: Callable[[], Awaitable[None]]) -> None:
    """Make a cancellation that nobody asked for an error: a task group would let the task end in silence.

    aiormq cancels whoever waits on a connection that got stuck; the adapters translate that, so here it would be a bug.
    """
    try:
        await work()
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is not None and task.cancelling() == 0:
            raise RuntimeError(f"{task.get_name()} was cancelled by a library") from cancelled
        raise
