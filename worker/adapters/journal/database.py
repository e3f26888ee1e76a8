"""A database and its transactions: every one has a deadline, is repeated where that helps, and ends as it should.

Each transaction runs as a task of its own, and whoever waits for it may be cancelled without harm: the transaction goes
on to its end by itself. A driver cancelled in the middle of a statement leaves a connection that nobody can use
(asyncpg) or a thread that goes on alone and may hold the write lock (aiosqlite). So that is kept for the one case where
nothing else is left, the deadline on PostgreSQL; on SQLite the next transaction waits until the thread has come back.

SQLite: one connection, so that this process waits for itself in order of arrival rather than by SQLite's polling;
``BEGIN IMMEDIATE``, because a transaction that reads first and writes later fails where another one wrote in between.
PostgreSQL: READ COMMITTED; single statements run in autocommit mode, which saves two round trips.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiosqlite
import asyncpg
from sqlalchemy import Connection, Dialect, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from worker.adapters.journal.failures import Failure, kind_of, told
from worker.core.backoff import full_jitter
from worker.core.errors import JournalUnavailable

T = TypeVar("T")

DEADLINE_S: Final = 10.0
CLOSE_S: Final = 2.0
CONNECTIONS: Final = 5
"""To PostgreSQL: MAX_IN_FLIGHT batches, and one for everything else."""
TRIES: Final = 6
_FIRST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 0.5
_BUSY_S: Final = 2.0
_SINGLE: Final = "journal_single"
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL")


class Database:
    """The database at ``url`` (as in ``JOURNAL_URL``), connected to when first needed.

    ``deadline_s`` bounds each call of ``run``, waiting for a connection and repetitions included.
    """

    def __init__(self, url: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self.is_sqlite = url.startswith("sqlite:")
        self._engine = _sqlite(url, deadline_s) if self.is_sqlite else _postgresql(url, deadline_s)
        options: dict[str, Any] = {_SINGLE: True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._single = self._engine.execution_options(**options)
        self.dialect: Dialect = self._engine.dialect
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Callable[[Connection], T], *, single: bool = False) -> T:
        """Do ``work`` in a transaction; it may be done more than once, but only the last time stays.

        ``single``: it is one statement, which needs no transaction. Raises JournalUnavailable. Cancelling it leaves
        open whether it happens.
        """
        task = asyncio.create_task(self._repeat(work, self._single if single else self._engine), name="journal")
        self._running.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait({task}, timeout=self._deadline_s)
        if not task.done():
            if not self.is_sqlite:
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
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._engine.dispose()
        except TimeoutError:
            await self._engine.dispose(close=False)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that one whose caller went away is not complained of

    async def _repeat(self, work: Callable[[Connection], T], engine: AsyncEngine) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline_s  # nobody waits for it any longer
        for number in range(1, TRIES):
            try:
                return await self._once(work, engine)
            except _Repeatable as failed:
                if loop.time() >= until:
                    raise JournalUnavailable(f"the journal: {failed}") from failed.__cause__
                cap_s = 0.0 if failed.kind is Failure.LOST else _LONGEST_WAIT_S
            jitter = random.random()  # noqa: S311 - spreads those who were in each other's way
            await asyncio.sleep(full_jitter(number, first_s=_FIRST_WAIT_S, cap_s=cap_s, jitter=jitter))
        try:
            return await self._once(work, engine)
        except _Repeatable as failed:
            raise JournalUnavailable(f"the journal: {failed}") from failed.__cause__

    async def _once(self, work: Callable[[Connection], T], engine: AsyncEngine) -> T:
        committing = False
        try:
            async with engine.connect() as connection, _discarded(connection):
                result = await connection.run_sync(work)
                committing = True
                await connection.commit()
                return result
        except Exception as error:
            kind = kind_of(error)
            if kind is Failure.OURS:
                raise
            # A connection lost at the commit leaves open whether that happened; before it, nothing did.
            if kind is Failure.AGAIN or (kind is Failure.LOST and not committing):
                raise _Repeatable(kind, told(error)) from error
            raise JournalUnavailable(f"the journal: {told(error)}") from error


@asynccontextmanager
async def _discarded(connection: AsyncConnection) -> AsyncIterator[None]:
    """A connection that failed for no reason of ours is not used again.

    SQLAlchemy sees to that where the driver says that it is closed. asyncpg does not say so while the server's farewell
    is still unread, and then fails with "another operation is in progress".
    """
    try:
        yield
    except Exception as error:
        if kind_of(error) in (Failure.LOST, Failure.AWAY) and connection.dialect.name != "sqlite":
            await connection.invalidate()
        raise


class _Repeatable(Exception):
    """The transaction was rolled back for a reason that may be gone next time."""

    def __init__(self, kind: Failure, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def _sqlite(url: str, deadline_s: float) -> AsyncEngine:
    path, busy_s = make_url(url).database or "", min(_BUSY_S, deadline_s / 2)

    async def connect() -> aiosqlite.Connection:
        # Without isolation_level=None the sqlite3 module begins transactions by itself, and too late.
        connection = aiosqlite.connect(path, timeout=busy_s, isolation_level=None)
        thread = connection._thread
        thread.daemon = True  # as SQLAlchemy does it: a process that ends does not wait for it
        try:
            return await connection
        except BaseException:
            # aiosqlite 0.22 tells its thread to end and does not wait: it would report to a loop that may be closed.
            await asyncio.to_thread(thread.join)
            raise

    engine = create_async_engine(
        "sqlite+aiosqlite:///" + path,
        async_creator=connect,
        pool_size=1,
        max_overflow=0,
        pool_timeout=deadline_s,
        pool_reset_on_return=None,  # an open transaction is rolled back by SQLAlchemy; this would be one more
    )
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get(_SINGLE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _postgresql(url: str, deadline_s: float) -> AsyncEngine:
    milliseconds = str(round(deadline_s * 1000))
    settings = {
        "application_name": "order-worker",
        "statement_timeout": milliseconds,
        # A worker that is frozen in the middle of a transaction must not keep the orders locked for the others.
        "idle_in_transaction_session_timeout": milliseconds,
    }

    # asyncpg reads the address itself: it knows everything that libpq's addresses may hold (sslmode, several hosts).
    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(url, timeout=deadline_s / 2, server_settings=settings)

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=deadline_s,
    )
