"""Processes in one loop of virtual time: each can be frozen, and wakes up later without having noticed.

A frozen process is one that a hypervisor moves, a swap holds up, or SIGSTOP: its timers pass and its answers arrive,
but nothing of it runs until it thaws, and then everything at once. Who belongs to it is told by the context of each
callback: tasks inherit it from whoever started them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVarTuple

from tests.support.virtualtime import VirtualTimeLoop

Args = TypeVarTuple("Args")

PROCESS: ContextVar["Process"] = ContextVar("PROCESS")
"""The process whose code runs. Unset for the world around: broker, platform, wires."""


def nobodys() -> Context:
    """A context for what goes on whoever is frozen."""
    return Context()


class SimTask(asyncio.Task[Any]):
    """A task with a number for its hash, so that sets of tasks have the same order in every run."""

    def __init__(self, coro: Any, *, number: int, **kwargs: Any) -> None:
        self._number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(VirtualTimeLoop):
    """Virtual time, and tasks that are numbered."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks_made = 0
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> SimTask:
        self._tasks_made += 1
        return SimTask(coro, number=self._tasks_made, loop=loop, **kwargs)


class Process:
    """Something that can be frozen. ``freezes`` counts how often that happened."""

    def __init__(self) -> None:
        self.frozen = False
        self.freezes = 0
        self._parked: deque[asyncio.Handle] = deque()
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    def freeze(self) -> None:
        """From now on nothing of it runs."""
        self.frozen = True
        self.freezes += 1

    def park(self, handle: asyncio.Handle) -> None:
        """What would have run."""
        self._parked.append(handle)

    def thaw(self) -> None:
        """It goes on, in the order in which it would have."""
        self.frozen = False
        loop = asyncio.get_running_loop()
        while self._parked:
            loop.call_soon(_run, self._parked.popleft(), context=nobodys())


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


class FreezingLoop(SimLoop):
    """Callbacks of a frozen process wait until it thaws."""

    def call_soon(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        if process is None or not process.frozen:
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        process.park(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        process = PROCESS.get(None) if context is None else context.get(PROCESS)
        if process is None:
            return super().call_at(when, callback, *args, context=context)

        def fire() -> None:
            if process.frozen:
                process.park(asyncio.TimerHandle(when, _unless_cancelled, (timer, callback, args), self, context))
            else:
                callback(*args)

        timer = super().call_at(when, fire, context=context)
        return timer


def _unless_cancelled(timer: asyncio.TimerHandle, callback: Callable[[*Args], object], args: tuple[*Args]) -> None:
    if not timer.cancelled():
        callback(*args)
