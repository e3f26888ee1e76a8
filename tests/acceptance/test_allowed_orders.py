"""Going live with a list of orders: who is refused, who is sent, and how the others come back."""

from pathlib import Path

import pytest

from tests.support.deadworld import DeadWorld
from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker


async def test_a_list_without_a_place_for_others_ends_with_exit_code_2_and_leaves_the_queue(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """Said before anything is connected; every event still waits."""
    async with World(broker, tmp_path) as world:
        await world.publish([stamped(1, 4), stamped(2, 4)])
        worker = await world.launch(ALLOW_ORDERS="1")

        assert await worker.ended() == 2
        assert "ORDER_WORKER_ALLOW_ORDERS, ORDER_WORKER_OTHERS: only some orders may be sent" in worker.output
        assert "Traceback" not in worker.output
        assert not worker.heard("broker.connected")
        assert world.all_calls == 0
        assert await world.leftover() == 2


async def test_others_are_dead_letters_that_come_back_once_they_are_allowed(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """While the list holds, a replay's plan says that they would return; without it they are sent, newest last."""
    async with DeadWorld(broker, tmp_path) as world:
        url = f"sqlite:///{tmp_path / 'journal.db'}"
        first = await world.start(JOURNAL_URL=url, ALLOW_ORDERS="8001", OTHERS="dead-letter")
        others = range(8002, 8032)
        await world.publish([stamped(8001, 4), *(stamped(order_id, 4) for order_id in others), stamped(8002, 8)])
        await world.until_applied({8001: 4})
        await world.until_there(31)
        told = first.heard("worker.restricted")
        yard = world.yard(url)
        barred = await yard.json(ALLOW_ORDERS="8001", OTHERS="dead-letter")
        assert await first.terminate() == 0
        assert {order_id for call in world.calls for order_id in call.order_ids} == {8001}

        await world.start(JOURNAL_URL=url)
        plan = await yard.json()
        done = await yard.json("--yes", "--reason", "not-allowed")
        await world.until_applied({**dict.fromkeys(others, 4), 8002: 8})
        await world.until_there(0)

        assert told[0]["orders"] == 1
        assert not first.heard("storm.paused")
        assert (barred["returns"], barred["apply"]) == (31, 0)
        assert plan["returns"] == 0
        assert done["states"]["moved"] + done["states"].get("superseded", 0) == 31
