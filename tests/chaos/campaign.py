"""The course of a campaign: start, break things by plan while a load runs, heal, come to rest, account.

    report = await Campaign(stage, planned, length_s=1800.0, view=view).run()

Each fault is a task of its own that waits for what it needs for itself; one that would come too late is left out.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from signal import SIGTERM

from tests.chaos.memory import MEGABYTE, Memory, resident_bytes
from tests.chaos.nemesis import FAULTS, BadEnd
from tests.chaos.report import Report
from tests.chaos.schedule import SLOTS, Planned
from tests.chaos.stage import Stage, now_s
from tests.chaos.stops import Stops
from tests.chaos.table import Picture, View
from worker.core.errors import ConnectionLost, UsageError

TICK_S = 0.25
LATE_S = 10.0
READY_S = 60.0
REST_S = 240.0
"""Queues take their time, and so does an order that a dead worker had claimed: its claim runs out after 34 s, and is
looked after 60 s later."""
STILL_LOOKS = 3


class Campaign:
    """One run on a stage. ``log`` gets a line for every beginning and end."""

    def __init__(self, stage: Stage, planned: Sequence[Planned], *, length_s: float, view: View, log: Path) -> None:
        self._stage = stage
        self._planned = planned
        self._length_s = length_s
        self._view = view
        self._log = log
        self._began_s = now_s()
        self._stops = Stops(self._began_s)
        self._locks: dict[str, asyncio.Lock] = {}
        self._done: Counter[str] = Counter()
        self._skipped = 0
        self._problems: list[str] = []
        self._own = Memory()
        self._dead_seen = 0

    async def run(self) -> Report:
        """The whole course."""
        for slot in range(SLOTS):
            await self._stage.start_worker(slot)
        watching = asyncio.create_task(self._watch(), name="watch")
        try:
            await self._until_ready()
            async with self._stage.load:
                await self._break_things()
            rested = await self._rest()
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        return await self._account(rested=rested)

    async def _until_ready(self) -> None:
        async with asyncio.timeout(READY_S):
            while self._stage.heard["worker.ready"] < SLOTS:  # noqa: ASYNC110 - log files do not signal
                await asyncio.sleep(TICK_S)
        self._began_s = now_s()
        self._stops = Stops(self._began_s)

    # -- the faults -----------------------------------------------------------------------------------------------

    async def _break_things(self) -> None:
        async with asyncio.TaskGroup() as group:
            for planned in self._planned:
                await self._until(planned.at_s)
                group.create_task(self._carry_out(planned), name=str(planned))
            await self._until(self._length_s)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._began_s + at_s - now_s()))

    async def _carry_out(self, planned: Planned) -> None:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(LATE_S):
                    for need in FAULTS[planned.name].needed(planned.slot):
                        await stack.enter_async_context(self._locks.setdefault(need, asyncio.Lock()))
            except TimeoutError:
                self._skipped += 1
                self._tell(planned, "skipped")
                return
            await self._break(planned)

    async def _break(self, planned: Planned) -> None:
        self._tell(planned, "begins")
        self._stops.begin(planned.number, planned.name)
        self._done[planned.name] += 1
        try:
            async with FAULTS[planned.name].act(self._stage, planned.slot):
                await asyncio.sleep(planned.lasts_s)
        except (BadEnd, ConnectionLost, UsageError, TimeoutError) as error:
            self._problems.append(f"{planned}: {type(error).__name__} {error}")
        finally:
            self._stops.end(planned.number, now_s())
            self._tell(planned, "over")

    def _tell(self, planned: Planned, what: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{now_s() - self._began_s:7.1f} s  {what:8s}{planned}\n")

    # -- watching -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(TICK_S)

    async def _look(self) -> None:
        changes = await self._stage.look()
        now, dead = now_s(), self._stage.lookout.dead
        settled, self._dead_seen = bool(changes) or dead > self._dead_seen, dead
        # As long as there is a load, something waits, whatever the queues' counters say: they lag behind.
        self._stops.tick(now, settled=settled, waiting=self._stage.load.running or self._stage.lookout.queued > 0)
        self._own.note(now - self._began_s, resident_bytes())
        self._view.show(now - self._began_s, self._picture)

    def _picture(self) -> Picture:
        stage = self._stage
        figures = stage.accounting.verdict(alone=False).figures
        lives = [replica.life for replica in stage.replicas if replica.life is not None]
        memory = ", ".join(f"{life.label} {life.memory.last / MEGABYTE:.0f}" for life in lives)
        return {
            "seed": str(stage.seed),
            "time": f"{now_s() - self._began_s:.0f} of {self._length_s:.0f} s",
            "published": f"{stage.load.events} ({stage.load.unsure} unsure)",
            "applied": f"{figures['applied']}",
            "superseded or on its way": f"{figures['superseded'] + figures['lost']}",
            "dead": f"{figures['dead']}",
            "in queue": f"{stage.lookout.queued}",
            "faults": f"{self._done.total()} (now: {', '.join(self._stops.active.values()) or 'none'})",
            "longest stop": f"{self._stops.longest_s:.1f} s after {self._stops.longest_after or 'nothing'}",
            "MB": f"{memory}, peak {max(replica.peak for replica in stage.replicas) / MEGABYTE:.0f}",
        }

    # -- the end --------------------------------------------------------------------------------------------------

    async def _rest(self) -> bool:
        """Wait until nothing is queued or in a worker's hands, and stays so; False if it does not come to that.

        An order that shows an older value than it did may only do so as long as the journal owes it an echo.
        """
        still = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                while still < STILL_LOOKS:
                    looks = self._stage.lookout.looks
                    while self._stage.lookout.looks < looks + 2:  # noqa: ASYNC110 - a look that began after this
                        await asyncio.sleep(TICK_S)
                    quiet = not self._stage.lookout.queued and not self._stage.lookout.dead_left
                    mending = self._stage.accounting.backwards() and await self._stage.owed()
                    still = still + 1 if quiet and not mending and await self._stage.in_hand() == 0 else 0
        return still == STILL_LOOKS

    async def _account(self, *, rested: bool) -> Report:
        stage = self._stage
        if not rested:
            self._problems.append(f"not at rest {REST_S:.0f} s after the last fault: {stage.lookout.depths}")
        for slot in range(SLOTS):
            if (code := await stage.end_worker(slot, SIGTERM)) != 0:
                self._problems.append(f"worker {slot} ended with {code} in the end")
        verdict = await stage.account()
        return Report(
            seed=stage.seed,
            length_s=self._length_s,
            rate_per_s=stage.rate_per_s,
            unsure=stage.load.unsure,
            writes=stage.progress,
            verdict=verdict,
            faults=self._done,
            skipped=self._skipped,
            stops=self._stops,
            problems=self._problems,
            lives=sum(replica.lives for replica in stage.replicas),
            unasked=[told for replica in stage.replicas for told in replica.unasked],
            heard=stage.heard,
            oldest=max((replica.oldest for replica in stage.replicas), key=lambda memory: memory.age_s),
            peak=max(replica.peak for replica in stage.replicas),
            own=self._own,
        )
