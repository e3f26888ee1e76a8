"""Looks at the worker once a second, and says so when nothing moves (see ``core/watch.py`` for what it finds)."""

import asyncio
from collections.abc import Callable

import structlog

from worker.core.readiness import Activity, IntakeStatus
from worker.core.watch import Watch
from worker.ports import Clock

log = structlog.get_logger(__name__)

PERIOD_S = 1.0


class Watchdog:
    """``finding`` is what is wrong now, or an empty text: readiness passes it on."""

    def __init__(
        self, watch: Watch, *, activity: Callable[[], Activity], intake: Callable[[], IntakeStatus], clock: Clock
    ) -> None:
        self.finding = ""
        self._watch = watch
        self._activity = activity
        self._intake = intake
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            before = self._clock()
            await asyncio.sleep(PERIOD_S)
            now = self._clock()
            self._tell(self._watch.look(now, self._activity(), self._intake(), late_s=now - before - PERIOD_S))

    def _tell(self, finding: str) -> None:
        if finding and not self.finding:
            log.error("watchdog.stalled", detail=finding)
        elif self.finding and not finding:
            log.info("watchdog.moving", detail=self.finding)
        self.finding = finding
