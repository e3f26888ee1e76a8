"""Pauses that hold for all workers of a queue: put down in the journal, and followed by everyone.

A person, or the storm guard, pauses one worker; the others, and whoever is started meanwhile, must not go on with what
was to be stopped. So a pause is a row of the journal. Each worker looks for rows before it consumes anything, and every
``PAUSES_EVERY_S`` from then on: one read, whatever the load. The worker that was asked stops at once and puts the row
down as soon as the journal takes it: a journal that is away never keeps anybody from pausing.

With the journal in memory there is nobody to share with, and all this changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from worker.core.errors import JournalUnavailable
from worker.core.history import Pause, PauseKind
from worker.ports import WallClock
from worker.steadyjournal import SteadyJournal

log = structlog.get_logger(__name__)

PAUSES_EVERY_S = 2.0
SHARED_WITHIN_S = 5.0
"""How long whoever pauses or resumes waits for the journal. Later it happens all the same, only unseen."""

Follow = Callable[[Sequence[Pause]], Awaitable[None]]
"""Told what holds for the queue now: pause or resume accordingly."""


class Pausing:
    """What people and guards decided here, on its way into the journal, and what others decided, on its way here."""

    def __init__(self, journal: SteadyJournal, *, queue: str, worker: str, wall_us: WallClock) -> None:
        self._journal = journal
        self._queue = queue
        self._worker = worker
        self._wall_us = wall_us
        self._acts: list[Pause | None] = []  # in their order; None ends all pauses
        self._decisions = 0
        self._changed = asyncio.Event()
        self._shared = asyncio.Event()
        self._running = self._away = self._ended = False

    @property
    def away(self) -> bool:
        """Whether the journal did not answer when it was looked at last."""
        return self._away

    def put_down(self, kind: PauseKind, detail: str) -> Pause:
        """This worker is paused: the others are to be as well."""
        pause = Pause(queue=self._queue, kind=kind, detail=detail, by=self._worker, since_us=self._wall_us())
        self._decide([*self._acts, pause])
        return pause

    def end(self) -> None:
        """All pauses of the queue are over, those that are not put down yet included."""
        self._ended = False
        self._decide([None])

    def _decide(self, acts: list[Pause | None]) -> None:
        self._acts = acts
        self._decisions += 1
        self._shared.clear()
        self._changed.set()

    async def shared(self) -> bool:
        """Wait until the journal has it, within limits; whether the last ``end`` ended a pause of the queue."""
        if self._running:
            try:
                async with asyncio.timeout(SHARED_WITHIN_S):
                    await self._shared.wait()
            except TimeoutError:
                log.warning("pauses.not_shared")
        return self._ended

    async def run(self, begin: Callable[[], Awaitable[None]], follow: Follow) -> None:
        """Follow what the journal says, call ``begin`` when that is known, and go on until cancelled."""
        self._running = True
        try:
            await self._follow(await self._journal.steadily(self._look), follow)
            await begin()
            while True:
                await self._nap()
                try:
                    await self._follow(await self._look(), follow)
                    self._away = False
                except JournalUnavailable as error:
                    self._tell_away(error)
        finally:
            self._running = False
            self._shared.set()

    async def _look(self) -> Sequence[Pause] | None:
        """What holds for the queue; None if something was decided here meanwhile."""
        await self._put()
        decisions = self._decisions
        pauses = await self._journal.pauses.pauses(self._queue)
        return pauses if decisions == self._decisions else None

    async def _put(self) -> None:
        while self._acts:
            act = self._acts[0]
            if act is None:
                self._ended = await self._journal.pauses.resume(self._queue)
            else:
                await self._journal.pauses.pause(act)
            if self._acts[0] is act:
                del self._acts[0]
        self._shared.set()

    async def _follow(self, pauses: Sequence[Pause] | None, follow: Follow) -> None:
        if pauses is not None:
            await follow(pauses)

    async def _nap(self) -> None:
        """Until the next look is due, or something was decided here that can be tried at once."""
        try:
            async with asyncio.timeout(PAUSES_EVERY_S):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def _tell_away(self, error: JournalUnavailable) -> None:
        if not self._away:
            log.warning("pauses.unknown", detail=str(error))
        self._away = True
