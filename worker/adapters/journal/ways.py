"""The two ways to a database: SQLite in a thread of its own, PostgreSQL over asyncpg. One transaction at a time each.

SQLite has no network to wait for, so an asynchronous driver gains nothing there: aiosqlite is a thread as well, and
takes it a dozen times per transaction, which cost more than the statements (measured: 50 turns of the event loop for a
batch). Here a whole transaction is one visit to the thread, and those that are wanted at nearly the same time are one:
the record of a batch, and the claim of the one that takes its slot, share a commit. One connection, so that this
process waits for itself in order of arrival rather than by SQLite's polling; ``BEGIN IMMEDIATE``, because a transaction
that reads first and writes later fails where another one wrote in between.

PostgreSQL: READ COMMITTED; single statements run in autocommit mode, which saves two round trips.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import asyncpg
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from worker.adapters.journal.failures import Failure, kind_of

T = TypeVar("T")
Work = Callable[[Connection], T]
_Outcome = tuple[Any, BaseException | None]

TURNS: Final = 4
"""Of the event loop, from a batch that is decided to the claim of the next one."""

CONNECTIONS: Final = 5
"""To PostgreSQL: MAX_IN_FLIGHT batches, and one for everything else."""
_BUSY_S: Final = 2.0
_SINGLE: Final = "journal_single"
_PRAGMAS: Final = ("journal_mode=WAL", "synchronous=FULL")


class CommitFailed(Exception):
    """``error`` came while the transaction was ending: it may have happened."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Way(Protocol):
    """Carries out transactions. ``stops``: cancelling one ends it, instead of leaving it alone to its end."""

    dialect: Dialect
    stops: bool

    async def once(self, work: Callable[[Connection], T], *, single: bool) -> T:
        """One transaction. Raises what the driver raises, or CommitFailed from it."""
        ...

    async def close(self) -> None:
        """Close the connections; nothing is under way any more."""
        ...


class SqliteFile:
    """Implements ``Way``. A transaction that nobody waits for any more goes on to its end, and the next one waits for
    it."""

    stops = False

    def __init__(self, url: str, *, deadline_s: float) -> None:
        path, busy_s = make_url(url).database or "", min(_BUSY_S, deadline_s / 2)

        def connect() -> sqlite3.Connection:
            # Without isolation_level=None the sqlite3 module begins transactions by itself, and too late.
            return sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)

        # An open transaction is rolled back by SQLAlchemy; a reset on return would be one statement more.
        self._engine = create_engine(
            "sqlite:///" + path, creator=connect, pool_size=1, max_overflow=0, pool_reset_on_return=None
        )
        event.listen(self._engine, "connect", _set_up_sqlite)
        event.listen(self._engine, "begin", _begin_sqlite)
        self._single = self._engine.execution_options(**{_SINGLE: True})
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._gathering: asyncio.Task[None] | None = None
        self.dialect = self._engine.dialect

    async def once(self, work: Callable[[Connection], T], *, single: bool) -> T:
        """See ``Way``."""
        loop = asyncio.get_running_loop()
        if single:
            return await loop.run_in_executor(self._thread, _transaction, self._single, work)
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, done))
        if len(self._waiting) == 1:
            self._gathering = asyncio.create_task(self._gather(), name="gather")
        return await done

    async def _gather(self) -> None:
        """Carry out what is wanted by then. Turns of the event loop, not milliseconds: an idle one does not wait."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        gathered, self._waiting = self._waiting, []
        works = [work for work, _ in gathered]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._thread, _together, self._engine, works)
        except BaseException as error:  # noqa: BLE001 - closed meanwhile: told to whoever waits
            outcomes = [(None, error) for _ in works]
        for (_, done), (result, failure) in zip(gathered, outcomes, strict=True):
            if done.done():
                continue  # nobody waits for it any more
            if failure is None:
                done.set_result(result)
            else:
                done.set_exception(failure)

    async def close(self) -> None:
        """See ``Way``."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        except RuntimeError:
            return  # closed before
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)


class PostgresPool:
    """Implements ``Way``."""

    stops = True

    def __init__(self, url: str, *, deadline_s: float) -> None:
        milliseconds = str(round(deadline_s * 1000))
        settings = {
            "application_name": "order-worker",
            "statement_timeout": milliseconds,
            # A worker that is frozen in the middle of a transaction must not keep the orders locked for the others.
            "idle_in_transaction_session_timeout": milliseconds,
        }

        # asyncpg reads the address itself: it knows all that libpq's addresses may hold (sslmode, several hosts).
        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(url, timeout=deadline_s / 2, server_settings=settings)

        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=deadline_s,
        )
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self.dialect = self._engine.dialect

    async def once(self, work: Callable[[Connection], T], *, single: bool) -> T:
        """See ``Way``."""
        engine = self._single if single else self._engine
        async with engine.connect() as connection, _discarded(connection):
            result = await connection.run_sync(work)
            try:
                await connection.commit()
            except Exception as error:
                raise CommitFailed(error) from error
            return result

    async def close(self) -> None:
        """See ``Way``."""
        try:
            await self._engine.dispose()
        except asyncio.CancelledError:
            await self._engine.dispose(close=False)
            raise


@asynccontextmanager
async def _discarded(connection: AsyncConnection) -> AsyncIterator[None]:
    """A connection that failed for no reason of ours is not used again.

    SQLAlchemy sees to that where the driver says that it is closed. asyncpg does not say so while the server's farewell
    is still unread, and then fails with "another operation is in progress".
    """
    try:
        yield
    except Exception as error:
        cause = error.error if isinstance(error, CommitFailed) else error
        if kind_of(cause) in (Failure.LOST, Failure.AWAY):
            await connection.invalidate()
        raise


def _together(engine: Engine, works: Sequence[Work[Any]]) -> list[_Outcome]:
    """All in one transaction, or each in its own if that fails: one of them may be to blame, and it is not known which.

    A commit that fails leaves open whether it happened, so then nothing is repeated here.
    """
    try:
        return [(result, None) for result in _transaction(engine, lambda on: [work(on) for work in works])]
    except CommitFailed as error:
        return [(None, error) for _ in works]
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
        return [(None, error)] if len(works) == 1 else [_together(engine, [work])[0] for work in works]


def _transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.connect() as connection:
        result = work(connection)
        try:
            connection.commit()
        except Exception as error:
            raise CommitFailed(error) from error
        return result


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get(_SINGLE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
