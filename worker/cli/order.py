"""``order-worker order ID``: what happened to one order, from the journal."""

import asyncio
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import checked_journal
from worker.cli.config import WIDTH, start
from worker.core.errors import UsageError
from worker.core.fields import INT64_MAX
from worker.core.history import HistoryRow
from worker.core.model import Scalar
from worker.core.times import format_time
from worker.core.values import Values
from worker.lookups import history_pages

OrderId = Annotated[int, typer.Argument(min=1, max=INT64_MAX, metavar="ID", help="The order's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def order(order_id: OrderId, *, as_json: AsJson = False) -> None:
    """Show the events of an order as the worker decided them: what was applied, superseded, retried or dead-lettered.

    Exit code 1 where the journal knows nothing of it.
    """
    url = start().journal_url
    if url == MEMORY:
        raise UsageError(
            "ORDER_WORKER_JOURNAL_URL: memory ends with its process, so there is nothing to look at; set it to "
            "sqlite:///FILE or postgresql://... for the worker and for this command"
        )
    rows, known = asyncio.run(_read(url, order_id))
    if as_json:
        print(
            json.dumps({"order_id": order_id, "known": known_json(known), "events": [event_json(row) for row in rows]})
        )
    else:
        _print(order_id, rows, known)
    if not rows and not known:
        raise typer.Exit(1)


async def _read(url: str, order_id: int) -> tuple[list[HistoryRow], Values]:
    """The whole history, and the values that are applied. JournalUnavailable, JournalOutdated."""
    async with checked_journal(url) as journal:
        rows = [row async for page in history_pages(journal, order_id) for row in page]
        return rows, (await journal.known([order_id])).get(order_id, {})


def known_json(known: Values) -> dict[str, dict[str, Scalar]]:
    """The values that are applied, each with when it happened."""
    return {
        name: {"value": value, "occurred_at": format_time(version.time_us)}
        for name, (version, value) in sorted(known.items())
    }


def event_json(row: HistoryRow) -> dict[str, Any]:
    """One row of the history."""
    version = row.version
    return {
        "decided_at": format_time(row.at_us),
        "occurred_at": None if version is None else format_time(version.time_us),
        "first_seen": None if version is None else format_time(version.first_seen_us),
        "sequence": None if version is None or version.sequence == -1 else version.sequence,
        "outcome": row.disposition,
        "reason": row.reason,
        "detail": row.detail,
        "fields": dict(row.fields),
        "attempt": row.attempt,
        "message_id": row.message_id,
        "event_id": row.event_id,
        "batch_id": row.batch_id,
        "replay_id": row.replay_id,
        "worker": row.worker,
    }


def _print(order_id: int, rows: list[HistoryRow], known: Values) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    if not rows and not known:
        print(f"the journal knows nothing of order {order_id}")
        return
    table = Table(title=f"Order {order_id}", title_justify="left")
    for name in ("decided", "occurred", "outcome", "fields", "attempt", "batch", "detail"):
        table.add_column(name, overflow="fold")
    for row in rows:
        fields = ", ".join(f"{name}={value}" for name, value in row.fields.items())
        occurred = "" if row.version is None else format_time(row.version.time_us)
        cells = (
            format_time(row.at_us),
            occurred,
            f"{row.disposition} {row.reason}",
            fields,
            str(row.attempt),
            row.batch_id,
            row.detail,
        )
        table.add_row(*map(escape, cells))
    console.print(table)
    for name, (version, value) in sorted(known.items()):
        print(f"{name} is {value!r} as of {format_time(version.time_us)}")
