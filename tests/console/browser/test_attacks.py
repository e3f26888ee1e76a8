"""What others try by way of somebody's browser, with pages elsewhere and with words in events: it is kept out there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec.structs import replace
from playwright.async_api import Browser

from tests.console.browser.person import Person, person_at
from tests.console.guarded import Guarded
from tests.console.process import at_work
from tests.console.stage import Shelf, console
from tests.console.test_foreign_words import poison
from tests.support.chromium import ELSEWHERE
from tests.support.graveyard import Graveyard
from tests.support.replaystage import dead_letter
from worker.core.deadletter import read_dead_letter

HERE = "127.0.0.1"
SENDS_A_FORM = """<form method="post" action="{base}/now/pause"><input name="form_token" value="{guess}"></form>
<script>document.forms[0].submit()</script>"""
FRAMES_IT = '<iframe src="{base}/now"></iframe>'
READS_IT = """<p id="read"></p><script>
fetch("{base}/now", {{credentials: "include"}}).then((answer) => answer.text(), () => "refused")
  .then((text) => {{ document.getElementById("read").textContent = text; }});
</script>"""
POSTS = """async (path) => {
  const form_token = document.querySelector("[name=form_token]").value;
  const body = new URLSearchParams({form_token, reason: "by hand"});
  return (await fetch(path, {method: "POST", body})).status;
}"""
"""What somebody types into the browser's own tools: with the right session, origin and token."""
EVERYWHERE = (
    *("/dead", "/dead?by=detail", "/dead/letters", "/dead/letter?copy=c-2"),
    *("/orders/7", "/replays", "/audit", "/replays/r-1", "/now"),
)
MARKUP = "script:not([src]), img, iframe, [onerror]"


