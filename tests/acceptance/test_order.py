"""``order-worker order``: the story of one order, told by the journal that the worker wrote."""

import json
from pathlib import Path

import pytest

from tests.support.broker import unique_topology
from tests.support.tool import Tool
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

JOURNAL = "sqlite:///journal.db"
BAD = 66


async def test_the_timeline_of_an_order_has_every_event_and_what_became_of_it(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """Applied, too late, refused: a row each, and the values that stand; as JSON and for people."""
    async with World(broker, tmp_path) as world:
        world.set_options(rejected_values={"status": {str(BAD): "no such status"}})
        worker = await world.start(JOURNAL_URL=JOURNAL)
        await world.publish([stamped(1, 5)])
        await world.until_applied({1: 5})
        await world.publish([stamped(1, 3)])
        await world.publish([stamped(1, BAD)])
        await world.until_dead(1)
        assert await worker.terminate() == 0
    tool = Tool(tmp_path, broker.url, unique_topology())
    told, shown = (
        await tool.run("order", "1", "--json", JOURNAL_URL=JOURNAL),
        await tool.run("order", "1", JOURNAL_URL=JOURNAL),
    )
    story = json.loads(told.stdout)

    assert told.code == shown.code == 0
    assert {(event["outcome"], event["reason"], event["fields"]["status"]) for event in story["events"]} == {
        ("ack", "applied", 5),
        ("ack", "superseded", 3),
        ("dead", "rejected", BAD),
    }
    assert story["known"]["status"]["value"] == 5
    assert "dead rejected" in shown.stdout
    assert "status is 5" in shown.stdout


async def test_an_order_that_nobody_saw_is_exit_code_1(broker: PrivateBroker, tmp_path: Path) -> None:
    """And says so."""
    done = await Tool(tmp_path, broker.url, unique_topology()).run("order", "9", JOURNAL_URL=JOURNAL)

    assert (done.code, done.stdout) == (1, "the journal knows nothing of order 9\n")


async def test_a_journal_in_memory_has_nothing_to_look_at(broker: PrivateBroker, tmp_path: Path) -> None:
    """The message says what to set."""
    done = await Tool(tmp_path, broker.url, unique_topology()).run("order", "9", JOURNAL_URL="memory")

    assert done.code == 2
    assert "ORDER_WORKER_JOURNAL_URL" in done.stderr
