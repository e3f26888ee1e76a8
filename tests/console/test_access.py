"""Who may use the console, and what is refused: by name, origin, form, role, rate; and that refusals are noted."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from multidict import CIMultiDict

from tests.console.stage import Browser, Console, Page, console, some_letters
from worker.console.people import Role, new_token
from worker.core.audit import Action, Outcome

POSTS = (
    "/dead/sync", "/dead/export", "/dead/discard", "/dead/look", "/dead/edit", "/dead/edit/check", "/replays",
    "/replays/r-1/start", "/replays/r-1/stop", "/replays/r-1/judge", "/works/1/stop", "/now/pause", "/now/resume",
)  # fmt: skip


class Guarded:
    """A console that people log in to."""

    def __init__(self, stage: Console, file: Path, tokens: dict[str, str]) -> None:
        self.stage = stage
        self.file = file
        self.tokens = tokens

    @asynccontextmanager
    async def as_(self, name: str) -> AsyncIterator[Browser]:
        """A browser in which somebody is logged in."""
        async with self.stage.browser() as browser:
            page = await log_in(browser, self.tokens[name])
            assert page.path == "/now"
            yield browser

    async def refusals(self) -> list[tuple[str, str]]:
        """Who was refused, and why."""
        deeds = await self.stage.journal.deeds(limit=1000)
        return [(deed.by, deed.detail) for deed in deeds if deed.outcome is Outcome.REFUSED]


async def log_in(browser: Browser, token: str, wanted: str = "") -> Page:
    """Type the token and send it."""
    page = await browser.get("/login" + wanted)
    return await browser.post("/login" + wanted, {"token": token}, token=page.token)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    """Kim operates, Vic only looks."""
    file, tokens = tmp_path / "people", {}
    lines = []
    for name, role in (("kim", Role.OPERATOR), ("vic", Role.VIEWER)):
        tokens[name], line = new_token(name, role)
        lines.append(line)
    file.write_text("# who\n" + "\n".join(lines) + "\n")
    async with console(console_tokens_file=str(file)) as stage:
        await stage.index(*some_letters())
        yield Guarded(stage, file, tokens)


# -- who --------------------------------------------------------------------------------------------------------------


async def test_without_a_log_in_nothing_is_shown(guarded: Guarded) -> None:
    """Every page leads to the log-in, and from there to where one wanted to go."""
    async with guarded.stage.browser() as browser:
        for path in ("/now", "/dead", "/audit", "/replays/r-1", "/orders/1", "/files/x.ndjson"):
            page = await browser.get(path)
            assert unquote(page.path) == f"/login?next={path}", path
            assert "Dead letters" not in page.words.replace("Dead letters, replays and orders.", "")
        page = await log_in(browser, guarded.tokens["vic"], "?next=%2Forders%2F7")

    assert page.path == "/orders/7"


@pytest.mark.parametrize(
    "wanted", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/%0d%0aSet-Cookie:x=1"]
)
async def test_a_log_in_leads_nowhere_else(guarded: Guarded, wanted: str) -> None:
    """An address elsewhere, in whatever disguise, is not followed; and no header can be injected."""
    async with guarded.stage.browser() as browser:
        page = await browser.get("/login", params={"next": wanted})
        page = await browser.post(f"/login?next={wanted}", {"token": guarded.tokens["vic"]}, token=page.token)

    assert page.path in ("/now", "/%0D%0AX:x=1")
    assert "X" not in page.headers


async def test_the_cookie_is_for_the_browser_alone(guarded: Guarded) -> None:
    """HttpOnly and SameSite=Strict, with an end."""
    async with guarded.stage.browser() as browser:
        page = await browser.get("/login")
        answer = await browser.session.post(
            f"{browser.base}/login",
            data={"form_token": page.token, "token": guarded.tokens["kim"]},
            headers={"Origin": browser.base},
            allow_redirects=False,
        )
        cookie = answer.headers["Set-Cookie"]

    assert answer.status == 303
    for word in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert word in cookie
    assert guarded.tokens["kim"] not in cookie


async def test_over_tls_the_cookie_is_secure(tmp_path: Path) -> None:
    """With the prefix that browsers insist on, and HSTS."""
    file = tmp_path / "people"
    token, line = new_token("kim", Role.OPERATOR)
    file.write_text(line)
    url = "https://console.example"
    async with console(console_tokens_file=str(file), console_url=url) as stage, stage.browser() as browser:
        named = {"Host": "console.example", "Origin": url}
        page = await browser.get("/login", headers=named)
        answer = await browser.session.post(
            f"{browser.base}/login",
            data={"form_token": page.token, "token": token},
            headers=named,
            allow_redirects=False,
        )

    assert answer.headers["Set-Cookie"].startswith("__Host-order-worker=")
    assert "Secure" in answer.headers["Set-Cookie"]
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_a_cookie_that_was_tampered_with_is_none(guarded: Guarded) -> None:
    """Another name in it, another signature, somebody else's payload."""
    async with guarded.as_("vic") as browser:
        [cookie] = [each for each in browser.session.cookie_jar if each.key == "order-worker"]
        payload, _, signature = cookie.value.partition(".")
        forged = base64.urlsafe_b64encode(base64.urlsafe_b64decode(payload).replace(b"vic", b"kim")).decode()
        for value in (f"{forged}.{signature}", f"{payload}.{'0' * 64}", payload, ".", "x" * 5000, "\x22"):
            async with guarded.stage.browser(cookies={"order-worker": value}) as other:
                assert (await other.get("/now")).path.startswith("/login")


