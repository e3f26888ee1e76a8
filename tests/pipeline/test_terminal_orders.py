"""Orders that the journal knows to be over: what would change their status is a dead letter, and is never sent."""

from tests.pipeline.world import World
from worker.core.model import AckReason, Properties
from worker.core.times import format_time

CANCELLED = 128


def event(order_id: int, at_s: int, **fields: object) -> dict[str, object]:
    return {"id": order_id, "occurred_at": format_time(at_s * 1_000_000), **fields}


async def dead_details(world: World) -> list[tuple[str, str]]:
    headers = [copy.properties.headers for copy in world.queue.dead]
    return [(each["ow-reason"], each["ow-detail"]) for each in headers]


async def test_an_update_behind_a_terminal_status_is_dead_without_a_call(no_leaks: None) -> None:
    """Cancelled, then In Production: the platform never hears of it; the carrier that came along with another event
    is sent."""
    async with World(milestones=[CANCELLED]) as world:
        world.may_step_back = True
        await world.start()
        world.publish_raw(event(1, 10, status=CANCELLED))
        await world.until_settled()
        world.publish_raw(event(1, 20, status=4))
        world.publish_raw(event(1, 30, shipping_carrier="DPD"))
        world.publish_raw(event(1, 40, status=CANCELLED))
        world.publish_raw(event(1, 5, status=8))
        await world.until_settled()
        ((reason, detail),) = await dead_details(world)

        assert reason == "terminal-order"
        assert "terminal status 128," in detail
        assert world.platform.values[1] == {"status": CANCELLED, "shipping_carrier": "DPD"}
        assert world.fates() == {AckReason.APPLIED: 3, AckReason.SUPERSEDED: 1, "Dead": 1}


async def test_a_terminal_status_and_what_follows_it_in_one_breath(no_leaks: None) -> None:
    """Both were buffered before anything was applied: the terminal one goes first, and then it holds."""
    async with World(milestones=[CANCELLED]) as world:
        await world.start()
        world.publish_raw(event(1, 10, status=CANCELLED))
        world.publish_raw(event(1, 20, status=4))
        await world.until_settled()

        assert world.platform.values[1] == {"status": CANCELLED}
        assert [reason for reason, _ in await dead_details(world)] == ["terminal-order"]


async def test_a_storm_of_them_waits_for_a_person(no_leaks: None) -> None:
    """Everything was cancelled by mistake, and production goes on: they count before they are dead-lettered."""
    async with World(storm_ratio=0.5, milestones=[CANCELLED]) as world:
        await world.start()
        for order_id in range(1, 41):
            world.publish_raw(event(order_id, 10, status=CANCELLED))
        await world.until_settled()
        for number in range(4):
            for order_id in range(1, 41):
                world.publish_raw(event(order_id, 20 + number, status=4))
        await world.until(lambda: world.pipeline.activity.reason == "storm")
        await world.advance(60.0)

        assert 0 < len(world.queue.dead) < 160
        assert len(world.queue.dead) + len(world.queue.ready) == 160


async def test_a_replay_that_allows_it_changes_the_status(no_leaks: None) -> None:
    """The header of the replay reaches the decision."""
    async with World(milestones=[CANCELLED]) as world:
        world.may_step_back = True
        await world.start()
        world.publish_raw(event(1, 10, status=CANCELLED))
        await world.until_settled()
        body = b'{"id": 1, "status": 4, "occurred_at": "1970-01-01T00:00:20Z"}'
        world.queue.publish(body, Properties(message_id="again", headers={"ow-allow-terminal": True}))
        await world.until_settled()

        assert world.platform.values[1] == {"status": 4}
        assert world.queue.dead == []
