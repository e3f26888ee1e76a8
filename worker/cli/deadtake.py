"""``order-worker dead sync``, ``export`` and ``discard``: the commands that go through a dead-letter queue once."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from worker import deadletters
from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import AnyJournal, checked_journal
from worker.cli.config import start
from worker.cli.deadqueue import (
    AsJson,
    Given,
    MessageIds,
    OfDetail,
    OfReason,
    Orders,
    Queue,
    Since,
    Until,
    Worn,
    durable,
    note,
    options_of,
    print_json,
    print_table,
    say,
    shown_progress,
    this_tool,
    worn_text,
)
from worker.config import Settings
from worker.core.audit import Action, Outcome
from worker.core.errors import QueueWorn
from worker.core.history import GroupBy, Sought, Tally
from worker.core.times import format_time
from worker.deadletters import LetterSink, Selection, Synced, Taken
from worker.exportfile import DiscardFile, ExportFile
from worker.ports import Taking, wall_us
from worker.replay.reaching import at_the_queue, schema_of

STDOUT = "-"
MOST_ROWS = 1000

Target = Annotated[str, typer.Argument(metavar="FILE|-", help="NDJSON, a letter per line; - is standard output.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Without: say only what would be discarded.")]
ToFile = Annotated[
    Path | None,
    typer.Option(metavar="F", help="Where the letters are kept. Default: order-worker-discarded-<time>.ndjson, here."),
]
WornToo = Annotated[
    bool, typer.Option("--worn-too", help="Take it even if the queue may drop messages that were seen too often.")
]


def sync(*, queue: Queue = None, as_json: AsJson = False, yes: Worn = False) -> None:
    """Bring the index up to date with the queue: add what the broker or other programs put there, forget what is gone.

    The queue is gone through once and left as it was.
    """
    settings = start()
    durable(settings)
    sought = Given(queue=queue).sought(settings)
    done = asyncio.run(_sync(settings, sought, worn_too=yes))
    if as_json:
        counts = {"found": done.found, "added": done.added, "gone": done.gone, "complete": done.complete}
        print_json({"queue": sought.queue} | counts)
    else:
        print(f"{done.found} found, {done.added} added to the index, {done.gone} gone from the queue")
    if not done.complete:
        say(f"others are at {sought.queue!r} and may hold some: so nothing is called gone")


def export(
    target: Target,
    *,
    reason: OfReason = None,
    detail: OfDetail = None,
    order: Orders = None,
    message_id: MessageIds = None,
    since: Since = None,
    until: Until = None,
    queue: Queue = None,
    force: Force = False,
    yes: Worn = False,
) -> None:
    """Write dead letters to a file, oldest first, and leave the queue as it was. The file has everything of them."""
    settings = start()
    given = Given(
        queue=queue, reason=reason, detail=detail, orders=order, message_ids=message_id, since=since, until=until
    )
    sought = given.sought(settings)
    done = asyncio.run(_export(settings, sought, target, force=force, worn_too=yes))
    say(f"{done.chosen} of {done.looked} dead letters exported; everything is back in its place")
    _warn(done, sought.queue)


def discard(
    *,
    reason: OfReason = None,
    detail: OfDetail = None,
    order: Orders = None,
    message_id: MessageIds = None,
    since: Since = None,
    until: Until = None,
    queue: Queue = None,
    to_file: ToFile = None,
    yes: Yes = False,
    worn_too: WornToo = False,
    as_json: AsJson = False,
) -> None:
    """Take dead letters out of the queue for good; each is written to a file first, and to the journal.

    Without --yes it says only what the index knows of them.
    """
    settings = start()
    durable(settings)
    given = Given(
        queue=queue, reason=reason, detail=detail, orders=order, message_ids=message_id, since=since, until=until
    )
    sought = given.sought(settings)
    if not yes:
        _print_plan(sought, asyncio.run(_plan(settings, sought)), to_file=to_file, as_json=as_json)
        return
    path = to_file if to_file is not None else Path(f"order-worker-discarded-{_now()}.ndjson")
    done = asyncio.run(_discard(settings, sought, path, worn_too=worn_too))
    kept = str(path) if done.chosen else None
    if as_json:
        counts = {"discarded": done.chosen, "looked": done.looked, "complete": done.complete}
        print_json({"queue": sought.queue, "file": kept} | counts)
    else:
        print(f"{done.chosen} of {done.looked} dead letters discarded" + (f"; they are in {kept}" if kept else ""))
    _warn(done, sought.queue)


# -- at the queue -----------------------------------------------------------------------------------------------------


async def _sync(settings: Settings, sought: Sought, *, worn_too: bool) -> Synced:
    selection = Selection(sought, schema_of(settings))
    async with (
        checked_journal(settings.journal_url) as journal,
        _taking(settings, sought.queue, journal, command="sync", worn_too=worn_too) as taking,
    ):
        return await deadletters.sync(taking, journal, selection, progress=shown_progress())


async def _export(settings: Settings, sought: Sought, target: str, *, force: bool, worn_too: bool) -> Taken:
    # The file first: one that cannot be written should not cost a delivery count.
    with _sink(target, force=force) as sink:
        async with (
            checked_journal(settings.journal_url) as journal,
            _taking(settings, sought.queue, journal, command="export", worn_too=worn_too) as taking,
        ):
            index = None if settings.journal_url == MEMORY else journal
            selection = Selection(sought, schema_of(settings), index=index)
            done = await deadletters.export(taking, selection, sink, progress=shown_progress())
            await note(journal, Action.EXPORT, Outcome.DONE, shlex.join(options_of(sought)), count=done.chosen)
            return done


async def _discard(settings: Settings, sought: Sought, path: Path, *, worn_too: bool) -> Taken:
    with DiscardFile(path) as sink:
        async with (
            checked_journal(settings.journal_url) as journal,
            _taking(settings, sought.queue, journal, command="discard", worn_too=worn_too) as taking,
        ):
            selection = Selection(sought, schema_of(settings), index=journal)
            done = await deadletters.discard(
                taking, selection, sink, journal, by=this_tool("discard"), progress=shown_progress()
            )
            await note(journal, Action.DISCARD, Outcome.DONE, shlex.join(options_of(sought)), count=done.chosen)
            return done


@asynccontextmanager
async def _taking(
    settings: Settings, queue: str, journal: AnyJournal, *, command: str, worn_too: bool
) -> AsyncIterator[Taking]:
    try:
        async with (
            at_the_queue(settings, queue, holders=journal) as there,
            there.taking(this_tool(command), worn_too=worn_too) as taking,
        ):
            yield taking
    except QueueWorn as worn:
        raise QueueWorn(worn_text(queue, worn.deliveries), deliveries=worn.deliveries) from None


def _warn(done: Taken, queue: str) -> None:
    if not done.complete:
        say(f"others are at {queue!r}: what they hold was not looked at")


# -- files ------------------------------------------------------------------------------------------------------------


def _sink(target: str, *, force: bool) -> AbstractContextManager[LetterSink]:
    return nullcontext(_Stdout()) if target == STDOUT else ExportFile(Path(target), force=force)


class _Stdout:
    """Implements ``deadletters.LetterSink``. A reader that has enough (``| head``) ends the command."""

    def write(self, line: bytes) -> None:
        try:
            sys.stdout.buffer.write(line)
        except BrokenPipeError:
            raise typer.Exit(1) from None

    def sync(self) -> None:
        try:
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise typer.Exit(1) from None


def _now() -> str:
    return datetime.fromtimestamp(wall_us() // 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")


# -- the plan ---------------------------------------------------------------------------------------------------------


async def _plan(settings: Settings, sought: Sought) -> list[Tally]:
    async with checked_journal(settings.journal_url) as journal:
        return list(await journal.tallies(sought, GroupBy.REASON, limit=MOST_ROWS))


def _print_plan(sought: Sought, tallies: list[Tally], *, to_file: Path | None, as_json: bool) -> None:
    count = sum(tally.count for tally in tallies)
    extra = [] if to_file is None else ["--to-file", str(to_file)]
    command = ["order-worker", "dead", "discard", "--queue", sought.queue, *options_of(sought), *extra, "--yes"]
    if as_json:
        reasons = [{"reason": tally.key, "count": tally.count, "example": tally.example} for tally in tallies]
        print_json({"queue": sought.queue, "matching": count, "reasons": reasons, "command": shlex.join(command)})
        return
    print(f"{count} dead letters of {sought.queue} would be discarded, as far as the index knows")
    if count:
        rows = [
            (str(each.key), str(each.count), format_time(each.oldest_us), format_time(each.newest_us), each.example)
            for each in tallies
        ]
        print_table(("Reason", "Count", "Oldest", "Newest", "Detail of the newest"), rows)
    print(f"nothing was changed; to do it: {shlex.join(command)}")
