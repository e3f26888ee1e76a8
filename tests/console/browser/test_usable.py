"""Every page by axe-core's rules, light and dark: nothing serious. None has to be scrolled sideways, at any width."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from playwright.async_api import Browser

from tests.builders import NOW_US
from tests.console.browser.person import DESK, Person, person_at
from tests.console.guarded import people_file
from tests.console.process import at_work
from tests.support.axe import findings
from tests.support.graveyard import Graveyard
from tests.support.replaystage import invalid_letter
from worker.adapters.journal.opening import checked_journal
from worker.console.people import Role
from worker.core.history import HistoryRow
from worker.core.journal import BatchRecord
from worker.core.model import Version

WIDTHS = (360, 2560)
_TOO_WIDE = """() => {
  const {scrollWidth, clientWidth} = document.documentElement;
  const sticksOut = (part) => part.getBoundingClientRect().left + part.scrollWidth > clientWidth;
  const found = [...document.querySelectorAll("main *")].filter(sticksOut);
  return scrollWidth > clientWidth ? found.slice(0, 5).map((part) => part.cloneNode().outerHTML) : null;
}"""
"""What sticks out where a page has to be scrolled sideways."""


class Examiner:
    """Examines pages as they are shown. ``found`` says what is wrong, ``seen`` which were examined."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.seen: list[str] = []
        self.found: list[str] = []

    async def open(self, path: str, name: str, *, status: int = 200) -> None:
        """A page of this address."""
        assert await self.person.open(path) == status, path
        await self.examine(name)

    async def examine(self, name: str) -> None:
        """The page that is shown."""
        page = self.person.page
        self.seen.append(name)
        self.found += [f"{name}, light: {finding}" for finding in await findings(page)]
        await page.emulate_media(color_scheme="dark")
        self.found += [f"{name}, dark: {finding}" for finding in await findings(page, only=("color-contrast",))]
        await page.emulate_media(color_scheme="light")
        for width in WIDTHS:
            await page.set_viewport_size({"width": width, "height": DESK[1]})
            if (wide := await page.evaluate(_TOO_WIDE)) is not None:
                self.found.append(f"{name}: to be scrolled sideways at {width} pixels: {wide}")
        await page.set_viewport_size({"width": DESK[0], "height": DESK[1]})


@asynccontextmanager
async def examined(chrome: Browser, yard: Graveyard, folder: Path) -> AsyncIterator[tuple[Examiner, dict[str, str]]]:
    """An examiner at a console that people log in to, and their tokens. Nothing was found in the end."""
    file, tokens = people_file(folder, kim=Role.OPERATOR, vic=Role.VIEWER)
    async with at_work(yard.tool, CONSOLE_TOKENS_FILE=str(file)) as (_, base), person_at(chrome, base) as person:
        examiner = Examiner(person)
        yield examiner, tokens
        assert examiner.found == [], "\n\n".join(examiner.found)


async def remember(yard: Graveyard) -> None:
    """What became of an event, as workers write it down: tried again, dead, applied."""
    version = Version(NOW_US, -1, NOW_US, "m-7-0")
    row = HistoryRow(
        at_us=NOW_US, disposition="retry", reason="busy", order_id=7, message_id="m-7-0", fields={"status": 4},
        version=version, worker="1",
    )  # fmt: skip
    rows = [
        row,
        replace(row, at_us=NOW_US + 1, disposition="dead", reason="rejected"),
        replace(row, at_us=NOW_US + 2, disposition="ack", reason="applied"),
    ]
    async with checked_journal(yard.journal_url) as journal:
        await journal.record(BatchRecord(wall_us=NOW_US, history=rows))


