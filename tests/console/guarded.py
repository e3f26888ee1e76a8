"""A console that people log in to: Kim operates, Vic only looks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.console.stage import Browser, Console, Page, console, some_letters
from worker.console.people import Role, new_token
from worker.core.audit import Outcome


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


def people_file(folder: Path, **roles: Role) -> tuple[Path, dict[str, str]]:
    """A file of people, by their names, and the token of each."""
    file = folder / "people"
    made = {name: new_token(name, role) for name, role in roles.items()}
    file.write_text("# who\n" + "".join(f"{line}\n" for _, line in made.values()))
    return file, {name: token for name, (token, _) in made.items()}


@asynccontextmanager
async def guarded_at(tmp_path: Path) -> AsyncIterator[Guarded]:
    """Kim operates, Vic only looks."""
    file, tokens = people_file(tmp_path, kim=Role.OPERATOR, vic=Role.VIEWER)
    async with console(console_tokens_file=str(file)) as stage:
        await stage.index(*some_letters())
        yield Guarded(stage, file, tokens)
