"""A delivery that came back again and again without a decision is given up before it is touched."""

import pytest

from tests.pipeline.world import World
from worker.core.model import AckReason, Dead, Reason


@pytest.mark.parametrize("body", [b'{"id": 1, "status": 4}', b"not JSON"])
async def test_what_came_back_50_times_is_dead_lettered_unread(world: World, body: bytes) -> None:
    """Neither decoded nor sent: either may be what kills the process. The others go on."""
    world.publish_raw(body)
    world.queue.ready[-1].handed_over = 50
    mate = world.publish(2, 1)
    await world.start()
    await world.until_settled()

    fates = {number: settlement.disposition for number, settlement in world.queue.acked.items()}
    dead = fates.pop(1)
    assert isinstance(dead, Dead)
    assert dead.reason is Reason.CRASH_SUSPECT
    assert "came back 50 times" in dead.detail
    assert list(fates) == [mate]
    assert world.platform.sent == [[2]]


async def test_what_came_back_49_times_gets_its_chance(world: World) -> None:
    """Deploys and restarts of the broker count like crashes."""
    world.publish(1, 1)
    world.queue.ready[-1].handed_over = 49
    await world.start()
    await world.until_settled()

    assert world.fates() == {AckReason.APPLIED: 1}
