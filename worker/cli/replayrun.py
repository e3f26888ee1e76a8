"""Planning and carrying out a replay from the command line: what it works with, Ctrl-C, and how far it is."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from worker.cli.deadqueue import note, say, this_tool
from worker.config import Settings
from worker.core.audit import Action, Outcome
from worker.core.errors import JournalUnavailable, UsageError
from worker.core.history import ItemState, Replay
from worker.core.replayoptions import Options
from worker.exportfile import ExportFile
from worker.replay.books import Books
from worker.replay.care import Ended
from worker.replay.executing import Execution, Result
from worker.replay.filing import export_planned
from worker.replay.planning import Plan
from worker.replay.reaching import at_the_queue
from worker.replay.running import plan_it, ready_to_run

LOOK_EVERY_S = 1.0
_OUTCOMES = {Ended.DONE: Outcome.DONE, Ended.STOPPED: Outcome.STOPPED}


async def sought_replay(books: Books, name: str) -> Replay:
    """The replay of that id. UsageError where there is none."""
    found = await books.replay(name)
    if found is None:
        raise UsageError(f"there is no replay {name!r} in this journal; --status shows an id as a plan has printed it")
    return found


async def planned(books: Books, settings: Settings, options: Options) -> Plan:
    """Plan it, by whoever runs this. Raises UsageError for edits that cannot be."""
    return await plan_it(books, settings, options, author=this_tool("replay").partition(",")[0])


async def write_planned(books: Books, settings: Settings, replay: Replay, path: Path) -> None:
    """Write the letters of a plan to a file; they stay in the queue. Raises UsageError, QueueUnusable."""
    with ExportFile(path) as sink:
        async with (
            at_the_queue(settings, replay.queue, holders=books) as queue,
            queue.taking(this_tool("replay")) as taking,
        ):
            written = await export_planned(taking, books, replay.replay_id, sink)
    say(f"{written} letters are in {path}; `order-worker dead replay --from-file {path} --yes` brings them back")


async def carry_out(books: Books, settings: Settings, replay: Replay, options: Options) -> Result:
    """Carry a plan out, as far as it goes. Raises QueueUnusable, BrokerRefused, ConnectionLost (at the beginning)."""
    states = Counter(await books.states(replay.replay_id))
    with _told(states) as told:
        ready = ready_to_run(books, settings, replay, options, holder=this_tool("replay"), told=told.count)
        async with ready as execution:
            await note(books, Action.REPLAY, Outcome.BEGUN, replay.replay_id)
            with _signals(execution):
                result = await _watched(execution, books, replay.replay_id, told)
            outcome = _OUTCOMES.get(result.ended, Outcome.FAILED)
            await note(books, Action.REPLAY, outcome, replay.replay_id, detail=result.detail, count=told.done)
            return result


@contextmanager
def _signals(execution: Execution) -> Iterator[None]:
    """SIGINT and SIGTERM end it in good order; a second one ends the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        execution.stop()
        say("stopping: what is under way is finished; once more ends at once")
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


# -- how far it is ----------------------------------------------------------------------------------------------------


class Told:
    """Counts the messages by state; shows a bar on a terminal, a line per tenth elsewhere."""

    def __init__(self, states: Counter[ItemState], bar: Progress | None) -> None:
        self._states = states
        self._total = sum(states.values())
        self._tenth = self.done * 10 // self._total if self._total else 0
        self._bar = bar
        self._task = None if bar is None else bar.add_task("replay", total=self._total, fates="")

    @property
    def is_seen(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def count(self, state: ItemState, count: int) -> None:
        """So many messages came to this state."""
        self._states[state] += count
        self._states[ItemState.PLANNED] -= count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done)
        elif self._total and self.done * 10 // self._total > self._tenth:
            self._tenth = self.done * 10 // self._total
            say(f"{self._tenth * 10} %: {self._words()}")

    def fates(self, text: str) -> None:
        """What the workers said so far."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, fates=text)

    @property
    def done(self) -> int:
        """Messages that came to their end."""
        return self._total - max(0, self._states[ItemState.PLANNED])

    def _words(self) -> str:
        return ", ".join(
            f"{self._states[state]} {state.value}"
            for state in ItemState
            if state is not ItemState.PLANNED and self._states[state]
        )


@contextmanager
def _told(states: Counter[ItemState]) -> Iterator[Told]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Told(states, None)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[fates]}"))
    with Progress(*columns, console=console) as bar:
        yield Told(states, bar)


async def _watched(execution: Execution, books: Books, name: str, told: Told) -> Result:
    """Run it; on a terminal the outcomes are read back from the journal meanwhile."""
    if not told.is_seen:
        return await execution.run()
    watching = asyncio.create_task(_watch(books, name, told), name="watch the replay")
    try:
        return await execution.run()
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(books: Books, name: str, told: Told) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        with suppress(JournalUnavailable):
            fates = await books.fates(name)
            counted = (f"{count} {fate.disposition} {fate.reason}" for fate, count in sorted(fates.items()))
            told.fates(", ".join(counted))
