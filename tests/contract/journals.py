"""Journals of every kind for the contract: in memory, an SQLite file, a private PostgreSQL; one or two workers."""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from worker.adapters.journal.memory import MemoryJournal
from worker.adapters.journal.sql import SqlJournal
from worker.core.journal import BatchRecord, OrderOutcome, OrderRow
from worker.core.model import Scalar, Version
from worker.core.values import Values

AnyJournal = MemoryJournal | SqlJournal
KINDS = ("memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
CLAIM_S = 45.0
CLAIM_US = 45_000_000
NOW = 1_800_000_000_000_000
SECOND = 1_000_000

_ids = itertools.count(1, 1000)


def versions_in(row: OrderRow) -> dict[str, Version]:
    """The applied version of each field."""
    return {name: version for name, (version, _) in row.values.items()}


def fresh_id() -> int:
    """An order, and 999 behind it, that no other test has: tests share a database."""
    return next(_ids)


@dataclass(frozen=True)
class Pair:
    """Two workers on one journal."""

    a: AnyJournal
    b: AnyJournal


def url_of(kind: str, request: pytest.FixtureRequest) -> str:
    """The address of a journal with tables; empty for memory."""
    return "" if kind == "memory" else str(request.getfixturevalue(f"{kind}_url"))


@asynccontextmanager
async def opened(url: str, *workers: str, claim_s: float = CLAIM_S) -> AsyncIterator[list[AnyJournal]]:
    """One journal per worker, all of them on the same data."""
    async with AsyncExitStack() as stack:
        journals: list[AnyJournal] = []
        for worker in workers:
            made = SqlJournal(url, worker=worker, claim_s=claim_s) if url else _in_memory(worker, journals)
            stack.push_async_callback(made.close)
            journals.append(made)
        yield journals


def _in_memory(worker: str, others: list[AnyJournal]) -> MemoryJournal:
    """A second worker in the same process: memory knows no other kind."""
    made = MemoryJournal(worker=worker, claim_s=CLAIM_S)
    if others:
        made.__dict__.update(others[0].__dict__ | {"_worker": worker})
    return made


def version(time_us: int, message_id: str = "m") -> Version:
    return Version(time_us, -1, time_us, message_id)


def applied(time_us: int, value: Scalar = 4, name: str = "status") -> Values:
    return {name: (version(time_us), value)}


def record_of(order_id: int, outcome: OrderOutcome, wall_us: int = NOW) -> BatchRecord:
    """A batch of one."""
    return BatchRecord(wall_us=wall_us, orders={order_id: outcome})
