"""A database and its transactions: every one has a deadline, is repeated where that helps, and ends as it should.

Each transaction runs as a task of its own, and whoever waits for it may be cancelled without harm: the transaction goes
on to its end by itself. A driver cancelled in the middle of a statement leaves a connection that nobody can use. So
that is kept for the one case where nothing else is left, the deadline on PostgreSQL; on SQLite the next transaction
waits until the thread has come back.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Dialect

from worker.adapters.journal.failures import Failure, kind_of, told
from worker.adapters.journal.sqliteway import SqliteFile
from worker.adapters.journal.ways import CommitFailed, Kind, Way
from worker.core.backoff import full_jitter
from worker.core.errors import JournalUnavailable

T = TypeVar("T")

DEADLINE_S: Final = 10.0
CLOSE_S: Final = 2.0
TRIES: Final = 6
_FIRST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 0.5


class Database:
    """The database at ``url`` (as in ``JOURNAL_URL``), connected to when first needed.

    ``deadline_s`` bounds each call of ``run``, waiting for a connection and repetitions included.
    """

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self.is_sqlite = url.startswith("sqlite:")
        self._way = _way_to(url, deadline_s)
        self.dialect: Dialect = self._way.dialect
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Callable[[Connection], T], *, kind: Kind = Kind.WHOLE) -> T:
        """Do ``work`` in a transaction; it may be done more than once, but only the last time stays.

        Raises JournalUnavailable. Cancelling it leaves
        open whether it happens.
        """
        task = asyncio.create_task(self._repeat(work, kind), name="journal")
        self._running.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=self._deadline_s)
        if not task.done():
            if self._way.stops:
                task.cancel()
            raise JournalUnavailable(f"the journal did not answer within {self._deadline_s:g} s")
        if task.cancelled():
            raise JournalUnavailable("the connection to the journal was stuck or closed")
        return task.result()

    async def settled(self) -> None:
        """Wait until no transaction is under way, those included whose caller was cancelled; at most the deadline."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._deadline_s)

    async def close(self) -> None:
        """Let what is under way end (at most the deadline) and close the connections. May be repeated."""
        await self.settled()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_S)
        closing = asyncio.create_task(self._way.close(), name="close the journal")
        _, left = await asyncio.wait({closing}, timeout=CLOSE_S)
        for task in left:
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_S)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that one whose caller went away is not complained of

    async def _repeat(self, work: Callable[[Connection], T], kind: Kind) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline_s  # nobody waits for it any longer
        for number in range(1, TRIES):
            try:
                return await self._once(work, kind)
            except _Repeatable as failed:
                if loop.time() >= until:
                    raise JournalUnavailable(f"the journal: {failed}") from failed.__cause__
                cap_s = 0.0 if failed.kind is Failure.LOST else _LONGEST_WAIT_S
            jitter = random.random()  # noqa: S311 - spreads those who were in each other's way
            await asyncio.sleep(full_jitter(number, first_s=_FIRST_WAIT_S, cap_s=cap_s, jitter=jitter))
        try:
            return await self._once(work, kind)
        except _Repeatable as failed:
            raise JournalUnavailable(f"the journal: {failed}") from failed.__cause__

    async def _once(self, work: Callable[[Connection], T], kind: Kind) -> T:
        try:
            return await self._way.once(work, kind)
        except CommitFailed as failed:
            raise _judged(failed.error, committing=True) from failed.error
        except Exception as error:
            if kind_of(error) is Failure.OURS:
                raise
            raise _judged(error, committing=False) from error


def _way_to(url: str, deadline_s: float) -> Way:
    if url.startswith("sqlite:"):
        return SqliteFile(url, deadline_s=deadline_s)
    # Its driver is 10 MB that SQLite has no use for.
    from worker.adapters.journal.postgresway import PostgresPool

    return PostgresPool(url, deadline_s=deadline_s)


def _judged(error: Exception, *, committing: bool) -> Exception:
    """What to tell of a transaction that failed.

    A connection lost at the commit leaves open whether that happened; before it, nothing did.
    """
    kind = kind_of(error)
    if kind is Failure.AGAIN or (kind is Failure.LOST and not committing):
        return _Repeatable(kind, told(error))
    return JournalUnavailable(f"the journal: {told(error)}")


class _Repeatable(Exception):
    """The transaction was rolled back for a reason that may be gone next time."""

    def __init__(self, kind: Failure, text: str) -> None:
        super().__init__(text)
        self.kind = kind
