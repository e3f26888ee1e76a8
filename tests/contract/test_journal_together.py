"""Transactions that are wanted at the same time on SQLite: one commit for all, and nobody pays for another's fault."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from worker.adapters.journal.database import Database
from worker.adapters.journal.ways import Kind


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'x.db'}")
    await made.run(lambda on: on.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)")).close())
    yield made
    await made.close()


class Counted:
    """Adds a number; knows how often it ran."""

    def __init__(self, number: int, *, fails: bool = False) -> None:
        self.number = number
        self.runs = 0
        self.connection: Connection | None = None
        self.thread: int | None = None
        self._fails = fails

    def __call__(self, connection: Connection) -> int:
        self.runs += 1
        self.connection = connection
        self.thread = threading.get_ident()
        connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": self.number})
        if self._fails:
            raise ValueError(f"{self.number} is bad")
        return self.number


async def numbers(database: Database) -> list[int]:
    return await database.run(lambda on: [row.n for row in on.execute(text("SELECT n FROM t ORDER BY n"))])


async def test_what_is_wanted_at_once_is_one_transaction(database: Database) -> None:
    """Each gets its own answer, in the order in which they asked."""
    works = [Counted(number) for number in (3, 1, 2)]

    answers = await asyncio.gather(*(database.run(work) for work in works))

    assert answers == [3, 1, 2]
    assert [work.runs for work in works] == [1, 1, 1]
    # Each transaction has a connection object of its own.
    assert works[0].connection is works[1].connection is works[2].connection
    assert await numbers(database) == [1, 2, 3]


async def test_one_that_fails_takes_no_other_along(database: Database) -> None:
    """The others are done again without it; of the bad one nothing stays."""
    good, bad, late = Counted(1), Counted(2, fails=True), Counted(3)

    answers = await asyncio.gather(*(database.run(work) for work in (good, bad, late)), return_exceptions=True)

    assert (answers[0], answers[2]) == (1, 3)
    assert isinstance(answers[1], ValueError)
    assert good.runs == 2
    assert await numbers(database) == [1, 3]


async def test_one_that_is_not_waited_for_holds_up_nobody(database: Database) -> None:
    """It goes on to its end with the others of its transaction."""
    lost, other = asyncio.create_task(database.run(Counted(1))), asyncio.create_task(database.run(Counted(2)))
    await asyncio.sleep(0)
    lost.cancel()

    assert await other == 2
    await database.settled()
    assert await numbers(database) == [1, 2]


async def test_brief_ones_share_a_transaction_and_leave_the_loop_only_to_commit(database: Database) -> None:
    """Done where they stand: the commit alone is left to the thread."""
    works = [Counted(number) for number in (1, 2)]

    answers = await asyncio.gather(*(database.run(work, kind=Kind.BRIEF) for work in works))

    assert answers == [1, 2]
    assert works[0].connection is works[1].connection
    assert {work.thread for work in works} == {threading.get_ident()}
    assert await numbers(database) == [1, 2]


async def test_a_brief_one_that_fails_takes_no_other_along(database: Database) -> None:
    """The others are done again without it; of the bad one nothing stays."""
    good, bad = Counted(1), Counted(2, fails=True)

    answers = await asyncio.gather(
        *(database.run(work, kind=Kind.BRIEF) for work in (good, bad)), return_exceptions=True
    )

    assert answers[0] == 1
    assert isinstance(answers[1], ValueError)
    assert await numbers(database) == [1]


async def test_a_brief_one_lets_the_loop_go_on_while_another_process_writes(database: Database, tmp_path: Path) -> None:
    """It waits in the thread for the other one's commit, which here the loop itself must make."""
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO t VALUES (7)")
    work = Counted(1)
    waiting = asyncio.create_task(database.run(work, kind=Kind.BRIEF))
    for _ in range(100):  # more than it takes to find that it must wait
        await asyncio.sleep(0)
    other.execute("COMMIT")
    other.close()

    assert await waiting == 1
    assert work.thread != threading.get_ident()
    assert await numbers(database) == [1, 7]


async def test_what_is_wanted_during_a_commit_shares_the_next_one(database: Database) -> None:
    """However many turns of the loop lie between them."""
    first = Counted(1)
    begun = asyncio.create_task(database.run(first, kind=Kind.BRIEF))
    for _ in range(100):
        if first.runs:
            break
        await asyncio.sleep(0)
    works = [Counted(number) for number in (2, 3)]
    await asyncio.gather(begun, *(database.run(work, kind=Kind.BRIEF) for work in works))

    assert works[0].connection is works[1].connection is not first.connection
