"""The bad night wholly by clicking: look, plan, canary, replay, watch it end, discard with an export first.

The books of the test, the platform and the command line then have to agree on every letter.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.console.browser.person import Person, person_at
from tests.console.process import at_work
from tests.support.deadworld import DeadWorld
from tests.support.graveyard import sqlite_at
from tests.support.morning import Morning
from tests.support.night import SETTINGS, Night, Size
from tests.support.nightbooks import Books
from worker.adapters.privatebroker import PrivateBroker
from worker.console.replays import KIND_WORDS
from worker.core.forecast import Kind
from worker.core.model import Reason

pytestmark = pytest.mark.broker

SMALL = Size(calm=20, refused=21, busy=3, dispatched=18, invalid=40)
KINDS = {words: kind for kind, words in KIND_WORDS.items()}


@dataclass(slots=True)
class Clicking:
    """The morning after, in front of a browser. ``replays`` are the ids of those that were carried out."""

    person: Person
    books: Books
    replays: list[str] = field(default_factory=list)

    async def groups(self) -> dict[str, int]:
        """What the first page of the dead letters counts."""
        await self.person.follow("Dead letters")
        return {row[0]: number(row[1]) for row in await self.person.rows("groups")}

    async def open_group(self, reason: Reason) -> None:
        """The letters of one reason."""
        await self.person.follow("Dead letters")
        await self.person.follow(reason.value)
        await self.person.until_at(f"/dead/letters?reason={reason.value}")

    async def planned(self) -> Counter[tuple[str, str]]:
        """What the page of a plan says, by reason and kind."""
        cells = await self.person.rows("tallies")
        return Counter({(reason, KINDS[words].value): number(count) for reason, count, words, _ in cells})

    async def carry_out(self) -> None:
        """Start the plan that is shown, and watch it until everything of it has an outcome."""
        person = self.person
        await person.press("Carry it out")
        await person.until_state("done")
        await person.until_settled()
        assert "no outcome yet" not in await person.words("#progress")

    async def replay(self, *reasons: Reason, canary: int, rate: str) -> None:
        """Plan what is shown, compare, carry it out."""
        self.replays.append(await self.person.plan(canary=canary, rate=rate))
        assert await self.person.state() == "planned"
        assert await self.planned() == self.books.plan(*reasons)
        await self.carry_out()


def number(text: str) -> int:
    """As pages group it."""
    return int(re.sub(r"\D", "", text))


async def read_one(person: Person, order_id: str) -> None:
    """Open the first letter of the list, have its body fetched from the queue, and go back to the list."""
    place = person.path
    await person.page.get_by_role("link", name=f"Open the letter of order {order_id}").first.click()
    await person.press("Look at body and headers")
    await person.until_at(re.compile(r"/dead/letter\?copy="))
    await person.until(f'"id": {order_id}', "#body")
    await person.until("ow-reason")
    await person.open(place)


async def replay_all(clicking: Clicking) -> None:
    """One reason after a look at one of its letters, then everything that is left."""
    person = clicking.person
    await clicking.open_group(Reason.REJECTED)
    await read_one(person, (await person.rows("letters"))[0][0])
    await person.follow("Plan a replay")
    await clicking.replay(Reason.REJECTED, canary=10, rate="200/s")
    await person.follow("Replays")
    await person.follow("Plan a replay of everything")
    rest = (Reason.RETRIES_EXHAUSTED, Reason.TERMINAL_ORDER, Reason.INVALID_EVENT)
    await clicking.replay(*rest, canary=0, rate="")


async def discard(clicking: Clicking, count: int, file: Path) -> None:
    """What nobody can use goes into a file and away; that file is downloaded to this one."""
    person = clicking.person
    await clicking.open_group(Reason.INVALID_EVENT)
    await person.follow("Discard …")
    await person.press(f"Export and discard {count} letters")
    await person.until(re.compile(rf"{count} of \d+ dead letters discarded"))
    async with person.page.expect_download() as download:
        await person.page.locator("#file").click()
    await (await download.value).save_as(file)


async def the_rest_is_told(clicking: Clicking) -> None:
    """The order of a letter that was replayed, and who did what."""
    person, books = clicking.person, clicking.books
    rejected = (each for each in books.dead if each.reason is Reason.REJECTED)
    event = next(each for each in rejected if books.forecast(each) is Kind.APPLY)
    await person.page.get_by_placeholder("Order id").fill(str(event.order_id))
    await person.page.keyboard.press("Enter")
    await person.until(f"Order {event.order_id}")
    await expect(person.page.get_by_role("link", name=clicking.replays[0]).first).to_be_visible()
    await person.follow("Audit")
    deeds = [(row[2], row[3]) for row in await person.rows("audit")]
    for deed in (("plan", "done"), ("replay", "done"), ("discard", "done"), ("look", "done")):
        assert deed in deeds


async def test_a_bad_night_is_put_right_by_clicking(chrome: Browser, broker: PrivateBroker, tmp_path: Path) -> None:
    """Hundreds of letters of four reasons; every order is right afterwards, and every letter at exactly one end."""
    url = sqlite_at(tmp_path)
    async with DeadWorld(broker, tmp_path) as world:
        night = Night(world, SMALL)
        await world.start(JOURNAL_URL=url, **SETTINGS)
        await night.evening()
        await night.trouble()
        await night.dawn()
        morning = Morning(night, world.yard(url), began=len(night.history))
        async with at_work(morning.yard.tool, JOURNAL_URL=url) as (_, base), person_at(chrome, base) as person:
            clicking = Clicking(person, night.books, morning.replays)
            await person.open("/")
            assert await clicking.groups() == night.books.by_reason
            await replay_all(clicking)
            await discard(clicking, SMALL.invalid, tmp_path / "discarded.ndjson")
            assert (await clicking.groups()).keys() == {Reason.TERMINAL_ORDER.value}
            await the_rest_is_told(clicking)
        await morning.settled()
        await morning.wind_up()

        assert sum(night.books.by_reason.values()) > 250
        assert night.platform_problems(since=morning.began) == {}
