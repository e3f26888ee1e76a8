"""Pauses that only a person ends: pause and resume by hand, and the storm guard."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from tests.pipeline.fakes import AWAY
from tests.pipeline.world import World
from tests.support.modelplatform import Refusal
from worker.core.breaker import Mode
from worker.core.model import AckReason

Logs = list[MutableMapping[str, Any]]


@pytest.fixture
async def guarded(no_leaks: None) -> AsyncIterator[World]:
    """A worker with the usual storm guard."""
    async with World(storm_ratio=0.5) as made:
        yield made


def reasons(world: World) -> tuple[str, str | None]:
    activity = world.pipeline.activity
    return activity.mode, activity.reason


async def test_pause_hands_everything_back_and_stays_until_resume(world: World) -> None:
    """Unsettled messages go back; hours later nothing was called; after the resume all is applied."""
    await world.start()
    world.platform.gate.clear()
    world.publish(1, 1)
    await world.until(lambda: world.platform.sent)
    await world.pipeline.availability.pause("maintenance")
    world.platform.gate.set()
    world.publish(2, 1)
    await world.advance(0.5)
    calls = len(world.platform.calls)
    await world.advance(7200.0)

    assert not world.intake.channel_open
    assert len(world.queue.ready) == 2
    assert len(world.platform.calls) == calls
    assert reasons(world) == ("paused", "manual")
    assert world.pipeline.activity.detail.startswith("maintenance (paused by worker since 2026-")
    assert await world.pipeline.availability.resume_by_hand()
    await world.until_settled()
    assert world.fates().total() == 2
    assert reasons(world) == ("running", None)


async def test_pause_and_resume_twice_are_harmless(world: World, logs: Logs) -> None:
    """The second resume says that there was nothing to end."""
    await world.start()
    await world.pipeline.availability.pause("a")
    await world.pipeline.availability.pause("b")
    assert world.pipeline.activity.detail.startswith("b (")
    first = await world.pipeline.availability.resume_by_hand()
    second = await world.pipeline.availability.resume_by_hand()
    world.publish(1, 1)
    await world.until_settled()

    assert (first, second) == (True, False)
    assert [line["event"] for line in logs if line["event"] == "worker.resumed"] == ["worker.resumed"]


async def test_resume_does_not_end_an_outage(world: World) -> None:
    """Probing does; a person cannot."""
    await world.start()
    world.platform.down = AWAY
    world.publish(1, 1)
    await world.until(lambda: world.holding)

    assert not await world.pipeline.availability.resume_by_hand()
    assert world.holding
    world.platform.down = None
    await world.until_settled()


async def test_a_pause_during_an_outage_ends_the_probing_and_resume_takes_it_up(world: World) -> None:
    """Nobody asks the platform while a person wants quiet; afterwards it recovers by itself as ever."""
    await world.start()
    world.platform.down = AWAY
    world.publish(1, 1)
    await world.until(lambda: world.holding)
    await world.pipeline.availability.pause("quiet")
    await world.advance(10.0)
    calls = len(world.platform.calls)
    await world.advance(3600.0)
    assert len(world.platform.calls) == calls
    assert await world.pipeline.availability.resume_by_hand()
    assert world.holding
    await world.until(lambda: len(world.platform.calls) > calls)
    world.platform.down = None
    await world.until_settled()

    assert world.fates() == {AckReason.APPLIED: 1}


async def test_an_accepted_probe_does_not_end_a_pause_by_hand(world: World) -> None:
    """The probe was on its way when the person paused."""
    await world.start()
    world.platform.down = AWAY
    world.publish(1, 1)
    await world.until(lambda: world.holding)
    world.platform.down = None
    world.platform.gate.clear()
    calls = len(world.platform.calls)
    await world.until(lambda: len(world.platform.calls) > calls)
    await world.pipeline.availability.pause("quiet")
    world.platform.gate.set()
    await world.advance(60.0)

    assert reasons(world) == ("paused", "manual")
    assert not world.intake.channel_open
    assert await world.pipeline.availability.resume_by_hand()
    assert world.breaker.mode is Mode.RUNNING
    await world.until_settled()


async def test_a_worker_paused_before_it_begins_does_not_consume(world: World) -> None:
    """The admin interface answers before the broker is connected."""
    await world.pipeline.availability.pause("not yet")
    world.publish(1, 1)
    world.task = asyncio.create_task(world.pipeline.run(), name="pipeline")
    await world.advance(100.0)

    assert world.intake.generation == 0
    assert await world.pipeline.availability.resume_by_hand()
    await world.until_settled()
    assert world.fates() == {AckReason.APPLIED: 1}


async def test_a_paused_worker_stops_at_once(world: World) -> None:
    """There is nothing to wait for."""
    await world.start()
    await world.pipeline.availability.pause("quiet")
    world.publish(1, 1)

    assert await world.stop() < 1.0
    assert not await world.pipeline.availability.resume_by_hand()


async def test_a_storm_of_invalid_events_pauses_before_the_dead_letters_pile_up(guarded: World, logs: Logs) -> None:
    """Fewer than 20 get through; the rest is the broker's again, and no time heals it."""
    await guarded.start()
    for _ in range(30):
        guarded.publish_raw(b"not json")
    await guarded.until(lambda: guarded.paused and not guarded.intake.channel_open)
    await guarded.advance(3600.0)

    assert len(guarded.queue.dead) < 20
    assert len(guarded.queue.dead) + len(guarded.queue.ready) == 30
    assert reasons(guarded) == ("paused", "storm")
    assert [line["event"] for line in logs if line["event"] == "storm.paused"] == ["storm.paused"]
    assert await guarded.pipeline.availability.resume_by_hand()
    await guarded.until_settled()
    assert len(guarded.queue.dead) == 30


