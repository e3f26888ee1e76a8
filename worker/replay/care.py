"""How a replay goes easy on the worker: an even pace, a canary first, and a stop when too many fail again."""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Final

from worker.core.history import Fate, ItemState
from worker.core.pace import Pace
from worker.core.replayoptions import Options
from worker.ports import Clock
from worker.replay.books import Books

Wait = Callable[[float], Awaitable[bool]]
"""Waits so many seconds, or until somebody wants the replay to stop: then it is True."""
LOOK_EVERY_S: Final = 1.0
POLL_S: Final = 0.5
_SETTLED: Final = frozenset({"ack", "dead"})
"""A retry is no outcome yet."""


class Ended(StrEnum):
    """Why an execution ended."""

    DONE = "done"
    STOPPED = "stopped"
    """Somebody wanted it to."""
    FAILURES = "failures"
    """Too many copies are dead letters again."""
    NO_OUTCOME = "no-outcome"
    """What went first has no outcome within the time given."""
    UNROUTABLE = "unroutable"
    """No queue takes the copies."""
    GAVE_UP = "gave-up"
    """Broker or journal were away for too long."""
    PARTLY = "partly"
    """Others hold some of the dead letters."""
    REFUSED = "refused"
    """Edited bodies are no events: nothing was moved."""


class Halted(Exception):
    """The execution ends here, in good order."""

    def __init__(self, ended: Ended, detail: str) -> None:
        super().__init__(detail)
        self.ended = ended
        self.detail = detail


class Care:
    """Tells how many copies may go next, and halts where it should not go on."""

    def __init__(self, books: Books, replay_id: str, options: Options, *, clock: Clock, wait: Wait) -> None:
        self._books = books
        self._replay_id = replay_id
        self._options = options
        self._clock = clock
        self._wait = wait
        self._pace = Pace(rate=options.rate, canary=options.canary, now=clock())
        self._failed_before: int | None = None
        self._looked_at = clock()

    async def begin(self) -> None:
        """Failures of an earlier try do not count again. JournalUnavailable."""
        if self._failed_before is None and self._options.failures_allowed is not None:
            self._failed_before = _dead(await self._books.fates(self._replay_id))

    async def next(self, wanted: int) -> int:
        """How many of the ``wanted`` may go now; waits where none may. 0: ask again, unless it is to stop.

        Raises Halted, and JournalUnavailable.
        """
        if self._pace.waits_for_canary:
            if not await self._canary():
                return 0
            self._pace.release(self._clock())
        await self._look()
        allowed = self._pace.allowed(self._clock())
        if not allowed:
            await self._wait(self._pace.wait_s(self._clock()))
            allowed = self._pace.allowed(self._clock())
        return min(wanted, allowed)

    def spend(self, count: int) -> None:
        """So many copies went."""
        self._pace.spend(count)

    async def _look(self) -> None:
        now = self._clock()
        if self._options.failures_allowed is None or now - self._looked_at < LOOK_EVERY_S:
            return
        self._judge(await self._books.fates(self._replay_id))
        self._looked_at = self._clock()

    def _judge(self, fates: Mapping[Fate, int]) -> None:
        allowed = self._options.failures_allowed
        failed = _dead(fates) - (self._failed_before or 0)
        if allowed is not None and failed > allowed:
            reasons = ", ".join(sorted({fate.reason for fate in fates if fate.disposition == "dead"}))
            raise Halted(Ended.FAILURES, f"{failed} are dead letters again ({reasons}), {allowed} are allowed")

    async def _canary(self) -> bool:
        """Wait until everything that went has an outcome. False: somebody wants it to stop."""
        until = self._clock() + self._options.canary_wait_s
        while True:
            fates = await self._books.fates(self._replay_id)
            self._judge(fates)
            states = await self._books.states(self._replay_id)
            went = states.get(ItemState.MOVED, 0) + states.get(ItemState.SUPERSEDED, 0)
            settled = sum(count for fate, count in fates.items() if fate.disposition in _SETTLED)
            if settled >= went:
                return True
            if self._clock() >= until:
                raise Halted(
                    Ended.NO_OUTCOME,
                    f"{went - settled} of {went} have no outcome after {self._options.canary_wait_s:g} s "
                    "(--canary-wait): does a worker run, with this journal?",
                )
            if await self._wait(POLL_S):
                return False


def _dead(fates: Mapping[Fate, int]) -> int:
    return sum(count for fate, count in fates.items() if fate.disposition == "dead")
