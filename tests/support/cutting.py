"""Cancels a piece of work at every moment it has; the moments are found by running it.

    at_every_await(cause, trial):  trial(cut at moment 1), trial(cut at moment 2), ... until one ends before it is cut

A moment is an await of the work, or one of a task that it started: AMQP libraries do a whole handshake in a task of
theirs, which for us is a single await. Every task's steps pass through here by its ``send`` and ``throw``, each of
which ends in a future that is handed to the event loop. It is always the work itself that is cancelled.
"""

import asyncio
import itertools
import os
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import aio_pika
import aiormq

CUT = "the one that is cut"
DEADLINE_S = 10.0
LIBRARIES = tuple(path for package in (aio_pika, aiormq) for path in package.__path__)


class Cause(StrEnum):
    """Who cancels. ``ASKED``: somebody, through ``Task.cancel``. ``UNASKED``: nobody, the future that is awaited ends
    as cancelled, as AMQP libraries report a stuck connection."""

    ASKED = "asked"
    UNASKED = "unasked"


class Cut:
    """One cut: at the ``point``-th moment of the tasks of one name."""

    def __init__(self, cause: Cause, point: int) -> None:
        self.cause = cause
        self.point = point
        self.reached = asyncio.Event()
        self.felt = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None
        self.error: BaseException | None = None
        self._over = False
        self._count = 0
        self._awaited: object = None

    def __str__(self) -> str:
        frames = traceback.extract_tb(self.error.__traceback__) if self.error is not None else []
        places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
        return f"{self.cause} at moment {self.point}: {' > '.join(places[1:])}"

    @property
    def asked(self) -> bool:
        """Whether somebody cancelled."""
        return self.cause is Cause.ASKED

    @property
    def in_library(self) -> bool:
        """Whether the await was one of the AMQP libraries; known once the work saw it."""
        frames = traceback.walk_tb(self.error.__traceback__) if self.error is not None else ()
        return any(frame.f_code.co_filename.startswith(LIBRARIES) for frame, _ in frames)

    @contextmanager
    def tasks(self, name: str) -> Iterator[None]:
        """Cut tasks of this name that are created in the block, before its end."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()

        def driven(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
            creator = asyncio.current_task()
            parent = creator.get_coro() if creator is not None else None
            inherited = isinstance(parent, _Driven) and parent.counted
            wrapped = _Driven(work, self, name, counted=inherited) if asyncio.iscoroutine(work) else work
            return asyncio.Task(wrapped, loop=loop, **more)

        loop.set_task_factory(driven)
        try:
            yield
        finally:
            self._over = True
            loop.set_task_factory(before)

    async def run(self, work: Coroutine[Any, Any, Any], *, fails: tuple[type[Exception], ...] = ()) -> Any:
        """Run and cut this. Its result; None where it failed.

        Asked: nothing but CancelledError may come out. Unasked inside of a library: everything but that, where errors
        have to be of ``fails``.
        """
        with self.tasks(CUT):
            task = asyncio.create_task(work, name=CUT)
            await asyncio.wait([task], timeout=DEADLINE_S)
        assert task.done(), f"hangs, {self}"
        if self.reached.is_set() and self.asked:
            assert task.cancelled(), f"went on in spite of its cancellation: {task}"
            return None
        if task.cancelled():
            assert not self.in_library, "an own cancellation that nobody asked for"
            return None
        if (error := task.exception()) is not None:
            assert self.reached.is_set(), f"failed without a cut: {error!r}"
            assert isinstance(error, fails), f"became {error!r}"
            return None
        return task.result()

    def passed(self, task: asyncio.Task[Any], awaited: object, *, is_work: bool) -> None:
        """A task waits for this now: the work itself, or one that it started."""
        if is_work:
            if self.task is None or self.task.done():
                self.task = task
            self._awaited = awaited
        if self._over or self.task is None or self.task.done():
            return
        self._count += 1
        if self._count == self.point:
            self._cut(self.task)

    def _cut(self, work: asyncio.Task[Any]) -> None:
        if self.asked:
            work.cancel()
        elif not (isinstance(self._awaited, asyncio.Future) and self._awaited.cancel()):
            self.felt.set()  # There was nothing to cancel: what was waited for is there already.
        self.reached.set()

    def noticed(self, task: asyncio.Task[Any], error: BaseException) -> None:
        """A task is told this where it waits."""
        if self.reached.is_set() and self.error is None and task is self.task:
            self.error = error
            self.felt.set()

    async def over(self) -> None:
        """Wait until a cut that was made has had its effect: the end of the task, unless it can make up for it."""
        if self.reached.is_set():
            async with asyncio.timeout(DEADLINE_S):
                await self.felt.wait()
                if self.task is not None and self.error is not None and not (self.in_library and not self.asked):
                    await asyncio.wait([self.task])


class _Driven(Coroutine[Any, Any, Any]):
    """A coroutine whose every step passes through here. ``counted``: it, or what it was started by, is to be cut."""

    def __init__(self, work: Coroutine[Any, Any, Any], cut: Cut, name: str, *, counted: bool) -> None:
        self.counted = counted
        self._work = work
        self._cut = cut
        self._name = name

    def send(self, value: Any) -> Any:
        """One step."""
        self.counted |= self._is_work()
        return self._passed(self._work.send(value))

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        """One step, with an error."""
        self._cut.noticed(_current(), kind)
        return self._passed(self._work.throw(kind))

    def close(self) -> None:
        """End it."""
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()

    def _is_work(self) -> bool:
        return _current().get_name() == self._name

    def _passed(self, awaited: Any) -> Any:
        if self.counted:
            self._cut.passed(_current(), awaited, is_work=self._is_work())
        return awaited


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


Trial = Callable[[Cut], Awaitable[None]]


async def at_every_await(cause: Cause, trial: Trial, *, least: int = 1) -> int:
    """Run the trial once per moment of what it cuts, and once without a cut. The number of moments, at least ``least``.

    After each of them no task and no socket may be left that was not there before. The libraries need a moment to wind
    up after a close: they get a while.
    """
    for point in itertools.count(1):
        cut = Cut(cause, point)
        tasks, sockets = asyncio.all_tasks(), open_sockets()
        try:
            await trial(cut)
            await _nothing_left(tasks, sockets)
        except BaseException as error:
            error.add_note(str(cut))
            raise
        if not cut.reached.is_set():
            break
    assert point > least, f"only {point - 1} moments found"
    return point - 1


def open_sockets() -> set[str]:
    """The sockets of this process, as Linux names them."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{entry}"))
    return {name for name in found if name.startswith("socket:")}


async def _nothing_left(tasks: set[asyncio.Task[Any]], sockets: set[str]) -> None:
    left = asyncio.all_tasks() - tasks
    if left:
        _, left = await asyncio.wait(left, timeout=DEADLINE_S)
    assert not left, f"tasks left behind: {left}"
    with suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while open_sockets() - sockets:  # noqa: ASYNC110 - nobody tells when a socket is closed
                await asyncio.sleep(0.001)
    assert not open_sockets() - sockets, "sockets left behind"