async def test_a_storm_of_rejections_pauses_and_keeps_the_good_ones(guarded: World) -> None:
    """The platform's refusals count like invalid events; what is applied is acknowledged meanwhile."""
    guarded.platform.model.refuses = lambda order_id, _fields: order_id <= 40
    guarded.platform.model.how = Refusal.PATH
    await guarded.start()
    for order_id in range(1, 46):
        guarded.publish(order_id, 1)
    await guarded.until(lambda: guarded.paused and not guarded.intake.channel_open, 300.0)

    assert reasons(guarded) == ("paused", "storm")
    assert len(guarded.queue.dead) < 40
    assert len(guarded.queue.dead) + len(guarded.queue.ready) + guarded.fates()[AckReason.APPLIED] == 45


async def test_few_bad_events_among_many_good_ones_are_no_storm(guarded: World) -> None:
    """40 bad ones among 200: each is dead-lettered, nothing pauses."""
    await guarded.start()
    for number in range(200):
        if number % 5 == 0:
            guarded.publish_raw(b"not json")
        else:
            guarded.publish(number, 1)
    await guarded.until_settled()

    assert len(guarded.queue.dead) == 40
    assert guarded.intake.releases == 0


async def test_a_resume_that_comes_at_once_still_gets_the_withheld_ones_back(guarded: World) -> None:
    """They were decided already; only a new delivery decides them anew."""
    await guarded.start()
    for _ in range(25):
        guarded.publish_raw(b"not json")
    await guarded.until(lambda: guarded.breaker.by_hand)
    assert await guarded.pipeline.availability.resume_by_hand()
    await guarded.until_settled()

    assert len(guarded.queue.dead) == 25


async def test_a_storm_during_a_drain_hands_the_rest_back(guarded: World) -> None:
    """The guard holds to the last moment."""
    await guarded.start()
    for _ in range(30):
        guarded.publish_raw(b"not json")
    await guarded.until(lambda: guarded.pipeline.counts["delivered"] == 30)
    await guarded.stop()

    assert len(guarded.queue.dead) < 20
    assert len(guarded.queue.dead) + len(guarded.queue.ready) == 30