async def look_at_letters(examiner: Examiner) -> None:
    """Groups, lists, one letter before and after its body is shown, the editor with and without a fault, discard."""
    person = examiner.person
    await examiner.open("/dead", "dead letters")
    await examiner.open("/dead?by=detail", "dead letters by error")
    await examiner.open("/dead?reason=nothing", "no group matches")
    await examiner.open("/dead/letters", "list")
    await examiner.open("/dead/letters?reason=nothing", "nothing matches")
    await person.open("/dead/letters?order=7")
    await person.follow("Open the letter of order 7")
    await examiner.examine("letter")
    await person.press("Look at body and headers")
    await person.until('"id": 7')
    await examiner.examine("letter with its body")
    await person.follow("Edit and replay")
    await examiner.examine("editor")
    await person.type("The event", "{")
    await person.until("not JSON", "#check")
    await examiner.examine("editor with a fault")
    await examiner.open("/dead/discard?order=7", "discard")


async def replay(examiner: Examiner) -> None:
    """None yet, the question, the plan, one that is done; an order, the audit, pages of what went wrong."""
    person = examiner.person
    await examiner.open("/replays", "no replays")
    await person.open("/replays/new?reason=rejected")
    await person.page.get_by_text("More", exact=True).click()
    await examiner.examine("plan a replay")
    await person.plan(canary=0, rate="")
    await examiner.examine("plan")
    await person.press("Carry it out")
    await person.until_state("done")
    await examiner.examine("replay")
    await examiner.open("/replays", "replays")
    await examiner.open("/orders", "find an order")
    await examiner.open("/orders/7", "order")
    await examiner.open("/orders/999", "unknown order", status=404)
    await examiner.open("/missing", "missing page", status=404)


async def discard_the_rest(examiner: Examiner) -> None:
    """A work that is over, with a file; then there are no letters."""
    person = examiner.person
    await person.open("/dead/discard")
    await person.page.locator("#discard-now").click()
    await person.until("dead letters discarded")
    await examiner.examine("discarded")
    await examiner.open("/dead", "no dead letters")
    await examiner.open("/audit", "audit")


@pytest.mark.broker
async def test_every_page_can_be_used_by_everybody(chrome: Browser, yard: Graveyard, tmp_path: Path) -> None:
    """An operator's pages, from the log-in to the audit."""
    await yard.index([invalid_letter(13)])
    await remember(yard)
    async with examined(chrome, yard, tmp_path) as (examiner, tokens):
        await examiner.open("/login", "log-in")
        await examiner.person.type("Token", "wrong")
        await examiner.person.press("Log in")
        await examiner.person.until(re.compile("token"), "#problem")
        await examiner.examine("log-in that failed")
        await examiner.person.log_in(tokens["kim"])
        await examiner.examine("now")
        await look_at_letters(examiner)
        await replay(examiner)
        await discard_the_rest(examiner)

        assert len(examiner.seen) == len(set(examiner.seen)) > 20


@pytest.mark.broker
async def test_what_viewers_see_can_be_used_by_everybody(chrome: Browser, yard: Graveyard, tmp_path: Path) -> None:
    """The pages that differ for them."""
    async with examined(chrome, yard, tmp_path) as (examiner, tokens):
        await examiner.person.log_in(tokens["vic"])
        await examiner.examine("now")
        await examiner.open("/dead/letters?order=7", "list")
        await examiner.person.follow("Open the letter of order 7")
        await examiner.examine("letter")
        await examiner.open("/replays/new", "not for viewers", status=403)


async def test_a_page_that_somebody_cannot_use_would_be_found(chrome: Browser) -> None:
    """Otherwise the tests around this one would prove nothing."""
    async with person_at(chrome, "") as person:
        await person.page.set_content("<html lang=en><title>x</title><main><h1>x</h1><input><p id=pale>pale</p></main>")
        await person.page.locator("#pale").evaluate("(pale) => { pale.style.color = '#eee'; }")
        every = await findings(person.page)
        some = await findings(person.page, only=("color-contrast",))

    assert sorted(finding.partition(":")[0] for finding in every) == ["color-contrast", "label"]
    assert len(some) == 1
