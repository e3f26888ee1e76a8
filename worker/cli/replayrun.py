"""Planning and carrying out a replay from the command line: what it works with, Ctrl-C, and how far it is."""

import asyncio
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.publisher import Publisher
from worker.cli.deadqueue import at_the_queue, say, schema_of, this_tool
from worker.config import Settings
from worker.core.decode import EventSchema
from worker.core.edits import Edits, parse_edits
from worker.core.errors import JournalUnavailable, UsageError
from worker.core.fields import INT64_MAX
from worker.core.forecast import Grounds
from worker.core.history import ItemState, Replay
from worker.core.replayoptions import Options, replay_id
from worker.core.times import format_time
from worker.exportfile import ExportFile
from worker.ports import wall_us
from worker.replay.books import Books, State
from worker.replay.bringing import FileExecution
from worker.replay.executing import Execution, Result, Tools
from worker.replay.filing import LetterFile, export_planned, plan_file
from worker.replay.judging import Preparing
from worker.replay.planning import Plan, make_plan

LOOK_EVERY_S = 1.0
_SALT = "abcdefghijkmnpqrstuvwxyz23456789"
"""Nothing that looks like something else."""


async def sought_replay(books: Books, name: str) -> Replay:
    """The replay of that id. UsageError where there is none."""
    found = await books.replay(name)
    if found is None:
        raise UsageError(f"there is no replay {name!r} in this journal; --status shows an id as a plan has printed it")
    return found


async def plan_it(books: Books, settings: Settings, options: Options) -> Plan:
    """Plan it, under a new id. Raises UsageError for edits that cannot be."""
    schema = schema_of(settings)
    edits = parse_edits(options.edits, schema.changes)
    now_us = wall_us()
    salt = "".join(secrets.choice(_SALT) for _ in range(4))
    planned = Replay(
        replay_id=replay_id(format_time(now_us), salt),
        queue=options.queue,
        author=this_tool("replay").partition(",")[0],
        options=options.to_json(),
        state=State.PLANNING,
        created_us=now_us,
        changed_us=now_us,
    )
    grounds = (await _grounds(books, settings))()
    if options.file is not None:
        preparing = _preparing(schema, planned, options, edits)
        return await plan_file(books, planned, LetterFile(Path(options.file)), preparing, grounds=grounds)
    return await make_plan(books, planned, grounds=grounds, edits=edits, wall_us=now_us)


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
    schema = schema_of(settings)
    edits = parse_edits(options.edits, schema.changes)
    file = _same_file(options)
    states = Counter(await books.states(replay.replay_id))
    grounds = await _grounds(books, settings)
    async with at_the_queue(settings, options.queue, holders=books) as queue, _publisher(settings) as outlet:
        with _told(states) as told:
            tools = Tools(
                books=books, queue=queue, outlet=outlet, grounds=grounds, holder=this_tool("replay"), told=told.count
            )
            preparing = _preparing(schema, replay, options, edits)
            if file is None:
                execution = Execution(replay, preparing, tools)
            else:
                execution = FileExecution(replay, preparing, tools, file=file)
            with _signals(execution):
                return await _watched(execution, books, replay.replay_id, told)


def _same_file(options: Options) -> LetterFile | None:
    """The file that the replay was planned with. UsageError where it is another by now."""
    if options.file is None:
        return None
    file = LetterFile(Path(options.file))
    if file.digest() != options.digest:
        raise UsageError(f"{file.path} was changed since this replay was planned: put it back, or plan anew")
    return file


def _preparing(schema: EventSchema, replay: Replay, options: Options, edits: Edits) -> Preparing:
    return Preparing(
        schema=schema, replay_id=replay.replay_id, created_us=replay.created_us, options=options, edits=edits
    )


async def _grounds(books: Books, settings: Settings) -> Callable[[], Grounds]:
    """The rules that the worker goes by, at the moment of asking."""
    event, horizon_us = settings.event, await books.horizon_us()
    base = Grounds(terminal=event.terminal_statuses, latest_us=INT64_MAX, horizon_us=horizon_us, allowed=event.allowed)
    ahead_us = round(event.max_clock_skew_s * 1_000_000)
    return lambda: replace(base, latest_us=wall_us() + ahead_us)


@asynccontextmanager
async def _publisher(settings: Settings) -> AsyncIterator[Publisher]:
    """On a connection of its own: under a memory alarm the broker stops reading from those that publish."""
    broker = settings.broker
    link = Link(Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s), name="order-worker replay")
    publisher = Publisher(link)
    try:
        yield publisher
    finally:
        await publisher.close()
        await link.close()


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
        self._tenth = self._done * 10 // self._total if self._total else 0
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
            self._bar.update(self._task, completed=self._done)
        elif self._total and self._done * 10 // self._total > self._tenth:
            self._tenth = self._done * 10 // self._total
            say(f"{self._tenth * 10} %: {self._words()}")

    def fates(self, text: str) -> None:
        """What the workers said so far."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, fates=text)

    @property
    def _done(self) -> int:
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
