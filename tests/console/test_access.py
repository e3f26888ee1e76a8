"""Who may use the console: by session, by proxy, by being at the machine; guessing is slowed down."""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from multidict import CIMultiDict

from tests.console.guarded import Guarded, log_in
from tests.console.stage import console
from worker.console.people import Role, new_token
from worker.core.audit import Action

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
    async with console(**proxied("127.0.0.0/8")) as stage, stage.browser() as browser:
        kim = await browser.get("/now", headers={"X-User": "kim"})
        vic = await browser.get("/now", headers={"X-User": "vic"})
        nobody = await browser.get("/now")
        twice = await browser.get("/now", headers=CIMultiDict([("X-User", "vic"), ("X-User", "kim")]))

    assert "kim operator" in kim.words
    assert "vic viewer" in vic.words
    assert (nobody.status, twice.status) == (401, 401)


async def test_the_header_of_anybody_else_is_not_believed() -> None:
    """The network of the proxy is another one."""
    async with console(**proxied("10.0.0.0/8")) as stage, stage.browser() as browser:
        page = await browser.get("/now", headers={"X-User": "kim"})

    assert page.status == 401
