"""``order-worker publish``: events from NDJSON to the exchange, confirmed, counted, and resumable."""

import asyncio
import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn, assert_never
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from worker.adapters.amqp.connection import Endpoint, Link
from worker.adapters.amqp.declaring import verify
from worker.adapters.amqp.publisher import Publisher
from worker.adapters.amqp.topology import ExchangeSpec, Topology
from worker.cli.config import start
from worker.config import Settings
from worker.core.decode import EventSchema
from worker.core.errors import ConnectionLost, UsageError
from worker.core.lines import LineRules
from worker.core.progress import Progress
from worker.core.publication import Ended, Pace, Result
from worker.linefile import MOST_PROBLEMS, Scan, StateFile, lock, read_lines, scan
from worker.publishing import Publication
from worker.retrying import forever

STDIN = "-"
INTERRUPTED = 130
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:/s)?")

Source = Annotated[str, typer.Argument(metavar="FILE|-", help="NDJSON, one event per line; - reads standard input.")]
State = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="State for resuming. Default: FILE.publish-state; none for a stream."),
]
Restart = Annotated[bool, typer.Option("--restart", help="Ignore what an earlier try has published.")]
Force = Annotated[bool, typer.Option("--force", help="Publish lines that are no valid events, too, as they are.")]
Rate = Annotated[str, typer.Option(metavar="N/s", help="Most events per second. Default: no limit.")]
Patience = Annotated[float, typer.Option(min=0, help="Seconds to wait for a broker that is away.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@dataclass(slots=True, frozen=True, kw_only=True)
class _Input:
    """What to publish from: ``found`` is None for a stream, which cannot be looked through beforehand."""

    name: str
    descriptor: int
    state: StateFile | None
    found: Scan | None


def publish(
    source: Source,
    *,
    state: State = None,
    restart: Restart = False,
    force: Force = False,
    rate: Rate = "",
    patience: Patience = 60.0,
    as_json: AsJson = False,
) -> None:
    """Publish events, wait until the broker confirmed each of them, and print how many it has.

    Every event without occurred_at gets one; the order of the lines is the order in time. A file is checked as a whole
    first: with one bad line in it nothing is published. After a break the same command goes on where it ended, with
    the same stamps and message ids; a stream has to be fed again from its beginning, and needs --state for that.
    """
    settings = start()
    pace = Pace(patience_s=patience, rate=_rate(rate))
    rules = LineRules(_schema(settings), force=force)
    with _opened(source, state, rules) as given:
        if given.found is not None and given.found.bad:
            _refuse(given, given.found, as_json=as_json)
        progress = _progress(given, settings, restart=restart)
        result = asyncio.run(_publish(settings, given, progress, rules=rules, pace=pace))
        lines = result.lines if given.found is None else given.found.events
        _tell(result, given, lines=lines, as_json=as_json)
    _leave(result)


def _schema(settings: Settings) -> EventSchema:
    event = settings.event
    return EventSchema(event.extra_fields, event.ignore_fields, event.max_clock_skew_s)


def _rate(text: str) -> float:
    matched = _RATE.fullmatch(text.strip()) if text else None
    if text and (matched is None or not float(matched[1])):
        raise typer.BadParameter(f"--rate takes events per second, like 500 or 500/s, not {text!r}")
    return float(matched[1]) if matched else 0.0


# -- the input --------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(source: str, state: Path | None, rules: LineRules) -> Iterator[_Input]:
    try:
        descriptor = sys.stdin.fileno() if source == STDIN else os.open(source, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from error
    try:
        # A redirected file may begin anywhere, so standard input is always taken as a stream.
        stream = source == STDIN or not stat.S_ISREG(os.fstat(descriptor).st_mode)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise UsageError(f"{source} is a directory")
        if not stream:
            lock(descriptor, source)
        path = state or (None if stream else Path(f"{source}.publish-state"))
        yield _Input(
            name=source,
            descriptor=descriptor,
            state=None if path is None else StateFile(path),
            found=None if stream else scan(descriptor, rules, now_us=_now_us()),
        )
    finally:
        if source != STDIN:
            os.close(descriptor)


def _progress(given: _Input, settings: Settings, *, restart: bool) -> Progress:
    exchange = settings.broker.exchange
    known = None if restart or given.state is None else given.state.load()
    if known is not None and known.exchange != exchange:
        raise UsageError(
            f"{given.name} was begun for the exchange {known.exchange!r}, EXCHANGE is now {exchange!r}: "
            "set it back, or publish from the start with --restart"
        )
    progress = known or Progress(run_id=uuid4().hex, exchange=exchange)
    if given.found is not None:
        progress.reserve(given.found.last_line, _now_us())
    return progress


def _now_us() -> int:
    return time.time_ns() // 1000


# -- publishing -------------------------------------------------------------------------------------------------------


async def _publish(settings: Settings, given: _Input, progress: Progress, *, rules: LineRules, pace: Pace) -> Result:
    broker = settings.broker
    link = Link(Endpoint(urls=broker.urls, heartbeat_s=broker.heartbeat_s), name="order-worker publish")
    publisher = Publisher(link)
    total = None if given.found is None else given.found.events
    with _bar(total, progress.events) as told:
        publication = Publication(publisher, progress, rules, pace=pace, state=given.state, told=told)
        try:
            await _connect(link, broker.exchange, patience_s=pace.patience_s)
            with _signals(publication):
                return await publication.run(read_lines(given.descriptor))
        finally:
            await publisher.close()
            await link.close()


async def _connect(link: Link, exchange: str, *, patience_s: float) -> None:
    """Wait for the broker, and see that the exchange is there: a publish to a missing one looks like a lost channel."""
    wanted = Topology(
        exchanges=(ExchangeSpec(name=exchange, type="topic"),),
        queues=(),
        bindings=(),
        work_queue="",
        dead_queue="",
        retry_exchanges=(),
    )
    try:
        async with asyncio.timeout(patience_s):
            async for attempt in forever(first_s=0.25, cap_s=5.0, retry_on=(ConnectionLost,)):
                with attempt:
                    await verify(await link.get(), wanted)
    except TimeoutError:
        raise ConnectionLost(f"no broker within {patience_s:g} s (--patience); nothing was published") from None


@contextmanager
def _signals(publication: Publication) -> Iterator[None]:
    """SIGINT and SIGTERM end it in good order, with the state saved; a second one ends the process."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        publication.stop()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextmanager
def _bar(total: int | None, confirmed: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if that is a terminal; gives the function that moves it."""
    console = Console(stderr=True)
    columns = (TextColumn("confirmed"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("publish", total=total, completed=confirmed)
        yield lambda count: bar.update(task, completed=count)


# -- the result -------------------------------------------------------------------------------------------------------


def _refuse(given: _Input, found: Scan, *, as_json: bool) -> NoReturn:
    """A bad file is refused as a whole: half of it at the broker would help nobody."""
    _complain(f"{given.name}: nothing was published, {found.bad} of {found.events} lines are no valid events")
    for number, problem in found.problems:
        _complain(f"line {number}: {problem}")
    if found.bad > MOST_PROBLEMS:
        _complain(f"... and {found.bad - MOST_PROBLEMS} more")
    _print_count(Counts(confirmed=0, lines=found.events, resumed_from=0, failed=found.bad), as_json=as_json)
    raise typer.Exit(1)


def _tell(result: Result, given: _Input, *, lines: int, as_json: bool) -> None:
    match result.ended:
        case Ended.DONE:
            pass
        case Ended.STOPPED:
            _complain(f"interrupted; {_how_to_resume(given)}")
        case Ended.GAVE_UP:
            _complain(f"the broker is away for too long (--patience): {result.detail}; {_how_to_resume(given)}")
        case Ended.UNROUTABLE:
            _complain(f"unroutable: {result.detail}; bind a queue (the worker does when it starts)")
            _complain(_how_to_resume(given))
        case Ended.BAD_LINE:
            _complain(f"line {result.line}: {result.detail}; {_how_to_resume(given)}")
        case _:
            assert_never(result.ended)
    counts = Counts(
        confirmed=result.confirmed, lines=lines, resumed_from=result.resumed_from, failed=lines - result.confirmed
    )
    _print_count(counts, as_json=as_json)


def _how_to_resume(given: _Input) -> str:
    if given.state is None:
        return "without --state it cannot be resumed"
    again = "the same command goes on from there"
    return again if given.found is not None else f"{again}, fed with the same lines from the beginning"


class Counts(NamedTuple):
    """What is printed in the end. ``confirmed`` holds those of earlier tries (``resumed_from``) too."""

    confirmed: int
    lines: int
    resumed_from: int
    failed: int


def _print_count(counts: Counts, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(counts._asdict()))
        return
    before = f" ({counts.resumed_from} of them before)" if counts.resumed_from else ""
    total = f" of {counts.lines}" if counts.failed else ""
    print(f"{counts.confirmed}{total} events confirmed{before}")


def _complain(text: str) -> None:
    print(f"order-worker: {text}", file=sys.stderr)


def _leave(result: Result) -> None:
    if result.ended is not Ended.DONE:
        raise typer.Exit(INTERRUPTED if result.ended is Ended.STOPPED else 1)
