"""Carrying a planned replay out: the queue is taken, window by window, and what is in the plan goes to its end.

What is not in the plan is left alone. Broker, journal and publisher may go away at any point: then everything is handed
back, and after a while a new taking goes through the queue from its beginning; what the plan says to be done is not
done again. The same holds for another process that resumes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace

import structlog

from worker.core.deadletter import DeadLetter, letter_key
from worker.core.errors import ConnectionLost, CopyFailed, JournalUnavailable, QueueHeld
from worker.core.history import ItemState, LetterState, Replay, ReplayItem, Sought
from worker.core.model import Dead
from worker.ports import Clock, DeadLetters, Outlet, Taking, WallClock, wall_us
from worker.replay.books import PAGE, Books, State
from worker.replay.care import Care, Ended, Halted, Wait
from worker.replay.judging import Preparing
from worker.replay.moving import GroundsNow, Moving, Planned, Told, is_ours
from worker.replay.planning import MOST_ALIKE
from worker.retrying import forever

log = structlog.get_logger(__name__)

WINDOW = 500
PATIENCE_S = 60.0
MOST_PROBLEMS = 20
_AWAY = (ConnectionLost, CopyFailed, JournalUnavailable)
FINISHED = (ItemState.MOVED, ItemState.SUPERSEDED)


@dataclass(slots=True, frozen=True, kw_only=True)
class Result:
    """How the execution ended. ``problems`` are the edited letters that are no events, at most the first 20."""

    ended: Ended
    detail: str = ""
    problems: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True, kw_only=True)
class Tools:
    """What an execution works with. ``holder`` says who takes the queue. ``patience_s``: how long broker or journal may
    be away. ``told`` is called after each step. ``wait`` is for tests with a clock of their own."""

    books: Books
    queue: DeadLetters
    outlet: Outlet
    grounds: GroundsNow
    holder: str
    patience_s: float = PATIENCE_S
    clock: Clock = time.monotonic
    wall_us: WallClock = wall_us
    told: Told = lambda state, count: None
    wait: Wait | None = None


class Execution:
    """One run of a replay. ``stop`` ends it in good order, with the copies under way finished."""

    def __init__(self, replay: Replay, preparing: Preparing, tools: Tools) -> None:
        self._id = replay.replay_id
        self._edited = bool(preparing.edits)
        self._preparing = preparing
        self._tools = tools
        self._books = tools.books
        self._stopping = asyncio.Event()
        self._failing_since: float | None = None
        self._given_up = ""
        self._had_it = False
        # Those that are finished may still be in the queue, unless nobody ever tried.
        self._whole = replay.state != State.PLANNED
        self._care = Care(tools.books, self._id, preparing.options, clock=tools.clock, wait=tools.wait or self._wait)
        self._moving = Moving(
            tools.books,
            tools.outlet,
            preparing,
            self._care,
            grounds=tools.grounds,
            stopping=self._stopping.is_set,
            wall_us=tools.wall_us,
            told=self._progress,
        )

    def stop(self) -> None:
        """Move no more; what is under way is finished. Stopping twice is harmless."""
        self._stopping.set()

    async def run(self) -> Result:
        """Carry it out, as far as it goes; whatever ends it, it can be resumed.

        Raises QueueUnusable, BrokerRefused, and others that a person has to look at.
        """
        if self._edited and (refused := await self._steadily(self._check)) is not None:
            return refused
        began = False
        try:
            result = await self._steadily(self._work)
            began = True
        finally:
            if not began and self._had_it:
                await self._turn(State.STOPPED)
        result = result or Result(ended=Ended.DONE)
        if self._had_it or result.ended is Ended.DONE:
            await self._turn(State.DONE if result.ended is Ended.DONE else State.STOPPED)
        return result

    async def _turn(self, state: State) -> None:
        # Where the journal is away this is not noted; it can be resumed all the same.
        with suppress(JournalUnavailable):
            await self._books.turn(self._id, state, wall_us=self._tools.wall_us())

    # -- trying again -------------------------------------------------------------------------------------------------

    async def _steadily(self, work: Callable[[], Awaitable[Result | None]]) -> Result | None:
        """Do it until it works, somebody stops it, or the patience is over."""
        retrying = forever(first_s=0.25, cap_s=5.0, retry_on=_AWAY, stop=self._stopping, noticed=self._tell_waiting)
        try:
            async for attempt in retrying:
                with attempt:
                    if self._stopping.is_set():
                        break
                    return await work()
        except Halted as halted:
            return Result(ended=halted.ended, detail=halted.detail)
        except _AWAY as error:
            if not self._stopping.is_set():
                raise
            self._given_up = self._given_up and str(error)
        if self._given_up:
            return Result(ended=Ended.GAVE_UP, detail=self._given_up)
        return Result(ended=Ended.STOPPED)

    def _tell_waiting(self, error: Exception, attempt: int, wait_s: float) -> None:
        self._whole = True
        now = self._tools.clock()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= self._tools.patience_s:
            self._given_up = str(error)
            self._stopping.set()
        log.warning("replay.waiting", detail=str(error), attempt=attempt, next_try_s=round(wait_s, 3))

    def _progress(self, state: ItemState, count: int) -> None:
        self._failing_since = None
        self._tools.told(state, count)

    async def _wait(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    # -- the queue ----------------------------------------------------------------------------------------------------

    async def _take(self, visit: Callable[[Taking], Awaitable[Result | None]]) -> Result | None:
        """Visit the queue under its lock. What goes wrong inside is raised when everything is back in its place."""
        failure: Exception | None = None
        result: Result | None = None
        async with AsyncExitStack() as stack:
            taking = await self._entered(stack)
            self._had_it = True
            try:
                result = await visit(taking)
            except (Halted, CopyFailed, JournalUnavailable) as error:
                failure = error
        if failure is not None:
            raise failure
        return result

    async def _entered(self, stack: AsyncExitStack) -> Taking:
        try:
            async with asyncio.timeout(self._tools.patience_s):
                return await stack.enter_async_context(self._tools.queue.taking(self._tools.holder))
        except TimeoutError:
            raise Halted(Ended.GAVE_UP, f"no broker within {self._tools.patience_s:g} s") from None
        except QueueHeld as error:
            if not self._had_it:
                raise
            # Our own connection that was lost: the broker takes a moment to notice.
            raise ConnectionLost(str(error)) from error

    async def _found(self, letters: Sequence[DeadLetter]) -> list[Planned]:
        """Those of a window that are in the plan, in their order."""
        keyed = [(letter_key(letter), letter) for letter in letters]
        items = await self._books.find(self._id, list(dict.fromkeys(key for key, _ in keyed)))
        return [(items[key], letter) for key, letter in keyed if key in items]

    # -- what is done there -------------------------------------------------------------------------------------------

    async def _check(self) -> Result | None:
        """Whether every edited body that is still to go is an event. None: it is."""
        return await self._take(self._check_all)

    def _problem(self, item: ReplayItem, letter: DeadLetter) -> list[str]:
        decoded = self._preparing.prepare(item, letter, now_us=self._tools.wall_us()).decoded
        return [f"{item.copy_id}: {decoded.detail}"] if isinstance(decoded, Dead) else []

    async def _check_all(self, taking: Taking) -> Result | None:
        problems: list[str] = []
        windows = taking.windows(WINDOW)
        while not self._stopping.is_set() and (window := await anext(windows, None)) is not None:
            for item, letter in await self._found(window):
                if item.state is ItemState.PLANNED:
                    problems += self._problem(item, letter)
        return refusal(problems)

    async def _work(self) -> Result | None:
        """One taking, until nothing of the plan is open. None: that is so."""
        states = await self._books.states(self._id)
        if not states.get(ItemState.PLANNED) and not self._whole:
            return None
        await self._care.begin()
        return await self._take(self._work_through)

    async def _work_through(self, taking: Taking) -> Result | None:
        await self._books.turn(self._id, State.RUNNING, wall_us=self._tools.wall_us())
        still_open = (await self._books.states(self._id)).get(ItemState.PLANNED, 0)
        windows = taking.windows(WINDOW)
        while still_open or self._whole:
            if self._stopping.is_set():
                return Result(ended=Ended.STOPPED)
            window = await anext(windows, None)
            if window is None:
                break
            still_open -= await self._bring(taking, await self._found(window))
        if self._stopping.is_set() and still_open:
            return Result(ended=Ended.STOPPED)
        return await self._close_books(taking)

    async def _bring(self, taking: Taking, found: Sequence[Planned]) -> int:
        # What the broker made has its producer's id, and two of them may have the same one: a second copy of the first
        # does no harm, a loss of the second would.
        done = [each for each in found if each[0].state in FINISHED and is_ours(each[1])]
        again = [each for each in found if each[0].state in FINISHED and not is_ours(each[1])]
        await self._moving.finish(taking, done)
        await self._moving.bring(taking, again)
        planned = [each for each in found if each[0].state is ItemState.PLANNED]
        brought = await self._moving.bring(taking, planned)
        return len({item.place for item, _ in planned[:brought]})

    async def _close_books(self, taking: Taking) -> Result | None:
        """What was not in the queue is missing, if all of the queue was seen."""
        left = (await self._books.states(self._id)).get(ItemState.PLANNED, 0)
        if not left:
            return None
        if not taking.complete:
            detail = f"{left} planned letters are in other hands, or were handed back meanwhile; resume it later"
            return Result(ended=Ended.PARTLY, detail=detail)
        after = -1
        while page := await self._books.items(self._id, after=after, limit=PAGE):
            after = page[-1].place
            gone = [item for item in page if item.state is ItemState.PLANNED]
            if gone:
                detail = "not in the queue any more"
                await self._books.plan(
                    self._id, [replace(item, state=ItemState.MISSING, detail=detail) for item in gone]
                )
                await self._mark_gone([item.copy_id for item in gone])
                self._progress(ItemState.MISSING, len(gone))
        return None

    async def _mark_gone(self, copy_ids: Sequence[str]) -> None:
        """Those that another replay moved meanwhile are known as such, and stay so."""
        queue = self._preparing.options.queue
        dead = await self._books.page(Sought(queue=queue, message_ids=tuple(copy_ids)), limit=MOST_ALIKE)
        wanted = set(copy_ids)
        gone = [letter.copy_id for letter in dead if letter.copy_id in wanted]
        await self._books.mark(gone, LetterState.REMOVED, wall_us=self._tools.wall_us())


def refusal(problems: Sequence[str]) -> Result | None:
    """The result where edited letters are no events; None where all are."""
    if not problems:
        return None
    detail = f"{len(problems)} edited letters are no events; nothing was moved"
    return Result(ended=Ended.REFUSED, detail=detail, problems=tuple(problems[:MOST_PROBLEMS]))
