"""No delivery stays unsettled longer than MAX_UNSETTLED_S, whatever the cause: then everything goes back at once."""

from collections.abc import MutableMapping
from typing import Any

import pytest

from tests.pipeline.fakes import AWAY
from tests.pipeline.world import World
from tests.support.modelplatform import ModelPlatform
from worker.core.model import AckReason, Dead
from worker.core.report import Reply

LIMIT_S = 60.0


async def test_a_delivery_that_cannot_be_settled_makes_the_worker_hand_back(
    logs: list[MutableMapping[str, Any]],
) -> None:
    """A copy fails for a minute: everything is released, said so as a pause, and consumed again."""
    async with World(max_unsettled_s=LIMIT_S, hold_limit_s=20.0) as world:
        await world.start()
        world.settler.refuses = lambda settlement: isinstance(settlement.disposition, Dead)
        world.publish_raw(b"poison")
        began = world.now
        await world.until(lambda: world.intake.releases == 1, LIMIT_S + 1.0)
        took_s = world.now - began
        world.settler.refuses = lambda _: False
        await world.until_settled(10.0)

        assert took_s == pytest.approx(LIMIT_S, abs=0.5)
        assert world.intake.generation == 2
        assert len(world.queue.dead) == 1
        assert [line["event"] for line in logs if line["event"].startswith("platform.")] == [
            "platform.paused",
            "platform.recovered",
        ]


async def test_the_limit_holds_while_a_retry_after_is_sat_out() -> None:
    """Old deliveries and a new wait: each below its own limit, together too long. Nobody spins meanwhile."""
    async with World(max_unsettled_s=LIMIT_S, hold_limit_s=50.0) as world:
        await world.start()
        world.settler.refuses = lambda settlement: isinstance(settlement.disposition, Dead)
        world.publish_raw(b"poison")
        await world.advance(30.0)
        world.platform.script.append(Reply(status=429, retry_after="45"))
        world.publish(1, 1)
        began = world.now
        await world.until(lambda: world.intake.releases == 1, 40.0)
        world.settler.refuses = lambda _: False
        took_s = world.now - began
        await world.until_settled(60.0)

        assert took_s == pytest.approx(30.0, abs=0.5)
        assert world.fates() == {AckReason.APPLIED: 1, "Dead": 1}


async def test_the_limit_holds_for_suspects() -> None:
    """An order that was refused waits for a witness that never comes: it goes back as well."""
    model = ModelPlatform(lambda order_id, _fields: order_id == 1, takes_empty=False)
    async with World(model=model, max_unsettled_s=LIMIT_S, hold_limit_s=20.0) as world:
        await world.start()
        world.publish(2, 1)
        await world.until_settled()
        world.publish(1, 1)
        await world.until(lambda: world.intake.releases == 1, LIMIT_S + 1.0)
        model.refuses = lambda _order_id, _fields: False
        await world.until_settled(60.0)

        assert world.fates() == {AckReason.APPLIED: 2}


async def test_a_drain_with_an_overdue_delivery_does_not_spin() -> None:
    """The limit passes while the worker drains: it waits for the grace, and hands back."""
    async with World(max_unsettled_s=LIMIT_S, hold_limit_s=20.0) as world:
        await world.start()
        world.settler.refuses = lambda settlement: isinstance(settlement.disposition, Dead)
        world.publish_raw(b"poison")
        await world.advance(50.0)
        took_s = await world.stop()

        assert took_s == pytest.approx(25.0, abs=0.5)
        assert len(world.queue.ready) == 1


async def test_a_release_for_age_in_an_outage_is_the_only_one() -> None:
    """Paused is paused: nothing is unsettled any more, so nothing gets old."""
    async with World(max_unsettled_s=LIMIT_S, hold_limit_s=20.0) as world:
        await world.start()
        world.platform.down = AWAY
        world.publish(1, 1)
        await world.advance(500.0)
        releases = world.intake.releases
        world.platform.down = None
        await world.until_settled(10.0)

        assert releases == 1
