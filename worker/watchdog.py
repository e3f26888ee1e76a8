"""Looks at the worker once a second, says so when nothing moves, and does what can be done about it.

See ``core/watch.py`` for what it finds and which remedy is due when: first people are told (readiness), then the
connections are rebuilt from scratch, and where that does not help liveness says that only a new process will.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from worker.core.readiness import Activity, IntakeStatus
from worker.core.watch import Escalation, Remedy, Watch
from worker.ports import Clock

log = structlog.get_logger(__name__)

PERIOD_S = 1.0
REBUILD_DEADLINE_S = 30.0


class Watchdog:
    """``finding`` is what is wrong now, or an empty text: readiness passes it on. ``alive`` is for liveness.

    ``rebuild`` drops every connection to the broker and begins anew.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        activity: Callable[[], Activity],
        intake: Callable[[], IntakeStatus],
        rebuild: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self.finding = ""
        self.alive = True
        self._watch = watch
        self._escalation = Escalation()
        self._activity = activity
        self._intake = intake
        self._rebuild = rebuild
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            before = self._clock()
            await asyncio.sleep(PERIOD_S)
            now = self._clock()
            self._tell(self._watch.look(now, self._activity(), self._intake(), late_s=now - before - PERIOD_S))
            await self._remedy(self._escalation.remedy(now, self.finding))

    def _tell(self, finding: str) -> None:
        if finding and not self.finding:
            log.error("watchdog.stalled", detail=finding)
        elif self.finding and not finding:
            log.info("watchdog.moving", detail=self.finding)
            self.alive = True
        self.finding = finding

    async def _remedy(self, remedy: Remedy) -> None:
        match remedy:
            case Remedy.REBUILD:
                await self._begin_anew()
            case Remedy.GIVE_UP if self.alive:
                log.error("watchdog.gave_up", detail=self.finding)
                self.alive = False
            case _:
                pass

    async def _begin_anew(self) -> None:
        log.error("watchdog.rebuilding", detail=self.finding)
        try:
            async with asyncio.timeout(REBUILD_DEADLINE_S):
                await self._rebuild()
        except Exception as error:
            # Whatever it is, it is one more thing that does not work; giving up is what comes next.
            log.exception("watchdog.rebuild_failed", error=type(error).__name__, detail=str(error))
