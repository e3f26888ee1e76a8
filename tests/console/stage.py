"""A console at work on a loopback port, with a journal in memory and nobody at the broker; and a browser without a
screen that speaks to it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from html import unescape
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from tests.builders import NOW_US, applied_record
from tests.support.replaystage import dead_letter, invalid_letter
from worker.adapters.freeports import free_port
from worker.adapters.journal.memory import MemoryJournal
from worker.config import Settings
from worker.console.app import opened
from worker.console.desk import Shelved
from worker.console.live import STREAMS
from worker.core.deadletter import DeadLetter
from worker.core.decode import EventSchema
from worker.core.errors import JournalUnavailable
from worker.core.history import IndexedLetter
from worker.core.letterindex import decoded, indexed
from worker.core.model import Version
from worker.core.vitals import Depth, Depths, QueueKind
from worker.replay.books import Books

QUEUE = "order-updates.dead"
NOBODY_LISTENS = "http://127.0.0.1:9"


class Shelf:
    """The journal of a test; ``away`` says why it does not answer."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.away = ""

    async def books(self) -> Books:
        if self.away:
            raise JournalUnavailable(self.away)
        return self.journal


class FakeDepths:
    """Queues of a fixed depth."""

    def __init__(self) -> None:
        self.depths: Depths = {QueueKind.WORK: Depth(ready=1234), QueueKind.RETRY: Depth(ready=7)}

    async def look(self) -> Depths:
        return self.depths


class Page:
    """An answer that was read."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str], url: str) -> None:
        self.status = status
        self.text = text
        self.headers = headers
        self.path = re.sub(r"^https?://[^/]+", "", url)

    @property
    def token(self) -> str:
        """The form token in it."""
        found = re.search(r'name="form_token" value="([0-9a-f]+)"', self.text)
        return found[1] if found else ""

    @property
    def words(self) -> str:
        """What a person reads."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.text)).split())


class Browser:
    """Follows redirects, keeps cookies, sends forms as browsers do."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def get(self, path: str, **more: Any) -> Page:
        """The page there."""
        async with self.session.get(self.base + path, **more) as answer:
            return Page(answer.status, await answer.text(), answer.headers, str(answer.url))

    async def over(self, path: str) -> None:
        """Watch what is alive until it is over. Raises TimeoutError after 40 s."""
        async with asyncio.timeout(40), self.session.get(self.base + path) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line == b"event: over\n":
                    return

    async def first_parts(self, path: str) -> dict[str, str]:
        """What is told first to who watches there. Raises TimeoutError after 40 s."""
        async with asyncio.timeout(40), self.session.get(self.base + path) as answer:
            while not (line := await answer.content.readline()).startswith(b"data: "):
                assert line, "it ended"
            parts: dict[str, str] = json.loads(line.removeprefix(b"data: "))
            return parts

    async def until(self, path: str, words: str) -> "Page":
        """The page of a replay once it says so. What is alive is watched before the page is read, so that no change is
        missed. Raises TimeoutError after 40 s."""
        async with asyncio.timeout(40), self.session.get(f"{self.base}{path}/live") as answer:
            while words not in (page := await self.get(path)).words:
                while (line := await answer.content.readline()) and not line.startswith(b"data"):
                    pass
            return page

    async def settled(self, page: "Page") -> "Page":
        """The page once everything on it came to its end."""
        for _ in range(20):
            if (found := re.search(r'<(?:section|div)[^>]* data-live="([^"]+)"', page.text)) is None:
                return page
            await self.over(unescape(found[1]))
            page = await self.get(page.path)
        raise AssertionError(f"{page.path} never settles")

    async def post(
        self, path: str, form: Mapping[str, str] | None = None, *, token: str | None = None, **more: Any
    ) -> Page:
        """Send a form; ``token`` None: that of a page of ours."""
        if token is None:
            token = (await self.get("/now")).token
        headers = {"Origin": self.base, **more.pop("headers", {})}
        data = {"form_token": token, **(form or {})}
        async with self.session.post(self.base + path, data=data, headers=headers, **more) as answer:
            return Page(answer.status, await answer.text(), answer.headers, str(answer.url))


class Console:
    """One that is at work."""

    def __init__(self, shelf: Shelf, depths: FakeDepths, base: str, queue: str) -> None:
        self.queue = queue
        self.shelf = shelf
        self.depths = depths
        self.base = base

    @property
    def journal(self) -> MemoryJournal:
        """What it reads."""
        return self.shelf.journal

    @asynccontextmanager
    async def browser(self, **more: Any) -> AsyncIterator[Browser]:
        """Somebody's."""
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, **more) as session:
            yield Browser(session, self.base)

    async def index(self, *letters: DeadLetter) -> list[IndexedLetter]:
        """Put letters into the index."""
        schema = EventSchema({}, [])
        rows = [
            indexed(letter, queue=self.queue, update=decoded(letter, schema, now_us=NOW_US), now_us=NOW_US)
            for letter in letters
        ]
        await self.journal.add(rows)
        return rows

    async def apply(self, order_id: int, *, at_s: float, status: int = 8) -> None:
        """The platform confirmed a status, so many seconds after the letters happened."""
        time_us = NOW_US + round(at_s * 1_000_000)
        values = {"status": (Version(time_us, -1, time_us, "applied"), status)}
        await self.journal.record(applied_record({order_id: values}, wall_us=NOW_US))


@asynccontextmanager
async def console(shelf: Shelved | None = None, **given: Any) -> AsyncIterator[Console]:
    """At work until the end of the block. Settings as ``Settings`` takes them."""
    own, depths, port = Shelf(), FakeDepths(), free_port()
    known: dict[str, Any] = {"console_workers": (NOBODY_LISTENS,), "amqp_url": ("amqp://127.0.0.1:9/",), **given}
    settings = Settings(console_port=port, **known)
    async with opened(settings, shelf or own, depths) as app:
        server = TestServer(app, host="127.0.0.1", port=port)
        await server.start_server()
        try:
            yield Console(own, depths, f"http://127.0.0.1:{port}", settings.dead_letter_queue)
        finally:
            app[STREAMS].closing.set()
            await server.close()


def some_letters() -> list[DeadLetter]:
    """Four of three reasons, of three orders."""
    return [dead_letter(1), dead_letter(2), dead_letter(2, number=1), invalid_letter(3)]
