"""Use case: publish the events of a file or stream, know exactly which of them the broker has, and go on after a break.

    lines --check, stamp--> window of publishes --confirm--> progress --at most once a second--> state file
                                  |  not confirmed
                                  v
                     all in flight end, new channel, the same message ids again (for ``patience_s``)

Nothing is sent before the state file says how it is stamped (``core/progress.py``), and nothing counts before the
broker confirmed it. So a kill at any moment costs at most duplicates, and these have the message id of the first try.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import structlog

from worker.core.errors import CopyFailed, CopyReturned
from worker.core.lines import CONTENT_TYPE, Event, Line, LineRules
from worker.core.model import Properties
from worker.core.original import PERSISTENT
from worker.core.progress import Progress
from worker.core.publication import Ended, Pace, Result
from worker.core.times import EPOCH, MICROSECOND
from worker.linefile import StateFile
from worker.ports import Clock, Outlet, WallClock, wall_us
from worker.retrying import forever

log = structlog.get_logger(__name__)

SAVE_EVERY_S = 1.0


def _nothing(_confirmed: int) -> None:
    return


class Publication:
    """One try to publish what is not confirmed yet. ``run`` it once; ``stop`` may come at any time.

    ``told`` hears the number of confirmed events after each confirm. Without ``state`` it cannot be resumed.
    """

    def __init__(
        self,
        outlet: Outlet,
        progress: Progress,
        rules: LineRules,
        *,
        pace: Pace,
        state: StateFile | None = None,
        told: Callable[[int], None] = _nothing,
        wall_us: WallClock = wall_us,
        clock: Clock = time.monotonic,
    ) -> None:
        self._outlet = outlet
        self._progress = progress
        self._rules = rules
        self._pace = pace
        self._state = state
        self._told = told
        self._wall_us = wall_us
        self._clock = clock
        self._resumed_from = progress.events
        self._room = asyncio.Semaphore(pace.window)
        self._flying: set[asyncio.Task[None]] = set()
        self._waiting: deque[Line] = deque()
        self._reading: asyncio.Task[Sequence[Line] | None] | None = None
        self._unconfirmed: dict[int, Event] = {}
        self._failure: CopyFailed | None = None
        self._problem = ""
        self._last_words = ""
        self._line = 0
        self._lines = 0
        self._next_at = 0.0
        self._saved_at = 0.0
        self._stopping = asyncio.Event()
        self._trouble = asyncio.Event()

    def stop(self) -> None:
        """Send no more; what is in flight may still be confirmed. Stopping twice is harmless."""
        self._stopping.set()
        self._trouble.set()

    async def run(self, batches: AsyncIterator[Sequence[Line]]) -> Result:
        """Publish all lines; ends early as ``Ended`` says. Raises a group with the UsageError where the input is
        not what it was, or the state cannot be kept."""
        if self._resumed_from:
            log.info("publish.resumed", line=self._progress.confirmed_to + 1)
        self._save()
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    ended = await self._publish_all(batches, group)
                finally:
                    if self._reading is not None:
                        self._reading.cancel()
        finally:
            self._save()
        return self._result(ended)

    def _result(self, ended: Ended) -> Result:
        # What was in flight when it ended may have been confirmed meanwhile.
        number = self._line if ended is Ended.BAD_LINE else min(self._unconfirmed, default=self._line)
        detail = self._problem or self._last_words
        confirmed = self._progress.events
        if ended is Ended.DONE:
            if self._state is not None:
                self._state.remove()
        else:
            log.error("publish.failed", reason=ended.value, line=number, confirmed=confirmed, detail=detail)
        return Result(
            ended=ended,
            confirmed=confirmed,
            resumed_from=self._resumed_from,
            lines=self._lines,
            line=number,
            detail=detail,
        )

    async def _publish_all(self, batches: AsyncIterator[Sequence[Line]], group: asyncio.TaskGroup) -> Ended:
        while True:
            finished = await self._feed(batches, group)
            await self._land()
            if self._unconfirmed and not self._stopping.is_set():
                ended = await self._recover(group)
                if ended is not None:
                    return ended
            if self._problem:
                return Ended.BAD_LINE
            if finished and not self._unconfirmed:
                return Ended.DONE
            if self._stopping.is_set():
                return Ended.STOPPED

    # -- reading --------------------------------------------------------------------------------------------------

    async def _feed(self, batches: AsyncIterator[Sequence[Line]], group: asyncio.TaskGroup) -> bool:
        """Publish line after line. True: the input ended; False: something is wrong, or we were stopped."""
        while not self._trouble.is_set():
            if not self._waiting:
                lines = await self._read(batches)
                if lines is None:
                    return not self._trouble.is_set() and self._finish()
                self._take_in(lines)
            elif not await self._launch_next(group):
                return False
        return False

    async def _read(self, batches: AsyncIterator[Sequence[Line]]) -> Sequence[Line] | None:
        """The next lines; None at the end, or when there is trouble: then the reading goes on for a later call."""
        if self._reading is None:
            self._reading = asyncio.create_task(_next(batches), name="read lines")
        trouble = asyncio.create_task(self._trouble.wait(), name="wait for trouble")
        try:
            await asyncio.wait((self._reading, trouble), return_when=asyncio.FIRST_COMPLETED)
        finally:
            trouble.cancel()
        if self._trouble.is_set():
            return None
        done, self._reading = self._reading, None
        return done.result()

    def _finish(self) -> bool:
        self._progress.check_end(self._line)
        return True

    def _take_in(self, lines: Sequence[Line]) -> None:
        if lines and self._progress.reserve(lines[-1].number, self._wall_us()):
            self._save()
        self._waiting.extend(lines)

    async def _launch_next(self, group: asyncio.TaskGroup) -> bool:
        """Send the next line, unless it is done already. False: it is no event."""
        line = self._waiting.popleft()
        self._line = line.number
        self._lines += not line.is_blank
        if self._progress.begin(line):
            stamp = self._progress.stamp_us(line.number)
            event = self._rules.prepare(line, stamp_us=stamp, now_us=self._wall_us())
            if isinstance(event, str):
                self._problem = event
                return False
            await self._launch(event, group)
        return True

    # -- sending --------------------------------------------------------------------------------------------------

    async def _launch(self, event: Event, group: asyncio.TaskGroup) -> None:
        await self._keep_pace()
        await self._room.acquire()
        self._unconfirmed[event.line.number] = event
        task = group.create_task(self._send(event), name="publish")
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _keep_pace(self) -> None:
        if self._pace.rate:
            now = self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._next_at - now):
                    await self._trouble.wait()
            self._next_at = max(now, self._next_at) + 1 / self._pace.rate

    async def _send(self, event: Event) -> None:
        number = event.line.number
        try:
            await self._outlet.publish(
                self._progress.exchange, event.routing_key, event.body, _properties(event, self._progress)
            )
        except CopyFailed as error:
            if not self._unroutable:
                self._failure, self._last_words = error, str(error)
            self._trouble.set()
        else:
            del self._unconfirmed[number]
            self._progress.confirm(number)
            self._told(self._progress.events)
            if self._clock() - self._saved_at >= SAVE_EVERY_S:
                self._save()
        finally:
            self._room.release()

    async def _land(self) -> None:
        """Wait for everything in flight; the outlet bounds it."""
        if self._flying:
            await asyncio.wait(self._flying)

    async def _recover(self, group: asyncio.TaskGroup) -> Ended | None:
        """Send again what was not confirmed, until it is. None: all is confirmed, go on."""
        retrying = forever(
            first_s=0.25, cap_s=5.0, retry_on=(CopyFailed,), stop=self._stopping, noticed=self._tell_waiting
        )
        if self._failure is not None and not self._unroutable:
            self._tell_waiting(self._failure, 0, 0.0)
        try:
            async with asyncio.timeout(self._pace.patience_s):
                async for attempt in retrying:
                    with attempt:
                        await self._send_again(group)
        except TimeoutError:
            for task in self._flying:
                task.cancel()
            return Ended.GAVE_UP
        except CopyFailed:
            return Ended.STOPPED
        if self._unroutable:
            return Ended.UNROUTABLE
        if not self._stopping.is_set():
            self._trouble.clear()
        return None

    async def _send_again(self, group: asyncio.TaskGroup) -> None:
        """One more try, on a new channel: an id must not be in flight twice on one. Raises CopyFailed."""
        if self._unroutable:
            return
        self._failure = None
        await self._outlet.close()
        for event in list(self._unconfirmed.values()):
            await self._launch(event, group)
        await self._land()
        self._raise_failure()

    @property
    def _unroutable(self) -> bool:
        """A missing binding: told before all else, because waiting would not help."""
        return isinstance(self._failure, CopyReturned)

    def _raise_failure(self) -> None:
        if self._failure is not None and not self._unroutable:
            raise self._failure

    def _tell_waiting(self, error: Exception, attempt: int, wait_s: float) -> None:
        log.warning(
            "publish.waiting",
            unconfirmed=len(self._unconfirmed),
            attempt=attempt,
            next_try_s=round(wait_s, 3),
            detail=str(error),
        )

    def _save(self) -> None:
        self._saved_at = self._clock()
        if self._state is not None:
            self._state.save(self._progress)


def _properties(event: Event, progress: Progress) -> Properties:
    return Properties(
        content_type=CONTENT_TYPE,
        delivery_mode=PERSISTENT,
        message_id=progress.message_id(event.line.number),
        timestamp=EPOCH + (event.stamp_us // 1_000_000) * 1_000_000 * MICROSECOND,
    )


async def _next(batches: AsyncIterator[Sequence[Line]]) -> Sequence[Line] | None:
    return await anext(batches, None)
