"""Fixtures of the tests in a browser. All tests share one Chromium, so they share one event loop, and whatever is
asynchronous around them has to live on it too: fixtures of other folders are given again here.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.console.conftest import yard_at
from tests.console.guarded import Guarded, guarded_at
from tests.support.broker import Outside
from tests.support.chromium import chromium
from tests.support.graveyard import Graveyard
from worker.adapters.amqp.declaring import declare
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker

LOOP: Final = "session"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder runs on the loop of its browser, and the first one may have to install that."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.asyncio(loop_scope=LOOP), append=False)
            item.add_marker(pytest.mark.timeout(360))


@pytest_asyncio.fixture(scope="session", loop_scope=LOOP)
async def chrome() -> AsyncIterator[Browser]:
    """Debian's Chromium; everybody in front of it has a profile of their own (``person_at``)."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope=LOOP)
async def outside(broker: PrivateBroker) -> AsyncIterator[Outside]:
    """A connection of the test's own, past any proxy."""
    person = await Outside.connect(broker.url)
    yield person
    await person.close()


@pytest_asyncio.fixture(loop_scope=LOOP)
async def queues(outside: Outside, names: Topology) -> Topology:
    """The topology of ``names``, declared."""
    await declare(outside.connection, names)
    return names


@pytest_asyncio.fixture(loop_scope=LOOP)
async def yard(broker: PrivateBroker, outside: Outside, queues: Topology, tmp_path: Path) -> Graveyard:
    """A queue with twelve letters, and their index in a file."""
    return await yard_at(broker, outside, queues, tmp_path)


@pytest_asyncio.fixture(loop_scope=LOOP)
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    """Kim operates, Vic only looks."""
    async with guarded_at(tmp_path) as found:
        yield found
