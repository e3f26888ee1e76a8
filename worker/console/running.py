"""Planning and carrying out replays as works of this console."""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from worker.console.desk import Desk, holder
from worker.console.people import Person
from worker.console.works import Work
from worker.core.audit import Action, Outcome
from worker.core.edits import parse_edits
from worker.core.errors import UsageError
from worker.core.forecast import Tallies
from worker.core.history import ItemState, Replay
from worker.core.replayoptions import Options
from worker.replay.books import Books
from worker.replay.care import Ended
from worker.replay.executing import Result
from worker.replay.planning import judge_again
from worker.replay.reaching import grounds_of, schema_of
from worker.replay.running import plan_it, ready_to_run

SOON_S: Final = 2.0
"""A plan that is ready by then is shown at once; others show how far they are."""
MOST_TALLIES: Final = 50
JUDGED_AT_ONCE: Final = 2000
"""Plans up to so many messages are judged when their page is opened."""
_ENDS: Final = {
    Ended.DONE: "done",
    Ended.STOPPED: "stopped; what was under way is finished, the rest stays where it is",
    Ended.FAILURES: "stopped by itself: {}",
    Ended.NO_OUTCOME: "stopped by itself: {}",
    Ended.UNROUTABLE: "stopped: {}; bind a queue there (the worker does when it starts)",
    Ended.GAVE_UP: "stopped: broker or journal were away for too long: {}",
    Ended.PARTLY: "{}",
    Ended.REFUSED: "{}",
}


class Runs:
    """All replays of this console."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tallies: OrderedDict[str, Tallies] = OrderedDict()

    def running(self, replay_id: str) -> Work | None:
        """The work that carries it out now."""
        work = self._desk.works.get(replay_id)
        return None if work is None or work.is_over else work

    def latest(self, replay_id: str) -> Work | None:
        """The latest work of it in this console, also when it is over."""
        return self._desk.works.get(replay_id)

    async def plan(self, options: Options, person: Person) -> Work:
        """Plan it; the place of the work is the plan's page once it is ready."""
        books = await self._desk.books()

        async def job(work: Work) -> str:
            plan = await plan_it(books, self._desk.settings, options, author=person.name)
            name = plan.replay.replay_id
            self._keep(name, plan.tallies)
            work.count, work.target, work.place = plan.tallies.total, name, f"/replays/{name}"
            return f"{plan.tallies.total} dead letters are planned"

        work = self._desk.works.start(Action.PLAN, job, by=person.name, target=options.queue, takes_queue=False)
        return await self._soon(work)

    async def judge(self, replay: Replay, person: Person) -> Work:
        """Judge what is left of a plan once more."""
        books = await self._desk.books()

        async def job(work: Work) -> str:
            tallies = await self._judged(books, replay)
            work.count, work.place = tallies.total, f"/replays/{replay.replay_id}"
            return f"{tallies.total} dead letters were judged"

        work = self._desk.works.start(Action.PLAN, job, by=person.name, target=replay.replay_id, takes_queue=False)
        return await self._soon(work)

    async def tallies(self, books: Books, replay: Replay, left: int) -> Tallies | None:
        """What would come of those that are still to go (``left``), as it was judged last. None: somebody has to
        ask for it, or none is left, or they are under way."""
        if not left or self.running(replay.replay_id) is not None:
            return None
        known = self._tallies.get(replay.replay_id)
        if known is None and left <= JUDGED_AT_ONCE and replay.options.get("file") is None:
            with suppress(UsageError):  # its changes are of fields that the settings do not have any more
                known = await self._judged(books, replay)
        return known

    async def start(self, replay: Replay, options: Options, person: Person) -> Work:
        """Carry it out from where it is. Raises QueueHeld where another work is at the queue."""
        books, name = await self._desk.books(), replay.replay_id

        async def job(work: Work) -> str:
            def told(state: ItemState, count: int) -> None:
                if state is not ItemState.PLANNED:
                    work.looked += count

            by = holder(person)
            async with ready_to_run(books, self._desk.settings, replay, options, holder=by, told=told) as execution:
                work.stop = execution.stop
                if work.stopped:
                    execution.stop()
                return self._end(work, await execution.run())

        work = self._desk.works.start(
            Action.REPLAY, job, by=person.name, target=name, takes_queue=True, number=name, place=f"/replays/{name}"
        )
        self._tallies.pop(name, None)
        await self._desk.auditing.note(person.name, Action.REPLAY, Outcome.BEGUN, name)
        return work

    def _end(self, work: Work, result: Result) -> str:
        work.count, work.problems = work.looked, result.problems
        work.stopped = result.ended is Ended.STOPPED
        work.failed = result.ended not in (Ended.DONE, Ended.STOPPED)
        return _ENDS[result.ended].format(result.detail)

    async def _judged(self, books: Books, replay: Replay) -> Tallies:
        settings = self._desk.settings
        edits = parse_edits(Options.from_json(replay.options).edits, schema_of(settings).changes)
        tallies = await judge_again(books, replay, grounds=(await grounds_of(books, settings))(), edits=edits)
        self._keep(replay.replay_id, tallies)
        return tallies

    def _keep(self, name: str, tallies: Tallies) -> None:
        self._tallies[name] = tallies
        self._tallies.move_to_end(name)
        while len(self._tallies) > MOST_TALLIES:
            self._tallies.popitem(last=False)

    async def _soon(self, work: Work) -> Work:
        if work.task is not None:
            await asyncio.wait({work.task}, timeout=SOON_S)
        return work