async def test_a_log_out_ends_the_session_everywhere(guarded: Guarded) -> None:
    """A copy of the cookie is worth nothing afterwards."""
    async with guarded.as_("kim") as browser:
        [cookie] = [each for each in browser.session.cookie_jar if each.key == "order-worker"]
        await browser.post("/logout")
        async with guarded.stage.browser(cookies={"order-worker": cookie.value}) as thief:
            page = await thief.get("/now")

    assert page.path.startswith("/login")


async def test_whoever_is_taken_out_of_the_file_is_out_at_once(guarded: Guarded) -> None:
    """And a file that cannot be read changes nothing."""
    async with guarded.as_("kim") as kim, guarded.as_("vic") as vic:
        guarded.file.write_text("nonsense")
        assert (await kim.get("/now")).path == "/now"
        guarded.file.write_text(new_token("kim", Role.OPERATOR)[1])

        assert (await kim.get("/now")).path.startswith("/login")
        assert (await vic.get("/now")).path.startswith("/login")


async def test_guessing_is_slowed_down_and_noted(guarded: Guarded) -> None:
    """After five wrong tokens not even the right one is taken for a while."""
    async with guarded.stage.browser() as browser:
        pages = [await log_in(browser, f"owc_{number}") for number in range(5)]
        slowed = await log_in(browser, guarded.tokens["kim"])

    assert [page.status for page in pages] == [403] * 5
    assert slowed.status == 429
    assert 0 < int(slowed.headers["Retry-After"]) <= 60
    assert [why for _, why in await guarded.refusals()] == ["too many wrong tokens", *[""] * 5]
    assert all(deed.action in (Action.LOG_IN, Action.ACCESS) for deed in await guarded.stage.journal.deeds())


async def test_no_token_is_ever_shown_or_noted(guarded: Guarded) -> None:
    """Not in a page, not in the audit, not in the log-in that failed."""
    token = guarded.tokens["kim"]
    async with guarded.stage.browser() as browser:
        wrong = await log_in(browser, f"{token}x")
        page = await log_in(browser, token)
        shown = [wrong.text, page.text, (await browser.get("/audit")).text]

    assert all(token not in text for text in shown)


# -- the proxy --------------------------------------------------------------------------------------------------------


def proxied(network: str) -> dict[str, Any]:
    """Settings of a console behind a proxy in this network."""
    return {"console_proxy_header": "X-User", "console_proxy_from": (network,), "console_operators": ("kim",)}


async def test_a_proxy_that_is_named_says_who_it_is() -> None:
    """Those who are named operate, others look."""
    given: dict[str, Any] = {
        "console_proxy_header": "X-User",
        "console_proxy_from": ("127.0.0.0/8",),
        "console_operators": ("kim",),
    }
    async with console(**given) as stage, stage.browser() as browser:
        kim = await browser.get("/now", headers={"X-User": "kim"})
        vic = await browser.get("/now", headers={"X-User": "vic"})
        nobody = await browser.get("/now")
        twice = await browser.get("/now", headers=CIMultiDict([("X-User", "vic"), ("X-User", "kim")]))

    assert "kim operator" in kim.words
    assert "vic viewer" in vic.words
    assert (nobody.status, twice.status) == (401, 401)


async def test_the_header_of_anybody_else_is_not_believed() -> None:
    """The network of the proxy is another one."""
    given: dict[str, Any] = {
        "console_proxy_header": "X-User",
        "console_proxy_from": ("10.0.0.0/8",),
        "console_operators": ("kim",),
    }
    async with console(**given) as stage, stage.browser() as browser:
        page = await browser.get("/now", headers={"X-User": "kim"})

    assert page.status == 401


# -- whether ----------------------------------------------------------------------------------------------------------


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
