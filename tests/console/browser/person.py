"""Somebody in front of a browser, who clicks, types and reads."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from playwright.async_api import Browser, ConsoleMessage, Dialog, Error, Locator, Page, expect

PATIENCE_MS: Final = 20_000
DESK: Final = (1280, 800)
Mode = Literal["light", "dark"]
Role = Literal["link", "button"]


class Person:
    """``odd`` is what no page may bring about: dialogs, scripts that fail, things that its policy had to keep out."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.odd: list[str] = []
        page.on("dialog", self._dialog)
        page.on("pageerror", self._failed)
        page.on("console", self._said)

    async def _dialog(self, dialog: Dialog) -> None:
        self.odd.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _failed(self, error: Error) -> None:
        self.odd.append(f"script: {error.message}")

    def _said(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.odd.append(message.text)

    # -- doing --------------------------------------------------------------------------------------------------------

    async def open(self, path: str) -> int:
        """Type an address; the status of the answer."""
        answer = await self.page.goto(self.base + path)
        assert answer is not None, path
        return answer.status

    async def follow(self, name: str | re.Pattern[str]) -> None:
        """Click a link, as it is called for a screen reader too."""
        await self.page.get_by_role("link", name=name, exact=True).first.click()

    async def press(self, name: str | re.Pattern[str]) -> None:
        """Click a button."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def type(self, label: str, text: str) -> None:
        """Fill in a field."""
        await self.page.get_by_label(label, exact=True).fill(text)

    async def log_in(self, token: str) -> None:
        """With one's own token."""
        await self.open("/login")
        await self.type("Token", token)
        await self.press("Log in")
        await self.until_at("/now")

    # -- seeing -------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Where the page is."""
        return self.page.url.removeprefix(self.base)

    def place(self, selector: str) -> Locator:
        """A part of the page."""
        return self.page.locator(selector)

    async def words(self, selector: str = "main") -> str:
        """What is to be read there."""
        return " ".join((await self.place(selector).inner_text()).split())

    async def rows(self, table: str) -> list[list[str]]:
        """The cells of a table's body."""
        script = "(rows) => rows.map((row) => Array.from(row.cells, (cell) => cell.innerText.trim()))"
        found: list[list[str]] = await self.place(f"#{table} tbody tr").evaluate_all(script)
        return found

    async def until(self, words: str | re.Pattern[str], selector: str = "main") -> None:
        """Wait until the page says so, by itself or because it is loaded again."""
        await expect(self.place(selector)).to_contain_text(words, timeout=PATIENCE_MS)

    async def until_at(self, path: str | re.Pattern[str]) -> None:
        """Wait for another page."""
        whole = self.base + path if isinstance(path, str) else re.compile(re.escape(self.base) + path.pattern)
        await expect(self.page).to_have_url(whole, timeout=PATIENCE_MS)

    async def until_settled(self) -> None:
        """Wait until nothing on the page is alive any more: whatever it watched is over."""
        await expect(self.place("[data-live]")).to_have_count(0, timeout=2 * PATIENCE_MS)

    # -- replays ------------------------------------------------------------------------------------------------------

    async def plan(self, *, canary: int, rate: str) -> str:
        """From a list of letters, or the replays: plan what it shows. The plan's page is shown then; its id."""
        await self.type("Canary: copies that go first", str(canary))
        await self.type("Most copies per second", rate)
        await self.page.locator("#make-plan").click()
        await self.until_at(re.compile("/replays/r-"))
        return self.path.rpartition("/")[2]

    async def state(self) -> str:
        """How the page calls the state of its replay."""
        return await self.words(".head .tag")

    async def until_state(self, name: str) -> None:
        """Wait until the page calls it so; nobody reloads it."""
        await expect(self.place(".head .tag")).to_have_text(name, timeout=2 * PATIENCE_MS)


@asynccontextmanager
async def person_at(
    browser: Browser, base: str, *, mode: Mode = "light", size: tuple[int, int] = DESK, scripts: bool = True
) -> AsyncIterator[Person]:
    """Somebody with a profile of their own; without ``scripts`` theirs runs none. Nothing odd may have happened in the
    end."""
    context = await browser.new_context(
        java_script_enabled=scripts,
        viewport={"width": size[0], "height": size[1]},
        color_scheme=mode,
        timezone_id="UTC",
        locale="en-GB",
    )
    context.set_default_timeout(PATIENCE_MS)
    person = Person(await context.new_page(), base)
    try:
        yield person
        assert person.odd == []
    finally:
        await context.close()
