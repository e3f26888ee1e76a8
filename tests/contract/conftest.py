"""Fixtures of the journals' contracts."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.contract.journals import KINDS, AnyJournal, Pair, fresh_id, opened, url_of
from tests.support.postgres import PrivatePostgres


@pytest.fixture(params=KINDS)
def journal_url(request: pytest.FixtureRequest) -> str:
    """A journal of each kind; not asynchronous, because making a database runs a loop of its own."""
    return url_of(request.param, request)


@pytest.fixture(params=KINDS)
def own_url(request: pytest.FixtureRequest) -> str:
    """A journal that the test has for itself: for what looks at all rows."""
    if request.param != "postgres":
        return url_of(request.param, request)
    request.getfixturevalue("postgres_url")
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return server.create(f"t{uuid4().hex}", like="empty_journal")


@pytest.fixture
async def own(own_url: str) -> AsyncIterator[AnyJournal]:
    """One worker on a journal of the test's own."""
    async with opened(own_url, "a") as [made]:
        yield made


@pytest.fixture
async def pair(journal_url: str) -> AsyncIterator[Pair]:
    """Two workers, a and b, on one journal."""
    async with opened(journal_url, "a", "b") as [a, b]:
        yield Pair(a, b)


@pytest.fixture
def one() -> int:
    """An order that no other test has, and 999 behind it."""
    return fresh_id()
