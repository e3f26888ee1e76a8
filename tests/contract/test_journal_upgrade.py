"""The tables of the durable journals: made, checked, and refused where a person is needed."""

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from tests.contract.journals import NOW, url_of
from tests.support.postgres import PrivatePostgres
from worker.adapters.journal.database import Database
from worker.adapters.journal.memory import MemoryJournal
from worker.adapters.journal.opening import checked_journal
from worker.adapters.journal.tables import metadata
from worker.adapters.journal.upgrading import Standing, check, refuse, upgrade
from worker.core.errors import JournalOutdated, JournalUnavailable, UsageError

LATEST = "0005"
DURABLE = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))


@pytest.fixture(params=DURABLE)
def url(request: pytest.FixtureRequest) -> str:
    return url_of(request.param, request)


@pytest.fixture
async def empty(postgres: PrivatePostgres) -> str:
    """A PostgreSQL database without tables."""
    return await asyncio.to_thread(postgres.create, f"e{NOW}_{id(object())}")


async def told(url: str, statement: str) -> None:
    database = Database(url)
    await database.run(lambda connection: connection.execute(text(statement)).close())
    await database.close()


async def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    """Tables, columns, types and indexes, on both databases."""

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    database = Database(url)
    found = await database.run(differences)
    await database.close()

    assert found == []


async def test_upgrading_twice_is_harmless(url: str) -> None:
    """It says which version is there."""
    assert await upgrade(url) == await upgrade(url) == LATEST
    await check(url)


async def test_a_fresh_file_gets_its_tables_at_start(tmp_path: Path) -> None:
    """Nobody has to prepare a worker with a file of its own; several may start at once."""
    url = f"sqlite:///{tmp_path / 'new.db'}"

    async def start() -> int:
        async with checked_journal(url) as journal:
            return len(await journal.claim([1], wall_us=NOW))

    assert await asyncio.gather(*(start() for _ in range(3))) == [1, 1, 1]


@pytest.mark.postgres
async def test_an_empty_database_is_left_to_a_person(empty: str) -> None:
    """It may be the wrong one. Two upgrades at once wait for each other."""
    with pytest.raises(JournalOutdated, match="order-worker journal upgrade"):
        async with checked_journal(empty):
            pass
    with pytest.raises(JournalOutdated, match="order-worker journal upgrade"):
        await check(empty)

    assert set(await asyncio.gather(upgrade(empty), upgrade(empty))) == {LATEST}
    async with checked_journal(empty) as journal:
        assert await journal.known([1]) == {}


async def test_a_newer_journal_is_refused(sqlite_url: str) -> None:
    """An older program would not know what it must keep; it does not upgrade it either."""
    await told(sqlite_url, "UPDATE alembic_version SET version_num = '9999'")

    for attempt in (check(sqlite_url), upgrade(sqlite_url)):
        with pytest.raises(JournalOutdated, match="newer than this program"):
            await attempt


def test_an_older_journal_needs_the_command() -> None:
    """It is a matter of the person at the keyboard, and the text is the command."""
    with pytest.raises(UsageError, match="older than this program: run `order-worker journal upgrade`"):
        refuse(Standing.BEHIND)


async def test_tables_that_vanish_are_an_outage(sqlite_url: str) -> None:
    """Somebody put another file there: wait and tell, do not crash."""
    async with checked_journal(sqlite_url) as journal:
        await told(sqlite_url, "DROP TABLE orders")
        with pytest.raises(JournalUnavailable, match="no such table"):
            await journal.known([1])


async def test_memory_needs_no_tables() -> None:
    """And no file."""
    async with checked_journal("memory") as journal:
        assert isinstance(journal, MemoryJournal)
