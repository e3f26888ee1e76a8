"""``order-worker journal``: the tables of the durable journal, and what is forgotten of them."""

import asyncio
import time
from typing import Annotated

import typer

from worker.adapters.journal.memory import MEMORY
from worker.adapters.journal.opening import checked_journal
from worker.adapters.journal.upgrading import upgrade as upgrade_tables
from worker.cli.config import start
from worker.core.errors import UsageError

STEP_ROWS = 1000
"""Rows of each table in one transaction: workers wait for it a few milliseconds."""
DAY_S = 86_400

Days = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Keep this many days instead of JOURNAL_RETENTION_DAYS.")
]

journal = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The tables of the durable journal (JOURNAL_URL), and what is forgotten of them.",
)


@journal.command("upgrade")
def upgrade() -> None:
    """Bring the tables to this version; makes them where there are none. Harmless where they are."""
    version = asyncio.run(upgrade_tables(_durable(start().journal_url)))
    print(f"the journal's tables are at version {version}")


@journal.command("prune")
def prune(*, days: Days = None) -> None:
    """Forget history, settled dead letters, replays and idle orders that are older; in small steps, while workers run.

    An order stays while a dead letter of it is in the queue, a call is under way or its values are to be sent again.
    """
    settings = start()
    kept = days if days is not None else settings.journal_retention_days
    forgotten = asyncio.run(_prune(_durable(settings.journal_url), kept))
    print(f"{forgotten} rows older than {kept} days forgotten")


async def _prune(url: str, days: int) -> int:
    before_us = (time.time_ns() // 1_000_000_000 - days * DAY_S) * 1_000_000
    forgotten = 0
    async with checked_journal(url) as kept:
        while step := await kept.prune(before_us, limit=STEP_ROWS):
            forgotten += step
    return forgotten


def _durable(url: str) -> str:
    if url == MEMORY:
        raise UsageError("ORDER_WORKER_JOURNAL_URL: memory has no tables; set it to sqlite:///FILE or postgresql://...")
    return url
