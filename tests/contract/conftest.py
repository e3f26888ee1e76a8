"""Fixtures of the journals' contracts."""

from collections.abc import AsyncIterator

import pytest

from tests.contract.journals import KINDS, Pair, fresh_id, opened, url_of


@pytest.fixture(params=KINDS)
def journal_url(request: pytest.FixtureRequest) -> str:
    """A journal of each kind; not asynchronous, because making a database runs a loop of its own."""
    return url_of(request.param, request)


@pytest.fixture
async def pair(journal_url: str) -> AsyncIterator[Pair]:
    """Two workers, a and b, on one journal."""
    async with opened(journal_url, "a", "b") as [a, b]:
        yield Pair(a, b)


@pytest.fixture
def one() -> int:
    """An order that no other test has, and 999 behind it."""
    return fresh_id()
