"""A message that kills the worker each time it is handled, on the real broker, with low thresholds."""

from pathlib import Path

import pytest

from tests.support.world import World, stamped
from worker.adapters.privatebroker import PrivateBroker

pytestmark = pytest.mark.broker

DEADLY = 666
MATES = 30
BEHIND = 10
ALONE_FROM, CRASH_SUSPECT_FROM = 2, 4


@pytest.mark.timeout(120)
async def test_a_message_that_kills_the_worker_ends_as_a_dead_letter_and_takes_nobody_along(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    """As many deaths as the threshold says, one dead letter; what was in its prefetch or came behind is applied."""
    before = [stamped(number, 8) for number in range(1, MATES + 1)]
    behind = [stamped(number, 8) for number in range(1001, 1001 + BEHIND)]
    program = ("tests.support.mortal", str(DEADLY), str(ALONE_FROM), str(CRASH_SUSPECT_FROM))
    async with World(broker, tmp_path) as world:
        await world.publish([*before[: MATES // 2], stamped(DEADLY, 8), *before[MATES // 2 :]])
        for life in range(CRASH_SUSPECT_FROM):
            worker = await world.launch(program=program)
            assert await worker.ended() == 1, f"life {life} did not meet it:\n{worker.output}"
        worker = await world.launch(program=program)
        await world.publish(behind)
        (letter,) = await world.until_dead(1)
        await world.until_applied({event["id"]: 8 for event in (*before, *behind)})

        assert await worker.terminate() == 0
        assert (len(world.dead), await world.leftover(), world.status(DEADLY)) == (1, 0, 1)
    assert letter.headers["ow-reason"] == "crash-suspect"
    assert f"came back {CRASH_SUSPECT_FROM} times" in letter.headers["ow-detail"]
    assert letter.headers["ow-routing-key"] == str(DEADLY)
