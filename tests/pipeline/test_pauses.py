"""Pauses that hold for all workers of a queue: two workers and one journal, and a worker that is started again."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest

from tests.pipeline.world import World
from worker.core.history import PauseKind
from worker.core.model import AckReason
from worker.pausing import PAUSES_EVERY_S, SHARED_WITHIN_S

QUEUE = "order-updates.work"
Logs = list[MutableMapping[str, Any]]
SOON = PAUSES_EVERY_S + 0.5


@pytest.fixture
async def two(no_leaks: None) -> AsyncIterator[tuple[World, World]]:
    """Two workers that consume."""
    async with World(name="one", storm_ratio=0.5) as one, World(name="two", beside=one) as two:
        await one.start()
        await two.start()
        yield one, two
        one.journal.away = False
        for each in (one, two):
            if each.task is not None:
                await each.stop()


def reason(world: World) -> str | None:
    return world.pipeline.activity.reason


async def test_a_pause_at_one_worker_pauses_all_and_names_who_paused(two: tuple[World, World]) -> None:
    """The other one hands everything back at its next look, and says why, by whom and since when."""
    one, other = two
    await one.pipeline.availability.pause("maintenance")
    assert reason(one) == "manual"
    await other.until(lambda: reason(other) == "manual", SOON)
    await other.until(lambda: not other.intake.channel_open)

    assert other.pipeline.activity.detail == one.pipeline.activity.detail
    assert other.pipeline.activity.detail.startswith("maintenance (paused by one since 2026-11-21T")


@pytest.mark.parametrize("at", [0, 1])
async def test_resume_at_any_worker_ends_it_for_all(two: tuple[World, World], at: int, logs: Logs) -> None:
    """Where it was begun, or at the other one."""
    one, other = two
    await one.pipeline.availability.pause("maintenance")
    await other.until(lambda: reason(other) == "manual", SOON)
    assert await two[at].pipeline.availability.resume_by_hand()
    await two[1 - at].until(lambda: reason(two[1 - at]) is None, SOON)
    for each in two:
        each.publish(1, 1)
        await each.until_settled(10.0)

    assert [each.fates() for each in two] == [{AckReason.APPLIED: 1}] * 2
    assert sum(line["event"] == "worker.resumed" for line in logs) == 2
    assert list(await one.journal.pauses(QUEUE)) == []


async def test_a_storm_at_one_worker_pauses_all(two: tuple[World, World]) -> None:
    """The events are the same everywhere: the next consumer must not go on with it."""
    one, other = two
    for _ in range(30):
        one.publish_raw(b"not json")
    await other.until(lambda: reason(other) == "storm", 10.0)

    assert "dead letters" in other.pipeline.activity.detail
    assert "paused by one" in other.pipeline.activity.detail
    assert [each.kind for each in await one.journal.pauses(QUEUE)] == [PauseKind.STORM]
    assert await other.pipeline.availability.resume_by_hand()
    await one.until(lambda: len(one.queue.dead) == 30, 10.0)


async def test_a_worker_that_is_started_again_stays_paused(no_leaks: None, logs: Logs) -> None:
    """Not one message is consumed; readiness and log say so; a resume there ends it."""
    async with World(name="first") as first:
        await first.start()
        await first.pipeline.availability.pause("overnight")
    async with World(name="second", before=first) as second:
        second.publish(1, 1)
        second.task = asyncio.create_task(second.pipeline.run(), name="pipeline")
        await second.advance(3600.0)

        assert second.intake.generation == 0
        assert reason(second) == "manual"
        assert "paused by first" in second.pipeline.activity.detail
        assert [line["event"] for line in logs if "paused" in line["event"]] == ["worker.paused"] * 2
        assert await second.pipeline.availability.resume_by_hand()
        await second.until_settled(10.0)


async def test_a_journal_that_is_away_does_not_keep_anybody_from_pausing(two: tuple[World, World]) -> None:
    """At once here; the others follow when the journal is back."""
    one, other = two
    one.journal.away = True
    began = one.now
    await one.pipeline.availability.pause("now")
    took_s = one.now - began
    assert not one.intake.channel_open
    assert took_s <= SHARED_WITHIN_S + 1.0
    await other.advance(60.0)
    assert (reason(one), reason(other)) == ("manual", None)
    one.journal.away = False
    await other.until(lambda: reason(other) == "manual", 2 * SOON)

    assert reason(one) == "manual"


async def test_a_journal_that_is_away_does_not_keep_anybody_from_resuming(two: tuple[World, World]) -> None:
    """Here at once; what the row still says when the journal comes back is not taken for a new pause."""
    one, other = two
    await one.pipeline.availability.pause("a while")
    await other.until(lambda: reason(other) == "manual", SOON)
    one.journal.away = True
    assert await one.pipeline.availability.resume_by_hand()
    await one.advance(60.0)
    assert (reason(one), reason(other)) == (None, "manual")
    one.journal.away = False
    await other.until(lambda: reason(other) is None, 2 * SOON)
    await one.advance(60.0)

    assert reason(one) is None


async def test_a_pause_and_resume_before_the_journal_answers_leave_nothing_behind(two: tuple[World, World]) -> None:
    """The last word counts, and no row is left of what was over before it was written."""
    one, other = two
    one.journal.away = True
    await one.pipeline.availability.pause("oh")
    await one.pipeline.availability.resume_by_hand()
    one.journal.away = False
    await one.advance(10.0)

    assert list(await one.journal.pauses(QUEUE)) == []
    assert (reason(one), reason(other)) == (None, None)


async def test_nothing_is_consumed_before_the_pauses_are_known(world: World) -> None:
    """The journal went away between its check and the start: the worker says so and begins by itself."""
    world.journal.away = True
    world.publish(1, 1)
    world.task = asyncio.create_task(world.pipeline.run(), name="pipeline")
    await world.advance(60.0)
    before = world.intake.generation, reason(world)
    world.journal.away = False
    await world.until_settled(10.0)

    assert before == (0, "journal")


async def test_a_worker_that_waits_for_the_pauses_can_be_stopped(world: World) -> None:
    """There is nothing to drain."""
    world.journal.away = True
    world.task = asyncio.create_task(world.pipeline.run(), name="pipeline")
    await world.advance(10.0)

    assert await world.stop() < 1.0


async def test_the_journal_is_asked_seldom_whatever_the_load(world: World) -> None:
    """One look every two seconds, none for a message."""
    await world.start()
    looks = world.journal.looks
    for number in range(1, 501):
        world.publish(number, 1)
        await world.advance(0.02)

    assert world.journal.looks - looks <= 10.0 / PAUSES_EVERY_S + 1


async def test_the_log_tells_once_that_the_pauses_are_unknown(world: World, logs: Logs) -> None:
    """An outage of the journal is one line, not one every two seconds."""
    await world.start()
    for _ in range(2):
        world.journal.away = True
        await world.advance(30.0)
        world.journal.away = False
        await world.advance(5.0)

    assert [line["event"] for line in logs if line["event"].startswith("pauses.")] == ["pauses.unknown"] * 2
