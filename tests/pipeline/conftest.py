"""Every test of this folder runs in virtual time."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.pipeline.world import World
from tests.support.virtualtime import VirtualTimeLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], VirtualTimeLoop]]:
    """Hook of pytest-asyncio, for this folder only."""
    return {"virtual": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What the worker says."""
    with capture_logs() as lines:
        yield lines


@pytest.fixture
async def world(no_leaks: None) -> AsyncIterator[World]:
    """A worker with the usual limits; the test starts it. In the end it is stopped, and the books are looked at."""
    async with World() as made:
        yield made
