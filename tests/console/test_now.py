"""The first page with workers that answer: their state and figures, pause and resume."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from tests.builders import NOW_US
from tests.console.stage import NOBODY_LISTENS, console
from tests.console.test_figures import METRICS
from tests.contract.test_admin import FakeOperations
from worker.adapters.admin import application
from worker.adapters.freeports import free_port
from worker.core.audit import Action, Outcome
from worker.core.history import Pause, PauseKind

TOKEN = "t0ken-of-the-admin"
QUEUE = "order-updates.work"


class Operations(FakeOperations):
    """A worker with more to say."""

    async def state(self) -> Mapping[str, object]:
        return {
            "ready": self.now.ready, "role": self.now.role, "reason": self.now.reason, "detail": self.now.detail,
            "unsettled": 1234, "in_flight": 3, "oldest_s": 2.5, "budget": 3600, "budget_left": 1800,
            "last_applied_at": "2026-11-21T10:00:00.000000Z", "version": "0.1.0", "<b>": "<script>",
        }  # fmt: skip


class Figures:
    """Implements ``ports.Exposition``."""

    async def expose(self, accept: str) -> tuple[bytes, str]:
        return METRICS.encode(), "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def admin(
    operations: FakeOperations, token: str = TOKEN, *, host: str = "127.0.0.1", port: int | None = None
) -> AsyncIterator[str]:
    """The admin interface of a worker; its address."""
    server = TestServer(application(operations, Figures(), token), host=host, port=port)
    await server.start_server()
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console knows it, too."""
    monkeypatch.setenv("ORDER_WORKER_ADMIN_TOKEN", TOKEN)


@pytest.mark.usefixtures("token")
async def test_workers_are_shown_as_they_are() -> None:
    """One that works, one that is away."""
    thin = "\N{NARROW NO-BREAK SPACE}"
    async with (
        admin(Operations()) as url,
        console(console_workers=(url, NOBODY_LISTENS)) as stage,
        stage.browser() as browser,
    ):
        page = await browser.get("/now")

    for words in ("Working, but not every worker is ready", "active", "2.5 s", "nothing listens there"):
        assert words in page.words, words
    for numbers in (f"1{thin}234", f"1{thin}800 of 3{thin}600"):
        assert numbers in page.text, numbers
    assert TOKEN not in page.text


@pytest.mark.usefixtures("token")
async def test_a_name_of_several_machines_is_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The headless Service of a cluster: one of them at random would make every figure jump."""
    loop, port, hosts = asyncio.get_running_loop(), free_port(), ("127.0.0.1", "127.0.0.2")
    ordinary = loop.getaddrinfo

    async def resolved(host: str, at: int, **more: Any) -> list[Any]:
        if host != "workers.example":
            return await ordinary(host, at, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, at)) for each in hosts]

    monkeypatch.setattr(loop, "getaddrinfo", resolved)
    async with (
        admin(Operations(), host=hosts[0], port=port),
        admin(Operations(), host=hosts[1], port=port),
        console(console_workers=(f"http://workers.example:{port}",)) as stage,
        stage.browser() as browser,
    ):
        page = await browser.get("/now")

    assert all(f"http://{host}:{port} active" in page.words for host in hosts)
    assert "workers.example" not in page.words


async def test_a_name_that_nobody_knows_is_a_worker_that_is_away() -> None:
    """It is shown by that name."""
    async with console(console_workers=("http://missing.invalid:8080",)) as stage, stage.browser() as browser:
        page = await browser.get("/now")

    assert "http://missing.invalid:8080 away" in page.words


async def test_a_page_that_shows_no_pause_is_told_of_one() -> None:
    """It is loaded again, because what can be done is another thing now; one that shows it is not."""
    async with console() as stage, stage.browser() as browser:
        paused = await browser.post("/now/pause", {"reason": "tea"})
        await browser.over("/now/live?paused=0")
        async with stage.browser() as other, other.session.get(f"{stage.base}/now/live?paused=1") as answer:
            retry, _, first = [await answer.content.readline() for _ in range(3)]

    assert 'data-live="/now/live?paused=1"' in paused.text
    assert (retry, first[:5]) == (b"retry: 1000\n", b"data:")


async def test_without_the_token_of_the_worker_that_is_said() -> None:
    """With the setting that is missing."""
    async with admin(Operations()) as url, console(console_workers=(url,)) as stage, stage.browser() as browser:
        page = await browser.get("/now")

    assert "set ORDER_WORKER_ADMIN_TOKEN to the same as there" in page.words


@pytest.mark.usefixtures("token")
async def test_a_pause_goes_through_a_worker_and_says_who_and_why() -> None:
    """And a resume ends it; both are noted."""
    operations = Operations()
    async with admin(operations) as url, console(console_workers=(url,)) as stage, stage.browser() as browser:
        await browser.post("/now/pause", {"reason": "the platform asked us to"})
        paused = list(operations.paused)
        resumed = await browser.post("/now/resume")
        deeds = await stage.journal.deeds()

    assert len(paused) == 1
    assert paused[0].startswith("the platform asked us to (by ")
    assert operations.paused == []
    assert resumed.path == "/now"
    assert [(deed.action, deed.outcome, deed.detail) for deed in deeds] == [
        (Action.RESUME, Outcome.DONE, ""),
        (Action.PAUSE, Outcome.DONE, "the platform asked us to"),
    ]


async def test_without_a_worker_a_pause_goes_through_the_journal() -> None:
    """Workers that are started meanwhile follow it."""
    async with console() as stage, stage.browser() as browser:
        page = await browser.post("/now/pause", {"reason": "tea"})
        [pause] = await stage.journal.pauses(QUEUE)
        resumed = await browser.post("/now/resume")

        assert await stage.journal.pauses(QUEUE) == []
    assert (pause.kind, pause.queue) == (PauseKind.MANUAL, QUEUE)
    assert "Paused: tea" in page.words
    assert 'id="resume"' in page.text
    assert 'id="pause"' in resumed.text


async def test_a_pause_of_the_storm_guard_is_shown_and_can_be_ended() -> None:
    """It is in the journal, whoever put it there."""
    storm = Pause(queue=QUEUE, kind=PauseKind.STORM, detail="too many dead letters", by="w1", since_us=NOW_US)
    async with console() as stage, stage.browser() as browser:
        await stage.journal.pause(storm)
        page = await browser.get("/now")
        await browser.post("/now/resume")

        assert "Paused: too many dead letters" in page.words
        assert await stage.journal.pauses(QUEUE) == []


@pytest.mark.usefixtures("token")
async def test_what_is_no_worker_is_said() -> None:
    """Another program at that address."""
    async with console() as first, console(console_workers=(first.base,)) as stage, stage.browser() as browser:
        page = await browser.get("/now")

    assert "No worker answers" in page.words
    assert "which no worker does" in page.words
