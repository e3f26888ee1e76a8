"""Several people at one console, and a console that is killed while somebody watches it."""

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.console.browser.person import PATIENCE_MS, Person, person_at
from tests.console.guarded import Guarded, people_file
from tests.console.process import at_work
from tests.support.graveyard import Graveyard
from worker.adapters.amqp.topology import Topology
from worker.adapters.freeports import free_port
from worker.console.people import Role

HELD = "is at the dead-letter queue; stop it, or wait"
ANSWERED = re.compile(f"{HELD}|carried out by|Nothing of it is open")
"""What the two read who resume at the same time."""
RESUME = """() => {
  const start = document.getElementById("start");
  if (start) { document.getElementById("rate").value = "4/s"; start.click(); }
}"""
"""At once, as two do who press the button in the same moment; unless the page tells by then that somebody else did."""
SEEN = """(seen) => {
  Object.defineProperty(document, "hidden", {value: !seen, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Whether the tab is in front; a browser without a screen has all of them in front."""


async def start_slowly(person: Person, yard: Graveyard, work_queue: str) -> str:
    """Plan everything and begin, two copies a second; the id of the replay, once the first are out."""
    await person.open("/replays/new")
    name = await person.plan(canary=0, rate="2/s")
    await person.press("Carry it out")
    await person.until_state("running")
    await yard.outside.until_some(work_queue)
    return name


async def until_moved(person: Person, several: int) -> None:
    """Wait until so many rows of the table say so, on the page as it was loaded."""
    await person.page.evaluate("() => { window.loaded = true; }")
    rows = person.place("#messages-rows tr").filter(has_text="moved")
    await expect(rows.nth(several - 1)).to_be_visible(timeout=PATIENCE_MS)
    assert await person.page.evaluate("() => window.loaded === true")


async def go_on(person: Person, *, rate: str) -> None:
    """Resume the replay that is shown."""
    await person.type("Rate", rate)
    await person.press("Resume")


@pytest.mark.broker
async def test_two_operators_see_stop_and_do_not_disturb_each_other(
    chrome: Browser, yard: Graveyard, queues: Topology, tmp_path: Path
) -> None:
    """One replays and sees it move; the other sees who does, has to wait with the queue, may stop it; of two who resume
    one does."""
    file, tokens = people_file(tmp_path, kim=Role.OPERATOR, lee=Role.OPERATOR)
    async with (
        at_work(yard.tool, CONSOLE_TOKENS_FILE=str(file)) as (_, base),
        person_at(chrome, base) as kim,
        person_at(chrome, base) as lee,
    ):
        await asyncio.gather(kim.log_in(tokens["kim"]), lee.log_in(tokens["lee"]))
        name = await start_slowly(kim, yard, queues.work_queue)
        await until_moved(kim, 3)
        await lee.follow("Dead letters")
        await lee.press("Bring up to date")
        await lee.until(f"replay of kim {HELD}")
        await lee.open(f"/replays/{name}")
        await lee.until("carried out by kim")
        await lee.press("Stop")
        await asyncio.gather(kim.until_state("stopped"), lee.until_state("stopped"))
        await asyncio.gather(*(person.page.evaluate(RESUME) for person in (kim, lee)))
        for person in (kim, lee):
            await person.until(ANSWERED)
        # Whose page was told of the other's replay right before the click sees that one, and is not even refused.
        refused = {person for person in (kim, lee) if HELD in await person.words()}
        assert len(refused) < 2
        await next(iter({kim, lee} - refused)).until_state("done")
        await lee.follow("Audit")
        rows = await lee.rows("audit")
        deeds = {(row[1], row[2], row[3]) for row in rows}

    assert [row[2:4] for row in rows].count(["replay", "begun"]) == 2  # the first one, and one who resumed
    assert {("kim", "plan", "done"), ("kim", "replay", "stopped"), ("lee", "stop", "done")} <= deeds
    await yard.outside.until_ready(queues.dead_queue, 0)
    await yard.outside.until_ready(queues.work_queue, 12)


async def test_what_one_pauses_the_others_see_without_loading_the_page(chrome: Browser, guarded: Guarded) -> None:
    """The sentence changes, and the button with it; a viewer has none."""
    base, tokens = guarded.stage.base, guarded.tokens
    async with person_at(chrome, base) as kim, person_at(chrome, base) as other, person_at(chrome, base) as vic:
        await asyncio.gather(kim.log_in(tokens["kim"]), other.log_in(tokens["kim"]), vic.log_in(tokens["vic"]))
        await kim.type("Why (for those who find it paused)", "stock-taking")
        await kim.press("Pause all workers")
        for person in (kim, other, vic):
            await person.until("Paused: stock-taking (by kim, in the console)")
        await other.press("Resume")
        for person in (kim, vic):
            await person.until("No worker answers")
        await expect(kim.place("#pause")).to_be_visible()
        assert await vic.place("#pause, #resume").count() == 0


async def test_a_page_that_nobody_sees_is_not_watched(chrome: Browser, guarded: Guarded) -> None:
    """Browsers open six connections to one address: with six such pages in other tabs the next one would not load."""
    async with person_at(chrome, guarded.stage.base) as vic, person_at(chrome, guarded.stage.base) as kim:
        await asyncio.gather(vic.log_in(guarded.tokens["vic"]), kim.log_in(guarded.tokens["kim"]))
        async with vic.page.expect_event("requestfailed", lambda request: "/now/live" in request.url):
            await vic.page.evaluate(SEEN, False)
        await kim.press("Pause all workers")
        await kim.until("Paused")
        assert "Paused" not in await vic.words()
        await vic.page.evaluate(SEEN, True)
        await vic.until("Paused")


@pytest.mark.broker
async def test_a_console_that_is_killed_is_resumed_where_it_was(
    chrome: Browser, yard: Graveyard, queues: Topology
) -> None:
    """kill -9 in the middle: the open page says that nothing comes now, finds the next console by itself, shows the
    replay as interrupted, and resumed, it comes to its end."""
    port = free_port()
    async with person_at(chrome, f"http://127.0.0.1:{port}") as person:
        async with at_work(yard.tool, port=port) as (process, _):
            name = await start_slowly(person, yard, queues.work_queue)
            process.kill()
            await process.wait()
            await expect(person.place("#progress")).to_have_class(re.compile("not-live"), timeout=PATIENCE_MS)
        async with at_work(yard.tool, port=port):
            await person.until_state("interrupted")
            await go_on(person, rate="")
            await person.until_state("done")
            status = await yard.status(name)

    assert status["state"] == "done"
    assert status["states"]["moved"] + status["states"]["missing"] == 12
    await yard.outside.until_ready(queues.dead_queue, 0)
    left = await yard.outside.ready(queues.work_queue)
    assert 12 <= left <= 13  # what was confirmed and not journalled yet goes once more, with the same version
