"""What the sub-commands of ``order-worker dead`` share: their options, the selection, the way to queue and journal."""

import getpass
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from worker.adapters.journal.memory import MEMORY
from worker.cli.config import WIDTH
from worker.config import Settings
from worker.core.audit import Action, Deed, Outcome
from worker.core.errors import JournalUnavailable, UsageError
from worker.core.excerpt import excerpt
from worker.core.history import Sought
from worker.core.span import moment_us
from worker.core.times import format_time
from worker.journalports import AuditTrail
from worker.ports import wall_us
from worker.replay.reaching import worn_words

MOST_GIVEN = 1000
"""Orders and message ids of one selection."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Worn = Annotated[bool, typer.Option("--yes", help="Look even if the queue may drop messages that were seen too often.")]
OfReason = Annotated[str | None, typer.Option("--reason", metavar="R", help="Only this reason, as `list` prints it.")]
OfDetail = Annotated[
    str | None, typer.Option("--detail", metavar="TEXT", help="Only with this detail, as `list --by detail` prints it.")
]
Orders = Annotated[list[int] | None, typer.Option("--order", metavar="ID", help="Only this order. Repeatable.")]
MessageIds = Annotated[
    list[str] | None,
    typer.Option("--message-id", metavar="M", help="Only this message id, the producer's or the copy's. Repeatable."),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="T", help="Only what failed at T or later: 2026-11-21T10:00:00Z, or a span back, like 2h, 3d."
    ),
]
Until = Annotated[str | None, typer.Option(metavar="T", help="Only what failed before T.")]
Queue = Annotated[str | None, typer.Option(metavar="Q", help="Another dead-letter queue than DEAD_LETTER_QUEUE.")]


@dataclass(slots=True, frozen=True, kw_only=True)
class Given:
    """The selection as it was typed."""

    queue: str | None = None
    reason: str | None = None
    detail: str | None = None
    orders: Sequence[int] | None = None
    message_ids: Sequence[str] | None = None
    since: str | None = None
    until: str | None = None

    def sought(self, settings: Settings) -> Sought:
        """What is meant by it now. Raises UsageError."""
        now_us = wall_us()
        if max(len(self.orders or ()), len(self.message_ids or ())) > MOST_GIVEN:
            raise UsageError(f"at most {MOST_GIVEN} orders or message ids at a time")
        return Sought(
            queue=self.queue or settings.dead_letter_queue,
            reason=self.reason,
            detail=self.detail,
            order_ids=tuple(self.orders or ()),
            message_ids=tuple(self.message_ids or ()),
            since_us=None if self.since is None else moment_us(self.since, now_us=now_us),
            until_us=None if self.until is None else moment_us(self.until, now_us=now_us),
        )


def options_of(sought: Sought) -> list[str]:
    """The options that mean the same, with points in time instead of spans."""
    pairs: list[tuple[str, object]] = [
        ("--reason", sought.reason),
        ("--detail", sought.detail),
        *(("--order", each) for each in sought.order_ids),
        *(("--message-id", each) for each in sought.message_ids),
        ("--since", None if sought.since_us is None else format_time(sought.since_us)),
        ("--until", None if sought.until_us is None else format_time(sought.until_us)),
    ]
    return [str(each) for pair in pairs if pair[1] is not None for each in pair]


def this_tool(command: str) -> str:
    """Who takes the dead letters, for whoever finds them taken."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, order-worker dead {command}, process {os.getpid()}"


def durable(settings: Settings) -> str:
    """The journal's URL. Raises UsageError where it keeps nothing."""
    if settings.journal_url == MEMORY:
        raise UsageError(
            "ORDER_WORKER_JOURNAL_URL: memory ends with its process, so there is no index of dead letters; set it to "
            "sqlite:///FILE or postgresql://... for the worker and for this command"
        )
    return settings.journal_url


def worn_text(queue: str, deliveries: int) -> str:
    """Why looking was refused, and what to do."""
    limit = "`rabbitmqctl list_queues name arguments policy` shows the limit"
    return f"{worn_words(queue, deliveries)} --yes is needed; {limit}"


async def note(
    trail: AuditTrail, action: Action, outcome: Outcome, target: str, *, detail: str = "", count: int | None = None
) -> None:
    """Put down in the audit what was done from this command line; the command's own end does not depend on it."""
    by = this_tool(action.value).partition(",")[0]
    deed = Deed(
        at_us=wall_us(), by=by, action=action, outcome=outcome, target=target, detail=excerpt(detail), count=count
    )
    with suppress(JournalUnavailable):
        await trail.note(deed)


# -- what people see --------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """To the person, not into the result."""
    print(f"order-worker: {text}", file=sys.stderr)


def shown_progress() -> Callable[[int], None]:
    """Counts letters on a terminal; anywhere else silent."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda looked: print(f"\r{looked} dead letters looked at", end="\n\r", file=sys.stderr, flush=True)


def print_json(result: dict[str, Any]) -> None:
    """The result for programs."""
    print(json.dumps(result, indent=2))


def print_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """What comes out of headers is data: neither markup nor emoji codes are meant."""
    table = Table(*heads)
    for row in rows:
        table.add_row(*map(on_one_line, row))
    width = None if sys.stdout.isatty() else WIDTH
    Console(markup=False, emoji=False, highlight=False, width=width).print(table)


def on_one_line(text: str) -> str:
    """Foreign text may hold control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def time_or_none(micros: int | None) -> str | None:
    """For JSON."""
    return None if micros is None else format_time(micros)
