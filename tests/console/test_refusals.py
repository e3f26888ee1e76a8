"""What is refused, and noted: other names, origins, forms, roles."""

import pytest

from tests.console.guarded import Guarded
from tests.console.stage import console

POSTS = (
    "/dead/sync", "/dead/export", "/dead/discard", "/dead/look", "/dead/edit", "/dead/edit/check", "/replays",
    "/replays/r-1/start", "/replays/r-1/stop", "/replays/r-1/judge", "/works/1/stop", "/now/pause", "/now/resume",
)  # fmt: skip


async def test_another_name_for_this_address_is_refused(guarded: Guarded) -> None:
    """A page elsewhere may have its name point to us; its browser then sends that name."""
    async with guarded.stage.browser() as browser:
        page = await browser.get("/now", headers={"Host": "evil.example"})

    assert page.status == 421
    assert await guarded.refusals() == [("(nobody)", "unknown host 'evil.example'")]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
async def test_forms_of_other_pages_are_refused(guarded: Guarded, path: str, origin: str) -> None:
    """With the right session and the right token in it all the same."""
    async with guarded.as_("kim") as browser:
        page = await browser.post(path, headers={"Origin": origin})

    assert page.status == 403
    assert [who for who, why in await guarded.refusals() if why.startswith("wrong origin")] == ["kim"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("token", ["", "0" * 64])
async def test_forms_without_the_token_of_this_session_are_refused(guarded: Guarded, path: str, token: str) -> None:
    """That is what a page elsewhere cannot know."""
    async with guarded.as_("kim") as browser:
        page = await browser.post(path, token=token)

    assert page.status == 403
    assert ("kim", "no form of this session") in await guarded.refusals()


async def test_the_token_of_another_session_is_none(guarded: Guarded) -> None:
    """Each session has its own."""
    async with guarded.as_("kim") as kim, guarded.as_("vic") as vic:
        page = await kim.post("/now/resume", token=(await vic.get("/now")).token)

    assert page.status == 403


@pytest.mark.parametrize("path", POSTS)
async def test_viewers_change_nothing(guarded: Guarded, path: str) -> None:
    """403, noted, and nothing happened."""
    async with guarded.as_("vic") as browser:
        page = await browser.post(path, token=(await browser.get("/now")).token)

    assert page.status == 403
    assert "needs the role operator" in page.words
    assert ("vic", "role viewer") in await guarded.refusals()
    assert await guarded.stage.journal.replays("order-updates.dead") == []


@pytest.mark.parametrize("path", ["/replays/new", "/dead/discard", "/dead/edit?copy=x", "/files/x.ndjson"])
async def test_pages_for_operators_are_not_for_viewers(guarded: Guarded, path: str) -> None:
    """403 with the reason."""
    async with guarded.as_("vic") as browser:
        page = await browser.get(path)

    assert page.status == 403


async def test_viewers_are_offered_nothing_that_they_may_not_do(guarded: Guarded) -> None:
    """Pages have no such buttons for them."""
    async with guarded.as_("vic") as browser:
        pages = [await browser.get(path) for path in ("/now", "/dead", "/dead/letters", "/dead/letter?copy=copy-1-0")]

    for button in ('id="plan"', 'id="export"', 'id="pause"', 'id="sync"', 'id="look"'):
        assert not any(button in page.text for page in pages), button


async def test_on_this_machine_nobody_has_to_log_in_but_forms_are_checked() -> None:
    """The user of the machine operates."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get("/now")
        forged = await browser.post("/now/resume", headers={"Origin": "http://evil.example"})
        told = await browser.post("/now/resume")

    assert "operator" in page.words
    assert forged.status == 403
    assert told.status == 409
    assert "nothing was paused by hand" in told.words


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "x-real-ip"])
async def test_whoever_comes_through_a_proxy_is_not_at_this_machine(header: str) -> None:
    """A proxy beside the console would make everybody an operator."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get("/dead", headers={header: "203.0.113.7"})

    assert page.status == 401
    assert "CONSOLE_TOKENS_FILE" in page.words


async def test_what_orchestrators_ask_needs_no_name() -> None:
    """And says nothing."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.get("/healthz", headers={"Host": "10.1.2.3:8085"})

    assert (page.status, page.text) == (200, '{"alive": true}')
