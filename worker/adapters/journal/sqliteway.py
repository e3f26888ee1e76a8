"""The way to SQLite: in this process, one transaction at a time.

SQLite has no network to wait for, so an asynchronous driver gains nothing there: aiosqlite is a thread as well, and
takes it a dozen times per transaction, which cost more than the statements (measured: 50 turns of the event loop for a
batch). Here a whole transaction is one visit to a thread, and those that are wanted at nearly the same time are one:
the record of a batch, and the claim of the one that takes its slot, share a commit.

A thread beside a busy event loop has to fight for the interpreter's lock after every statement, and that cost as much
as the statements (measured: 7.5 s of CPU per 100,000 events, 5 s without the fight). So what is ``BRIEF`` is done where
it stands, a millisecond or two, and only what may wait goes to the thread: the commit, for the disk, and all of it
where another process is writing. One connection, so that this process waits for itself in order of arrival rather than
by SQLite's polling; ``BEGIN IMMEDIATE``, because a transaction that reads first and writes later fails where another
one wrote in between.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection

from worker.adapters.journal.ways import CommitFailed, Kind, Work

T = TypeVar("T")
_Outcome = tuple[Any, BaseException | None]

TURNS: Final = 4
"""Of the event loop, from a batch that is decided to the claim of the next one."""

_BUSY_S: Final = 2.0
_KIND: Final = "journal_kind"
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    # A batch changes a page for each of its orders. SQLite's 1,000 pages (4 MB) would have every fifth batch wait for a
    # checkpoint, and its 2 MB of cache would have the pages of some thousand orders read again and again.
    "wal_autocheckpoint=8000",
    "cache_size=-8000",
)


class _Wanted(NamedTuple):
    """A transaction that somebody waits for."""

    work: Work[Any]
    kind: Kind
    done: asyncio.Future[Any]

    def end(self, outcome: _Outcome) -> None:
        """Tell whoever waits for it, if anybody still does."""
        result, failure = outcome
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(result)
        else:
            self.done.set_exception(failure)


class SqliteFile:
    """Implements ``Way``. A transaction that nobody waits for any more goes on to its end, and the next one waits for
    it."""

    stops = False

    def __init__(self, url: str, *, deadline_s: float) -> None:
        path, busy_s = make_url(url).database or "", min(_BUSY_S, deadline_s / 2)

        def connect() -> sqlite3.Connection:
            # Without isolation_level=None the sqlite3 module begins transactions by itself, and too late.
            return sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)

        def begin(connection: Connection) -> None:
            _begin_sqlite(connection, busy_s)

        # An open transaction is rolled back by SQLAlchemy; a reset on return would be one statement more.
        self._engine = create_engine(
            "sqlite:///" + path, creator=connect, pool_size=1, max_overflow=0, pool_reset_on_return=None
        )
        event.listen(self._engine, "connect", _set_up_sqlite)
        event.listen(self._engine, "begin", begin)
        self._engines = {kind: self._engine.execution_options(**{_KIND: kind}) for kind in Kind}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._waiting: list[_Wanted] = []
        self._carrying: asyncio.Task[None] | None = None
        self.dialect = self._engine.dialect

    async def once(self, work: Work[T], kind: Kind) -> T:
        """See ``Way``."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Wanted(work, kind, done))
        if self._carrying is None or self._carrying.done():
            self._carrying = asyncio.create_task(self._carry_out(), name="carry out")
        return await done

    async def _carry_out(self) -> None:
        """Whatever is wanted, until nothing is. What comes while one commits shares the next transaction.

        Gathered for turns of the event loop, not for milliseconds: an idle one does not wait.
        """
        while self._waiting:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            gathered, self._waiting = self._waiting, []
            for kind, group in groupby(gathered, key=lambda wanted: wanted.kind):
                alike = list(group)
                outcomes = await self._outcomes([wanted.work for wanted in alike], kind)
                for wanted, outcome in zip(alike, outcomes, strict=True):
                    wanted.end(outcome)

    async def _outcomes(self, works: Sequence[Work[Any]], kind: Kind) -> Sequence[_Outcome]:
        try:
            match kind:
                case Kind.SINGLE:
                    return [await self._in_thread(_alone, self._engines[kind], work) for work in works]
                case Kind.BRIEF if outcomes := await self._briefly(works):
                    return outcomes
                case _:
                    return await self._in_thread(_together, self._engines[Kind.WHOLE], works)
        except BaseException as error:  # noqa: BLE001 - closed meanwhile: told to whoever waits
            return [(None, error) for _ in works]

    async def _briefly(self, works: Sequence[Work[Any]]) -> Sequence[_Outcome]:
        """All of them in one transaction, here; nothing where another process writes, or one of them fails."""
        with self._engines[Kind.BRIEF].connect() as connection:
            try:
                results = [work(connection) for work in works]
            except Exception:  # noqa: BLE001 - it is done again in the thread, and fails there if it must
                return ()
            try:
                await self._in_thread(_commit, connection)
            except CommitFailed as error:
                return [(None, error) for _ in works]
        return [(result, None) for result in results]

    async def _in_thread(self, do: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, *arguments)

    async def close(self) -> None:
        """See ``Way``."""
        try:
            await self._in_thread(self._engine.dispose)
        except RuntimeError:
            return  # closed before
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _together(engine: Engine, works: Sequence[Work[Any]]) -> list[_Outcome]:
    """All in one transaction, or each in its own if that fails: one of them may be to blame, and it is not known which.

    A commit that fails leaves open whether it happened, so then nothing is repeated here.
    """
    try:
        return [(result, None) for result in _transaction(engine, lambda on: [work(on) for work in works])]
    except CommitFailed as error:
        return [(None, error) for _ in works]
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
        return [(None, error)] if len(works) == 1 else [_alone(engine, work) for work in works]


def _alone(engine: Engine, work: Work[Any]) -> _Outcome:
    try:
        return _transaction(engine, work), None
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
        return None, error


def _transaction(engine: Engine, work: Work[T]) -> T:
    with engine.connect() as connection:
        result = work(connection)
        _commit(connection)
        return result


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except Exception as error:
        raise CommitFailed(error) from error


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection, busy_s: float) -> None:
    match connection.get_execution_options()[_KIND]:
        case Kind.WHOLE:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        case Kind.BRIEF:  # at once or not at all
            # The driver itself: SQLAlchemy takes ten times as long for these as SQLite does.
            execute = cast("sqlite3.Connection", connection.connection.driver_connection).execute
            execute("PRAGMA busy_timeout=0")
            try:
                execute("BEGIN IMMEDIATE")
            finally:
                execute(f"PRAGMA busy_timeout={round(busy_s * 1000)}")
