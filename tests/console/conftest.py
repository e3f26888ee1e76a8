"""Fixtures that several modules share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.console.guarded import Guarded, guarded_at
from tests.support.broker import Outside
from tests.support.graveyard import Graveyard, sqlite_at
from tests.support.replaystage import dead_letter
from tests.support.tool import Tool
from worker.adapters.amqp.topology import Topology
from worker.adapters.privatebroker import PrivateBroker


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    """Kim operates, Vic only looks."""
    async with guarded_at(tmp_path) as found:
        yield found


@pytest.fixture
async def yard(broker: PrivateBroker, outside: Outside, queues: Topology, tmp_path: Path) -> Graveyard:
    """A queue with twelve letters, and their index in a file."""
    tool = Tool(tmp_path, broker.url, queues)
    found = Graveyard(outside=outside, tool=tool, queue=queues.dead_queue, journal_url=sqlite_at(tmp_path))
    tool.use({"JOURNAL_URL": found.journal_url})
    await found.bury([dead_letter(order_id) for order_id in range(1, 13)])
    return found
