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
    return await yard_at(broker, outside, queues, tmp_path)


async def yard_at(broker: PrivateBroker, outside: Outside, queues: Topology, folder: Path) -> Graveyard:
    """Twelve letters in the dead-letter queue; the files of the command line and the index are in the folder."""
    tool = Tool(folder, broker.url, queues)
    found = Graveyard(outside=outside, tool=tool, queue=queues.dead_queue, journal_url=sqlite_at(folder))
    tool.use({"JOURNAL_URL": found.journal_url})
    await found.bury([dead_letter(order_id) for order_id in range(1, 13)])
    return found