@asynccontextmanager
async def page_at(host: str, text: str) -> AsyncIterator[str]:
    """A page of somebody else, and its address."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=f"<!doctype html>{text}", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    server = TestServer(app, host=HERE)
    await server.start_server()
    try:
        yield f"http://{host}:{server.port}/"
    finally:
        await server.close()


@asynccontextmanager
async def kim(chrome: Browser, guarded: Guarded) -> AsyncIterator[Person]:
    """An operator who is logged in."""
    async with person_at(chrome, guarded.stage.base) as person:
        await person.log_in(guarded.tokens["kim"])
        yield person


# -- pages elsewhere --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [ELSEWHERE, HERE], ids=["another site", "another port of this machine"])
async def test_a_page_elsewhere_sends_no_forms(chrome: Browser, guarded: Guarded, host: str) -> None:
    """Another port is the same site, so the browser sends the cookie along."""
    async with kim(chrome, guarded) as person:
        text = SENDS_A_FORM.format(base=person.base, guess="0" * 64)
        async with page_at(host, text) as address:
            await person.page.goto(address)
            await person.until_at("/now/pause")
            said = await person.words("body")

    assert "forms are only taken from this console's own pages" in said
    assert await guarded.stage.journal.pauses("order-updates.work") == []
    assert any("wrong origin" in why for _, why in await guarded.refusals())


@pytest.mark.parametrize("host", [ELSEWHERE, HERE], ids=["another site", "another port of this machine"])
async def test_a_page_elsewhere_neither_frames_nor_reads_it(chrome: Browser, guarded: Guarded, host: str) -> None:
    """Nobody is led to click on what they do not see, and nothing is told."""
    async with kim(chrome, guarded) as person:
        async with page_at(host, FRAMES_IT.format(base=person.base)) as address:
            await person.page.goto(address)
            [frame] = person.page.main_frame.child_frames
            assert "Calls per minute" not in await frame.locator("html").inner_text()
        assert any("frame-ancestors" in odd for odd in person.odd)
        person.odd.clear()
        async with page_at(host, READS_IT.format(base=person.base)) as address:
            await person.page.goto(address)
            await person.until("refused", "#read")


async def test_a_name_of_somebody_else_for_this_address_shows_nothing(chrome: Browser, guarded: Guarded) -> None:
    """A page elsewhere may have its name point to this machine; then it would be of the same origin."""
    port = guarded.stage.base.rpartition(":")[2]
    async with person_at(chrome, f"http://{ELSEWHERE}:{port}") as person:
        status = await person.open("/now")
        said = await person.words("body")

    assert status == 421
    assert "not reached by that name" in said


async def test_a_viewer_who_knows_the_browser_well_changes_nothing(chrome: Browser, guarded: Guarded) -> None:
    """There are no buttons, and requests made by hand are refused."""
    async with person_at(chrome, guarded.stage.base) as person:
        await person.log_in(guarded.tokens["vic"])
        assert await person.place("#pause, #sync, #export, #discard").count() == 0
        paths = ("/now/pause", "/dead/discard", "/dead/export", "/replays", "/dead/edit")
        statuses = [await person.page.evaluate(POSTS, path) for path in paths]

    assert statuses == [403] * len(paths)
    assert await guarded.stage.journal.pauses("order-updates.work") == []
    assert [who for who, _ in await guarded.refusals()] == ["vic"] * len(paths)


# -- words in events --------------------------------------------------------------------------------------------------


async def test_no_page_runs_what_an_event_says(chrome: Browser) -> None:
    """Wherever foreign words stand, also in the parts that are alive, they are text."""
    shelf = Shelf()
    await poison(shelf.journal)  # before the console looks for the first time
    async with console(shelf) as stage, person_at(chrome, stage.base) as person:
        await person.page.add_init_script(MARK_OLD)
        for path in EVERYWHERE:
            assert await person.open(path) == 200, path
            assert await person.place(MARKUP).count() == 0, path
        await person.page.wait_for_function("document.querySelector('#now') && !document.querySelector('.old')")
        assert await person.place(MARKUP).count() == 0
        await person.until("<script>alert(1)</script>")
        address = "/dead/letters?reason=a%0d%0aSet-Cookie:%20evil=1%0d%0a%0d%0a<script>alert(1)</script>"
        await person.open(address)
        assert await person.place(MARKUP).count() == 0
        assert await person.page.context.cookies() == []


MARK_OLD = """addEventListener("DOMContentLoaded", () => {
  document.querySelector("#now > *")?.classList.add("old");
});"""
"""Marks what came with the page, so that one knows when the part was put in anew."""


async def test_a_script_that_came_in_all_the_same_would_not_run(chrome: Browser) -> None:
    """The policy of the pages is the second wall: neither scripts nor handlers in the page, nor from elsewhere."""
    async with console() as stage, person_at(chrome, stage.base) as person:
        await person.open("/now")
        ran = await person.page.evaluate("""() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", '<img src="x" onerror="window.ran = 2">');
          document.body.insertAdjacentHTML("beforeend", '<a id="evil" href="javascript:window.ran = 3">x</a>');
          document.getElementById("evil").click();
          return new Promise((done) => setTimeout(() => done(window.ran ?? 0), 50));
        }""")
        refused, person.odd = person.odd, []

    assert ran == 0
    assert len(refused) >= 3


@pytest.mark.broker
async def test_body_headers_and_editor_show_what_they_are_given(chrome: Browser, yard: Graveyard) -> None:
    """They come from the queue, not from the index."""
    letter = dead_letter(21)
    properties = letter.delivery.properties
    headers = {**properties.headers, "<img src=x onerror=alert(2)>": "</dd><script>alert(3)</script>"}
    body = json.dumps({"id": 21, "shipping_carrier": "</textarea><script>alert(4)</script>"}).encode()
    delivery = replace(letter.delivery, body=body, properties=replace(properties, headers=headers))
    await yard.outside.publish("", yard.queue, body, properties=delivery.properties)
    await yard.index([read_dead_letter(delivery)])
    async with at_work(yard.tool) as (_, base), person_at(chrome, base) as person:
        await person.open("/dead/letters?order=21")
        await person.follow("Open the letter of order 21")
        await person.press("Look at body and headers")
        await person.until("</dd><script>alert(3)</script>")
        assert await person.place(MARKUP).count() == 0
        await person.follow("Edit and replay")
        assert "</textarea><script>" in await person.page.get_by_label("The event", exact=True).input_value()
        await person.type("The event", json.dumps({"id": 21, "<img src=x onerror=alert(5)>": 1}))
        await person.until("<img src=x onerror=alert(5)>", "#check")
        assert await person.place(MARKUP).count() == 0
