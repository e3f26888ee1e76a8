"""``order-worker run --dry-run``: what is printed of it."""

import asyncio
import json
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from worker.cli.config import WIDTH
from worker.config import Settings
from worker.core.model import AckReason
from worker.dryrun import Bounds, rehearse
from worker.rehearsing import Books, Orders

_MEANS = {
    AckReason.APPLIED: "would be applied",
    AckReason.SUPERSEDED: "superseded: a later value is known",
    AckReason.DUPLICATE: "duplicate: applied already",
}


def rehearsed(
    settings: Settings, *, seconds: float | None, count: int | None, show_values: bool, as_json: bool
) -> None:
    """Run it, then print the summary."""
    bounds = Bounds(seconds=seconds, count=count)
    books = asyncio.run(rehearse(settings, bounds, _print_call if show_values else None))
    if as_json:
        print(json.dumps(books.as_json()))
        return
    table = Table("What", "Events", title="Dry run: nothing was sent", title_justify="left")
    for what, number in rows(books):
        table.add_row(what, str(number))
    Console(markup=False, emoji=False, highlight=False, width=WIDTH).print(table)


def rows(books: Books) -> Iterator[tuple[str, int]]:
    """The lines of the summary; what did not occur is left out, except for the first three."""
    yield "read", books.read
    yield _MEANS[AckReason.APPLIED], books.acked[AckReason.APPLIED]
    yield f"orders in {books.calls} calls", books.orders_sent
    for reason in (AckReason.SUPERSEDED, AckReason.DUPLICATE):
        if books.acked[reason]:
            yield _MEANS[reason], books.acked[reason]
    for why, number in books.dead.most_common():
        yield f"would be a dead letter: {why}", number
    for why, number in books.retries.most_common():
        yield f"would be tried again later: {why}", number


def _print_call(orders: Orders) -> None:
    print(json.dumps([dict(order) for order in orders]), flush=True)
