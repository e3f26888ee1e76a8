"""The journal's database goes away, hangs, is busy, or its caller is cancelled: nobody waits for ever, and it comes
back."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.journals import NOW, applied, fresh_id, opened, record_of, url_of
from tests.support.postgres import PrivatePostgres
from worker.adapters.journal.sql import SqlJournal
from worker.adapters.journal.upgrading import upgrade
from worker.core.errors import JournalUnavailable
from worker.core.history import HistoryRow
from worker.core.journal import BatchRecord, OrderOutcome

DEADLINE_S = 1.0
DURABLE = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


@pytest.fixture(params=DURABLE)
def durable_url(request: pytest.FixtureRequest) -> str:
    return url_of(request.param, request)


@pytest.fixture(scope="module")
def mortal() -> Iterator[PrivatePostgres]:
    """A PostgreSQL that the tests of this file may kill."""
    with PrivatePostgres() as server:
        asyncio.run(upgrade(server.create("journal")))
        yield server


@pytest.fixture
async def on_mortal(mortal: PrivatePostgres) -> AsyncIterator[SqlJournal]:
    journal = SqlJournal(mortal.url("journal"), worker="a", deadline_s=DEADLINE_S)
    yield journal
    await journal.close()


async def claims(journal: SqlJournal, order_id: int) -> int:
    return (await journal.claim([order_id], wall_us=NOW))[order_id].revision


@pytest.mark.postgres
async def test_a_killed_server_is_reported_in_time_and_used_again(
    mortal: PrivatePostgres, on_mortal: SqlJournal, no_leaks: None
) -> None:
    """As a power cut would end it; with connections open and calls under way."""
    one = fresh_id()
    await asyncio.gather(*(claims(on_mortal, one) for _ in range(5)))

    mortal.end(signal.SIGKILL)
    started = time.monotonic()
    results = await asyncio.gather(*(claims(on_mortal, one) for _ in range(8)), return_exceptions=True)
    took_s = time.monotonic() - started
    mortal.start()

    assert [type(each) for each in results] == [JournalUnavailable] * 8
    assert took_s < DEADLINE_S + 0.5
    assert await claims(on_mortal, one) == 6


@pytest.mark.postgres
async def test_a_restarted_server_is_not_noticed(mortal: PrivatePostgres, on_mortal: SqlJournal) -> None:
    """The connections of the pool are dead, and nobody has to see that: others take their place."""
    one = fresh_id()
    await asyncio.gather(*(claims(on_mortal, one) for _ in range(5)))
    mortal.end(signal.SIGINT)
    mortal.start()

    row = (await on_mortal.claim([one], wall_us=NOW))[one]
    moved = await on_mortal.record(record_of(one, OrderOutcome(revision=row.revision, applied=applied(1))))

    assert (row.revision, moved) == (6, {})


@pytest.mark.postgres
async def test_a_frozen_server_ends_at_the_deadline(
    mortal: PrivatePostgres, on_mortal: SqlJournal, no_leaks: None
) -> None:
    """Stopped, not dead: connections stay open and nothing answers. Afterwards all is as before."""
    one = fresh_id()
    await claims(on_mortal, one)

    mortal.freeze(frozen=True)
    started = time.monotonic()
    results = await asyncio.gather(*(claims(on_mortal, one) for _ in range(8)), return_exceptions=True)
    took_s = time.monotonic() - started
    mortal.freeze(frozen=False)

    assert [type(each) for each in results] == [JournalUnavailable] * 8
    assert took_s < DEADLINE_S + 0.3
    assert await claims(on_mortal, one) >= 2


@pytest.mark.postgres
@pytest.mark.parametrize("bad", ["no_such_database", "journal?sslmode=require"])
async def test_what_refuses_us_is_unavailable(mortal: PrivatePostgres, bad: str) -> None:
    """It may be mended while we wait; the text names the cause and no password."""
    address = mortal.url(bad).replace("@", ":hunter2-planted@")
    journal = SqlJournal(address, deadline_s=DEADLINE_S)

    with pytest.raises(JournalUnavailable) as refused:
        await journal.known([1])
    await journal.close()

    assert "hunter2-planted" not in str(refused.value)
    assert len(str(refused.value)) > 30


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    """A missing directory, a directory instead of a file."""
    for path in (tmp_path / "missing" / "journal.db", tmp_path):
        journal = SqlJournal(f"sqlite:///{path}", deadline_s=DEADLINE_S)
        with pytest.raises(JournalUnavailable, match="unable to open"):
            await journal.known([1])
        await journal.close()


async def test_a_busy_file_is_waited_for(sqlite_url: str) -> None:
    """Another program writes: we wait for it up to the deadline, and work as soon as it is done."""
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    journal = SqlJournal(sqlite_url, deadline_s=DEADLINE_S)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable, match=r"within 1 s|locked"):
        await claims(journal, 1)
    waiting = asyncio.create_task(claims(journal, 1))
    await asyncio.sleep(0)

    other.execute("COMMIT")
    revision = await waiting
    await journal.close()
    other.close()

    assert revision in (1, 2)


async def test_closing_is_harmless_at_any_time(sqlite_url: str, no_leaks: None) -> None:
    """Twice, without use, with work under way; what is under way is done."""
    unused = SqlJournal(sqlite_url)
    await unused.close()
    used = SqlJournal(sqlite_url)
    working = asyncio.create_task(claims(used, 1))
    await asyncio.sleep(0)
    await used.close()
    await used.close()

    assert await working == 1


async def test_faults_of_ours_are_no_outage(durable_url: str) -> None:
    """A wrong value is a bug: it is raised as it is, because no waiting would mend it."""
    async with opened(durable_url, "a") as [journal]:
        broken = HistoryRow(at_us=2**70, disposition="ack", reason="applied", order_id=1)
        with pytest.raises(Exception) as raised:  # noqa: PT011 - each driver has its own
            await journal.record(BatchRecord(wall_us=NOW, history=[broken]))

    assert not isinstance(raised.value, JournalUnavailable)


# -- cancellation -----------------------------------------------------------------------------------------------------


async def a_batch(journal: SqlJournal, order_id: int) -> None:
    """Claim, record, read: everything that waits."""
    row = (await journal.claim([order_id], wall_us=NOW))[order_id]
    history = [HistoryRow(at_us=NOW, disposition="ack", reason="applied", order_id=order_id)]
    outcome = OrderOutcome(revision=row.revision, applied=applied(1))
    await journal.record(BatchRecord(wall_us=NOW, orders={order_id: outcome}, history=history))
    await journal.history(order_id)


async def cut(journal: SqlJournal, order_id: int, turns: int) -> bool:
    """Cancel a batch after so many turns of the loop. False: it ended before."""
    working = asyncio.create_task(a_batch(journal, order_id))
    for _ in range(turns):
        if working.done():
            break
        await asyncio.sleep(0)
    ended = not working.cancel()
    await asyncio.wait({working})
    return not ended


@pytest.mark.parametrize("start", range(3))
async def test_cancelled_at_every_await_it_is_as_good_as_before(durable_url: str, start: int, no_leaks: None) -> None:
    """All or nothing of each transaction, and the next batch finds a journal that works."""
    async with opened(durable_url, "a") as [journal]:
        assert isinstance(journal, SqlJournal)
        turns = start
        while await cut(journal, one := fresh_id(), turns):
            await journal.database.settled()  # what was under way goes on by itself
            rows = await journal.history(one)
            found = (await journal.known([one])).get(one, {})
            assert found == (applied(1) if rows else {}), f"cut after {turns} turns"
            await a_batch(journal, one)
            turns += 3

    assert turns > 20
