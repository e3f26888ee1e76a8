"""The bad night: 2,300 dead letters of four reasons, and the morning after it, through the command line only.

Whatever is killed in the middle of the replay, every order ends at its greatest version and every message in exactly
one end state. As long as one worker is at work, no order goes backwards even for a moment.
"""

from pathlib import Path

import pytest

from tests.acceptance.conftest import Tell
from tests.support.deadworld import DeadWorld
from tests.support.graveyard import sqlite_at
from tests.support.morning import Morning
from tests.support.night import SETTINGS, Night, Size
from tests.support.postgres import PrivatePostgres
from tests.support.tool import take_all
from worker.adapters.privatebroker import PrivateBroker
from worker.core.headers import OURS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

SMALL = Size(calm=60, refused=30, busy=4, dispatched=30, invalid=20)


async def assert_right_after_all(night: Night, journal_url: str, tell: Tell) -> None:
    """One worker has been at work; the tool is killed twice in the middle of a replay, and resumed."""
    morning = Morning(night, night.world.yard(journal_url))
    await morning.look()
    await morning.replay()
    await morning.clean_up()
    await morning.settled()
    await morning.wind_up()
    tell(morning.figures)

    assert sum(night.books.by_reason.values()) >= 2300
    assert night.platform_problems(since=morning.began) == {}


async def test_after_a_bad_night_with_sqlite_every_order_is_right(
    broker: PrivateBroker, tmp_path: Path, tell: Tell
) -> None:
    """List, plan, canary, kill -9, resume, kill -9, resume, the rest, discard."""
    url = sqlite_at(tmp_path)
    async with DeadWorld(broker, tmp_path) as world:
        night = Night(world)
        await world.start(JOURNAL_URL=url, **SETTINGS)
        await night.whole()
        await assert_right_after_all(night, url, tell)


@pytest.mark.slow
@pytest.mark.postgres
async def test_after_a_bad_night_with_postgresql_every_order_is_right(
    broker: PrivateBroker, tmp_path: Path, postgres: PrivatePostgres, postgres_url: str, tell: Tell
) -> None:
    """The same."""
    url = postgres.create(tmp_path.name, like="empty_journal")
    async with DeadWorld(broker, tmp_path) as world:
        night = Night(world)
        await world.start(JOURNAL_URL=url, **SETTINGS)
        await night.whole()
        await assert_right_after_all(night, url, tell)


async def move_blindly(night: Night, *, strip: bool) -> None:
    """What other tools do: every dead letter goes back to the work exchange, the oldest first, whatever it is.

    ``strip``: without our headers, so with nothing that says how old it is but what its producer wrote.
    """
    world, count = night.world, len(night.books.dead)
    channel = await world.outside.channel()
    for letter in await take_all(world.outside, world.dead_queue, count):
        properties = letter.header.properties
        headers = properties.headers or {}
        properties.headers = {name: headers[name] for name in headers if not (strip and name in OURS)}
        await channel.basic_publish(
            letter.body, exchange=world.settings["QUEUE"], routing_key=letter.routing_key or "", properties=properties
        )


async def test_a_blind_move_without_a_journal_is_found_to_go_backwards(broker: PrivateBroker, tmp_path: Path) -> None:
    """Otherwise the checks of the tests around this one would prove nothing."""
    async with DeadWorld(broker, tmp_path) as world:
        night = Night(world, SMALL)
        worker = await world.start(JOURNAL_URL=sqlite_at(tmp_path), **SETTINGS)
        await night.whole()
        assert night.platform_problems().keys() == {"not at its greatest version"}  # the dead letters are missing
        assert await worker.terminate() == 0
        began = len(night.history)
        worker = await world.start(JOURNAL_URL="memory", **SETTINGS)
        await move_blindly(night, strip=True)
        await world.until(lambda: night.books.backwards(night.history, began))
        await world.outside.until_ready(world.settings["QUEUE"], 0)
        assert await worker.terminate() == 0

        assert night.platform_problems(since=began).keys() >= {"not at its greatest version", "went backwards"}


async def test_a_blind_move_does_no_harm_where_there_is_a_journal(broker: PrivateBroker, tmp_path: Path) -> None:
    """Our headers and the journal are what protects the orders, not the tool that moves the letters."""
    async with DeadWorld(broker, tmp_path) as world:
        night = Night(world, SMALL)
        worker = await world.start(JOURNAL_URL=sqlite_at(tmp_path), **SETTINGS)
        await night.whole()
        began = len(night.history)
        await move_blindly(night, strip=False)
        await night.until_right()
        await world.outside.until_ready(world.settings["QUEUE"], 0)
        assert await worker.terminate() == 0

        assert night.platform_problems(since=began) == {}
