"""``order-worker console`` as a process: killed in the middle of a replay and opened again; ended in good order; what
it refuses to start with; tokens."""

import asyncio
import re
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.console.process import PATIENCE_S, at_work
from tests.console.stage import Browser
from tests.support.graveyard import Graveyard
from tests.support.tool import Tool
from worker.adapters.amqp.topology import Topology
from worker.console.people import Role, parse_people


@asynccontextmanager
async def opened(tool: Tool) -> AsyncIterator[tuple[Process, Browser]]:
    """The console as a process, and a browser that speaks to it."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with at_work(tool) as (process, base), aiohttp.ClientSession(cookie_jar=jar) as session:
        yield process, Browser(session, base)


@pytest.mark.broker
async def test_killed_in_the_middle_of_a_replay_it_is_interrupted_and_resumed(
    yard: Graveyard, queues: Topology
) -> None:
    """kill -9 while copies go out slowly; the next console shows what happened, and nothing is lost or done twice."""
    async with opened(yard.tool) as (process, browser):
        plan = await browser.settled(await browser.post("/replays", {"canary": "0", "rate": "2/s"}))
        await browser.post(f"{plan.path}/start", {"canary": "0", "rate": "2/s", "max_failures": ""})
        await yard.outside.until_some(queues.work_queue)
        process.kill()
        await process.wait()
    async with asyncio.timeout(PATIENCE_S):  # until the broker has noticed; what is copied may still be there as well
        while await yard.outside.ready(queues.dead_queue) < 12 - await yard.outside.ready(queues.work_queue):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    async with opened(yard.tool) as (process, browser):
        interrupted = await browser.get(plan.path)
        await browser.post(f"{plan.path}/start", {"canary": "0", "rate": "", "max_failures": ""})
        await yard.outside.until_ready(queues.dead_queue, 0)
        page = await browser.until(plan.path, "12 of 12")
        audit = await browser.get("/audit")
        process.terminate()
        assert await process.wait() == 0
    left = await yard.outside.ready(queues.work_queue)

    assert "interrupted" in interrupted.words
    assert re.search(r'id="start">Resume', interrupted.text)
    assert "12 back at work" in page.words
    assert 12 <= left <= 13  # what was confirmed and not journalled yet goes once more, with the same version
    assert "replay begun" in audit.words


@pytest.mark.broker
async def test_asked_to_end_it_stops_a_replay_in_good_order(yard: Graveyard, queues: Topology) -> None:
    """SIGTERM: what is under way is finished, the journal says stopped, and the exit code is 0."""
    async with opened(yard.tool) as (process, browser):
        plan = await browser.settled(await browser.post("/replays", {"canary": "0", "rate": "2/s"}))
        await browser.post(f"{plan.path}/start", {"canary": "0", "rate": "2/s", "max_failures": ""})
        await yard.outside.until_some(queues.work_queue)
        process.terminate()
        assert await process.wait() == 0
    status = await yard.status(plan.path.rpartition("/")[2])

    assert status["state"] == "stopped"
    assert status["states"]["moved"] == await yard.outside.ready(queues.work_queue)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"CONSOLE_HOST": "192.0.2.1"}, "anybody who reaches 192.0.2.1 could replay and discard messages"),
        (
            {"CONSOLE_HOST": "192.0.2.1", "CONSOLE_TOKENS_FILE": "people"},
            "answers only to the address that people type",
        ),
        ({"CONSOLE_URL": "https://console.example"}, "comes through a proxy on this machine"),
        ({"CONSOLE_URL": "http://console.example"}, "would cross the network unencrypted"),
        ({"CONSOLE_PROXY_HEADER": "X-User"}, "a header is only believed from addresses that are named"),
        ({"CONSOLE_TOKENS_FILE": "missing"}, "ORDER_WORKER_CONSOLE_TOKENS_FILE: missing: No such file"),
        ({"CONSOLE_TOKENS_FILE": "wrong"}, "line 1 is not: name, viewer or operator"),
        ({"JOURNAL_URL": "memory"}, "memory ends with its process"),
        ({"CONSOLE_PROXY_FROM": "nowhere"}, "'nowhere' is no address or network"),
        ({"CONSOLE_URL": "https://console.example/path"}, "must be only http:// or https:// with host and port"),
    ],
)
async def test_it_refuses_to_start_where_that_would_not_be_safe(
    settings: dict[str, str], told: str, tmp_path: Path, names: Topology
) -> None:
    """Exit code 2, and what to change."""
    (tmp_path / "wrong").write_text("kim admin secret")
    tool = Tool(tmp_path, "amqp://127.0.0.1:9/", names)
    tool.use(settings)
    done = await tool.run("console")

    assert done.code == 2, done.stderr
    assert told in done.stderr
    assert "secret" not in done.stderr


async def test_a_port_that_is_taken_is_said(tmp_path: Path, names: Topology) -> None:
    """With the settings that choose another."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        port: Any = server.sockets[0].getsockname()[1]
        done = await Tool(tmp_path, "amqp://127.0.0.1:9/", names).run("console", CONSOLE_PORT=str(port))

    assert done.code == 2
    assert "another program listens there" in done.stderr


async def test_a_new_token_is_told_once_and_its_line_fits_the_file(tmp_path: Path, names: Topology) -> None:
    """The line goes to stdout, so that it can be appended; the token only to the person."""
    tool = Tool(tmp_path, "amqp://127.0.0.1:9/", names)
    done = await tool.run("console", "--new-token", "kim", "--role", "operator")
    refused = await tool.run("console", "--new-token", "kim smith")

    assert done.code == 0
    [person] = parse_people(done.stdout).values()
    assert (person.name, person.role) == ("kim", Role.OPERATOR)
    assert re.search(r"owc_[\w-]{43}", done.stderr)
    assert "owc_" not in done.stdout
    assert refused.code == 2
